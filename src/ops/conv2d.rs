//! The 2-D dilated convolution as an operation with its own gradients.

use candle_core::Tensor;

use super::Epilogue;
use super::convolution::{Convolution, axis, check_channels};
use crate::Error;
use crate::kernels::conv::ConvShape;

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
        let (out_channels, _, kernel_height, kernel_width) = weight.dims4()?;
        check_channels(weight, in_channels, self.groups, "kernel height, kernel width")?;
        let lies = (self.dilation.0, self.stride.0);
        let height = axis(in_height, kernel_height, lies, self.pad_height);
        let lies = (self.dilation.1, self.stride.1);
        let width = axis(in_width, kernel_width, lies, self.pad_width);
        Ok(ConvShape {
            batch,
            in_channels,
            out_channels,
            groups: self.groups,
            height: height.map_err(|error| along("height", error))?,
            width: width.map_err(|error| along("width", error))?,
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
    let (shape, epilogue) = (params.shape(xs, weight)?, Epilogue::default());
    Convolution { shape, history: None, sections: None, epilogue }.apply(xs, weight, bias)
}

#[cfg(test)]
#[path = "conv2d_tests.rs"]
mod tests;
