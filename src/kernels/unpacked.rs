//! The products of any type of number, by the reference loops or the `gemm` crate: buffers are
//! converted to what is computed with where they are stored otherwise, and back.

use std::borrow::Cow;

use super::conv::{ConvShape, Operands};
use super::pieces::map;
use super::{Kernel, Real, Stored, parallel, portable, reference};

/// Rows of one piece of what is done row by row.
const ROWS: usize = 256;

/// Numbers as they enter a product with activations of type `S`.
fn rounded<'a, S: Stored, T: Stored<Real = S::Real>>(values: &'a [T]) -> Cow<'a, [S::Real]> {
    if size_of::<S>() >= size_of::<T>() {
        return T::reals(values);
    }
    Cow::Owned(values.iter().map(|&x| S::store(x.load()).load()).collect())
}

/// Runs one product.
pub fn run<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    kernel: Kernel,
    shape: &ConvShape,
    operands: Operands<R, X, Y>,
) {
    let oracle = kernel == Kernel::Reference;
    match operands {
        Operands::Forward { x: (x, history), weight, epilogue, y } => {
            let mut sums = vec![R::zero(); y.len()];
            let run = if oracle { reference::forward } else { portable::forward };
            run(shape, &X::reals(x), &X::reals(history), &rounded::<X, R>(weight), &mut sums);
            let piece = ROWS * shape.out_channels;
            let pieces = y.chunks_mut(piece).zip(sums.chunks(piece));
            parallel::for_each(pieces.enumerate(), |(i, (y, sums))| {
                let rows = sums.chunks_exact(shape.out_channels);
                for (sums, y) in rows.zip(y.chunks_exact_mut(shape.out_channels)) {
                    epilogue.store_row(sums, 0, y);
                }
                epilogue.drop_elements(kernel, i * piece, y);
            });
        }
        Operands::GradInput { dy, weight, dx } => {
            let mut sums = vec![R::zero(); dx.len()];
            let run = if oracle { reference::grad_input } else { portable::grad_input };
            run(shape, &rounded::<X, Y>(dy), &rounded::<X, R>(weight), &mut sums);
            map(kernel, &sums, dx, |sum| sum);
        }
        Operands::GradWeight { x: (x, history), dy, dw } => {
            let run = if oracle { reference::grad_weight } else { portable::grad_weight };
            run(shape, &X::reals(x), &X::reals(history), &rounded::<X, Y>(dy), dw);
        }
    }
}
