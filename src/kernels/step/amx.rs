//! Products of many rows in the tiles of AMX.

use super::super::Kernel;
use super::super::elementwise::Activation;
use super::super::packed_gemm::{Amx, Format, Gemm, MicroKernel, ScratchWords};
use super::StepWeights;
use super::rows::RowFormat;

/// Words of depth that a tile takes.
pub const STEP: usize = Amx::STEP;

/// Rows from which on tiles that are not full are still faster than vectors.
const ROWS: usize = 4;

/// The proof that tiles may be used, where they are worth it.
pub fn wanted(w: &StepWeights, rows: usize) -> Option<Amx> {
    let fits = w.kernel == Kernel::Amx && w.format == RowFormat::Pairs && rows >= ROWS;
    fits.then(Amx::new).flatten()
}

/// See [`product`](super::product); for any blocks of pairs, so that it can be tested where there are no
/// tiles.
pub fn product<M: MicroKernel>(micro: M, w: &StepWeights, a: &[u32], relu: bool, y: &mut [f32]) {
    debug_assert_eq!((M::FORMAT, M::COLS), (Format::Pairs, w.cols));
    let (words, columns) = (w.row_words(), w.columns);
    let whole = a.len() / words / M::ROWS * M::ROWS;
    let (a, rest) = a.split_at(whole * words);
    let (y, rest_y) = y.split_at_mut(whole * columns);
    whole_blocks(micro, w, a, relu, y);
    if !rest.is_empty() {
        let mut padded = ScratchWords::new(M::ROWS * words);
        let padded = padded.words();
        padded[..rest.len()].copy_from_slice(rest);
        padded[rest.len()..].fill(0);
        whole_blocks(micro, w, padded, relu, rest_y);
    }
}

/// As [`product`], for rows that make whole blocks; `y` may end before.
fn whole_blocks<M: MicroKernel>(micro: M, w: &StepWeights, a: &[u32], relu: bool, y: &mut [f32]) {
    let (words, c_stride) = (w.row_words(), w.bias.len());
    let rows = a.len() / words;
    let mut c = ScratchWords::new(rows * c_stride);
    let c = c.floats();
    let mut product = Gemm {
        c,
        c_stride,
        rows,
        a,
        a_stride: words,
        lines: (usize::MAX, 0),
        b: w.panels(),
        panel_stride: words * w.cols,
        columns: w.columns,
    };
    product.run_depth(micro, words);
    micro.vectorized(
        #[inline(always)]
        || {
            for (y, c) in y.chunks_exact_mut(w.columns).zip(c.chunks_exact(c_stride)) {
                for ((y, c), bias) in y.iter_mut().zip(c).zip(&w.bias) {
                    let sum = c + bias;
                    *y = if relu { Activation::Relu.apply(sum) } else { sum };
                }
            }
        },
    );
}
