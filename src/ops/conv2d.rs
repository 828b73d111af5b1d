//! The 2-D dilated convolution as an operation with its own gradients.

use candle_core::Tensor;

use super::Epilogue;
use super::convolution::Convolution;
use crate::Error;
use crate::geometry::output_length;
use crate::kernels::conv::{Axis, ConvShape};

/// Places of the taps of a 2-D convolution on its input. Pairs are (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dParams {
    /// Pixels between two taps.
    pub dilation: (usize, usize),
    /// Pixels between two outputs.
    pub stride: (usize, usize),
    /// Independent channel groups.
    pub groups: usize,
    /// Lines of zeros above and below the input.
    pub pad_height: (usize, usize),
    /// Columns of zeros left and right of the input.
    pub pad_width: (usize, usize),
}

impl Default for Conv2dParams {
    fn default() -> Self {
        Self { dilation: (1, 1), stride: (1, 1), groups: 1, pad_height: (0, 0), pad_width: (0, 0) }
    }
}

/// One axis of a convolution, or what does not fit; `name` says which axis.
fn axis(
    name: &str,
    in_len: usize,
    kernel_size: usize,
    (dilation, stride): (usize, usize),
    (before, after): (usize, usize),
) -> crate::Result<Axis> {
    let out_len = output_length(in_len, kernel_size, dilation, stride, before, after);
    Ok(Axis {
        in_len,
        out_len: out_len.map_err(|error| along(name, error))?,
        kernel_size,
        dilation,
        stride,
        pad_before: before,
    })
}

/// The same error, with the axis that it is about.
pub(crate) fn along(axis: &str, error: Error) -> Error {
    match error {
        Error::Invalid { field, expected, found } => {
            Error::invalid(format!("{axis}: {field}"), expected, found)
        }
        Error::TooLarge { what, detail } => Error::too_large(format!("{axis}: {what}"), detail),
        other => other,
    }
}

impl Conv2dParams {
    /// The sizes of the product, or why the tensors do not fit together.
    pub(crate) fn shape(&self, xs: &Tensor, weight: &Tensor) -> crate::Result<ConvShape> {
        let (batch, in_height, in_width, in_channels) = xs.dims4()?;
        let (out_channels, group_in, kernel_height, kernel_width) = weight.dims4()?;
        if self.groups == 0 {
            return Err(Error::invalid("groups", "a whole number of at least 1", 0));
        }
        if group_in.checked_mul(self.groups) != Some(in_channels)
            || !out_channels.is_multiple_of(self.groups)
        {
            return Err(Error::invalid(
                "weight",
                format!(
                    "(out_channels, {in_channels} / groups {}, kernel height, kernel width), out_channels \
                     divisible by groups",
                    self.groups
                ),
                format!("{:?}", weight.dims()),
            ));
        }
        let lies = (self.dilation.0, self.stride.0);
        let height = axis("height", in_height, kernel_height, lies, self.pad_height)?;
        let lies = (self.dilation.1, self.stride.1);
        let width = axis("width", in_width, kernel_width, lies, self.pad_width)?;
        Ok(ConvShape {
            batch,
            in_channels,
            out_channels,
            groups: self.groups,
            height,
            width,
            history: 0,
        })
    }
}

/// Dilated 2-D convolution (cross-correlation, as in PyTorch).
///
/// `ys[b, i, j] = bias + Σ_m Σ_n W[.., m, n] · xs[b, i·s + m·d − top, j·s′ + n·d′ − left]` with stride
/// `(s, s′)` and dilation `(d, d′)`; pixels beyond the borders are zero.
///
/// # Shapes
/// `xs` (batch, height, width, in_channels); `weight` (out_channels, in_channels / groups, kernel height,
/// kernel width); `bias` (out_channels). Result (batch, out height, out width, out_channels), each size
/// `⌊(in + before + after − dilation·(kernel − 1) − 1) / stride⌋ + 1`.
///
/// # Numerics
/// As [`conv1d`](super::conv1d), by the same kernels: with one line and one line of taps it is that
/// convolution, bit for bit.
///
/// # Errors
/// [`Error::Invalid`] where shapes do not fit or the padded input is smaller than the effective kernel.
///
/// # Example
///
/// The definition `Y(i,j) = Σ_m Σ_n K(m,n)·X(i + m·d, j + n·d)` with a 2×2 kernel at `d = 2` on a 3×3
/// input: without padding one number, with zeros below and at the right a whole map.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{Conv2dParams, conv2d};
///
/// let xs = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.], [7., 8., 9.]], &Device::Cpu)?;
/// let xs = xs.reshape((1, 3, 3, 1))?;
/// let kernel = Tensor::new(&[[1f32, 10.], [100., 1000.]], &Device::Cpu)?.reshape((1, 1, 2, 2))?;
/// let valid = Conv2dParams { dilation: (2, 2), ..Default::default() };
/// let ys = conv2d(&xs, &kernel, None, valid)?;
/// // K00·X00 + K01·X02 + K10·X20 + K11·X22
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [1. + 30. + 700. + 9000.]);
///
/// let whole = Conv2dParams { pad_height: (0, 2), pad_width: (0, 2), ..valid };
/// let ys = conv2d(&xs, &kernel, None, whole)?;
/// assert_eq!(
///     ys.reshape((3, 3))?.to_vec2::<f32>()?,
///     [[9731., 802., 903.], [64., 5., 6.], [97., 8., 9.]],
/// );
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.conv2d`; Yu and Koltun, arXiv:1511.07122, section 2.
pub fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: Conv2dParams,
) -> crate::Result<Tensor> {
    conv2d_then(xs, weight, bias, params, Epilogue::default())
}

/// [`conv2d`] followed by `epilogue`, in one operation on the CPU.
///
/// # Errors
/// As [`conv2d`]; [`Error::Invalid`] also for a dropout probability `p` unless `0 ≤ p < 1`.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{Conv2dParams, Epilogue, conv2d_then};
///
/// let xs = Tensor::new(&[1f32, -2.], &Device::Cpu)?.reshape((1, 2, 1, 1))?;
/// let weight = Tensor::new(&[3f32], &Device::Cpu)?.reshape((1, 1, 1, 1))?;
/// let relu = Epilogue { relu: true, ..Default::default() };
/// let ys = conv2d_then(&xs, &weight, None, Conv2dParams::default(), relu)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [3., 0.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn conv2d_then(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: Conv2dParams,
    epilogue: Epilogue,
) -> crate::Result<Tensor> {
    let op = Convolution { shape: params.shape(xs, weight)?, history: None, epilogue };
    op.apply(xs, weight, bias)
}

#[cfg(test)]
#[path = "conv2d_tests.rs"]
mod tests;
