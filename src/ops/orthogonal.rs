//! The orthogonal part of matrices.

use candle_core::{D, DType, Result, Tensor};
use half::bf16;

use super::op::{Arg, Computed, on_cpu};
use super::{StoredElement, tensor, zeros};
use crate::kernels::orthogonal::POLYNOMIAL;
use crate::kernels::{Kernel, Real, Stored, orthogonal as kernel};

/// Brings the singular values of `xs` (rows, columns, perhaps taps: each by itself) near 1, by iterations of Newton and
/// Schulz with operands of `dtype`; the result is of the type of `xs`.
pub(crate) fn orthogonal(xs: &Tensor, iterations: usize, dtype: DType) -> Result<Tensor> {
    if !xs.device().is_cpu() {
        return primitives(xs, iterations);
    }
    let ys = on_cpu(&[&xs.contiguous()?], |args| match (args[0].dtype(), dtype) {
        (DType::F32, DType::BF16) => of_taps::<f32, bf16>(args[0], iterations),
        (DType::F32, _) => of_taps::<f32, f32>(args[0], iterations),
        (DType::F64, _) => of_taps::<f64, f64>(args[0], iterations),
        (other, _) => candle_core::bail!("orthogonal: expected f32 or f64, found {other:?}"),
    })?;
    Ok(tensor(ys))
}

fn of_taps<T: StoredElement<Real = T> + Real, X: Stored<Real = T>>(
    xs: Arg,
    iterations: usize,
) -> Computed {
    let (shape, data) = (xs.shape().clone(), xs.slice::<T>()?);
    let (rows, columns) = (shape.dims()[0], shape.dims()[1]);
    let taps = shape.elem_count() / (rows * columns).max(1);
    // the smaller side makes the smaller products
    let is_wide = columns > rows;
    let (long, short) = if is_wide { (columns, rows) } else { (rows, columns) };
    let mut ys = zeros::<T>(data.len());
    // distances in memory from a row of the matrix to the next, and from a column
    let (down, along) = if is_wide { (taps, columns * taps) } else { (columns * taps, taps) };
    for tap in 0..taps {
        let places = || {
            let row = move |row| (0..short).map(move |column| row * down + column * along + tap);
            (0..long).flat_map(row)
        };
        let squares: f64 = places().map(|place| data[place].to_f64().powi(2)).sum();
        let factor = T::of(1. / squares.sqrt().max(1e-7));
        let mut matrix: Vec<X> = places().map(|place| X::store(data[place] * factor)).collect();
        kernel::orthogonal(Kernel::best(), (long, short), &mut matrix, iterations)?;
        for (place, y) in places().zip(matrix) {
            ys[place] = y.load();
        }
    }
    Ok((T::to_cpu_storage_owned(ys), shape))
}

/// The same in candle's own operations, in the type of `xs`.
fn primitives(xs: &Tensor, iterations: usize) -> Result<Tensor> {
    let (shape, taps) = (xs.shape(), xs.elem_count() / (xs.dim(0)? * xs.dim(1)?));
    let matrices = xs.reshape((xs.dim(0)?, xs.dim(1)?, taps))?.permute((2, 0, 1))?;
    let is_wide = matrices.dim(2)? > matrices.dim(1)?;
    let mut y = if is_wide { matrices.t()? } else { matrices }.contiguous()?;
    let length = y.sqr()?.sum_keepdim((D::Minus2, D::Minus1))?.sqrt()?;
    y = y.broadcast_div(&length.maximum(1e-7)?)?;
    let [a, b, c] = POLYNOMIAL;
    for _ in 0..iterations {
        let square = y.t()?.contiguous()?.matmul(&y)?;
        let polynomial = ((&square * b)? + (square.matmul(&square)? * c)?)?;
        y = ((&y * a)? + y.matmul(&polynomial)?)?;
    }
    let y = if is_wide { y.t()? } else { y };
    y.permute((1, 2, 0))?.contiguous()?.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_kernel_agrees_with_primitives_and_values_come_near_one() -> Result<()> {
        for shape in [(6, 4, 1), (4, 6, 3), (5, 5, 2), (40, 70, 1)] {
            let count = shape.0 * shape.1 * shape.2;
            let xs =
                Tensor::arange(0., count as f64, &Device::Cpu)?.sqr()?.sin()?.reshape(shape)?;
            let expected = primitives(&xs, 5)?;
            let far = |ys: Tensor| -> Result<f64> {
                let difference = (ys.to_dtype(DType::F64)? - &expected)?.abs()?;
                difference.flatten_all()?.max(0)?.to_scalar()
            };
            assert!(far(orthogonal(&xs, 5, DType::F64)?)? < 1e-12, "{shape:?}");
            let xs = xs.to_dtype(DType::F32)?;
            assert!(far(orthogonal(&xs, 5, DType::F32)?)? < 1e-4, "{shape:?}");
            assert!(far(orthogonal(&xs, 5, DType::BF16)?)? < 0.2, "{shape:?}");
            for tap in 0..shape.2 {
                // the sum of squares is that of the singular values
                let squares = expected.narrow(2, tap, 1)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
                let mean = squares / shape.0.min(shape.1) as f64;
                assert!((0.4..1.4).contains(&mean), "{shape:?}: {mean}");
            }
        }
        Ok(())
    }
}
