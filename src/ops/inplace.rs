//! Optimizer passes over CPU tensors that write where they read, without temporaries.
//!
//! candle's own elementwise operations allocate one tensor each; an optimizer step written with
//! them is a dozen allocations and passes per parameter. Here each parameter is one pass. Elements
//! are widened to f64, the formula is computed there, and the result is rounded once.

use std::cell::Cell;

use candle_core::{
    CpuStorage, CustomOp1, DType, InplaceOp1, InplaceOp2, Layout, Result, Shape, Tensor, bail,
};

use super::Element;
use super::op::{Arg, Computed};
use crate::kernels::{Kernel, update};

/// `true` if [`update`] works on this tensor: f32 or f64 on the CPU.
pub(crate) fn is_supported(xs: &Tensor) -> bool {
    xs.device().is_cpu() && matches!(xs.dtype(), DType::F32 | DType::F64)
}

/// `(x[i], slots[..][i]) = step(x[i], grad[i], slots[..][i])` in place; tensors of one shape and dtype,
/// all contiguous, f32 or f64 on the CPU, each with a storage of its own. `step` should be
/// `#[inline(always)]`.
pub(crate) fn update<const N: usize>(
    xs: &Tensor,
    grad: &Tensor,
    slots: [&Tensor; N],
    step: impl Fn(f64, f64, [f64; N]) -> (f64, [f64; N]) + Sync,
) -> Result<()> {
    for other in slots.iter().chain([&grad]) {
        same_shape(xs, other)?;
    }
    match xs.dtype() {
        DType::F32 => update_as::<f32, N>(xs, grad, slots, step),
        DType::F64 => update_as::<f64, N>(xs, grad, slots, step),
        other => bail!("update: expected an f32 or f64 tensor, found {other:?}"),
    }
}

fn update_as<T: Number, const N: usize>(
    xs: &Tensor,
    grad: &Tensor,
    slots: [&Tensor; N],
    step: impl Fn(f64, f64, [f64; N]) -> (f64, [f64; N]) + Sync,
) -> Result<()> {
    with_slices::<T>(&slots, Vec::new(), &mut |slots| match slots.try_into() {
        Ok(slots) => xs.inplace_op2(grad, &Update { slots: Cell::new(Some(slots)), step: &step }),
        Err(_) => bail!("update: expected {N} moments"),
    })
}

/// Calls `run` with the elements of `taken` and of `tensors`, all of them held at once.
fn with_slices<T: Number>(
    tensors: &[&Tensor],
    taken: Vec<&mut [T]>,
    run: &mut dyn FnMut(Vec<&mut [T]>) -> Result<()>,
) -> Result<()> {
    let Some((first, rest)) = tensors.split_first() else {
        return run(taken);
    };
    let hold = |storage: &mut CpuStorage, layout: &Layout| {
        let mut taken = taken;
        taken.push(slice_mut(storage, layout)?);
        with_slices(rest, taken, run)
    };
    first.inplace_op1(&Hold(Cell::new(Some(hold))))
}

/// Candle lends a storage for writing only within an operation: this one calls a function with it.
struct Hold<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Hold<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match self.0.take() {
            Some(run) => run(storage, layout),
            None => Ok(()),
        }
    }
}

struct Update<'a, T, F, const N: usize> {
    slots: Cell<Option<[&'a mut [T]; N]>>,
    step: F,
}

impl<T: Number, F, const N: usize> InplaceOp2 for Update<'_, T, F, N>
where
    F: Fn(f64, f64, [f64; N]) -> (f64, [f64; N]) + Sync,
{
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(
        &self,
        xs: &mut CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let (xs, grad) = (slice_mut(xs, layout)?, Arg::new(grad, grad_layout).slice::<T>()?);
        if let Some(slots) = self.slots.take() {
            update::update(Kernel::best(), xs, grad, slots, &self.step);
        }
        Ok(())
    }
}

/// A number whose storage can be written.
trait Number: Element {
    fn numbers(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Number for f32 {
    fn numbers(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(data) => Some(data),
            _ => None,
        }
    }
}

impl Number for f64 {
    fn numbers(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(data) => Some(data),
            _ => None,
        }
    }
}

fn slice_mut<'a, T: Number>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [T]> {
    match (T::numbers(storage), layout.contiguous_offsets()) {
        (Some(data), Some((from, to))) => Ok(&mut data[from..to]),
        (None, _) => bail!("update: expected tensors of one dtype"),
        (_, None) => bail!("update: expected a contiguous tensor, found {layout:?}"),
    }
}

/// Σ x² of a tensor of any layout and device. On the CPU the sum is taken in f64 in an order fixed
/// by the number of elements alone.
pub(crate) fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    let xs = xs.contiguous()?;
    let sum = if is_supported(&xs) {
        xs.apply_op1_no_bwd(&SumOfSquares)?
    } else {
        let sum = xs.to_dtype(DType::F32)?.sqr()?.sum_all()?;
        sum.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?
    };
    sum.to_scalar::<f64>()
}

fn same_shape(xs: &Tensor, other: &Tensor) -> Result<()> {
    if xs.shape() != other.shape() {
        bail!("in-place pass: expected shape {:?}, found {:?}", xs.shape(), other.shape())
    }
    Ok(())
}

struct SumOfSquares;

impl CustomOp1 for SumOfSquares {
    fn name(&self) -> &'static str {
        "sum-of-squares"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Computed {
        let (kernel, storage, xs) = (Kernel::best(), xs, Arg::new(xs, layout));
        let sum = match storage {
            CpuStorage::F32(_) => update::sum_of_squares(kernel, xs.slice::<f32>()?),
            CpuStorage::F64(_) => update::sum_of_squares(kernel, xs.slice::<f64>()?),
            _ => bail!("sum-of-squares: expected an f32 or f64 tensor"),
        };
        Ok((CpuStorage::F64(vec![sum]), Shape::from(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn writes_only_the_elements_of_the_view() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let xs = Var::from_tensor(&Tensor::arange(0f64, 6., &Device::Cpu)?.to_dtype(dtype)?)?;
            let ones = Tensor::ones(2, dtype, &Device::Cpu)?;
            update(&xs.narrow(0, 1, 2)?, &ones, [], |x, g, []| (10. * x + g, []))?;
            let slot = Var::from_tensor(&ones)?;
            update(&xs.narrow(0, 4, 2)?, &ones, [&slot], |x, g, [s]| (s + g - x, [2. * s]))?;
            let found = xs.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            assert_eq!(found, [0., 11., 21., 3., -2., -3.]);
            let slot = slot.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            assert_eq!(slot, [2., 2.]);
        }
        Ok(())
    }

    #[test]
    fn refuses_what_it_cannot_write() -> Result<()> {
        let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let wide = Tensor::zeros((2, 3), DType::F64, &Device::Cpu)?;
        let strided = Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?.t()?;
        let own = xs.copy()?;
        let refused = |xs: &Tensor, grad: &Tensor, slot: &Tensor| {
            update(xs, grad, [slot], |x, _, s| (x, s)).is_err()
        };
        assert!(!refused(&xs, &own, &own.copy()?));
        assert!(refused(&xs, &wide, &own));
        assert!(refused(&xs, &own, &wide));
        assert!(refused(&xs, &strided, &own));
        assert!(refused(&strided, &xs, &own));
        assert!(refused(&xs, &xs, &own));
        assert!(refused(&xs, &xs.narrow(0, 0, 1)?.copy()?, &own));
        Ok(())
    }

    #[test]
    fn sums_squares_of_any_layout() -> Result<()> {
        let xs = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((3, 4))?;
        // 0² + 1² + … + 11²
        assert_eq!(sum_of_squares(&xs.t()?)?, 506.);
        assert_eq!(sum_of_squares(&xs.to_dtype(DType::F64)?)?, 506.);
        assert_eq!(sum_of_squares(&xs.to_dtype(DType::BF16)?)?, 506.);
        assert_eq!(sum_of_squares(&xs.narrow(1, 3, 1)?)?, 9. + 49. + 121.);
        Ok(())
    }
}
