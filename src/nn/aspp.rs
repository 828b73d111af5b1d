//! Atrous spatial pyramid pooling: several dilations side by side.

use candle_nn::VarBuilder;

use super::{Activation, DropoutKind, total_channels};
use crate::Result;
use crate::geometry::{Layer, Padding, Stack, Stack2d};
use crate::graph::{Conv2dConfig, Graph, Network, NormKind, Value};

/// The options of [`aspp`].
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

    /// Reach of an output pixel through each branch, along each axis. (Through image
    /// pooling it sees every pixel.)
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a rate of 0.
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

    /// Adds the module to a graph, from `xs` (batch, height, width, in_channels) to the value that is returned.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for options that do not fit.
    pub fn append(&self, g: &mut Graph, xs: Value) -> Result<Value> {
        let all = self.rates.len().saturating_add(2);
        total_channels(std::iter::repeat_n(self.out_channels, all))?;
        let mut branches = vec![self.branch(g, "convs.0", 0, xs, (1, 1))?];
        for (i, &rate) in self.rates.iter().enumerate() {
            branches.push(self.branch(g, &format!("convs.{}", i + 1), 0, xs, (3, rate))?);
        }
        let mean = g.mean(xs)?;
        let pooled = self.branch(g, &format!("convs.{}", all - 1), 1, mean, (1, 1))?;
        branches.push(g.spread(pooled, xs)?);
        let ys = g.concat(&branches)?;
        let ys = self.branch(g, "project", 0, ys, (1, 1))?;
        g.dropout(ys, self.dropout, DropoutKind::Element)
    }

    /// A convolution without a bias, numbered `first`, batch norm and ReLU.
    fn branch(
        &self,
        g: &mut Graph,
        name: &str,
        first: usize,
        xs: Value,
        (kernel_size, rate): (usize, usize),
    ) -> Result<Value> {
        let cfg = Conv2dConfig { dilation: (rate, rate), bias: false, ..Conv2dConfig::same() };
        let (conv, norm) = (format!("{name}.{first}"), format!("{name}.{}", first + 1));
        let ys = g.conv2d(&conv, xs, self.out_channels, (kernel_size, kernel_size), cfg)?;
        let ys = g.norm(&norm, ys, NormKind::Batch)?;
        g.activate(ys, Activation::Relu)
    }
}

/// Builds atrous spatial pyramid pooling: a 1×1 convolution, a 3×3 convolution for each rate and the mean of the
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
/// As [`dilated_conv2d`](super::dilated_conv2d); the mean is taken in `f32` where the input is `bf16`. A state dict of torchvision gives
/// its outputs and gradients to a relative 1e-5.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for options or inputs that do not fit.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{AsppConfig, Params, aspp};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let config = AsppConfig { out_channels: 6, rates: vec![2, 4], ..AsppConfig::new(3) };
/// let aspp = aspp(&config, params.builder())?;
/// let xs = Tensor::ones((2, 8, 9, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(aspp.forward(&xs)?.dims(), [2, 8, 9, 6]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587;
/// `torchvision.models.segmentation.deeplabv3.ASPP`.
pub fn aspp(config: &AsppConfig, vb: VarBuilder) -> Result<Network> {
    let mut g = Graph::new();
    let xs = g.images(config.in_channels)?;
    let ys = config.append(&mut g, xs)?;
    g.output(ys)?;
    Network::new(g, vb)
}
