//! The passes of an optimizer over its buffers: updates in place, and the length of a gradient.

use super::instructions::Instructions;
use super::pieces::{PIECE, each_piece};
use super::{Kernel, Real, parallel};

/// Elements updated at a time.
const BLOCK: usize = 16;

/// `(p, slots) = step(p, g, slots)` for each element: of a parameter, its gradient and the optimizer's
/// `N` moments. Computed in double precision and rounded once; slices of one length.
pub fn update<T: Real, const N: usize>(
    kernel: Kernel,
    param: &mut [T],
    grad: &[T],
    slots: [&mut [T]; N],
    step: impl Fn(f64, f64, [f64; N]) -> (f64, [f64; N]) + Sync,
) {
    let mut slots = slots.map(|slot| slot.chunks_mut(PIECE));
    let pieces = param.chunks_mut(PIECE).zip(grad.chunks(PIECE)).map(|(p, g)| {
        let slots = slots.each_mut().map(|s| s.next().unwrap_or_default());
        (p, g, slots)
    });
    each_piece(
        kernel,
        pieces,
        #[inline(always)]
        |(p, g, slots)| update_piece(p, g, slots, &step),
    );
}

/// Whole blocks, then the rest element by element.
#[inline(always)]
fn update_piece<T: Real, const N: usize>(
    param: &mut [T],
    grad: &[T],
    slots: [&mut [T]; N],
    step: impl Fn(f64, f64, [f64; N]) -> (f64, [f64; N]),
) {
    let (param, param_rest) = param.as_chunks_mut::<BLOCK>();
    let (grad, grad_rest) = grad.as_chunks::<BLOCK>();
    let mut slots = slots.map(|slot| {
        let (blocks, rest) = slot.as_chunks_mut::<BLOCK>();
        (blocks.iter_mut(), rest.iter_mut())
    });
    for (p, g) in param.iter_mut().zip(grad) {
        update_block(p, g, slots.each_mut().map(|s| s.0.next()), &step);
    }
    for (p, g) in param_rest.iter_mut().zip(grad_rest) {
        let slots = slots.each_mut().map(|s| s.1.next().map(std::array::from_mut));
        update_block(std::array::from_mut(p), std::array::from_ref(g), slots, &step);
    }
}

/// Gathers aside first all that is written: the compiler then need not know that the slices do not
/// overlap in order to vectorise.
#[inline(always)]
fn update_block<T: Real, const N: usize, const B: usize>(
    param: &mut [T; B],
    grad: &[T; B],
    slots: [Option<&mut [T; B]>; N],
    step: impl Fn(f64, f64, [f64; N]) -> (f64, [f64; N]),
) {
    let mut old = [[T::zero(); B]; N];
    for (old, slot) in old.iter_mut().zip(&slots) {
        if let Some(slot) = slot {
            *old = **slot;
        }
    }
    let mut new = old;
    let mut new_param = *param;
    for i in 0..B {
        let mut moments = [0.0; N];
        for k in 0..N {
            moments[k] = old[k][i].f64();
        }
        let (p, moments) = step(param[i].f64(), grad[i].f64(), moments);
        new_param[i] = T::of(p);
        for k in 0..N {
            new[k][i] = T::of(moments[k]);
        }
    }
    *param = new_param;
    for (new, slot) in new.iter().zip(slots) {
        if let Some(slot) = slot {
            *slot = *new;
        }
    }
}

/// Σ x² in double precision, in an order that depends on the length alone.
pub fn sum_of_squares<T: Real>(kernel: Kernel, x: &[T]) -> f64 {
    parallel::map(x.chunks(PIECE), |x| sum_piece(kernel, x)).iter().sum()
}

fn sum_piece<T: Real>(kernel: Kernel, x: &[T]) -> f64 {
    kernel.vectorized(
        #[inline(always)]
        || {
            let mut lanes = [0f64; 16];
            let (chunks, rest) = x.as_chunks::<16>();
            for chunk in chunks {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane += x.f64() * x.f64();
                }
            }
            for (lane, x) in lanes.iter_mut().zip(rest) {
                *lane += x.f64() * x.f64();
            }
            lanes.iter().sum()
        },
    )
}
