//! The orthogonal part of matrices, by products alone.

use super::conv::{self, Axis, ConvShape, RowEpilogue};
use super::{Kernel, Real, Stored};
use crate::Result;

/// Coefficients of x, x³ and x⁵ in the polynomial that moves singular values from (0, 1] to about 1 (Jordan 2024).
pub const POLYNOMIAL: [f64; 3] = [3.4445, -4.775, 2.0315];

/// Brings the singular values of `y` (rows, columns), which are at most 1, to about 1 in so many iterations. It should
/// have no fewer rows than columns, since the products are as large as its columns are many.
///
/// # Numerics
/// Operands are of type `X`; sums, and the polynomial of yᵀy, of the type that it is computed with.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) where the slice is not as long as its sizes say.
pub fn orthogonal<R: Real, X: Stored<Real = R>>(
    kernel: Kernel,
    (rows, columns): (usize, usize),
    y: &mut Vec<X>,
    iterations: usize,
) -> Result<()> {
    let [a, b, c] = POLYNOMIAL.map(R::of);
    let mut square = vec![R::zero(); columns * columns];
    let mut fourth = square.clone();
    let mut next = y.clone();
    for _ in 0..iterations {
        conv::grad_weight(kernel, &linear(rows, columns), y, &[], y, &mut square)?;
        let operand: Vec<X> = square.iter().map(|&x| X::store(x)).collect();
        times(kernel, (columns, columns), &operand, &square, &mut fourth)?;
        for (i, (square, &fourth)) in square.iter_mut().zip(&fourth).enumerate() {
            *square = b * *square + c * fourth;
            if i % (columns + 1) == 0 {
                *square += a;
            }
        }
        times(kernel, (rows, columns), y, &square, &mut next)?;
        std::mem::swap(y, &mut next);
    }
    Ok(())
}

/// `ys = xs · m`, with `m` symmetric.
fn times<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    kernel: Kernel,
    (rows, columns): (usize, usize),
    xs: &[X],
    m: &[R],
    ys: &mut [Y],
) -> Result<()> {
    let plain = RowEpilogue { bias: None, relu: false, dropout: None };
    conv::forward(kernel, &linear(rows, columns), xs, &[], m, &plain, ys)
}

/// A product of so many rows with a square matrix, as a convolution of one tap.
fn linear(rows: usize, columns: usize) -> ConvShape {
    let width = Axis { in_len: rows, out_len: rows, ..Axis::ONE };
    let height = Axis::ONE;
    ConvShape {
        batch: 1,
        in_channels: columns,
        out_channels: columns,
        groups: 1,
        height,
        width,
        history: 0,
    }
}
