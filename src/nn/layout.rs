//! From and to tensors with the channels before time or space, as PyTorch lays them.

use candle_core::Tensor;

use crate::{Error, Result};

/// `(batch, channels, height, width)` to `(batch, height, width, channels)`, or `(batch, channels, time)` to
/// `(batch, time, channels)`.
///
/// # Errors
/// [`Error::Invalid`] for a tensor of another rank.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{to_channels_first, to_channels_last};
/// let xs = Tensor::zeros((2, 3, 5, 7), DType::F32, &Device::Cpu)?;
/// let ys = to_channels_last(&xs)?;
/// assert_eq!(ys.dims(), [2, 5, 7, 3]);
/// assert_eq!(to_channels_first(&ys)?.dims(), [2, 3, 5, 7]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn to_channels_last(xs: &Tensor) -> Result<Tensor> {
    match xs.rank() {
        3 => Ok(xs.transpose(1, 2)?.contiguous()?),
        4 => Ok(xs.permute((0, 2, 3, 1))?.contiguous()?),
        _ => Err(wrong_rank(xs, "(batch, channels, time) or (batch, channels, height, width)")),
    }
}

/// The inverse of [`to_channels_last`].
///
/// # Errors
/// As [`to_channels_last`].
pub fn to_channels_first(xs: &Tensor) -> Result<Tensor> {
    match xs.rank() {
        3 => Ok(xs.transpose(1, 2)?.contiguous()?),
        4 => Ok(xs.permute((0, 3, 1, 2))?.contiguous()?),
        _ => Err(wrong_rank(xs, "(batch, time, channels) or (batch, height, width, channels)")),
    }
}

fn wrong_rank(xs: &Tensor, expected: &str) -> Error {
    Error::invalid("tensor", expected, format!("{:?}", xs.dims()))
}
