//! Softmax cross-entropy in one operation.

use candle_core::{CpuStorage, D, Result, Shape, Tensor};

use super::tape::{self, Keep};
use super::{Arg, StoredElement, cpu_op, output, slice};
use crate::Error;
use crate::kernels::{Real, rows};

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
    if logits.device().is_cpu() {
        let op = CrossEntropy(targets.into());
        return Ok(tape::apply1(&logits.contiguous()?, op, Keep::Inputs)?);
    }
    let ids = Tensor::new(targets, logits.device())?;
    Ok(candle_nn::loss::cross_entropy(&logits.reshape((rows, vocab))?, &ids)?)
}

struct CrossEntropy(std::sync::Arc<[u32]>);

impl CrossEntropy {
    fn run1<T: StoredElement>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let vocab = x.1.dims().last().copied().unwrap_or(1);
        let loss = rows::cross_entropy(slice::<T>(x)?, vocab, &self.0) / self.0.len() as f64;
        Ok(output::<T::Real>(&().into(), |out| out.fill(T::Real::of(loss))))
    }
}

cpu_op!(CustomOp1 + bf16 for CrossEntropy, "cross-entropy",
    fn bwd(&self, logits: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(
            logits.apply_op2_no_bwd(dy, &CrossEntropyGrad(self.0.clone()))?,
        ))
    }
);

struct CrossEntropyGrad(std::sync::Arc<[u32]>);

impl CrossEntropyGrad {
    fn run2<T: StoredElement>(&self, x: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let vocab = x.1.dims().last().copied().unwrap_or(1);
        let scale = slice::<T::Real>(dy)?[0] / T::Real::of(self.0.len() as f64);
        let x = slice::<T>(x)?;
        Ok(output::<T>(shape, |out| rows::cross_entropy_grad(x, vocab, &self.0, scale, out)))
    }
}

cpu_op!(CustomOp2 + bf16 for CrossEntropyGrad, "cross-entropy-grad");

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
