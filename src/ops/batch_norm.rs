//! Batch norm, with the statistics of the batch itself or with given ones.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};

use super::op::{Arg, Computed, Grads, Keep, Op, dispatch, on_cpu};
use super::{filled, tensor};
use crate::Error;
use crate::kernels::Kernel;
use crate::kernels::batch_norm::Moments;

/// Each channel normalised over all rows, then scaled and shifted: `ys = (xs − mean)/√(var + eps)·weight + bias`. Of
/// rows (…, channels), a weight and a bias (channels).
///
/// # Numerics
/// Sums are taken in the type of `weight`, those of 256 rows added in double precision.
///
/// # References
/// Ioffe & Szegedy 2015, arXiv:1502.03167; `torch.nn.BatchNorm1d`.
pub(crate) struct BatchNorm {
    moments: Arc<Moments>,
    eps: f64,
    of: MomentsOf,
}

/// The rows that the moments are a function of.
enum MomentsOf {
    All,
    /// Those whose factor is not 0.
    Counted(Arc<[f32]>),
    /// None: the moments were given.
    None,
}

/// The numbers of rows that count, one after the other.
fn counted<T: Copy>(xs: &[T], factors: &[f32], channels: usize) -> Vec<T> {
    let rows = xs.chunks_exact(channels).zip(factors);
    rows.filter(|(_, factor)| **factor != 0.0).flat_map(|(row, _)| row.iter().copied()).collect()
}

impl BatchNorm {
    /// With the moments of `xs` itself: of the rows whose factor is not 0, where there are factors. All are normalised.
    pub fn of(
        kernel: Kernel,
        xs: &Tensor,
        factors: Option<Arc<[f32]>>,
        eps: f64,
    ) -> crate::Result<Self> {
        let rows = |factors: &[f32]| factors.iter().filter(|&&factor| factor != 0.0).count();
        if xs.elem_count() == 0 || factors.as_deref().is_some_and(|factors| rows(factors) == 0) {
            return Err(Error::invalid("batch norm", "at least one row", "none"));
        }
        let xs = xs.detach().to_device(&Device::Cpu)?.contiguous()?;
        let moments = on_cpu(&[&xs], |args| {
            let channels = args[0].channels();
            dispatch!("batch-norm", xs.dtype(), T => {
                let xs = args[0].slice::<T>()?;
                Ok(match &factors {
                    None => Moments::of(kernel, xs, channels),
                    Some(factors) => Moments::of(kernel, &counted(xs, factors, channels), channels),
                })
            }, bf16)
        })?;
        let of = factors.map_or(MomentsOf::All, MomentsOf::Counted);
        Ok(Self { moments: moments.into(), eps, of })
    }

    /// Number of rows that the moments are of.
    pub fn rows(&self) -> usize {
        self.moments.rows
    }

    /// With given means and variances.
    pub fn with([mean, var]: [&Tensor; 2], eps: f64) -> crate::Result<Self> {
        let values = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        // the number of rows matters to the gradient of moments that follow the rows
        let moments = Moments { rows: 1, mean: values(mean)?, var: values(var)? };
        Ok(Self { moments: moments.into(), eps, of: MomentsOf::None })
    }

    /// Means and variances in the type of `beside` and where it lies.
    pub fn statistics(&self, beside: &Tensor) -> Result<[Tensor; 2]> {
        let tensor = |values: &[f64]| {
            Tensor::new(values, &Device::Cpu)?.to_dtype(beside.dtype())?.to_device(beside.device())
        };
        Ok([tensor(&self.moments.mean)?, tensor(&self.moments.var)?])
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let x = inputs[0];
        dispatch!(self.name(), x.dtype(), T => {
            let (xs, w, b) = (x.slice::<T>()?, inputs[1].slice()?, inputs[2].slice()?);
            Ok(filled::<T>(x.shape(), |y| self.moments.normalize(kernel, self.eps, xs, w, b, y)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let (xs, weight) = (&inputs[0], &inputs[1]);
        let (dx, affine) = on_cpu(&[xs, dy, weight], |args| {
            dispatch!(self.name(), dy.dtype(), T => {
                let (x, dy) = (args[0].slice::<T>()?, args[1].slice::<T>()?);
                let weight = args[2].slice()?;
                let affine = self.moments.grad_affine(kernel, self.eps, x, dy);
                let free = affine.each_ref().map(|sums| vec![0.0; sums.len()]);
                let follow = if matches!(self.of, MomentsOf::None) { &free } else { &affine };
                let grad = |follow: &_, x, dy, dx: &mut [T]| {
                    self.moments.grad_input(kernel, self.eps, (x, dy), weight, follow, dx);
                };
                let dx = filled::<T>(args[0].shape(), |dx| {
                    grad(follow, x, dy, dx);
                    let MomentsOf::Counted(factors) = &self.of else { return };
                    let channels = weight.len();
                    let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
                    let rows = rows.zip(dx.chunks_exact_mut(channels)).zip(&factors[..]);
                    // the moments know nothing of these
                    for (((x, dy), dx), _) in rows.filter(|(_, factor)| **factor == 0.0) {
                        grad(&free, x, dy, dx);
                    }
                });
                Ok((dx, affine))
            }, bf16)
        })?;
        let sums = |sums: Vec<f64>| Tensor::new(sums, &Device::Cpu)?.to_dtype(weight.dtype());
        let [d_weight, d_bias] = affine;
        Ok(vec![Some(tensor(dx)), Some(sums(d_weight)?), Some(sums(d_bias)?)])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (weight, bias) = (inputs[1], inputs[2]);
        let xs = inputs[0].to_dtype(weight.dtype())?;
        let moments = |rows: Tensor| {
            let mean = rows.mean(0)?;
            let var = rows.broadcast_sub(&mean)?.sqr()?.mean(0)?;
            Ok::<_, candle_core::Error>([mean, var])
        };
        let [mean, var] = match &self.of {
            MomentsOf::None => self.statistics(weight)?,
            MomentsOf::All => moments(xs.flatten_to(D::Minus2)?)?,
            MomentsOf::Counted(factors) => {
                let numbers = (0u32..).zip(&factors[..]).filter(|(_, factor)| **factor != 0.0);
                let numbers = Tensor::from_iter(numbers.map(|(row, _)| row), xs.device())?;
                moments(xs.flatten_to(D::Minus2)?.index_select(&numbers, 0)?)?
            }
        };
        let scale = weight.div(&(var + self.eps)?.sqrt()?)?;
        let ys = xs.broadcast_sub(&mean)?.broadcast_mul(&scale)?.broadcast_add(bias)?;
        ys.to_dtype(inputs[0].dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::super::op::apply;
    use super::*;

    fn batch_norm(
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
    ) -> crate::Result<(Tensor, Tensor, Tensor)> {
        let op = BatchNorm::of(Kernel::best(), xs, None, eps)?;
        let [mean, var] = op.statistics(weight)?;
        Ok((apply(op, &[xs, weight, bias])?, mean, var))
    }

    fn batch_norm_with(
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        moments: [&Tensor; 2],
        eps: f64,
    ) -> crate::Result<Tensor> {
        Ok(apply(BatchNorm::with(moments, eps)?, &[xs, weight, bias])?)
    }

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
        let plain = BatchNorm::of(Kernel::best(), &xs, None, 1e-5)?.primitives(&[&xs, &w, &b])?;
        assert_close(&ours.0, &plain, 1e-12);
        let rows = xs.flatten_to(1)?;
        assert_close(&ours.1, &rows.mean(0)?, 1e-12);
        assert_close(&ours.2, &rows.broadcast_sub(&rows.mean(0)?)?.sqr()?.mean(0)?, 1e-12);
        let given = batch_norm_with(&xs, &w, &b, [&ours.1, &ours.2], 1e-5)?;
        assert_close(&given, &ours.0, 1e-12);

        let (xs, w, b) =
            (xs.to_dtype(DType::BF16)?, w.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
        let ours = batch_norm(&xs, &w, &b, 1e-5)?;
        let plain = BatchNorm::of(Kernel::best(), &xs, None, 1e-5)?.primitives(&[&xs, &w, &b])?;
        assert_eq!((plain.dtype(), ours.1.dtype()), (DType::BF16, DType::F32));
        assert_close(&ours.0, &plain, 1. / 128.);
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

    /// Of three sequences of four steps: all of the first, none of the second, two of the third.
    const FACTORS: [f32; 12] = [1., 1., 1., 1., 0., 0., 0., 0., 1., 1., 0., 0.];

    #[test]
    fn rows_that_do_not_count_change_no_other() -> crate::Result<()> {
        let (xs, w, b) = (random(1, &[3, 4, 5]), random(2, &[5]), random(3, &[5]));
        let masked = BatchNorm::of(Kernel::best(), &xs, Some(FACTORS.into()), 1e-5)?;
        assert_eq!(masked.rows(), 6);
        let plain = masked.primitives(&[&xs, &w, &b])?;
        let ours = apply(masked, &[&xs, &w, &b])?;
        assert_close(&ours, &plain, 1e-12);
        let rows = |t: &Tensor| -> crate::Result<Tensor> {
            Ok(Tensor::cat(&[t.get(0)?, t.get(2)?.narrow(0, 0, 2)?], 0)?)
        };
        assert_close(&rows(&ours)?, &batch_norm(&rows(&xs)?, &w, &b, 1e-5)?.0, 1e-12);
        assert!(BatchNorm::of(Kernel::best(), &xs, Some([0.0; 12].into()), 1e-5).is_err());
        Ok(())
    }

    #[test]
    fn gradients_under_a_mask_agree_with_differences() {
        let inputs = [random(1, &[3, 4, 5]), random(2, &[5]), random(3, &[5])];
        gradients(&inputs, |t| {
            let op = BatchNorm::of(Kernel::best(), &t[0], Some(FACTORS.into()), 1e-5)?;
            apply(op, &[&t[0], &t[1], &t[2]])
        });
    }

    #[test]
    fn no_rows_are_an_error() {
        let none = Tensor::zeros((0, 2), candle_core::DType::F64, &candle_core::Device::Cpu);
        let w = random(1, &[2]);
        assert!(batch_norm(&none.unwrap(), &w, &w, 1e-5).is_err());
    }
}
