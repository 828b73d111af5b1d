//! Sums of two activations: the residual, and gradients that meet.

use num_traits::Zero;
use rayon::prelude::*;

use super::elementwise::Activation;
use super::{Stored, vectorized};

/// Elements of one piece of work.
const PIECE: usize = 1 << 14;

/// `f` of each pair, into `out`; slices of one length.
fn zip<T: Stored>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T::Real, T::Real) -> T::Real + Sync) {
    let pieces = out.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE));
    pieces.for_each(|((out, a), b)| {
        vectorized(
            #[inline(always)]
            || {
                for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *out = T::store(f(a.load(), b.load()));
                }
            },
        );
    });
}

/// `out = a + b`; slices of one length.
pub fn add<T: Stored>(a: &[T], b: &[T], out: &mut [T]) {
    zip(a, b, out, |a, b| a + b);
}

/// `out = max(0, a + b)`, not a number where the sum is none; slices of one length.
pub fn add_relu<T: Stored>(a: &[T], b: &[T], out: &mut [T]) {
    zip(a, b, out, |a, b| Activation::Relu.apply(a + b));
}

/// The gradient of [`add_relu`] by either argument, from its result `y`: `dy` where `y > 0`.
pub fn add_relu_grad<T: Stored>(y: &[T], dy: &[T], out: &mut [T]) {
    zip(y, dy, out, |y, dy| if y > T::Real::zero() { dy } else { T::Real::zero() });
}

/// `sum += more`; slices of one length.
pub fn add_assign<T: Stored>(sum: &mut [T], more: &[T]) {
    let pieces = sum.par_chunks_mut(PIECE).zip(more.par_chunks(PIECE));
    pieces.for_each(|(sum, more)| {
        vectorized(
            #[inline(always)]
            || {
                for (sum, &more) in sum.iter_mut().zip(more) {
                    *sum = T::store(sum.load() + more.load());
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn by_hand<T: Stored>() -> [Vec<f64>; 4] {
        use crate::kernels::Real;
        let stored =
            |v: &[f64]| -> Vec<T> { v.iter().map(|&v| T::store(T::Real::of(v))).collect() };
        let read = |v: &[T]| v.iter().map(|v| v.load().f64()).collect();
        let (a, b) = (stored(&[1., -2., 0.5]), stored(&[2., 1., -0.5]));
        let (mut sum, mut relu, mut grad) = (a.clone(), a.clone(), a.clone());
        add(&a, &b, &mut sum);
        add_relu(&a, &b, &mut relu);
        add_relu_grad(&relu, &b, &mut grad);
        let mut assigned = a.clone();
        add_assign(&mut assigned, &b);
        [read(&sum), read(&relu), read(&grad), read(&assigned)]
    }

    #[test]
    fn sums_by_hand_in_every_type() {
        let expected = [vec![3., -1., 0.], vec![3., 0., 0.], vec![2., 0., 0.], vec![3., -1., 0.]];
        assert_eq!(by_hand::<f32>(), expected);
        assert_eq!(by_hand::<f64>(), expected);
        assert_eq!(by_hand::<bf16>(), expected);
    }

    #[test]
    fn a_sum_that_is_no_number_stays_so() {
        let mut y = [0f32; 2];
        add_relu(&[f32::NAN, 1.0], &[0.0, f32::NAN], &mut y);
        assert!(y.iter().all(|y| y.is_nan()));
    }
}
