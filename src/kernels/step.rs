//! Products of few rows with weights that stay: what one step of a stream consists of.
//!
//! A step of a convolution reads one row for each sequence, all its taps side by side, and every
//! weight once: `y[r] = b + W·x[r]`. For one sequence the time goes into reading the weights, so they lie
//! as they are read, in as few bytes as wanted, and are packed once for all steps.
//!
//! Each output is summed in the same order whatever the number of rows, so that a sequence gets the same
//! numbers alone and in a batch, bit for bit (except from AMX tiles, which add in an order of their own).

mod block;
mod lanes;
mod pack;
mod pointwise;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use pack::{StepWeights, quantize, round_weight};
pub use pointwise::{add, add_relu, affine, round};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Kernel;
use block::{Bytes, Pairs, Singles, rows_of_panels};
use lanes::Plain;

/// How the weights of a step are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepDtype {
    /// As they are: 4 bytes each, computed in `f32`.
    F32,
    /// Rounded to bf16: 2 bytes each; activations are rounded too, sums are `f32`.
    Bf16,
    /// Rounded to whole numbers from −127 to 127 with one scale for each output channel: 1 byte each.
    /// Inputs are rounded to whole numbers of 16 bits at the most with one scale for each row, sums are
    /// exact.
    Int8,
}

impl StepDtype {
    /// The name, as in `--dtype`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// Multiplications of a product from which on its rows, or the columns of a single row, are shared out
/// to threads: some 50 µs, several times what it takes to wake one.
const SHARED: usize = 1 << 22;

/// Rows that one thread takes at the least, a multiple of what a block has.
const SHARED_ROWS: usize = 12;

/// What becomes of the sums of a [`product`].
#[derive(Debug, Clone, Copy, Default)]
pub struct StepEpilogue {
    /// `max(0, ·)`; NaN stays NaN.
    pub relu: bool,
}

/// `y[r] = relu(W·a[r] + bias)` for each row `r` of `y` (rows, columns), of which there is one at least;
/// `a` holds as many rows of [`StepWeights::row_words`], made by [`StepWeights::pack_row`].
///
/// # Panics
/// Where a slice has another length: a fault of the caller.
pub fn product(weights: &StepWeights, a: &[u32], epilogue: StepEpilogue, y: &mut [f32]) {
    let (columns, words) = (weights.columns, weights.row_words());
    let rows = y.len() / columns;
    assert!(y.len() == rows * columns && a.len() == rows * words);
    let small = rows * weights.len() < SHARED || rayon::current_num_threads() == 1;
    if small || (2..2 * SHARED_ROWS).contains(&rows) {
        return one_thread(weights, a, 0, epilogue, y);
    }
    if rows == 1 {
        let panels = columns.div_ceil(weights.cols);
        let part = panels.div_ceil(4).max(2) * weights.cols;
        let parts = y.par_chunks_mut(part).enumerate();
        return parts.for_each(|(i, y)| one_thread(weights, a, i * part, epilogue, y));
    }
    let part = rows.div_ceil(8).next_multiple_of(SHARED_ROWS);
    y.par_chunks_mut(part * columns)
        .zip(a.par_chunks(part * words))
        .for_each(|(y, a)| one_thread(weights, a, 0, epilogue, y));
}

/// As [`product`], on this thread; of a single row the columns from `first` on.
fn one_thread(w: &StepWeights, a: &[u32], first: usize, epilogue: StepEpilogue, y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        if w.cols == 32
            && let Some(v4) = V4::try_new()
        {
            if let Some(amx) = tiles::wanted(w, a.len() / w.row_words()) {
                return tiles::product(amx, w, a, epilogue, y);
            }
            return run::<32, _>(v4, w, a, first, epilogue, y);
        }
        if w.kernel == Kernel::Avx2
            && let Some(v3) = V3::try_new()
        {
            return run::<16, _>(v3, w, a, first, epilogue, y);
        }
    }
    run::<16, _>(Plain, w, a, first, epilogue, y);
}

/// Compiled for the instructions of `w.kernel`, of which `lanes` are.
fn run<const COLS: usize, L: lanes::Lanes<COLS>>(
    lanes: L,
    w: &StepWeights,
    a: &[u32],
    first: usize,
    epilogue: StepEpilogue,
    y: &mut [f32],
) {
    super::isa::vectorized(
        w.kernel,
        #[inline(always)]
        || match w.dtype {
            StepDtype::F32 => {
                rows_of_panels::<COLS, _, Singles, 1>(lanes, w, a, first, epilogue, y)
            }
            StepDtype::Bf16 => rows_of_panels::<COLS, _, Pairs, 2>(lanes, w, a, first, epilogue, y),
            StepDtype::Int8 => rows_of_panels::<COLS, _, Bytes, 2>(lanes, w, a, first, epilogue, y),
        },
    );
}

/// Bytes that one thread reads in a second from `len` bytes again and again, measured now (some 50 ms):
/// what a step of a single sequence can reach at most.
pub fn read_bandwidth(len: usize) -> f64 {
    const SECONDS: f64 = 0.05;
    let words = vec![1u64; len.div_ceil(size_of::<u64>()).max(1)];
    let read = || {
        super::vectorized(
            #[inline(always)]
            || {
                std::hint::black_box(&words)
                    .iter()
                    .fold(0u64, |sum, &word| sum ^ word)
            },
        )
    };
    std::hint::black_box(read());
    let start = std::time::Instant::now();
    let (mut bytes, mut seconds) = (0, 0.0);
    while seconds < SECONDS {
        std::hint::black_box(read());
        bytes += size_of_val(&words[..]);
        seconds = start.elapsed().as_secs_f64();
    }
    bytes as f64 / seconds
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
