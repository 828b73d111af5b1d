//! Dropout with a reproducible mask.

use candle_core::{CpuStorage, Device, Result, Shape, Tensor};
use serde::{Deserialize, Serialize};

use super::tape::{self, Keep};
use super::{Arg, StoredElement, cpu_op, output, slice};
use crate::Error;
use crate::kernels::dropout::{self as kernel, MaskKey};

/// What dropout drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropoutKind {
    /// Single numbers (`torch.nn.Dropout`).
    #[default]
    Element,
    /// Whole channels of a sequence (`torch.nn.Dropout1d`).
    Channel,
}

/// Zeroes with probability `p` and scales the rest by `1/(1 − p)`. The mask is a function of `key`
/// alone, so a step can be repeated exactly; the backward pass computes it again.
///
/// # Shapes
/// `xs` (batch, time, channels), or of any shape where single elements are dropped; result the same.
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
/// let ys = dropout(&xs, 0.5, DropoutKind::Element, MaskKey { seed: 1, stream: 0 })?;
/// assert!(ys.flatten_all()?.to_vec1::<f32>()?.iter().all(|&y| y == 0. || y == 2.));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn dropout(xs: &Tensor, p: f64, kind: DropoutKind, key: MaskKey) -> crate::Result<Tensor> {
    check_probability(p)?;
    if p == 0.0 {
        return Ok(xs.clone());
    }
    let (len, channels) = match kind {
        DropoutKind::Channel => (xs.dim(1)?, xs.dims3()?.2),
        DropoutKind::Element => (0, 0),
    };
    let op = Dropout { p, kind, key, len, channels };
    if xs.device().is_cpu() {
        return Ok(tape::apply1(&xs.contiguous()?, op, Keep::Nothing)?);
    }
    let mask = Tensor::ones(xs.shape(), xs.dtype(), &Device::Cpu)?.apply_op1_no_bwd(&op)?;
    Ok((xs * mask.to_device(xs.device())?)?)
}

pub(super) fn check_probability(p: f64) -> crate::Result<()> {
    if !(0.0..1.0).contains(&p) {
        let expected = "a probability of at least 0 and below 1";
        return Err(Error::invalid("dropout", expected, p));
    }
    Ok(())
}

struct Dropout {
    p: f64,
    kind: DropoutKind,
    key: MaskKey,
    /// Of a sequence, where whole channels are dropped.
    len: usize,
    channels: usize,
}

impl Dropout {
    fn run1<T: StoredElement>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let x = slice::<T>(x)?;
        Ok(output::<T>(shape, |y| match self.kind {
            DropoutKind::Element => kernel::elements(self.key, self.p, x, y),
            DropoutKind::Channel => {
                kernel::channels(self.key, self.p, (self.len, self.channels), x, y)
            }
        }))
    }
}

cpu_op!(CustomOp1 + bf16 for Dropout, "dropout",
    /// Dropout is linear, and its own gradient under the same mask.
    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(dy.contiguous()?.apply_op1_no_bwd(self)?))
    }
);

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let key = MaskKey { seed: 5, stream: 1 };
        for kind in [DropoutKind::Element, DropoutKind::Channel] {
            gradients(&[random(1, &[3, 4, 5])], |t| Ok(dropout(&t[0], 0.4, kind, key)?));
        }
    }

    #[test]
    fn a_probability_of_one_is_an_error() {
        for p in [1.0, -0.1, f64::NAN] {
            assert!(
                dropout(
                    &random(1, &[1, 1, 1]),
                    p,
                    DropoutKind::Element,
                    MaskKey { seed: 0, stream: 0 }
                )
                .is_err()
            );
        }
    }
}
