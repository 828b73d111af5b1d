//! Loops over numbers and rows in one shape: cut into pieces of a fixed size, so that the number of threads
//! never shows in a result, and compiled for the vector instructions of a kernel.
//!
//! A closure that is passed here must be `#[inline(always)]` unless it is a few instructions long: what is
//! not inlined is compiled without those instructions, and called once for each number. It must be `Copy`, and
//! `move` what it captures: a copy on the stack of the loop stays in registers, where the original would be read
//! again after every store.

use super::instructions::Instructions;
use super::{Kernel, Stored, parallel};

/// Numbers of one piece of work.
pub const PIECE: usize = 1 << 14;

/// Numbers of the whole rows of `width` that make about a piece.
pub fn whole_rows(width: usize) -> usize {
    (PIECE / width.max(1)).max(1) * width.max(1)
}

/// Shares `pieces` out to all threads.
pub fn each_piece<P: Send>(
    kernel: Kernel,
    pieces: impl Iterator<Item = P>,
    work: impl Fn(P) + Sync,
) {
    parallel::for_each(pieces, |piece| {
        kernel.vectorized(
            #[inline(always)]
            || work(piece),
        );
    });
}

/// `y = f(x)`, number by number; slices of one length.
pub fn map<X: Stored, Y: Stored<Real = X::Real>>(
    kernel: Kernel,
    x: &[X],
    y: &mut [Y],
    f: impl Fn(X::Real) -> X::Real + Copy + Sync,
) {
    each_piece(
        kernel,
        y.chunks_mut(PIECE).zip(x.chunks(PIECE)),
        #[inline(always)]
        |(y, x)| {
            let own = f;
            for (y, x) in y.iter_mut().zip(x) {
                *y = Y::store(own(x.load()));
            }
        },
    );
}

/// `out = f(a, b)`, number by number; slices of one length.
pub fn map_pairs<T: Stored>(
    kernel: Kernel,
    a: &[T],
    b: &[T],
    out: &mut [T],
    f: impl Fn(T::Real, T::Real) -> T::Real + Copy + Sync,
) {
    each_piece(
        kernel,
        out.chunks_mut(PIECE).zip(a.chunks(PIECE)).zip(b.chunks(PIECE)),
        #[inline(always)]
        |((out, a), b)| {
            let own = f;
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = T::store(own(a.load(), b.load()));
            }
        },
    );
}

/// `x = f(x)`, number by number, on the calling thread.
pub fn map_in_place<T: Stored>(kernel: Kernel, xs: &mut [T], f: impl Fn(T::Real) -> T::Real) {
    kernel.vectorized(
        #[inline(always)]
        || {
            for x in xs {
                *x = T::store(f(x.load()));
            }
        },
    );
}

/// `x = f(x, y)`, number by number, on the calling thread; slices of one length.
pub fn combine<T: Stored>(
    kernel: Kernel,
    xs: &mut [T],
    ys: &[T],
    f: impl Fn(T::Real, T::Real) -> T::Real,
) {
    kernel.vectorized(
        #[inline(always)]
        || {
            for (x, y) in xs.iter_mut().zip(ys) {
                *x = T::store(f(x.load(), y.load()));
            }
        },
    );
}
