//! Weight gradient: `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`.
//!
//! Depth runs along time here, so x is transposed. With stride 1 every tap sums over the same rows of
//! x, each with the rows of dy that lie `shift(tap)` further: x is packed once, and a tap is another
//! first row of dy.
//!
//! The lines of an image are one such sequence of *places*, [`Gradient::pitch`] from line to line in x
//! and in dy; a tap leaves out the places where it reads beyond a line's ends or beyond the image.

mod row_spans;
mod taps;

use super::super::conv::ConvShape;
use super::super::{Stored, parallel};
use super::buffer::{LINE, with_buffer};
use super::{Format, Gemm, MicroKernel};
use row_spans::{RowRun, RowSpan, groups, spans};
use taps::pitch;

/// Words of depth that are transposed at once, a cache line of the result: a multiple of
/// [`MicroKernel::STEP`].
const STRIP: usize = LINE;

/// The packed output gradients of a part, from one group's on: how far panels and spans are apart.
#[derive(Clone, Copy)]
struct Panels<'a> {
    words: &'a [u32],
    panel_len: usize,
    run_len: usize,
}

struct Gradient<'a, X, Y> {
    shape: &'a ConvShape,
    x: &'a [X],
    history: &'a [X],
    dy: &'a [Y],
    format: Format,
    step: usize,
    cols: usize,
    /// Input channels of a block, a multiple of the micro kernel's rows.
    block: usize,
    blocks: usize,
    panels: usize,
    /// Places from one line to the next.
    pitch: usize,
}

/// See [`grad_weight`](super::super::conv::grad_weight).
pub fn grad_weight<M: MicroKernel, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    (x, history): (&[X], &[X]),
    dy: &[Y],
    dw: &mut [f32],
) {
    // the same sums in other blocks: the number of threads does not show in them
    let blocks = shape.group_in().div_ceil(M::CHANNELS);
    let blocks = blocks.next_multiple_of(rayon::current_num_threads());
    let block = shape.group_in().div_ceil(blocks).next_multiple_of(M::ROW_STEP);
    let blocks = shape.group_in().div_ceil(block);
    let gradient = Gradient {
        shape,
        x,
        history,
        dy,
        format: M::FORMAT,
        step: M::STEP,
        cols: M::COLS,
        block,
        blocks,
        panels: shape.group_out().div_ceil(M::COLS),
        pitch: pitch::<M>(shape),
    };
    let sums_len = shape.groups * blocks * gradient.block_len();
    with_buffer(sums_len, |sums| {
        let sums = &mut sums.floats_mut()[..sums_len];
        parallel::for_each(sums.chunks_mut(1 << 16), |sums| sums.fill(0.0));
        for part in gradient.parts() {
            gradient.add_part(micro, &part, sums);
        }
        gradient.unpack(sums, dw);
    });
}

impl<X: Stored<Real = f32>, Y: Stored<Real = f32>> Gradient<'_, X, Y> {
    fn c_stride(&self) -> usize {
        (self.panels * self.cols).next_multiple_of(LINE)
    }

    fn block_len(&self) -> usize {
        self.shape.taps() * self.block * self.c_stride()
    }

    /// Adds the products of one part to the sums.
    fn add_part<M: MicroKernel>(&self, micro: M, part: &[RowRun], sums: &mut [f32]) {
        let words = part.iter().map(|run| run.words).max().unwrap_or(0);
        // a line more, so that panels do not compete for the same places of a cache
        let panel_len = words * M::COLS + LINE;
        let group_len = self.panels * panel_len;
        let run_len = self.shape.groups * group_len;
        let spans: Vec<RowSpan> = part.iter().enumerate().flat_map(spans).collect();
        with_buffer(part.len() * run_len, |dy| {
            let dy = &mut dy.words_mut()[..part.len() * run_len];
            let runs = dy.chunks_exact_mut(run_len).zip(part);
            parallel::for_each(runs, |(dy, run)| {
                micro.vectorized(
                    #[inline(always)]
                    || self.pack_dy(run, dy, panel_len),
                );
            });
            let blocks = sums.chunks_exact_mut(self.block_len()).enumerate();
            parallel::for_each(blocks, |(i, sums)| {
                let dy = Panels { words: &dy[i / self.blocks * group_len..], panel_len, run_len };
                groups(&spans).for_each(|spans| self.add_spans(micro, i, spans, dy, sums));
            });
        });
    }

    /// The output gradients of a run as (group, panel, depth, column).
    #[inline(always)]
    fn pack_dy(&self, run: &RowRun, packed: &mut [u32], panel_len: usize) {
        let s = self.shape;
        let (lines, columns) = (s.height.out_len, s.width.out_len);
        let row = |place: isize| {
            let place = usize::try_from(place).ok().filter(|&p| p < self.out_len())?;
            let (i, j) = (place / self.pitch, place % self.pitch);
            let at = ((run.sequence * lines + i) * columns + j) * s.out_channels;
            (j < columns).then(|| &self.dy[at..][..s.out_channels])
        };
        for j in 0..run.words {
            let r = run.dy_from + (j * self.format.per_word()) as isize;
            let rows = [row(r), row(r + 1)];
            for (i, panel) in packed.chunks_exact_mut(panel_len).enumerate() {
                let first = i % self.panels * self.cols;
                let from = i / self.panels * s.group_out() + first;
                let to = from + self.cols.min(s.group_out() - first);
                let rows = rows.map(|row| row.map(|row| &row[from..to]));
                let words = &mut panel[j * self.cols..][..self.cols];
                self.format.across(rows, words);
            }
        }
    }

    /// Input channels of block `i` (of all groups); the last of a group may have fewer than others.
    fn channels(&self, i: usize) -> usize {
        let first = i % self.blocks * self.block;
        self.block.min(self.shape.group_in() - first)
    }

    /// Adds the products of some spans with block `i` (of all groups) of the input channels.
    fn add_spans<M: MicroKernel>(
        &self,
        micro: M,
        i: usize,
        spans: &[RowSpan],
        dy: Panels,
        sums: &mut [f32],
    ) {
        let areas = self.areas();
        let depth: usize = spans.iter().map(|span| self.x_words(span) * areas).sum();
        let a_stride = (depth.div_ceil(LINE) | 1) * LINE;
        let rows = self.block.next_multiple_of(8);
        with_buffer(rows * a_stride, |a| {
            let a = a.words_mut();
            micro.vectorized(
                #[inline(always)]
                || self.transpose_x(micro, i, spans, rows, a, a_stride),
            );
            for (tap, c) in sums.chunks_exact_mut(self.block * self.c_stride()).enumerate() {
                let mut product = Gemm {
                    c,
                    c_stride: self.c_stride(),
                    rows: self.channels(i).next_multiple_of(M::ROW_STEP),
                    a,
                    a_stride,
                    b: dy.words,
                    panel_stride: dy.panel_len,
                    columns: self.shape.group_out(),
                };
                product.run(micro, &self.terms::<M>(spans, tap, dy.run_len), true);
            }
        });
    }

    /// Packs all copies of the rows of x of `spans`, input channels of block `i` across, transposed.
    #[inline(always)]
    fn transpose_x<M: MicroKernel>(
        &self,
        micro: M,
        i: usize,
        spans: &[RowSpan],
        rows: usize,
        a: &mut [u32],
        a_stride: usize,
    ) {
        let s = self.shape;
        let channels = self.channels(i);
        let channel = i / self.blocks * s.group_in() + i % self.blocks * self.block;
        with_buffer(STRIP * rows, |across| {
            let across = across.words_mut();
            let mut at = 0;
            for span in spans {
                for area in 0..self.areas() {
                    for strip in (0..self.x_words(span)).step_by(STRIP) {
                        for (j, across) in across.chunks_exact_mut(rows).take(STRIP).enumerate() {
                            let row = |k: usize| {
                                let i = (strip + j) * self.format.per_word() + k;
                                Some(&self.x_row(span, area, i)?[channel..][..channels])
                            };
                            let pairs = self.format == Format::Pairs;
                            let second = if pairs { row(1) } else { None };
                            self.format.across([row(0), second], across);
                        }
                        micro.transpose(across, rows, (STRIP, rows), &mut a[at..], a_stride);
                        at += STRIP;
                    }
                }
            }
        });
    }

    /// Row `i` of one copy of a span; nothing where it is not the span's, or beyond a line.
    #[inline(always)]
    fn x_row(&self, span: &RowSpan, area: usize, i: usize) -> Option<&[X]> {
        let s = self.shape;
        let place = (span.from + i).checked_sub(if self.dense() { area } else { 0 })?;
        if !(span.from..span.to).contains(&place) {
            return None;
        }
        let (i, j) = (place / self.pitch, place % self.pitch);
        let (line, column) = if self.dense() {
            (i, j as isize - s.history as isize)
        } else {
            let (m, n) = s.tap(area);
            (s.height.input(m, i)?, s.width.position(n, j))
        };
        let line = span.run.sequence * s.height.in_len + line;
        let (rows, len, column) = match usize::try_from(column) {
            Ok(column) => (self.x, s.width.in_len, column),
            Err(_) => {
                let back = column + s.history as isize;
                (self.history, s.history, usize::try_from(back).ok()?)
            }
        };
        let at = (line * len + column) * s.in_channels;
        (column < len).then(|| &rows[at..][..s.in_channels])
    }

    /// Writes the sums (group, block, tap, in, out) as (out, in, tap).
    fn unpack(&self, sums: &[f32], dw: &mut [f32]) {
        let s = self.shape;
        let (gi, go, taps) = (s.group_in(), s.group_out(), s.taps());
        let (row, c_stride) = (gi * taps, self.c_stride());
        let groups = dw.chunks_mut(go * row).enumerate();
        // a cache line of sums goes to as many rows
        let lines = groups.flat_map(|(group, dw)| {
            dw.chunks_mut(LINE * row).enumerate().map(move |(line, dw)| (group, line, dw))
        });
        parallel::for_each(lines, |(group, line, dw)| {
            for i in 0..row {
                let (ci, tap) = (i / taps, i % taps);
                let block = group * self.blocks + ci / self.block;
                let at = block * self.block_len()
                    + (tap * self.block + ci % self.block) * c_stride
                    + line * LINE;
                let rows = dw[i..].iter_mut().step_by(row);
                rows.zip(&sums[at..][..LINE]).for_each(|(dw, &sum)| *dw = sum);
            }
        });
    }
}
