//! What lies between the products of a step, on the calling thread.

use super::super::elementwise::Activation;
use super::super::{Stored, vectorized};
use half::bf16;

/// `x = x + more`; slices of one length.
pub fn add(x: &mut [f32], more: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (x, more) in x.iter_mut().zip(more) {
                *x += more;
            }
        },
    );
}

/// `x = max(0, x + more)`, NaN where the sum is; slices of one length.
pub fn add_relu(x: &mut [f32], more: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (x, more) in x.iter_mut().zip(more) {
                *x = Activation::Relu.apply(*x + more);
            }
        },
    );
}

/// `x = (x − mean)·scale + bias` for each channel of each row: batch norm with its moments known.
pub fn affine(x: &mut [f32], mean: &[f32], scale: &[f32], bias: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for row in x.chunks_exact_mut(mean.len()) {
                for (((x, mean), scale), bias) in row.iter_mut().zip(mean).zip(scale).zip(bias) {
                    *x = (*x - mean) * scale + bias;
                }
            }
        },
    );
}

/// Rounds to bf16.
pub fn round(x: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for x in x.iter_mut() {
                *x = bf16::store(*x).load();
            }
        },
    );
}
