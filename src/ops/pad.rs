//! Padding of the time axis, or of the height and width, with something other than zeros.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::conv2d::along;
use super::gather::pick_time;
use crate::{Error, Result};

/// The steps before the first and after the last, drawn for `1234` and two steps each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingMode {
    /// `1234 -> 00123400`
    #[default]
    Zeros,
    /// `1234 -> 32123432`
    Reflect,
    /// `1234 -> 11123444`
    Replicate,
    /// `1234 -> 34123412`
    Circular,
}

/// Pads the time axis.
///
/// # Shapes
/// `xs` (batch, time, channels) to (batch, left + time + right, channels).
///
/// # Errors
/// [`Error::Invalid`] where the mode cannot fill the padding from so short an input: `reflect` needs
/// less padding than steps, `circular` at most as much, `replicate` at least one step (as PyTorch).
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{PaddingMode, pad1d};
/// let xs = Tensor::new(&[[[1f32], [2.], [3.], [4.]]], &Device::Cpu)?;
/// let ys = pad1d(&xs, 2, 1, PaddingMode::Reflect)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [3., 2., 1., 2., 3., 4., 3.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.pad`.
pub fn pad1d(xs: &Tensor, left: usize, right: usize, mode: PaddingMode) -> Result<Tensor> {
    if mode == PaddingMode::Zeros {
        return Ok(xs.pad_with_zeros(1, left, right)?);
    }
    match steps(xs.dim(1)?, left, right, mode)? {
        None => Ok(xs.clone()),
        Some(steps) => pick_time(xs, &steps),
    }
}

/// The step of the input that each padded step is a copy of; `None` where nothing is padded, or with zeros.
pub(crate) fn steps(
    len: usize,
    left: usize,
    right: usize,
    mode: PaddingMode,
) -> Result<Option<Vec<usize>>> {
    if left == 0 && right == 0 {
        return Ok(None);
    }
    let most = match mode {
        PaddingMode::Zeros => return Ok(None),
        PaddingMode::Reflect => len.saturating_sub(1),
        PaddingMode::Circular => len,
        PaddingMode::Replicate if len == 0 => 0,
        PaddingMode::Replicate => usize::MAX,
    };
    if left.max(right) > most {
        return Err(Error::invalid(
            "padding",
            format!("at most {most} steps a side for {mode:?} over {len} steps"),
            format!("{left} and {right}"),
        ));
    }
    let source = |i: usize| match mode {
        PaddingMode::Replicate => i.saturating_sub(left).min(len - 1),
        PaddingMode::Circular => (i + len - left) % len,
        PaddingMode::Reflect | PaddingMode::Zeros => {
            if i < left {
                left - i
            } else if i - left < len {
                i - left
            } else {
                2 * (len - 1) - (i - left)
            }
        }
    };
    Ok(Some((0..left + len + right).map(source).collect()))
}

/// Pads the height (above and below), then the width (left and right).
///
/// # Shapes
/// `xs` (batch, height, width, channels) to (batch, above + height + below, left + width + right,
/// channels).
///
/// # Errors
/// As [`pad1d`], for either axis.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{PaddingMode, pad2d};
/// let xs = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?.reshape((1, 2, 2, 1))?;
/// let ys = pad2d(&xs, (1, 0), (0, 1), PaddingMode::Replicate)?;
/// assert_eq!(ys.reshape((3, 3))?.to_vec2::<f32>()?, [[1., 2., 2.], [1., 2., 2.], [3., 4., 4.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.pad`.
pub fn pad2d(
    xs: &Tensor,
    (above, below): (usize, usize),
    (left, right): (usize, usize),
    mode: PaddingMode,
) -> Result<Tensor> {
    let (batch, height, width, channels) = xs.dims4()?;
    // a line of the image as one step, then a column of one line
    let lines = xs.reshape((batch, height, width * channels))?;
    let lines = pad1d(&lines, above, below, mode).map_err(|error| along("height", error))?;
    let height = lines.dim(1)?;
    let columns = lines.reshape((batch * height, width, channels))?;
    let columns = pad1d(&columns, left, right, mode).map_err(|error| along("width", error))?;
    let width = columns.dim(1)?;
    Ok(columns.reshape((batch, height, width, channels))?)
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::*;
    use candle_core::Device;

    #[test]
    fn every_mode_as_drawn() {
        let xs = Tensor::new(&[[[1f32], [2.], [3.], [4.]]], &Device::Cpu).unwrap();
        for (mode, drawn) in [
            (PaddingMode::Zeros, [0., 0., 1., 2., 3., 4., 0., 0.]),
            (PaddingMode::Reflect, [3., 2., 1., 2., 3., 4., 3., 2.]),
            (PaddingMode::Replicate, [1., 1., 1., 2., 3., 4., 4., 4.]),
            (PaddingMode::Circular, [3., 4., 1., 2., 3., 4., 1., 2.]),
        ] {
            let ys =
                pad1d(&xs, 2, 2, mode).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(ys, drawn, "{mode:?}");
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        for mode in [
            PaddingMode::Zeros,
            PaddingMode::Reflect,
            PaddingMode::Replicate,
            PaddingMode::Circular,
        ] {
            for batch in [1, 3] {
                gradients(&[random(1, &[batch, 4, 2])], |t| Ok(pad1d(&t[0], 3, 2, mode)?));
            }
        }
    }

    #[test]
    fn an_image_is_padded_along_both_axes() {
        let xs = random(1, &[2, 3, 4, 2]);
        for mode in [PaddingMode::Reflect, PaddingMode::Circular] {
            let ys = pad2d(&xs, (1, 2), (3, 0), mode).unwrap();
            assert_eq!(ys.dims(), [2, 6, 7, 2]);
            let middle = ys.narrow(1, 1, 3).unwrap().narrow(2, 3, 4).unwrap();
            super::super::check::assert_close(&middle, &xs, 0.0);
        }
        let error = pad2d(&xs, (3, 0), (0, 0), PaddingMode::Reflect).unwrap_err();
        assert!(error.to_string().starts_with("height: padding"), "{error}");
    }

    #[test]
    fn too_much_padding_is_an_error() {
        let xs = random(1, &[1, 3, 1]);
        assert!(pad1d(&xs, 3, 0, PaddingMode::Reflect).is_err());
        assert!(pad1d(&xs, 4, 0, PaddingMode::Circular).is_err());
        assert!(pad1d(&xs, 9, 0, PaddingMode::Replicate).is_ok());
    }
}
