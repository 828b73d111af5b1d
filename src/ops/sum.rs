//! The residual sum, and the sum of two gradients in place.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, on_cpu};
use super::{filled, tensor};
use crate::Error;
use crate::kernels::{Kernel, sum};

/// `xs + ys`, elementwise.
///
/// # Errors
/// [`Error::Invalid`] where the shapes differ.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{add, add_relu};
/// let (xs, ys) = (Tensor::new(&[1f32, -3.], &Device::Cpu)?, Tensor::new(&[1f32, 1.], &Device::Cpu)?);
/// assert_eq!(add(&xs, &ys)?.to_vec1::<f32>()?, [2., -2.]);
/// assert_eq!(add_relu(&xs, &ys)?.to_vec1::<f32>()?, [2., 0.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn add(xs: &Tensor, ys: &Tensor) -> crate::Result<Tensor> {
    same_shape(xs, ys)?;
    Ok(apply(Add { relu: false }, &[xs, ys])?)
}

/// `max(0, xs + ys)` in one pass: how a residual block ends.
///
/// # Errors
/// As [`add`].
///
/// # Example
/// See [`add`].
pub fn add_relu(xs: &Tensor, ys: &Tensor) -> crate::Result<Tensor> {
    same_shape(xs, ys)?;
    Ok(apply(Add { relu: true }, &[xs, ys])?)
}

fn same_shape(xs: &Tensor, ys: &Tensor) -> crate::Result<()> {
    if xs.shape() == ys.shape() && xs.dtype() == ys.dtype() {
        return Ok(());
    }
    let describe = |t: &Tensor| format!("{:?} of {}", t.dims(), t.dtype().as_str());
    Err(Error::invalid("summand", describe(xs), describe(ys)))
}

/// `xs + ys`, or `max(0, xs + ys)`.
pub(crate) struct Add {
    pub relu: bool,
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn keep(&self) -> Keep {
        if self.relu { Keep::Output } else { Keep::Nothing }
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let shape = inputs[0].shape();
        dispatch!(self.name(), inputs[0].dtype(), T => {
            let (x, y) = (inputs[0].slice::<T>()?, inputs[1].slice::<T>()?);
            Ok(filled::<T>(shape, |out| match self.relu {
                true => sum::add_relu(kernel, x, y, out),
                false => sum::add(kernel, x, y, out),
            }))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, _: &[Tensor], y: &Tensor, dy: &Tensor) -> Grads {
        if !self.relu {
            return Ok(vec![Some(dy.clone()), Some(dy.clone())]);
        }
        let dx = tensor(on_cpu(&[y, dy], |args| {
            dispatch!(self.name(), dy.dtype(), T => {
                let (y, dy) = (args[0].slice::<T>()?, args[1].slice::<T>()?);
                Ok(filled::<T>(args[0].shape(), |dx| sum::add_relu_grad(kernel, y, dy, dx)))
            }, bf16)
        })?);
        Ok(vec![Some(dx.clone()), Some(dx)])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let sum = (inputs[0] + inputs[1])?;
        if self.relu { sum.relu() } else { Ok(sum) }
    }
}

/// Adds `more` to `sum` in place: whoever else holds `sum` sees it too.
pub(crate) fn add_assign(kernel: Kernel, sum: &Tensor, more: &Tensor) -> Result<()> {
    if sum.shape() != more.shape() || sum.dtype() != more.dtype() {
        bail!("gradients of {:?} and {:?} meet", sum.shape(), more.shape())
    }
    sum.inplace_op2(more, &AddAssign(kernel))
}

struct AddAssign(Kernel);

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "add-assign"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        layout: &Layout,
        more: &CpuStorage,
        more_layout: &Layout,
    ) -> Result<()> {
        let (Some((from, to)), more) = (layout.contiguous_offsets(), Arg::new(more, more_layout))
        else {
            bail!("add-assign: expected a contiguous tensor")
        };
        match sum {
            CpuStorage::F32(sum) => sum::add_assign(self.0, &mut sum[from..to], more.slice()?),
            CpuStorage::F64(sum) => sum::add_assign(self.0, &mut sum[from..to], more.slice()?),
            CpuStorage::BF16(sum) => sum::add_assign(self.0, &mut sum[from..to], more.slice()?),
            _ => bail!("add-assign: expected f32, f64 or bf16"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let inputs = [random(1, &[3, 2, 5]), random(2, &[3, 2, 5])];
        gradients(&inputs, |t| Ok(add(&t[0], &t[1])?));
        gradients(&inputs, |t| Ok(add_relu(&t[0], &t[1])?));
        gradients(&inputs[..1], |t| Ok(add(&t[0], &t[0])?));
    }

    #[test]
    fn shapes_must_agree() {
        let error = add(&random(1, &[1, 3]), &random(1, &[3, 1])).unwrap_err();
        assert_eq!(error.to_string(), "summand: expected [1, 3] of f64, found [3, 1] of f64");
    }
}
