//! Each step of each sequence times a number of its own: masks.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::filled;
use super::op::{Arg, Computed, Grads, Keep, Op, dispatch, run};
use crate::kernels::{Kernel, rows};

/// Each row times its scale, a constant: `ys[b, t] = scales[b·time + t]·xs[b, t]`; as many scales as rows.
pub(crate) struct ScaleRows(pub Arc<[f32]>);

impl Op for ScaleRows {
    fn name(&self) -> &'static str {
        "scale-rows"
    }

    fn keep(&self) -> Keep {
        Keep::Nothing
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let x = inputs[0];
        dispatch!(self.name(), x.dtype(), T => {
            let (width, xs) = (x.channels(), x.slice::<T>()?);
            Ok(filled::<T>(x.shape(), |y| rows::scale(kernel, xs, width, &self.0, y)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, _: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        Ok(vec![Some(run(kernel, self, &[dy])?)])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let xs = inputs[0];
        let (batch, time, _) = xs.dims3()?;
        let scales = Tensor::from_slice(&self.0, (batch, time, 1), xs.device())?;
        xs.broadcast_mul(&scales.to_dtype(xs.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::super::op::apply;
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let scales: Arc<[f32]> = [1.0, 0.0, 0.5, 0.0, 1.0, 1.0].into();
        gradients(&[random(1, &[2, 3, 5])], |t| apply(ScaleRows(scales.clone()), &[&t[0]]));
    }

    #[test]
    fn rows_are_scaled() {
        let xs = Tensor::new(&[[[1f32, 2.], [3., 4.]]], &candle_core::Device::Cpu).unwrap();
        let ys = apply(ScaleRows([0., 1.].into()), &[&xs]).unwrap();
        assert_eq!(ys.to_vec3::<f32>().unwrap(), [[[0., 0.], [3., 4.]]]);
    }
}
