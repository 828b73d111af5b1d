//! Sums of two activations: the residual, and gradients that meet.

use num_traits::Zero;

use super::elementwise::Activation;
use super::pieces::{PIECE, combine, map_pairs};
use super::{Kernel, Stored, parallel};

/// `out = a + b`; slices of one length.
pub fn add<T: Stored>(kernel: Kernel, a: &[T], b: &[T], out: &mut [T]) {
    map_pairs(kernel, a, b, out, |a, b| a + b);
}

/// `out = max(0, a + b)`, not a number where the sum is none; slices of one length.
pub fn add_relu<T: Stored>(kernel: Kernel, a: &[T], b: &[T], out: &mut [T]) {
    map_pairs(kernel, a, b, out, |a, b| Activation::Relu.apply(a + b));
}

/// The gradient of [`add_relu`] by either argument, from its result `y`: `dy` where `y > 0`.
pub fn add_relu_grad<T: Stored>(kernel: Kernel, y: &[T], dy: &[T], out: &mut [T]) {
    map_pairs(kernel, y, dy, out, |y, dy| if y > T::Real::zero() { dy } else { T::Real::zero() });
}

/// `sum += more`; slices of one length.
pub fn add_assign<T: Stored>(kernel: Kernel, sum: &mut [T], more: &[T]) {
    let pieces = sum.chunks_mut(PIECE).zip(more.chunks(PIECE));
    parallel::for_each(pieces, |(sum, more)| {
        combine(kernel, sum, more, |sum, more| sum + more);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    const KERNEL: Kernel = Kernel::Portable;

    fn by_hand<T: Stored>() -> [Vec<f64>; 4] {
        use crate::kernels::Real;
        let stored =
            |v: &[f64]| -> Vec<T> { v.iter().map(|&v| T::store(T::Real::of(v))).collect() };
        let read = |v: &[T]| v.iter().map(|v| v.load().f64()).collect();
        let (a, b) = (stored(&[1., -2., 0.5]), stored(&[2., 1., -0.5]));
        let (mut sum, mut relu, mut grad) = (a.clone(), a.clone(), a.clone());
        add(KERNEL, &a, &b, &mut sum);
        add_relu(KERNEL, &a, &b, &mut relu);
        add_relu_grad(KERNEL, &relu, &b, &mut grad);
        let mut assigned = a.clone();
        add_assign(KERNEL, &mut assigned, &b);
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
        add_relu(KERNEL, &[f32::NAN, 1.0], &[0.0, f32::NAN], &mut y);
        assert!(y.iter().all(|y| y.is_nan()));
    }
}
