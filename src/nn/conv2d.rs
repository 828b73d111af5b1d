//! The 2-D dilated convolution layer.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::{MAX_CHANNELS, MAX_KERNEL, in_range};
use crate::geometry::{Padding, output_length};
use crate::ops::conv2d::along;
use crate::ops::{self, Conv2dParams, Epilogue, PaddingMode};
use crate::{Error, Result};

/// The most lines or columns of padding on one side.
const MAX_PADDING: usize = 1 << 24;

/// The options of a [`Conv2d`]. Pairs are (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// How many lines and columns are added on each side; [`Padding::Causal`] adds all of them above, or at
    /// the left.
    pub padding: (Padding, Padding),
    /// What they hold.
    pub padding_mode: PaddingMode,
    /// Pixels between two taps.
    pub dilation: (usize, usize),
    /// Pixels between two outputs.
    pub stride: (usize, usize),
    /// Independent channel groups; as many as input channels make it depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The size of every input, where it is known: an input that the kernel does not fit is then an error
    /// at once.
    pub input_size: Option<(usize, usize)>,
}

impl Conv2dConfig {
    /// As many outputs as inputs: `(kernel − 1)·dilation` zeros along each axis, half of them on each side.
    /// Dilation, stride and groups 1, with bias.
    pub fn same() -> Self {
        Self {
            padding: (Padding::Same, Padding::Same),
            padding_mode: PaddingMode::Zeros,
            dilation: (1, 1),
            stride: (1, 1),
            groups: 1,
            bias: true,
            input_size: None,
        }
    }

    /// No padding; otherwise as [`same`](Self::same).
    pub fn valid() -> Self {
        Self { padding: (Padding::Valid, Padding::Valid), ..Self::same() }
    }
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self::same()
    }
}

/// Dilated 2-D convolution, `ys[i, j] = bias + Σ_m Σ_n W[.., m, n] · xs[i·s + m·d − top, j·s′ + n·d′ − left]`
/// with stride `(s, s′)` and dilation `(d, d′)`.
///
/// Causal along an axis, no output sees a later line (or column): along the height as masked convolutions
/// and streams of spectrogram frames need it.
///
/// # Shapes
/// Input (batch, height, width, in_channels), output (batch, out height, out width, out_channels); see
/// [`to_channels_last`](super::to_channels_last) for tensors of PyTorch's layout. On disk `weight`
/// (out_channels, in_channels / groups, kernel height, kernel width), `bias` (out_channels).
///
/// # Numerics
/// As [`ops::conv2d`]: `f32`, `f64`, or inputs of `bf16` beside parameters of `f32`.
///
/// # Errors
/// [`Error::Invalid`] for options that do not fit, or an input smaller than the kernel.
///
/// # Example
///
/// A kernel of size 3 at dilation 2 spans 5 pixels, which a 3×3 input has not:
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{Conv2d, Conv2dConfig, Params};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let cfg = Conv2dConfig { dilation: (2, 2), input_size: Some((3, 3)), ..Conv2dConfig::valid() };
/// let error = Conv2d::new(1, 1, (3, 3), cfg, params.builder()).unwrap_err();
/// assert!(error.to_string().contains("at least 5 steps, the effective size of kernel_size 3"));
///
/// let cfg = Conv2dConfig { dilation: (2, 2), ..Conv2dConfig::same() };
/// let conv = Conv2d::new(1, 4, (3, 3), cfg, params.builder())?;
/// let ys = conv.forward(&Tensor::ones((2, 3, 3, 1), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(ys.dims(), [2, 3, 3, 4]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Conv2d`, initialised as there: `U(±1/√fan_in)` for weight and bias.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    kernel_size: (usize, usize),
    params: Conv2dParams,
    padding_mode: PaddingMode,
}

impl Conv2d {
    /// A layer with the tensors of `vb`; `kernel_size` is (height, width).
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that do not fit; those of `vb` for tensors that are missing or of
    /// another shape.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel_size: (usize, usize),
        cfg: Conv2dConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        in_range("in_channels", in_channels, MAX_CHANNELS)?;
        in_range("out_channels", out_channels, MAX_CHANNELS)?;
        if cfg.groups == 0
            || !in_channels.is_multiple_of(cfg.groups)
            || !out_channels.is_multiple_of(cfg.groups)
        {
            return Err(Error::invalid(
                "groups",
                format!("a divisor of in_channels {in_channels} and out_channels {out_channels}"),
                cfg.groups,
            ));
        }
        let (height, width) = kernel_size;
        let params = Conv2dParams {
            dilation: cfg.dilation,
            stride: cfg.stride,
            groups: cfg.groups,
            pad_height: padding(height, cfg.dilation.0, cfg.stride.0, cfg.padding.0)
                .map_err(|error| along("height", error))?,
            pad_width: padding(width, cfg.dilation.1, cfg.stride.1, cfg.padding.1)
                .map_err(|error| along("width", error))?,
        };
        if let Some(size) = cfg.input_size {
            output_size(&params, kernel_size, size)?;
        }
        let shape = (out_channels, in_channels / cfg.groups, height, width);
        let bound = 1.0 / ((shape.1 * height * width) as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let bias = cfg.bias.then(|| vb.get_with_hints(out_channels, "bias", init));
        Ok(Self {
            weight: vb.get_with_hints(shape, "weight", init)?,
            bias: bias.transpose()?,
            kernel_size,
            params,
            padding_mode: cfg.padding_mode,
        })
    }

    /// Applies the layer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that does not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_then(xs, Epilogue::default())
    }

    /// Applies the layer, then `epilogue`, in one operation on the CPU.
    ///
    /// # Errors
    /// As [`Conv2d::forward`], and [`ops::conv2d_then`].
    pub fn forward_then(&self, xs: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
        let mut params = self.params;
        let padded;
        let xs = if self.padding_mode == PaddingMode::Zeros {
            xs
        } else {
            padded = ops::pad2d(xs, params.pad_height, params.pad_width, self.padding_mode)?;
            (params.pad_height, params.pad_width) = ((0, 0), (0, 0));
            &padded
        };
        ops::conv2d_then(xs, &self.weight, self.bias.as_ref(), params, epilogue)
    }

    /// Height and width of the output for an input of this height and width.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the kernel does not fit.
    pub fn output_size(&self, input_size: (usize, usize)) -> Result<(usize, usize)> {
        output_size(&self.params, self.kernel_size, input_size)
    }

    /// (out_channels, in_channels / groups, kernel height, kernel width)
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// (out_channels), where there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

/// Padding before and after one axis, its sizes checked.
fn padding(
    kernel_size: usize,
    dilation: usize,
    stride: usize,
    padding: Padding,
) -> Result<(usize, usize)> {
    in_range("kernel_size", kernel_size, MAX_KERNEL)?;
    in_range("stride", stride, MAX_CHANNELS)?;
    let (before, after) = padding.split(kernel_size, dilation)?;
    match before.max(after) {
        0..=MAX_PADDING => Ok((before, after)),
        most => Err(Error::invalid("padding", format!("at most {MAX_PADDING} on a side"), most)),
    }
}

fn output_size(
    params: &Conv2dParams,
    (kernel_height, kernel_width): (usize, usize),
    (height, width): (usize, usize),
) -> Result<(usize, usize)> {
    let (d, s) = (params.dilation, params.stride);
    let ((above, below), (left, right)) = (params.pad_height, params.pad_width);
    let out_height = output_length(height, kernel_height, d.0, s.0, above, below);
    let out_width = output_length(width, kernel_width, d.1, s.1, left, right);
    Ok((
        out_height.map_err(|error| along("height", error))?,
        out_width.map_err(|error| along("width", error))?,
    ))
}
