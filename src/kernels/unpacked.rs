//! The products of any type of number, by the reference loops or the `gemm` crate: buffers are
//! converted to what is computed with, and back.

use std::borrow::Cow;

use super::conv1d::{Conv1dShape, Epilogue};
use super::{Kernel, Real, Stored, portable, reference};

/// The numbers of a buffer as they are computed with.
fn reals<S: Stored>(stored: &[S]) -> Vec<S::Real> {
    stored.iter().map(|&x| x.load()).collect()
}

/// `values`, rounded as numbers of type `S` are.
fn rounded<S: Stored>(values: impl Iterator<Item = S::Real>) -> Vec<S::Real> {
    values.map(|x| S::store(x).load()).collect()
}

/// A weight as it enters a product with activations of type `S`.
fn operand<S: Stored>(weight: &[S::Real]) -> Cow<'_, [S::Real]> {
    if size_of::<S>() == size_of::<S::Real>() {
        Cow::Borrowed(weight)
    } else {
        Cow::Owned(rounded::<S>(weight.iter().copied()))
    }
}

/// See [`super::conv1d::forward`].
pub fn forward<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &Conv1dShape,
    (x, history): (&[X], &[X]),
    weight: &[R],
    epilogue: &Epilogue<R>,
    y: &mut [Y],
) {
    let (x, history, weight) = (reals(x), reals(history), operand::<X>(weight));
    let mut sums = vec![R::zero(); y.len()];
    let run = match Kernel::current() {
        Kernel::Reference => reference::forward,
        _ => portable::forward,
    };
    run(shape, &x, &history, &weight, None, &mut sums);
    let rows = sums.chunks_exact(shape.out_channels);
    for (sums, y) in rows.zip(y.chunks_exact_mut(shape.out_channels)) {
        epilogue.store_row(sums, 0, y);
    }
    epilogue.drop_elements(0, y);
}

/// See [`super::conv1d::grad_input`].
pub fn grad_input<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &Conv1dShape,
    dy: &[Y],
    weight: &[R],
    dx: &mut [X],
) {
    let dy = rounded::<X>(dy.iter().map(|&x| x.load()));
    let weight = operand::<X>(weight);
    let mut sums = vec![R::zero(); dx.len()];
    let run = match Kernel::current() {
        Kernel::Reference => reference::grad_input,
        _ => portable::grad_input,
    };
    run(shape, &dy, &weight, &mut sums);
    dx.iter_mut()
        .zip(sums)
        .for_each(|(dx, x)| *dx = X::store(x));
}

/// See [`super::conv1d::grad_weight`].
pub fn grad_weight<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &Conv1dShape,
    (x, history): (&[X], &[X]),
    dy: &[Y],
    dw: &mut [R],
) {
    let (x, history) = (reals(x), reals(history));
    let dy = rounded::<X>(dy.iter().map(|&x| x.load()));
    let run = match Kernel::current() {
        Kernel::Reference => reference::grad_weight,
        _ => portable::grad_weight,
    };
    run(shape, &x, &history, &dy, dw);
}
