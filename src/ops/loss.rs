//! Softmax cross-entropy in one operation.

use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor};

use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, on_cpu};
use super::{filled, tensor};
use crate::Error;
use crate::kernels::{Kernel, Real, Stored, rows};
use crate::profile::{self, Part};

/// The mean over rows of `−ln softmax(logits)[target]`, in nats.
///
/// # Shapes
/// `logits` (…, vocab) with as many rows as `targets` has ids; result a scalar.
///
/// # Numerics
/// The loss of `bf16` logits is `f32`, and their gradient `bf16`.
///
/// # Errors
/// [`Error::Invalid`] where the counts differ, there are none, or an id is not below `vocab`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::ops::cross_entropy;
/// let logits = Tensor::zeros((2, 3, 4), DType::F64, &Device::Cpu)?;
/// let loss = cross_entropy(&logits, &[0, 1, 2, 3, 0, 1])?;
/// assert!((loss.to_scalar::<f64>()? - 4f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.cross_entropy`.
pub fn cross_entropy(logits: &Tensor, targets: &[u32]) -> crate::Result<Tensor> {
    let vocab = logits.dim(D::Minus1)?;
    let rows = logits.elem_count() / vocab.max(1);
    if rows == 0 || rows != targets.len() {
        return Err(Error::invalid("targets", format!("{rows} ids, at least one"), targets.len()));
    }
    if let Some(id) = targets.iter().find(|&&id| id as usize >= vocab) {
        return Err(Error::invalid("target", format!("an id below {vocab}"), id));
    }
    Ok(apply(CrossEntropy(targets.into()), &[logits])?)
}

/// As [`cross_entropy`], the loss as a number and the gradient of the logits.
///
/// # Errors
/// As [`cross_entropy`].
pub fn cross_entropy_with_gradient(
    logits: &Tensor,
    targets: &[u32],
) -> crate::Result<(f64, Tensor)> {
    let logits = logits.detach().contiguous()?;
    let loss = cross_entropy(&logits, targets)?;
    let _span = profile::span(Part::Loss);
    let grads = CrossEntropy(targets.into()).backward(
        Kernel::best(),
        &[logits],
        &loss,
        &loss.ones_like()?,
    )?;
    let value = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
    match grads.into_iter().flatten().next() {
        Some(grad) => Ok((value, grad)),
        None => Err(Error::invalid("gradient", "one", "none")),
    }
}

/// Mean over rows of logits.
pub(crate) struct CrossEntropy(pub Arc<[u32]>);

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let (logits, targets) = (inputs[0], &self.0);
        dispatch!(self.name(), logits.dtype(), T => {
            let loss = rows::cross_entropy(kernel, logits.slice::<T>()?, logits.channels(), targets);
            let loss = <T as Stored>::Real::of(loss / targets.len() as f64);
            Ok(filled(&().into(), |mean| mean.fill(loss)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let grad = on_cpu(&[&inputs[0], dy], |args| {
            let (logits, targets) = (args[0], &self.0);
            dispatch!(self.name(), logits.dtype(), T => {
                let (xs, vocab) = (logits.slice::<T>()?, logits.channels());
                let dy = args[1].slice::<<T as Stored>::Real>()?[0];
                let scale = dy / <T as Stored>::Real::of(targets.len() as f64);
                Ok(filled::<T>(logits.shape(), |grad| {
                    rows::cross_entropy_grad(kernel, xs, vocab, targets, scale, grad);
                }))
            }, bf16)
        })?;
        Ok(vec![Some(tensor(grad))])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let ids = Tensor::new(&*self.0, inputs[0].device())?;
        candle_nn::loss::cross_entropy(&inputs[0].flatten_to(D::Minus2)?, &ids)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::{DType, Var};

    #[test]
    fn gradients_agree_with_differences() {
        gradients(&[random(1, &[2, 3, 5])], |t| Ok(cross_entropy(&t[0], &[4, 0, 2, 2, 1, 3])?));
    }

    #[test]
    fn a_foreign_id_is_an_error() {
        let error = cross_entropy(&random(1, &[1, 5]), &[5]).unwrap_err();
        assert_eq!(error.to_string(), "target: expected an id below 5, found 5");
    }

    #[test]
    fn bf16_logits_have_an_f32_loss_and_a_bf16_gradient() {
        let logits = random(1, &[2, 3, 5]).to_dtype(DType::BF16).unwrap();
        let run = |dtype: DType| {
            let var = Var::from_tensor(&logits.to_dtype(dtype).unwrap()).unwrap();
            let loss = cross_entropy(&var, &[4, 0, 2, 2, 1, 3]).unwrap();
            let grad = loss.backward().unwrap().get(&var).unwrap().clone();
            (loss, grad)
        };
        let ((loss, grad), (want, want_grad)) = (run(DType::BF16), run(DType::F64));
        assert_eq!((loss.dtype(), grad.dtype()), (DType::F32, DType::BF16));
        assert_close(&loss, &want, 1e-6);
        assert_close(&grad, &want_grad, 1e-3);
    }
}
