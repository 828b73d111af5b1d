//! Slices in, slices out: the arithmetic of the layers, without any tensor type.
//!
//! Activations are channels-last: a *row* is one time step, `in_channels` numbers wide. A dilated
//! convolution is then a sum of matrix products over shifted rows, one per tap:
//!
//! ```text
//! y[r]    = b + Σ_tap  x[r·stride + offset(tap)] · W[tap]        offset(tap) = tap·dilation − pad_left
//! dx[i]   =     Σ_tap dy[(i − offset(tap)) / stride] · W[tap]ᵀ
//! dW[tap] =     Σ_r    x[r·stride + offset(tap)]ᵀ · dy[r]
//! ```
//!
//! In two dimensions a row is one pixel, and taps, strides and offsets have a part along each axis; a
//! sequence is an image of one line, and the kernels are the same.
//!
//! Rows before the first come from the *history* (what a carried window or a streaming state
//! remembers) and are zero beyond it; rows after the last are zero.
//!
//! Every function here is deterministic: work is cut into pieces of a fixed size, so the number of
//! threads never shows in a result.

#![allow(unsafe_code)]

pub mod batch_norm;
mod buffer;
pub mod conv;
pub mod dropout;
pub mod elementwise;
pub mod gather;
mod gemm_crate;
mod instructions;
mod kernel;
pub mod math;
pub mod memory;
mod numbers;
pub mod orthogonal;
#[cfg(target_arch = "x86_64")]
mod packed_gemm;
pub(crate) mod parallel;
pub(crate) mod pieces;
mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod register_blocks;
pub mod rows;
pub mod step;
pub mod sum;
mod unpacked;
pub mod update;

pub use kernel::Kernel;
pub use numbers::{Real, Stored};

/// Columns of the widest panel of packed weights.
const MOST_COLS: usize = 32;

/// FLOP/s that the multiply-add instruction of `kernel` (for `bf16` operands or `f32`) reaches by itself
/// on `threads` threads at once, measured now (about 50 ms): the most that a product can reach. `None`
/// for a kernel without an instruction of its own, or one that the processor lacks.
pub fn ceiling(kernel: Kernel, bf16: bool, threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    return packed_gemm::ceiling(kernel, bf16, threads);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (kernel, bf16, threads);
        None
    }
}
