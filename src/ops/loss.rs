//! Softmax cross-entropy in one operation.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};

use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, on_cpu};
use super::profile::{self, Part};
use super::{filled, tensor};
use crate::Error;
use crate::kernels::rows::{self, Target};
use crate::kernels::{Kernel, Real, Stored};

/// The mean over rows of `−ln softmax(logits)[target]`, in nats: `Σ weight·nats / Σ weight`.
///
/// A target is a class, `u32`, or a [`Target`] with a weight; a row of weight 0 is not read, whatever its class.
///
/// # Shapes
/// `logits` (…, vocab) with as many rows as there are targets; result a scalar.
///
/// # Numerics
/// The loss of `bf16` logits is `f32`, and their gradient `bf16`.
///
/// # Errors
/// [`Error::Invalid`] where the counts differ, no row counts, a class is not below `vocab`, or a weight is negative or
/// not finite.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::{kernels::rows::Target, ops::cross_entropy};
/// let logits = Tensor::new(&[[0f64, 0.], [9., -9.]], &Device::Cpu)?;
/// let loss = cross_entropy(&logits, &[1u32, 0])?.to_scalar::<f64>()?;
/// assert!((loss - 2f64.ln() / 2.).abs() < 1e-8);
/// let targets = [Target { class: 1, weight: 3. }, Target { class: 0, weight: 0. }];
/// let loss = cross_entropy(&logits, &targets)?.to_scalar::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.cross_entropy` with `weight` and `ignore_index`.
pub fn cross_entropy(
    logits: &Tensor,
    targets: &[impl Into<Target> + Copy],
) -> crate::Result<Tensor> {
    Ok(apply(SoftmaxCrossEntropy::new(logits, targets)?, &[logits])?)
}

/// As [`cross_entropy`], the loss as a number and the gradient of the logits.
///
/// # Errors
/// As [`cross_entropy`].
pub fn cross_entropy_with_gradient(
    logits: &Tensor,
    targets: &[impl Into<Target> + Copy],
) -> crate::Result<(f64, Tensor)> {
    let logits = logits.detach().contiguous()?;
    let op = SoftmaxCrossEntropy::new(&logits, targets)?;
    let loss = apply(op.clone(), &[&logits])?;
    let _span = profile::span(Part::Loss);
    let grads = op.backward(Kernel::best(), &[logits], &loss, &loss.ones_like()?)?;
    let value = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
    match grads.into_iter().flatten().next() {
        Some(grad) => Ok((value, grad)),
        None => Err(Error::invalid("gradient", "one", "none")),
    }
}

/// Mean over rows of logits.
#[derive(Clone)]
struct SoftmaxCrossEntropy {
    targets: Arc<[Target]>,
    /// Sum of the weights.
    weight: f64,
}

impl SoftmaxCrossEntropy {
    fn new(logits: &Tensor, targets: &[impl Into<Target> + Copy]) -> crate::Result<Self> {
        let targets: Arc<[Target]> = targets.iter().map(|&target| target.into()).collect();
        let vocab = logits.dim(D::Minus1)?;
        let rows = logits.elem_count() / vocab.max(1);
        if rows == 0 || rows != targets.len() {
            let expected = format!("{rows} ids, at least one");
            return Err(Error::invalid("targets", expected, targets.len()));
        }
        let weight: f64 = targets.iter().map(|target| target.weight).sum();
        for target in &*targets {
            let allowed = target.weight.is_finite() && target.weight >= 0.0;
            Error::require(allowed, "weight", "a finite number of at least 0", target.weight)?;
            if target.weight > 0.0 && target.class as usize >= vocab {
                let expected = format!("an id below {vocab}");
                return Err(Error::invalid("target", expected, target.class));
            }
        }
        Error::require(weight > 0.0, "targets", "one that counts", "none")?;
        Ok(Self { targets, weight })
    }
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let logits = inputs[0];
        dispatch!(self.name(), logits.dtype(), T => {
            let (xs, vocab) = (logits.slice::<T>()?, logits.channels());
            let loss = rows::cross_entropy(kernel, xs, vocab, &self.targets) / self.weight;
            Ok(filled(&().into(), |mean| mean.fill(<T as Stored>::Real::of(loss))))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let grad = on_cpu(&[&inputs[0], dy], |args| {
            let logits = args[0];
            dispatch!(self.name(), logits.dtype(), T => {
                let (xs, vocab) = (logits.slice::<T>()?, logits.channels());
                let dy = args[1].slice::<<T as Stored>::Real>()?[0];
                let scale = dy / <T as Stored>::Real::of(self.weight);
                Ok(filled::<T>(logits.shape(), |grad| {
                    rows::cross_entropy_grad(kernel, xs, vocab, &self.targets, scale, grad);
                }))
            }, bf16)
        })?;
        Ok(vec![Some(tensor(grad))])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let logits = inputs[0].flatten_to(D::Minus2)?;
        let device = logits.device();
        // a row that does not count names any class
        let class = |target: &Target| if target.weight > 0.0 { target.class } else { 0 };
        let ids = Tensor::from_iter(self.targets.iter().map(class), device)?.unsqueeze(1)?;
        let weights = self.targets.iter().map(|target| target.weight / self.weight);
        // not every device knows f64
        let weights = Tensor::from_iter(weights, &Device::Cpu)?.to_dtype(logits.dtype())?;
        let weights = weights.to_device(device)?;
        let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?.gather(&ids, 1)?.squeeze(1)?;
        // a factor of 0 would keep what is not a number
        let counts = weights.ne(0f64)?;
        let nats = counts.where_cond(&log_p, &log_p.zeros_like()?)?;
        (nats * weights)?.sum_all()?.neg()
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::{DType, Var};

    #[test]
    fn gradients_agree_with_differences() {
        gradients(&[random(1, &[2, 3, 5])], |t| Ok(cross_entropy(&t[0], &[4u32, 0, 2, 2, 1, 3])?));
    }

    fn weighted() -> [Target; 6] {
        let targets = [(4, 0.5), (0, 1.0), (7, 0.0), (2, 2.0), (1, 0.25), (3, 3.0)];
        targets.map(|(class, weight)| Target { class, weight })
    }

    #[test]
    fn gradients_of_a_weighted_mean_agree_with_differences() {
        gradients(&[random(1, &[2, 3, 5])], |t| Ok(cross_entropy(&t[0], &weighted())?));
    }

    #[test]
    fn the_primitives_give_the_weighted_mean() {
        let logits = random(1, &[2, 3, 5]);
        let op = SoftmaxCrossEntropy::new(&logits, &weighted()).unwrap();
        let want = cross_entropy(&logits, &weighted()).unwrap();
        assert_close(&op.primitives(&[&logits]).unwrap(), &want, 1e-12);
    }

    #[test]
    fn some_row_has_to_count() {
        let none = [Target { class: 0, weight: 0.0 }];
        let error = cross_entropy(&random(1, &[1, 5]), &none).unwrap_err();
        assert_eq!(error.to_string(), "targets: expected one that counts, found none");
        let negative = [Target { class: 0, weight: -1.0 }];
        assert!(cross_entropy(&random(1, &[1, 5]), &negative).is_err());
    }

    #[test]
    fn a_foreign_id_is_an_error() {
        let error = cross_entropy(&random(1, &[1, 5]), &[5u32]).unwrap_err();
        assert_eq!(error.to_string(), "target: expected an id below 5, found 5");
    }

    #[test]
    fn bf16_logits_have_an_f32_loss_and_a_bf16_gradient() {
        let logits = random(1, &[2, 3, 5]).to_dtype(DType::BF16).unwrap();
        let run = |dtype: DType| {
            let var = Var::from_tensor(&logits.to_dtype(dtype).unwrap()).unwrap();
            let loss = cross_entropy(&var, &[4u32, 0, 2, 2, 1, 3]).unwrap();
            let grad = loss.backward().unwrap().get(&var).unwrap().clone();
            (loss, grad)
        };
        let ((loss, grad), (want, want_grad)) = (run(DType::BF16), run(DType::F64));
        assert_eq!((loss.dtype(), grad.dtype()), (DType::F32, DType::BF16));
        assert_close(&loss, &want, 1e-6);
        assert_close(&grad, &want_grad, 1e-3);
    }
}
