//! Forward and input gradient: both are `out[r] = Σ_tap rows[source(tap, r)] · W[tap]`.

use rayon::prelude::*;

use super::super::conv1d::{Conv1dShape, Epilogue};
use super::super::{Stored, vectorized};
use super::buffer::{LINE, with_buffer};
use super::pack::{WeightPanels, pack_row};
use super::{Micro, Product, Term};

/// The rows that a product reads: which one tap `tap` of result row `r` sees is
/// `(r·stride + start + tap·step) / divide`, where that is whole.
#[derive(Clone, Copy)]
struct Source<'a, S> {
    /// (batch, len, channels)
    data: &'a [S],
    len: usize,
    /// (batch, history, channels): the rows before row 0.
    past: &'a [S],
    history: usize,
    channels: usize,
    stride: usize,
    divide: usize,
    start: isize,
    step: isize,
}

impl<'a, S> Source<'a, S> {
    fn number(&self, tap: usize, r: usize) -> Option<isize> {
        let i = (r * self.stride) as isize + self.start + tap as isize * self.step;
        let divide = self.divide as isize;
        (i % divide == 0).then_some(i / divide)
    }

    /// Row `i` of sequence `b`; nothing beyond the ends, which counts as zeros.
    fn row(&self, b: usize, i: isize) -> Option<&'a [S]> {
        let (rows, len, i) = if i >= 0 {
            (self.data, self.len, i as usize)
        } else {
            let back = i + self.history as isize;
            (self.past, self.history, usize::try_from(back).ok()?)
        };
        (i < len).then(|| &rows[(b * len + i) * self.channels..][..self.channels])
    }
}

/// A product of packed rows with packed weights over a whole batch.
struct Shifted<'a, S> {
    source: Source<'a, S>,
    /// Result rows of a sequence.
    out_len: usize,
    groups: usize,
    taps: usize,
    panels: WeightPanels,
    weight: &'a [u32],
}

/// Rounds words up to an odd number of cache lines, so that equal columns of neighbouring rows do not
/// compete for the same places of a cache.
fn spread(words: usize) -> usize {
    (words.div_ceil(LINE) | 1) * LINE
}

impl<S: Stored<Real = f32>> Shifted<'_, S> {
    fn a_stride(&self) -> usize {
        spread(self.groups * self.panels.words)
    }

    fn c_stride<M: Micro>(&self) -> usize {
        spread(self.groups * self.panels.panels * M::COLS)
    }

    /// Computes all result rows in pieces; `finish(first row, C, its stride, rows of the result)`
    /// stores a piece.
    fn run<M: Micro, Y: Send>(
        &self,
        micro: M,
        out: &mut [Y],
        finish: impl Fn(usize, &[f32], usize, &mut [Y]) + Sync,
    ) {
        let channels = self.groups * self.panels.columns;
        if out.is_empty() {
            return;
        }
        // short sequences share a piece
        let whole = self.out_len >= M::PIECE / 2;
        let unit = if whole {
            self.out_len
        } else {
            out.len() / channels
        };
        let pieces = unit.div_ceil(M::PIECE);
        let size = unit.div_ceil(pieces).next_multiple_of(M::ROWS);
        let units = out.par_chunks_mut(unit * channels).enumerate();
        units.for_each(|(u, out)| {
            let pieces = out.par_chunks_mut(size * channels).enumerate();
            pieces.for_each(|(p, out)| {
                let first = u * unit + p * size;
                let rows = out.len() / channels;
                self.piece(micro, first, rows, |c, stride| {
                    vectorized(
                        #[inline(always)]
                        || finish(first, c, stride, out),
                    );
                });
            });
        });
    }

    /// The result rows `first..first + rows` of the whole batch.
    fn piece<M: Micro>(
        &self,
        micro: M,
        first: usize,
        rows: usize,
        finish: impl FnOnce(&[f32], usize),
    ) {
        let padded = rows.next_multiple_of(M::ROWS);
        let (a_stride, c_stride) = (self.a_stride(), self.c_stride::<M>());
        let span = (self.taps - 1) * self.source.step.unsigned_abs();
        let one_sequence = first / self.out_len == (first + rows - 1) / self.out_len;
        let dense = (self.source.stride, self.source.divide) == (1, 1);
        let window = dense && one_sequence && padded + span <= self.taps * padded;
        let a_rows = if window {
            padded + span
        } else {
            self.taps * padded
        };
        with_buffer(a_rows * a_stride, |a| {
            let a = a.words_mut();
            vectorized(
                #[inline(always)]
                || match window {
                    true => self.pack_window::<M>(first, rows, span, &mut a[..a_rows * a_stride]),
                    false => self.gather::<M>(first, rows, &mut a[..a_rows * a_stride]),
                },
            );
            let row_of = |tap: usize| match (window, self.source.step >= 0) {
                (false, _) => tap * padded,
                (true, true) => tap * self.source.step.unsigned_abs(),
                (true, false) => span - tap * self.source.step.unsigned_abs(),
            };
            with_buffer(padded * c_stride, |c| {
                let c = c.floats_mut();
                for group in 0..self.groups {
                    self.multiply(micro, group, a, padded, row_of, c);
                }
                finish(c, c_stride);
            });
        });
    }

    fn multiply<M: Micro>(
        &self,
        micro: M,
        group: usize,
        a: &[u32],
        rows: usize,
        row_of: impl Fn(usize) -> usize,
        c: &mut [f32],
    ) {
        let WeightPanels {
            words,
            panels,
            stride,
            ..
        } = self.panels;
        let term = |tap| Term {
            a: row_of(tap) * self.a_stride() + group * words,
            b: tap * words * M::COLS,
            depth: words,
        };
        let terms: Vec<Term> = (0..self.taps).map(term).collect();
        let mut product = Product {
            c: &mut c[group * panels * M::COLS..],
            c_stride: self.c_stride::<M>(),
            rows,
            a,
            a_stride: self.a_stride(),
            b: &self.weight[group * panels * stride..][..panels * stride],
            panel_stride: stride,
            columns: self.panels.columns,
        };
        product.run(micro, &terms, false);
    }

    /// All rows that the taps of `rows` consecutive result rows read, once.
    #[inline(always)]
    fn pack_window<M: Micro>(&self, first: usize, rows: usize, span: usize, a: &mut [u32]) {
        let (b, r) = (first / self.out_len, first % self.out_len);
        let back = if self.source.step < 0 { span } else { 0 };
        let from = r as isize + self.source.start - back as isize;
        for (i, packed) in a.chunks_exact_mut(self.a_stride()).enumerate() {
            let row = match i < rows + span {
                true => self.source.row(b, from + i as isize),
                false => None,
            };
            self.pack_row::<M>(row, packed);
        }
    }

    /// The rows that each tap reads, tap after tap.
    #[inline(always)]
    fn gather<M: Micro>(&self, first: usize, rows: usize, a: &mut [u32]) {
        let per_tap = a.len() / self.taps;
        for (tap, a) in a.chunks_exact_mut(per_tap).enumerate() {
            for (i, packed) in a.chunks_exact_mut(self.a_stride()).enumerate() {
                let (b, r) = ((first + i) / self.out_len, (first + i) % self.out_len);
                let row = match i < rows {
                    true => self.source.number(tap, r),
                    false => None,
                };
                self.pack_row::<M>(row.and_then(|i| self.source.row(b, i)), packed);
            }
        }
    }

    #[inline(always)]
    fn pack_row<M: Micro>(&self, row: Option<&[S]>, packed: &mut [u32]) {
        let channels = self.source.channels / self.groups;
        pack_row(M::FORMAT, row, channels, self.panels.words, packed);
    }
}

/// See [`forward`](super::super::conv1d::forward).
pub fn forward<M: Micro, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &Conv1dShape,
    (x, history): (&[X], &[X]),
    weight: &[f32],
    epilogue: &Epilogue<f32>,
    y: &mut [Y],
) {
    let panels = WeightPanels::new::<M>(shape, false);
    with_buffer(panels.len(shape), |packed| {
        panels.pack::<M>(shape, weight, &mut packed.words_mut()[..panels.len(shape)]);
        let shifted = Shifted {
            source: Source {
                data: x,
                len: shape.in_len,
                past: history,
                history: shape.history,
                channels: shape.in_channels,
                stride: shape.stride,
                divide: 1,
                start: -(shape.pad_left as isize),
                step: shape.dilation as isize,
            },
            out_len: shape.out_len,
            groups: shape.groups,
            taps: shape.kernel_size,
            panels,
            weight: packed.words(),
        };
        let (go, width) = (shape.group_out(), panels.panels * M::COLS);
        shifted.run(
            micro,
            y,
            #[inline(always)]
            |first, c, stride, y| {
                for (c, y) in c
                    .chunks_exact(stride)
                    .zip(y.chunks_exact_mut(shape.out_channels))
                {
                    for (g, y) in y.chunks_exact_mut(go).enumerate() {
                        epilogue.store_row(&c[g * width..][..go], g * go, y);
                    }
                }
                epilogue.drop_elements(first * shape.out_channels, y);
            },
        );
    });
}

/// See [`grad_input`](super::super::conv1d::grad_input).
pub fn grad_input<M: Micro, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &Conv1dShape,
    dy: &[Y],
    weight: &[f32],
    dx: &mut [X],
) {
    let panels = WeightPanels::new::<M>(shape, true);
    with_buffer(panels.len(shape), |packed| {
        panels.pack::<M>(shape, weight, &mut packed.words_mut()[..panels.len(shape)]);
        let shifted = Shifted {
            source: Source {
                data: dy,
                len: shape.out_len,
                past: &[],
                history: 0,
                channels: shape.out_channels,
                stride: 1,
                divide: shape.stride,
                start: shape.pad_left as isize,
                step: -(shape.dilation as isize),
            },
            out_len: shape.in_len,
            groups: shape.groups,
            taps: shape.kernel_size,
            panels,
            weight: packed.words(),
        };
        let (gi, width) = (shape.group_in(), panels.panels * M::COLS);
        shifted.run(
            micro,
            dx,
            #[inline(always)]
            |_, c, stride, dx| {
                for (c, dx) in c
                    .chunks_exact(stride)
                    .zip(dx.chunks_exact_mut(shape.in_channels))
                {
                    for (g, dx) in dx.chunks_exact_mut(gi).enumerate() {
                        for (dx, &c) in dx.iter_mut().zip(&c[g * width..]) {
                            *dx = X::store(c);
                        }
                    }
                }
            },
        );
    });
}
