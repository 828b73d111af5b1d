//! The operations between the products of a step, on the calling thread.

use super::super::elementwise::Activation;
use super::super::instructions::Instructions;
use super::super::pieces::{combine, map_in_place};
use super::super::{Kernel, Stored};
use half::bf16;

/// `x = x + more`; slices of one length.
pub fn add(kernel: Kernel, x: &mut [f32], more: &[f32]) {
    combine(kernel, x, more, |x, more| x + more);
}

/// `x = max(0, x + more)`, NaN where the sum is; slices of one length.
pub fn add_relu(kernel: Kernel, x: &mut [f32], more: &[f32]) {
    combine(kernel, x, more, |x, more| Activation::Relu.apply(x + more));
}

/// `x = x·more`; slices of one length.
pub fn multiply(kernel: Kernel, x: &mut [f32], more: &[f32]) {
    combine(kernel, x, more, |x, more| x * more);
}

/// `x = (x − mean)·scale + bias` for each channel of each row: batch norm with its moments known.
pub fn affine(kernel: Kernel, x: &mut [f32], mean: &[f32], scale: &[f32], bias: &[f32]) {
    kernel.vectorized(
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
pub fn round(kernel: Kernel, x: &mut [f32]) {
    map_in_place(kernel, x, |x| bf16::store(x).load());
}
