//! Products of many rows in the tiles of AMX.

use super::super::Kernel;
use super::super::elementwise::Activation;
use super::super::packed_gemm::{Amx, Format, Gemm, MicroKernel, with_buffer};
use super::{StepDtype, StepWeights};

/// Words of depth that a tile takes.
pub const STEP: usize = Amx::STEP;

/// Rows from which on tiles that are not full are still faster than vectors.
const ROWS: usize = 4;

/// The proof that tiles may be used, where they are worth it.
pub fn wanted(w: &StepWeights, rows: usize) -> Option<Amx> {
    let fits = w.kernel == Kernel::Amx && w.dtype == StepDtype::Bf16 && rows >= ROWS;
    fits.then(Amx::new).flatten()
}

/// See [`product`](super::product); for any blocks of pairs, so that it can be tested where there are no
/// tiles.
pub fn product<M: MicroKernel>(micro: M, w: &StepWeights, a: &[u32], relu: bool, y: &mut [f32]) {
    debug_assert_eq!((M::FORMAT, M::COLS), (Format::Pairs, w.cols));
    let (words, columns) = (w.row_words(), w.columns);
    let rows = a.len() / words;
    let padded = rows.next_multiple_of(M::ROWS);
    let c_stride = w.bias.len();
    with_buffer(padded * w.words, |pairs| {
        let pairs = &mut pairs.words_mut()[..padded * w.words];
        micro.vectorized(
            #[inline(always)]
            || {
                for (to, row) in pairs.chunks_exact_mut(w.words).zip(a.chunks_exact(words)) {
                    // rows are of bf16 that were widened: their upper halves
                    for (to, [low, high]) in to.iter_mut().zip(row.as_chunks::<2>().0) {
                        *to = low >> 16 | high & 0xffff_0000;
                    }
                }
            },
        );
        pairs[rows * w.words..].fill(0);
        with_buffer(padded * c_stride, |c| {
            let c = c.floats_mut();
            let mut product = Gemm {
                c,
                c_stride,
                rows: padded,
                a: pairs,
                a_stride: w.words,
                b: w.panels(),
                panel_stride: w.words * w.cols,
                columns,
            };
            product.run_depth(micro, w.words);
            micro.vectorized(
                #[inline(always)]
                || {
                    let rows = y.chunks_exact_mut(columns).zip(c.chunks_exact(c_stride));
                    for (y, c) in rows {
                        for ((y, c), bias) in y.iter_mut().zip(c).zip(&w.bias) {
                            let sum = c + bias;
                            *y = if relu { Activation::Relu.apply(sum) } else { sum };
                        }
                    }
                },
            );
        });
    });
}
