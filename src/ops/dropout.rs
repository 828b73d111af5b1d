//! Dropout with a reproducible mask.

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::filled;
use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, run};
use crate::Error;
use crate::kernels::Kernel;
use crate::kernels::dropout::{self, MaskKey};

/// The numbers that are dropped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropoutKind {
    /// Single numbers (`torch.nn.Dropout`).
    #[default]
    Element,
    /// Whole channels of a sequence or an image (`torch.nn.Dropout1d`, `Dropout2d`).
    Channel,
}

/// Zeroes with probability `p` and scales the rest by `1/(1 − p)`. The mask is a function of `key`
/// alone, so a step can be repeated exactly; the backward pass computes it again.
///
/// # Shapes
/// `xs` (batch, time, channels) or (batch, height, width, channels), or of any shape where single elements are
/// dropped; result the same.
///
/// # Errors
/// [`Error::Invalid`] unless `0 ≤ p < 1`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::{kernels::dropout::MaskKey, ops::{DropoutKind, dropout}};
/// let xs = Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?;
/// let ys = dropout(&xs, 0.5, DropoutKind::Element, MaskKey::new(1, 0))?;
/// assert!(ys.flatten_all()?.to_vec1::<f32>()?.iter().all(|&y| y == 0. || y == 2.));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn dropout(xs: &Tensor, p: f64, kind: DropoutKind, key: MaskKey) -> crate::Result<Tensor> {
    check_probability(p)?;
    if p == 0.0 {
        return Ok(xs.clone());
    }
    if kind == DropoutKind::Channel && xs.rank() != 4 {
        xs.dims3()?;
    }
    Ok(apply(Dropout { p, kind, key }, &[xs])?)
}

pub(super) fn check_probability(p: f64) -> crate::Result<()> {
    if !(0.0..1.0).contains(&p) {
        let expected = "a probability of at least 0 and below 1";
        return Err(Error::invalid("dropout", expected, p));
    }
    Ok(())
}

impl DropoutKind {
    /// Numbers of a mask for one sequence of `rows` rows.
    pub(crate) fn draws(self, rows: usize, channels: usize) -> usize {
        match self {
            Self::Element => rows * channels,
            // every sequence starts at a whole word
            Self::Channel => channels.next_multiple_of(2),
        }
    }
}

/// Of channels: of inputs (batch, …, channels).
pub(crate) struct Dropout {
    pub p: f64,
    pub kind: DropoutKind,
    pub key: MaskKey,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn keep(&self) -> Keep {
        Keep::Nothing
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let x = inputs[0];
        dispatch!(self.name(), x.dtype(), T => {
            let (shape, xs) = (x.shape(), x.slice::<T>()?);
            Ok(filled::<T>(shape, |y| match (self.kind, shape.dims()) {
                (DropoutKind::Channel, [_, rows @ .., channels]) => {
                    let size = (rows.iter().product(), *channels);
                    dropout::channels(kernel, self.key, self.p, size, xs, y);
                }
                _ => dropout::elements(kernel, self.key, self.p, xs, y),
            }))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, _: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        Ok(vec![Some(run(kernel, self, &[dy])?)])
    }

    /// The mask is drawn on the CPU: it is the same on every device.
    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let xs = inputs[0];
        let ones = Tensor::ones(xs.shape(), xs.dtype(), &Device::Cpu)?;
        let mask = run(Kernel::best(), self, &[&ones])?;
        xs * mask.to_device(xs.device())?
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let key = MaskKey::new(5, 1);
        for kind in [DropoutKind::Element, DropoutKind::Channel] {
            gradients(&[random(1, &[3, 4, 5])], |t| Ok(dropout(&t[0], 0.4, kind, key)?));
        }
    }

    #[test]
    fn channels_of_an_image_drop_whole() {
        let xs = Tensor::ones((2, 3, 4, 5), candle_core::DType::F64, &Device::Cpu).unwrap();
        let ys = dropout(&xs, 0.4, DropoutKind::Channel, MaskKey::new(5, 1)).unwrap();
        let rows = ys.reshape((2, 12, 5)).unwrap().to_vec3::<f64>().unwrap();
        assert!(rows.iter().all(|image| image.iter().all(|row| row == &image[0])));
        assert!(rows.concat().concat().contains(&0.0));
    }

    #[test]
    fn a_probability_of_one_is_an_error() {
        for p in [1.0, -0.1, f64::NAN] {
            assert!(
                dropout(&random(1, &[1, 1, 1]), p, DropoutKind::Element, MaskKey::new(0, 0))
                    .is_err()
            );
        }
    }
}
