//! Atrous spatial pyramid pooling: several dilations side by side.

use candle_core::{D, DType, Tensor};
use candle_nn::VarBuilder;

use super::{Conv2d, Conv2dConfig, Norm, NormKind, Pass, dropout_probability, total_channels};
use crate::geometry::{Layer, Padding, Stack, Stack2d};
use crate::kernels::elementwise::Activation;
use crate::ops::{self, DropoutKind};
use crate::{Error, Result};

/// The options of an [`Aspp`].
#[derive(Debug, Clone, PartialEq)]
pub struct AsppConfig {
    /// Numbers per pixel of the input.
    pub in_channels: usize,
    /// Numbers per pixel of each branch, and of the output.
    pub out_channels: usize,
    /// Dilation of each 3×3 branch.
    pub rates: Vec<usize>,
    /// Probability of dropping an element of the output, in training.
    pub dropout: f64,
}

impl AsppConfig {
    /// The block of DeepLab v3 at output stride 8: rates 12, 24 and 36, 256 channels, dropout 0.5.
    pub fn new(in_channels: usize) -> Self {
        Self { in_channels, out_channels: 256, rates: vec![12, 24, 36], dropout: 0.5 }
    }

    /// What an output pixel sees of its neighbours through one branch, along each axis. (Through image
    /// pooling it sees every pixel.)
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rate of 0.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::nn::AsppConfig;
    /// let branches = AsppConfig::new(2048).geometry()?;
    /// let (height, width) = branches[3].receptive_field()?;
    /// assert_eq!((height.total, width.total), (73, 73)); // rate 36: 1 + 2·36
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn geometry(&self) -> Result<Vec<Stack2d>> {
        let branch = |i: usize, kernel_size, rate| {
            let layer = Layer::new(format!("convs.{i}.0"), kernel_size, rate, Padding::Same)?;
            Ok(Stack2d::square(Stack::series(vec![layer])))
        };
        let rates = self.rates.iter().enumerate();
        let rates = rates.map(|(i, &rate)| branch(i + 1, 3, rate));
        std::iter::once(branch(0, 1, 1)).chain(rates).collect()
    }
}

/// A convolution without bias, batch norm and ReLU.
#[derive(Debug, Clone)]
struct Branch {
    conv: Conv2d,
    norm: Norm,
}

impl Branch {
    /// The convolution is `vb.first`, the norm the next.
    fn new(
        (in_channels, out_channels): (usize, usize),
        (kernel_size, rate): (usize, usize),
        first: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let cfg = Conv2dConfig { dilation: (rate, rate), bias: false, ..Conv2dConfig::same() };
        let kernel_size = (kernel_size, kernel_size);
        Ok(Self {
            conv: Conv2d::new(in_channels, out_channels, kernel_size, cfg, vb.pp(first))?,
            norm: Norm::new(NormKind::Batch, out_channels, vb.pp(first + 1))?,
        })
    }

    fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let ys = self.norm.forward(&self.conv.forward(xs)?, pass)?;
        ops::activate(&ys, Activation::Relu)
    }
}

/// Atrous spatial pyramid pooling: a 1×1 convolution, a 3×3 convolution for each rate and the mean of the
/// image side by side, joined by a 1×1 convolution. Each convolution has no bias and is followed by batch
/// norm and ReLU.
///
/// `ys = project([conv₀(xs), conv₁(xs), …, convₙ(xs), conv(mean(xs))])`, then dropout.
///
/// # Shapes
/// (batch, height, width, in_channels) to (batch, height, width, out_channels). On disk the names of
/// torchvision: `convs.{i}.0.weight`, `convs.{i}.1.*` (batch norm) for `i` from 0 to the number of rates,
/// `convs.{i}.1.weight`, `convs.{i}.2.*` of the pooled branch, `project.0.weight`, `project.1.*`.
///
/// # Numerics
/// As [`Conv2d`]; the mean is taken in `f32` where the input is `bf16`. A state dict of torchvision gives
/// its outputs and gradients to a relative 1e-5.
///
/// # Errors
/// [`Error::Invalid`] for options or inputs that do not fit.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{Aspp, AsppConfig, Params, Pass};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let config = AsppConfig { out_channels: 6, rates: vec![2, 4], ..AsppConfig::new(3) };
/// let aspp = Aspp::new(&config, params.builder())?;
/// let xs = Tensor::ones((2, 8, 9, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(aspp.forward(&xs, &mut Pass::eval())?.dims(), [2, 8, 9, 6]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587;
/// `torchvision.models.segmentation.deeplabv3.ASPP`.
#[derive(Debug, Clone)]
pub struct Aspp {
    branches: Vec<Branch>,
    pooled: Branch,
    project: Branch,
    dropout: f64,
}

impl Aspp {
    /// A block with the tensors of `vb`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that do not fit; those of [`Conv2d::new`].
    pub fn new(config: &AsppConfig, vb: VarBuilder) -> Result<Self> {
        let all = config.rates.len().saturating_add(2);
        total_channels(std::iter::repeat_n(config.out_channels, all))?;
        let channels = (config.in_channels, config.out_channels);
        let convs = vb.pp("convs");
        let mut branches = vec![Branch::new(channels, (1, 1), 0, convs.pp(0))?];
        for (i, &rate) in config.rates.iter().enumerate() {
            branches.push(Branch::new(channels, (3, rate), 0, convs.pp(i + 1))?);
        }
        let joined = (all * config.out_channels, config.out_channels);
        Ok(Self {
            pooled: Branch::new(channels, (1, 1), 1, convs.pp(all - 1))?,
            project: Branch::new(joined, (1, 1), 0, vb.pp("project"))?,
            branches,
            dropout: dropout_probability("dropout", config.dropout)?,
        })
    }

    /// Applies the block. In training, batch norms use the batch's own statistics.
    ///
    /// # Errors
    /// As [`Conv2d::forward`].
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let (batch, height, width, _) = xs.dims4()?;
        if height * width == 0 {
            return Err(Error::invalid("image", "at least one pixel", format!("{:?}", xs.dims())));
        }
        let mut ys = Vec::with_capacity(self.branches.len() + 1);
        for branch in &self.branches {
            ys.push(branch.forward(xs, pass)?);
        }
        let pooled = self.pooled.forward(&image_mean(xs)?, pass)?;
        let channels = pooled.dim(D::Minus1)?;
        ys.push(pooled.broadcast_as((batch, height, width, channels))?);
        let ys = Tensor::cat(&ys, D::Minus1)?;
        let ys = self.project.forward(&ys, pass)?;
        pass.dropout(ys, self.dropout, DropoutKind::Element)
    }
}

/// (batch, 1, 1, channels)
fn image_mean(xs: &Tensor) -> Result<Tensor> {
    let dtype = xs.dtype();
    let xs = match dtype {
        DType::BF16 => xs.to_dtype(DType::F32)?,
        _ => xs.clone(),
    };
    Ok(xs.mean_keepdim((1, 2))?.to_dtype(dtype)?)
}
