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
#[cfg(target_arch = "x86_64")]
mod block_set;
#[cfg(not(target_arch = "x86_64"))]
mod block_set {
    use super::super::Kernel;
    use super::rows::RowFormat;

    /// Nothing: plain loops run.
    #[derive(Debug, Clone, Copy)]
    pub enum NoBlocks {}

    pub use NoBlocks as BlockSet;

    impl NoBlocks {
        pub fn new(_: Kernel, _: RowFormat) -> Option<Self> {
            None
        }
        pub fn expects(self) -> (usize, usize) {
            match self {}
        }
        pub fn multiply(self, _: (&[u32], usize), _: (&[u32], usize), _: &mut [f32]) {
            match self {}
        }
    }
}
mod blocks;
mod pack;
mod pointwise;
mod rows;

pub use pack::{StepWeights, dequantize, quantize, round_weight};
pub use pointwise::{add, add_relu, affine, multiply, round};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use blocks::PackedRows;

/// The form in which the weights of a step are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepDtype {
    /// As they are: 4 bytes each, computed in `f32`.
    F32,
    /// Rounded to bf16: 2 bytes each; activations are rounded too, sums are `f32`.
    Bf16,
    /// Rounded to whole numbers from −127 to 127 with one scale for each output channel: 1 byte each.
    /// Inputs are rounded to whole numbers of 16 bits at the most, or of 8, with one scale for each row; sums
    /// are exact.
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

/// Rows that one thread takes at the least, a multiple of it: whole blocks.
const SHARED_ROWS: usize = blocks::ROWS;

/// `y[r] = W·a[r] + bias`, with `relu` `max(0, ·)` of it (NaN stays NaN), for each row `r` of `y` (rows, columns), which is not empty;
/// `a` holds as many rows of [`StepWeights::row_words`], made by [`StepWeights::pack_rows`].
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
        return parts.for_each(|(i, y)| one_thread(rows_at(i * part / weights.cols, a), y));
    }
    let part = rows.div_ceil(8).next_multiple_of(SHARED_ROWS);
    y.par_chunks_mut(part * columns)
        .zip(a.par_chunks(part * words))
        .for_each(|(y, a)| one_thread(rows_at(0, a), y));
}

/// As [`product`], on this thread.
fn one_thread(rows: PackedRows, y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(tiles) = amx::wanted(rows.w, rows.count()) {
        return amx::product(tiles, rows.w, rows.a, rows.relu, y);
    }
    rows.product(y);
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
