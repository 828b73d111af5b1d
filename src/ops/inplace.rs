//! Elementwise passes over CPU tensors that write where they read, without temporaries.
//!
//! candle's own elementwise operations allocate one tensor each; an optimizer step written with
//! them is a dozen allocations and passes per parameter. Here each formula is one pass. Elements
//! are widened to f64, the formula is computed there, and the result is rounded once.

use candle_core::{
    CpuStorage, CustomOp1, DType, InplaceOp2, InplaceOp3, Layout, Result, Shape, Tensor, bail,
};

use super::slice;

/// Whether [`zip2`] and [`zip3`] work on this tensor: f32 or f64 on the CPU.
pub(crate) fn is_supported(xs: &Tensor) -> bool {
    xs.device().is_cpu() && matches!(xs.dtype(), DType::F32 | DType::F64)
}

/// `x[i] = f(x[i], a[i])` in place; equal shapes, both contiguous, f32 or f64 on the CPU.
pub(crate) fn zip2(xs: &Tensor, a: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<()> {
    same_shape(xs, a)?;
    xs.inplace_op2(a, &Zip2(f))
}

/// `x[i] = f(x[i], a[i], b[i])` in place; equal shapes, all contiguous, f32 or f64 on the CPU.
pub(crate) fn zip3(
    xs: &Tensor,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f64, f64, f64) -> f64,
) -> Result<()> {
    same_shape(xs, a)?;
    same_shape(xs, b)?;
    xs.inplace_op3(a, b, &Zip3(f))
}

/// Σ x² of a tensor of any layout and device. On the CPU the sum is taken in f64 in an order fixed
/// by the number of elements alone.
pub(crate) fn sum_of_squares(xs: &Tensor) -> Result<f64> {
    let xs = xs.contiguous()?;
    let sum = if is_supported(&xs) {
        xs.apply_op1_no_bwd(&SumOfSquares)?
    } else {
        let sum = xs.to_dtype(DType::F32)?.sqr()?.sum_all()?;
        sum.to_device(&candle_core::Device::Cpu)?
            .to_dtype(DType::F64)?
    };
    sum.to_scalar::<f64>()
}

fn same_shape(xs: &Tensor, other: &Tensor) -> Result<()> {
    if xs.shape() != other.shape() {
        bail!(
            "in-place pass: expected shape {:?}, found {:?}",
            xs.shape(),
            other.shape()
        )
    }
    Ok(())
}

struct Zip2<F>(F);

impl<F: Fn(f64, f64) -> f64> InplaceOp2 for Zip2<F> {
    fn name(&self) -> &'static str {
        "zip2"
    }

    fn cpu_fwd(
        &self,
        xs: &mut CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
    ) -> Result<()> {
        let f = &self.0;
        match xs {
            CpuStorage::F32(xs) => {
                let a = slice::<f32>((a, a_layout))?;
                for (x, &a) in slice_mut(xs, layout)?.iter_mut().zip(a) {
                    *x = f(f64::from(*x), f64::from(a)) as f32;
                }
            }
            CpuStorage::F64(xs) => {
                let a = slice::<f64>((a, a_layout))?;
                for (x, &a) in slice_mut(xs, layout)?.iter_mut().zip(a) {
                    *x = f(*x, a);
                }
            }
            _ => bail!("zip2: expected an f32 or f64 tensor"),
        }
        Ok(())
    }
}

struct Zip3<F>(F);

impl<F: Fn(f64, f64, f64) -> f64> InplaceOp3 for Zip3<F> {
    fn name(&self) -> &'static str {
        "zip3"
    }

    fn cpu_fwd(
        &self,
        xs: &mut CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        let f = &self.0;
        match xs {
            CpuStorage::F32(xs) => {
                let (a, b) = (slice::<f32>((a, a_layout))?, slice::<f32>((b, b_layout))?);
                for ((x, &a), &b) in slice_mut(xs, layout)?.iter_mut().zip(a).zip(b) {
                    *x = f(f64::from(*x), f64::from(a), f64::from(b)) as f32;
                }
            }
            CpuStorage::F64(xs) => {
                let (a, b) = (slice::<f64>((a, a_layout))?, slice::<f64>((b, b_layout))?);
                for ((x, &a), &b) in slice_mut(xs, layout)?.iter_mut().zip(a).zip(b) {
                    *x = f(*x, a, b);
                }
            }
            _ => bail!("zip3: expected an f32 or f64 tensor"),
        }
        Ok(())
    }
}

struct SumOfSquares;

impl CustomOp1 for SumOfSquares {
    fn name(&self) -> &'static str {
        "sum-of-squares"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sum = match xs {
            CpuStorage::F32(_) => fold_squares(slice::<f32>((xs, layout))?),
            CpuStorage::F64(_) => fold_squares(slice::<f64>((xs, layout))?),
            _ => bail!("sum-of-squares: expected an f32 or f64 tensor"),
        };
        Ok((CpuStorage::F64(vec![sum]), Shape::from(())))
    }
}

/// Eight running sums, so that additions need not wait for each other.
fn fold_squares<T: Copy + Into<f64>>(xs: &[T]) -> f64 {
    let mut lanes = [0f64; 8];
    for chunk in xs.chunks(lanes.len()) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            let x: f64 = x.into();
            *lane += x * x;
        }
    }
    lanes.iter().sum()
}

fn slice_mut<'a, T>(data: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&mut data[from..to]),
        None => bail!("in-place pass: expected a contiguous tensor, found {layout:?}"),
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
            zip2(&xs.narrow(0, 1, 2)?, &ones, |x, a| 10. * x + a)?;
            zip3(&xs.narrow(0, 4, 2)?, &ones, &ones, |x, a, b| -x + a + b)?;
            let found = xs.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            assert_eq!(found, [0., 11., 21., 3., -2., -3.]);
        }
        Ok(())
    }

    #[test]
    fn refuses_what_it_cannot_write() -> Result<()> {
        let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let wide = Tensor::zeros((2, 3), DType::F64, &Device::Cpu)?;
        let strided = Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?.t()?;
        assert!(zip2(&xs, &wide, |x, _| x).is_err());
        assert!(zip2(&xs, &strided, |x, _| x).is_err());
        assert!(zip3(&strided, &xs, &xs, |x, _, _| x).is_err());
        assert!(zip2(&xs, &xs, |x, _| x).is_err());
        assert!(zip2(&xs, &xs.narrow(0, 0, 1)?.copy()?, |x, _| x).is_err());
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
