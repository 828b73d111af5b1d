//! The residual sum, and the sum of two gradients in place.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Shape, Tensor, bail};

use super::tape::{self, Keep};
use super::{Arg, StoredElement, cpu_op, output, slice};
use crate::Error;
use crate::kernels::sum as kernel;

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
    if !xs.device().is_cpu() {
        return Ok((xs + ys)?);
    }
    let (xs, ys) = (xs.contiguous()?, ys.contiguous()?);
    Ok(tape::apply2(&xs, &ys, Add, Keep::Nothing)?)
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
    if !xs.device().is_cpu() {
        return Ok((xs + ys)?.relu()?);
    }
    let (xs, ys) = (xs.contiguous()?, ys.contiguous()?);
    Ok(tape::apply2(&xs, &ys, AddRelu, Keep::Output)?)
}

fn same_shape(xs: &Tensor, ys: &Tensor) -> crate::Result<()> {
    if xs.shape() == ys.shape() && xs.dtype() == ys.dtype() {
        return Ok(());
    }
    let describe = |t: &Tensor| format!("{:?} of {}", t.dims(), t.dtype().as_str());
    Err(Error::invalid("summand", describe(xs), describe(ys)))
}

struct Add;

impl Add {
    fn run2<T: StoredElement>(&self, x: Arg, y: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let (x, y) = (slice::<T>(x)?, slice::<T>(y)?);
        Ok(output::<T>(shape, |out| kernel::add(x, y, out)))
    }
}

cpu_op!(CustomOp2 + bf16 for Add, "add",
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(dy.clone()), Some(dy.clone())))
    }
);

struct AddRelu;

impl AddRelu {
    fn run2<T: StoredElement>(&self, x: Arg, y: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let (x, y) = (slice::<T>(x)?, slice::<T>(y)?);
        Ok(output::<T>(shape, |out| kernel::add_relu(x, y, out)))
    }
}

cpu_op!(CustomOp2 + bf16 for AddRelu, "add-relu",
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        ys: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = ys.apply_op2_no_bwd(&dy.contiguous()?, &AddReluGrad)?;
        Ok((Some(dx.clone()), Some(dx)))
    }
);

struct AddReluGrad;

impl AddReluGrad {
    fn run2<T: StoredElement>(&self, y: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = y.1.shape();
        let (y, dy) = (slice::<T>(y)?, slice::<T>(dy)?);
        Ok(output::<T>(shape, |dx| kernel::add_relu_grad(y, dy, dx)))
    }
}

cpu_op!(CustomOp2 + bf16 for AddReluGrad, "add-relu-grad");

/// `sum += more` in the buffer of `sum`; both contiguous, of one shape and dtype, on the CPU.
pub(super) fn add_assign(sum: &Tensor, more: &Tensor) -> Result<()> {
    if sum.shape() != more.shape() || sum.dtype() != more.dtype() {
        bail!("gradients of {:?} and {:?} meet", sum.shape(), more.shape())
    }
    sum.inplace_op2(more, &AddAssign)
}

struct AddAssign;

impl AddAssign {
    fn run<T: StoredElement>(sum: &mut [T], layout: &Layout, more: Arg) -> Result<()> {
        match layout.contiguous_offsets() {
            Some((from, to)) => kernel::add_assign(&mut sum[from..to], slice::<T>(more)?),
            None => bail!("add-assign: expected a contiguous tensor"),
        }
        Ok(())
    }
}

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
        let more = (more, more_layout);
        match sum {
            CpuStorage::F32(sum) => Self::run(sum, layout, more),
            CpuStorage::F64(sum) => Self::run(sum, layout, more),
            CpuStorage::BF16(sum) => Self::run(sum, layout, more),
            _ => bail!("add-assign: expected f32, f64 or bf16"),
        }
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
