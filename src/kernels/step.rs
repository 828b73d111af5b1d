//! Products of few rows with weights that stay: what one step of a stream consists of.
//!
//! A step of a convolution reads one row for each sequence, all its taps side by side, and every
//! weight once: `y[r] = b + W·x[r]`. For one sequence the time goes into reading the weights, so they lie
//! as they are read, in as few bytes as wanted, and are packed once for all steps.
//!
//! Each output is summed in the same order whatever the number of rows, so that a sequence gets the same
//! numbers alone and in a batch, bit for bit (except from AMX tiles, which add in an order of their own).

#[cfg(target_arch = "x86_64")]
mod amx;
mod lanes;
mod pack;
mod pointwise;
mod register_blocks;

pub use pack::{StepWeights, dequantize, quantize, round_weight};
pub use pointwise::{add, add_relu, affine, multiply, round};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Kernel;
use super::instructions::Instructions;
use lanes::Plain;
use register_blocks::{Bytes, PackedRows, Pairs, Singles};

/// The form in which the weights of a step are kept.
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
    /// The name: `f32`, `bf16` or `int8`.
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

/// `y[r] = W·a[r] + bias`, with `relu` `max(0, ·)` of it (NaN stays NaN), for each row `r` of `y` (rows, columns), which is not empty;
/// `a` holds as many rows of [`StepWeights::row_words`], made by [`StepWeights::pack_row`].
///
/// # Panics
/// If a slice has another length: a fault of the caller.
pub fn product(weights: &StepWeights, a: &[u32], relu: bool, y: &mut [f32]) {
    let (columns, words) = (weights.columns, weights.row_words());
    let rows = y.len() / columns;
    assert!(y.len() == rows * columns && a.len() == rows * words);
    let small = rows * weights.count() < SHARED || rayon::current_num_threads() == 1;
    let rows_at = |first, a| PackedRows { w: weights, a, first, relu };
    if small || (2..2 * SHARED_ROWS).contains(&rows) {
        return one_thread(rows_at(0, a), y);
    }
    if rows == 1 {
        let panels = columns.div_ceil(weights.cols);
        let part = panels.div_ceil(4).max(2) * weights.cols;
        let parts = y.par_chunks_mut(part).enumerate();
        return parts.for_each(|(i, y)| one_thread(rows_at(i * part, a), y));
    }
    let part = rows.div_ceil(8).next_multiple_of(SHARED_ROWS);
    y.par_chunks_mut(part * columns)
        .zip(a.par_chunks(part * words))
        .for_each(|(y, a)| one_thread(rows_at(0, a), y));
}

/// As [`product`], on this thread.
fn one_thread(rows: PackedRows, y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        let w = rows.w;
        if w.cols == 32
            && let Some(v4) = V4::try_new()
        {
            if let Some(tiles) = amx::wanted(w, rows.count()) {
                return amx::product(tiles, w, rows.a, rows.relu, y);
            }
            return run::<32, _>(v4, rows, y);
        }
        if w.kernel == Kernel::Avx2
            && let Some(v3) = V3::try_new()
        {
            return run::<16, _>(v3, rows, y);
        }
    }
    run::<16, _>(Plain, rows, y);
}

/// Compiled for the instructions of `lanes`.
fn run<const COLS: usize, L: lanes::Lanes<COLS>>(lanes: L, rows: PackedRows, y: &mut [f32]) {
    lanes.vectorized(
        #[inline(always)]
        || match rows.w.dtype {
            StepDtype::F32 => rows.product::<COLS, L, Singles, 1>(lanes, y),
            StepDtype::Bf16 => rows.product::<COLS, L, Pairs, 2>(lanes, y),
            StepDtype::Int8 => rows.product::<COLS, L, Bytes, 2>(lanes, y),
        },
    );
}

/// Bytes that one thread reads in a second from `len` bytes again and again, in one stream or in six as
/// the panels of a single row are read, whichever is faster; measured now (some 100 ms): the most that
/// a step of a single sequence can reach.
pub fn read_bandwidth(kernel: Kernel, len: usize) -> f64 {
    const LINE: [u64; 8] = [1; 8];
    let lines = vec![LINE; len.div_ceil(size_of_val(&LINE)).max(6)];
    let read = |read: fn(Kernel, &[[u64; 8]]) -> [u64; 8]| {
        repeat_read(&lines, |lines| read(kernel, lines))
    };
    read(read_streams::<1>).max(read(read_streams::<6>))
}

fn repeat_read(lines: &[[u64; 8]], read: impl Fn(&[[u64; 8]]) -> [u64; 8]) -> f64 {
    const SECONDS: f64 = 0.05;
    let read = || std::hint::black_box(read(std::hint::black_box(lines)));
    read();
    let start = std::time::Instant::now();
    let (mut bytes, mut seconds) = (0, 0.0);
    while seconds < SECONDS {
        read();
        bytes += size_of_val(lines);
        seconds = start.elapsed().as_secs_f64();
    }
    bytes as f64 / seconds
}

/// Reads `STREAMS` equal parts side by side, what is left over after them.
fn read_streams<const STREAMS: usize>(kernel: Kernel, lines: &[[u64; 8]]) -> [u64; 8] {
    kernel.vectorized(
        #[inline(always)]
        || {
            let part = lines.len() / STREAMS;
            let parts: [&[[u64; 8]]; STREAMS] =
                std::array::from_fn(|stream| &lines[stream * part..][..part]);
            let mut sums = [[0u64; 8]; STREAMS];
            for i in 0..part {
                for (sums, lines) in sums.iter_mut().zip(parts) {
                    sums.iter_mut().zip(&lines[i]).for_each(|(sum, x)| *sum ^= x);
                }
            }
            let mut total = [0; 8];
            for line in sums.iter().chain(&lines[STREAMS * part..]) {
                total.iter_mut().zip(line).for_each(|(sum, x)| *sum ^= x);
            }
            total
        },
    )
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
