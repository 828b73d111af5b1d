//! The products of any type of number, by the reference loops or the `gemm` crate: buffers are
//! converted to what is computed with where they are stored otherwise, and back.

use std::borrow::Cow;

use rayon::prelude::*;

use super::conv::{ConvShape, Epilogue};
use super::{Kernel, Real, Stored, portable, reference};

/// Rows of one piece of what is done row by row.
const ROWS: usize = 256;

/// Numbers as they enter a product with activations of type `S`.
fn operands<'a, S: Stored, T: Stored<Real = S::Real>>(values: &'a [T]) -> Cow<'a, [S::Real]> {
    if size_of::<S>() >= size_of::<T>() {
        return T::reals(values);
    }
    Cow::Owned(values.iter().map(|&x| S::store(x.load()).load()).collect())
}

/// See [`super::conv::forward`].
pub fn forward<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &ConvShape,
    (x, history): (&[X], &[X]),
    weight: &[R],
    epilogue: &Epilogue<R>,
    y: &mut [Y],
) {
    let mut sums = vec![R::zero(); y.len()];
    let run = match Kernel::current() {
        Kernel::Reference => reference::forward,
        _ => portable::forward,
    };
    let weight = operands::<X, R>(weight);
    run(shape, &X::reals(x), &X::reals(history), &weight, &mut sums);
    let piece = ROWS * shape.out_channels;
    let pieces = y.par_chunks_mut(piece).zip(sums.par_chunks(piece));
    pieces.enumerate().for_each(|(i, (y, sums))| {
        let rows = sums.chunks_exact(shape.out_channels);
        for (sums, y) in rows.zip(y.chunks_exact_mut(shape.out_channels)) {
            epilogue.store_row(sums, 0, y);
        }
        epilogue.drop_elements(i * piece, y);
    });
}

/// See [`super::conv::grad_input`].
pub fn grad_input<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &ConvShape,
    dy: &[Y],
    weight: &[R],
    dx: &mut [X],
) {
    let mut sums = vec![R::zero(); dx.len()];
    let run = match Kernel::current() {
        Kernel::Reference => reference::grad_input,
        _ => portable::grad_input,
    };
    let (dy, weight) = (operands::<X, Y>(dy), operands::<X, R>(weight));
    run(shape, &dy, &weight, &mut sums);
    let pieces = dx.par_iter_mut().zip(sums).with_min_len(1 << 14);
    pieces.for_each(|(dx, sum)| *dx = X::store(sum));
}

/// See [`super::conv::grad_weight`].
pub fn grad_weight<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &ConvShape,
    (x, history): (&[X], &[X]),
    dy: &[Y],
    dw: &mut [R],
) {
    let run = match Kernel::current() {
        Kernel::Reference => reference::grad_weight,
        _ => portable::grad_weight,
    };
    run(shape, &X::reals(x), &X::reals(history), &operands::<X, Y>(dy), dw);
}
