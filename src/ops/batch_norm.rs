//! Batch norm with the statistics of the batch itself.

use std::sync::Arc;

use candle_core::{CpuStorage, D, DType, Result, Shape, Tensor};

use super::tape::{self, Keep};
use super::{Arg, StoredElement, argument, cpu_op, dispatch, output, slice};
use crate::Error;
use crate::kernels::batch_norm::Moments;

/// Normalises each channel over all rows, then scales and shifts; gives also the mean and the (biased)
/// variance of each channel, which are constants: no gradient flows into them.
///
/// `ys = (xs − mean)/√(var + eps)·weight + bias`
///
/// # Shapes
/// `xs` (…, channels), `weight` and `bias` (channels); results as `xs`, (channels) and (channels).
///
/// # Numerics
/// Sums are taken in the type of `weight`, those of 256 rows added in double precision.
///
/// # Errors
/// [`Error::Invalid`] where shapes do not fit.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::batch_norm;
/// let xs = Tensor::new(&[[1f64], [3.]], &Device::Cpu)?;
/// let (weight, bias) = (Tensor::new(&[2f64], &Device::Cpu)?, Tensor::new(&[0f64], &Device::Cpu)?);
/// let (ys, mean, var) = batch_norm(&xs, &weight, &bias, 0.0)?;
/// assert_eq!(ys.to_vec2::<f64>()?, [[-2.], [2.]]);
/// assert_eq!((mean.to_vec1::<f64>()?, var.to_vec1::<f64>()?), (vec![2.], vec![1.]));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Ioffe & Szegedy 2015, arXiv:1502.03167; `torch.nn.BatchNorm1d` in training.
pub fn batch_norm(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> crate::Result<(Tensor, Tensor, Tensor)> {
    check(xs, [("norm weight", weight), ("norm bias", bias)])?;
    if xs.elem_count() == 0 {
        return Err(Error::invalid("batch norm", "at least one row", "none"));
    }
    if !xs.device().is_cpu() {
        return primitives(xs, weight, bias, eps);
    }
    let xs = xs.contiguous()?;
    let moments = tape::unrecorded(|| moments(&xs))?;
    let constant = |values: &[f64]| Tensor::new(values, xs.device())?.to_dtype(weight.dtype());
    let (mean, var) = (constant(&moments.mean)?, constant(&moments.var)?);
    let op = BatchNorm { moments: moments.into(), eps, fixed: false };
    Ok((op.apply(&xs, weight, bias)?, mean, var))
}

/// [`batch_norm`] with a mean and a variance that are given, such as those kept in training; they are
/// constants.
///
/// # Shapes
/// `xs` (…, channels), the others (channels); result as `xs`.
///
/// # Numerics
/// Computed in the type of `weight`.
///
/// # Errors
/// [`Error::Invalid`] where shapes do not fit.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::batch_norm_with;
/// let number = |value: f64| Tensor::new(&[value], &Device::Cpu);
/// let xs = Tensor::new(&[[1f64], [3.]], &Device::Cpu)?;
/// let ys = batch_norm_with(&xs, &number(2.)?, &number(0.5)?, [&number(1.)?, &number(4.)?], 0.0)?;
/// assert_eq!(ys.to_vec2::<f64>()?, [[0.5], [2.5]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.BatchNorm1d` in evaluation.
pub fn batch_norm_with(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    [mean, var]: [&Tensor; 2],
    eps: f64,
) -> crate::Result<Tensor> {
    check(
        xs,
        [("norm weight", weight), ("norm bias", bias), ("norm mean", mean), ("norm variance", var)],
    )?;
    if xs.elem_count() == 0 {
        return Ok(xs.clone());
    }
    if !xs.device().is_cpu() {
        let centred = xs.to_dtype(weight.dtype())?.broadcast_sub(&mean.detach())?;
        let ys = scaled(&centred, &var.detach(), weight, bias, eps)?;
        return Ok(ys.to_dtype(xs.dtype())?);
    }
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
    let moments = Moments {
        rows: xs.elem_count() / weight.elem_count(),
        mean: values(mean)?,
        var: values(var)?,
    };
    let op = BatchNorm { moments: moments.into(), eps, fixed: true };
    op.apply(&xs.contiguous()?, weight, bias)
}

fn check<const N: usize>(xs: &Tensor, tensors: [(&str, &Tensor); N]) -> crate::Result<()> {
    let channels = xs.dim(D::Minus1)?;
    match tensors.iter().find(|(_, t)| t.dims() != [channels]) {
        None => Ok(()),
        Some((field, tensor)) => {
            Err(Error::invalid(*field, format!("({channels})"), format!("{:?}", tensor.dims())))
        }
    }
}

fn primitives(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> crate::Result<(Tensor, Tensor, Tensor)> {
    let dtype = xs.dtype();
    let xs = xs.to_dtype(weight.dtype())?;
    let mean = xs.flatten_to(D::Minus2)?.mean(0)?;
    let centred = xs.broadcast_sub(&mean)?;
    let var = centred.flatten_to(D::Minus2)?.sqr()?.mean(0)?;
    let ys = scaled(&centred, &var, weight, bias, eps)?.to_dtype(dtype)?;
    Ok((ys, mean.detach(), var.detach()))
}

/// `centred/√(var + eps)·weight + bias` in candle's operations, all of one dtype.
fn scaled(
    centred: &Tensor,
    var: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let scale = weight.div(&(var + eps)?.sqrt()?)?;
    centred.broadcast_mul(&scale)?.broadcast_add(bias)
}

/// The moments of a contiguous tensor's channels.
fn moments(xs: &Tensor) -> Result<Moments> {
    let channels = xs.dim(D::Minus1)?;
    let held = xs.storage_and_layout();
    let x = argument(&held)?;
    dispatch!("batch-norm", xs.dtype(), T => Ok(Moments::of(slice::<T>(x)?, channels)), bf16)
}

struct BatchNorm {
    moments: Arc<Moments>,
    eps: f64,
    /// The moments are not those of the input: no gradient flows through them.
    fixed: bool,
}

impl BatchNorm {
    fn apply(self, xs: &Tensor, weight: &Tensor, bias: &Tensor) -> crate::Result<Tensor> {
        let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
        Ok(tape::apply3(xs, &weight, &bias, self, Keep::Inputs)?)
    }

    fn run3<T: StoredElement>(&self, x: Arg, w: Arg, b: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let x = slice::<T>(x)?;
        let (w, b) = (slice::<T::Real>(w)?, slice::<T::Real>(b)?);
        Ok(output::<T>(shape, |y| self.moments.normalize(self.eps, x, w, b, y)))
    }
}

cpu_op!(CustomOp3 + bf16 for BatchNorm, "batch-norm",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (moments, eps) = (self.moments.clone(), self.eps);
        let dy = dy.contiguous()?;
        let op = GradAffine { moments: moments.clone(), eps };
        let sums = xs.apply_op2_no_bwd(&dy, &op)?;
        let (d_weight, d_bias) = (sums.get(0)?, sums.get(1)?);
        let affine = match self.fixed {
            true => [vec![0.0; weight.elem_count()], vec![0.0; weight.elem_count()]],
            false => [d_weight.to_vec1()?, d_bias.to_vec1()?],
        };
        let dx = xs.apply_op3_no_bwd(&dy, weight, &GradInput { moments, eps, affine })?;
        let dtype = weight.dtype();
        Ok((Some(dx), Some(d_weight.to_dtype(dtype)?), Some(d_bias.to_dtype(dtype)?)))
    }
);

/// The gradients of weight and bias, two rows of `f64`.
struct GradAffine {
    moments: Arc<Moments>,
    eps: f64,
}

impl GradAffine {
    fn run2<T: StoredElement>(&self, x: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let (x, dy) = (slice::<T>(x)?, slice::<T>(dy)?);
        let affine = self.moments.grad_affine(self.eps, x, dy);
        let shape = (2, affine[0].len()).into();
        Ok((CpuStorage::F64(affine.concat()), shape))
    }
}

cpu_op!(CustomOp2 + bf16 for GradAffine, "batch-norm-grad-affine");

struct GradInput {
    moments: Arc<Moments>,
    eps: f64,
    affine: [Vec<f64>; 2],
}

impl GradInput {
    fn run3<T: StoredElement>(&self, x: Arg, dy: Arg, w: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let (xs, w) = ((slice::<T>(x)?, slice::<T>(dy)?), slice::<T::Real>(w)?);
        Ok(output::<T>(shape, |dx| self.moments.grad_input(self.eps, xs, w, &self.affine, dx)))
    }
}

cpu_op!(CustomOp3 + bf16 for GradInput, "batch-norm-grad");

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        for batch in [1, 3] {
            let inputs = [random(1, &[batch, 4, 5]), random(2, &[5]), random(3, &[5])];
            gradients(&inputs, |t| Ok(batch_norm(&t[0], &t[1], &t[2], 1e-5)?.0));
            let (mean, var) = (random(4, &[5]), random(5, &[5]).sqr().unwrap());
            gradients(&inputs, |t| Ok(batch_norm_with(&t[0], &t[1], &t[2], [&mean, &var], 0.1)?));
        }
    }

    #[test]
    fn primitives_agree() -> crate::Result<()> {
        let (xs, w, b) = (random(1, &[3, 4, 5]), random(2, &[5]), random(3, &[5]));
        let ours = batch_norm(&xs, &w, &b, 1e-5)?;
        let plain = primitives(&xs, &w, &b, 1e-5)?;
        assert_close(&ours.0, &plain.0, 1e-12);
        assert_close(&ours.1, &plain.1, 1e-12);
        assert_close(&ours.2, &plain.2, 1e-12);
        let given = batch_norm_with(&xs, &w, &b, [&ours.1, &ours.2], 1e-5)?;
        assert_close(&given, &ours.0, 1e-12);

        let (xs, w, b) =
            (xs.to_dtype(DType::BF16)?, w.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
        let (ours, plain) = (batch_norm(&xs, &w, &b, 1e-5)?, primitives(&xs, &w, &b, 1e-5)?);
        assert_eq!((plain.0.dtype(), plain.1.dtype()), (DType::BF16, DType::F32));
        assert_close(&ours.0, &plain.0, 1. / 128.);
        assert_close(&ours.1, &plain.1, 1e-5);
        Ok(())
    }

    #[test]
    fn bf16_gradients_are_those_of_the_rounded_input() -> crate::Result<()> {
        use candle_core::Var;
        let rounded = random(1, &[3, 4, 5]).to_dtype(DType::BF16)?;
        let coefficients = random(4, &[3, 4, 5]).to_dtype(DType::BF16)?;
        let grads = |activations: DType, parameters: DType| -> crate::Result<Vec<Tensor>> {
            let vars = [
                Var::from_tensor(&rounded.to_dtype(activations)?)?,
                Var::from_tensor(&random(2, &[5]).to_dtype(parameters)?)?,
                Var::from_tensor(&random(3, &[5]).to_dtype(parameters)?)?,
            ];
            let (ys, ..) = batch_norm(&vars[0], &vars[1], &vars[2], 1e-5)?;
            assert_eq!(ys.dtype(), activations);
            let loss = (ys * coefficients.to_dtype(activations)?)?.to_dtype(DType::F64)?;
            let grads = loss.sum_all()?.backward()?;
            let grad = |var| grads.get(var).cloned().unwrap();
            Ok(vars.iter().map(|var| grad(var.as_tensor())).collect())
        };
        let ours = grads(DType::BF16, DType::F32)?;
        assert_eq!(ours[1].dtype(), DType::F32);
        for (ours, exact) in ours.iter().zip(grads(DType::F64, DType::F64)?) {
            assert_close(ours, &exact, 4e-3);
        }
        Ok(())
    }

    #[test]
    fn no_rows_are_an_error() {
        let none = Tensor::zeros((0, 2), candle_core::DType::F64, &candle_core::Device::Cpu);
        let w = random(1, &[2]);
        assert!(batch_norm(&none.unwrap(), &w, &w, 1e-5).is_err());
    }
}
