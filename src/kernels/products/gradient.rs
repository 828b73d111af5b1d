//! Weight gradient: `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`.
//!
//! Depth runs along time here, so x is transposed. With stride 1 every tap sums over the same rows of
//! x, each with the rows of dy that lie `shift(tap)` further: x is packed once, and a tap is another
//! first row of dy.

use rayon::prelude::*;

use super::super::conv1d::Conv1dShape;
use super::super::{Stored, vectorized};
use super::buffer::{LINE, with_buffer};
use super::spans::{Run, Span, groups, spans};
use super::{Format, Micro, Product, Term};

/// Rows of a sequence whose output gradients are packed together.
const RUN: usize = 1024;
/// Rows whose output gradients are packed at once.
const PART: usize = 4096;

/// Words of depth that are transposed at once, a cache line of the result: a multiple of
/// [`Micro::STEP`].
const STRIP: usize = LINE;

/// The packed output gradients of a part, from one group's on: how far panels and spans are apart.
#[derive(Clone, Copy)]
struct Panels<'a> {
    words: &'a [u32],
    panel_len: usize,
    run_len: usize,
}

struct Gradient<'a, X, Y> {
    shape: &'a Conv1dShape,
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
}

/// See [`grad_weight`](super::super::conv1d::grad_weight).
pub fn grad_weight<M: Micro, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &Conv1dShape,
    (x, history): (&[X], &[X]),
    dy: &[Y],
    dw: &mut [f32],
) {
    // the same sums in other blocks: the number of threads does not show in them
    let blocks = shape.group_in().div_ceil(M::CHANNELS);
    let blocks = blocks.next_multiple_of(rayon::current_num_threads());
    let block = shape.group_in().div_ceil(blocks).next_multiple_of(M::ROWS);
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
    };
    let sums_len = shape.groups * blocks * gradient.block_len();
    with_buffer(sums_len, |sums| {
        let sums = &mut sums.floats_mut()[..sums_len];
        sums.par_chunks_mut(1 << 16).for_each(|sums| sums.fill(0.0));
        for part in gradient.parts() {
            gradient.add_part(micro, &part, sums);
        }
        gradient.unpack(sums, dw);
    });
}

impl<X: Stored<Real = f32>, Y: Stored<Real = f32>> Gradient<'_, X, Y> {
    /// Whether taps share the packed rows of x; otherwise each has its own, in step with dy.
    fn dense(&self) -> bool {
        self.shape.stride == 1
    }

    /// How much further than a row of x (counted from the first of the history) its row of dy is.
    fn shift(&self, tap: usize) -> isize {
        let s = self.shape;
        match self.dense() {
            true => s.pad_left as isize - s.history as isize - (tap * s.dilation) as isize,
            false => 0,
        }
    }

    /// Of pairs, the first row of x may stand second in its word, so that pairs of dy stay pairs.
    fn phase(&self, tap: usize) -> usize {
        self.shift(tap)
            .rem_euclid(self.format.per_word() as isize)
            .unsigned_abs()
    }

    /// Which packed copy of x a tap reads, of how many.
    fn area(&self, tap: usize) -> usize {
        if self.dense() { self.phase(tap) } else { tap }
    }

    fn areas(&self) -> usize {
        let last = (0..self.shape.kernel_size).map(|tap| self.area(tap)).max();
        last.unwrap_or(0) + 1
    }

    fn c_stride(&self) -> usize {
        (self.panels * self.cols).next_multiple_of(LINE)
    }

    fn block_len(&self) -> usize {
        self.shape.kernel_size * self.block * self.c_stride()
    }

    /// Rows of a sequence that are summed over.
    fn len(&self) -> usize {
        match self.dense() {
            true => self.shape.history + self.shape.in_len,
            false => self.shape.out_len,
        }
    }

    /// The work in parts of about [`PART`] rows to pack.
    fn parts(&self) -> Vec<Vec<Run>> {
        let mut parts = Vec::new();
        let mut part: Vec<Run> = Vec::new();
        let mut rows = 0;
        for sequence in 0..self.shape.batch {
            for from in (0..self.len()).step_by(RUN) {
                let run = self.run(sequence, from, (from + RUN).min(self.len()));
                part.push(run);
                rows += run.words * self.format.per_word();
                if rows >= PART {
                    parts.push(std::mem::take(&mut part));
                    rows = 0;
                }
            }
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }

    fn run(&self, sequence: usize, from: usize, to: usize) -> Run {
        let per_word = self.format.per_word() as isize;
        let margin = self.step as isize * per_word;
        let shifts = (0..self.shape.kernel_size).map(|tap| self.shift(tap));
        let (lowest, highest) = (shifts.clone().min().unwrap_or(0), shifts.max().unwrap_or(0));
        let first = (from as isize + lowest).max(-margin);
        let dy_from = first - first.rem_euclid(per_word);
        let end = (to as isize + highest + margin).min(self.shape.out_len as isize + margin);
        Run {
            sequence,
            from,
            to,
            dy_from,
            words: self.format.words((end - dy_from).max(0).unsigned_abs()),
        }
    }

    /// Adds the products of one part to the sums.
    fn add_part<M: Micro>(&self, micro: M, part: &[Run], sums: &mut [f32]) {
        let words = part.iter().map(|run| run.words).max().unwrap_or(0);
        // a line more, so that panels do not compete for the same places of a cache
        let panel_len = words * M::COLS + LINE;
        let group_len = self.panels * panel_len;
        let run_len = self.shape.groups * group_len;
        let spans: Vec<Span> = part.iter().enumerate().flat_map(spans).collect();
        with_buffer(part.len() * run_len, |dy| {
            let dy = &mut dy.words_mut()[..part.len() * run_len];
            let runs = dy.par_chunks_exact_mut(run_len).zip(part);
            runs.for_each(|(dy, run)| {
                vectorized(
                    #[inline(always)]
                    || self.pack_dy(run, dy, panel_len),
                );
            });
            let blocks = sums.par_chunks_exact_mut(self.block_len()).enumerate();
            blocks.for_each(|(i, sums)| {
                let dy = Panels {
                    words: &dy[i / self.blocks * group_len..],
                    panel_len,
                    run_len,
                };
                groups(&spans).for_each(|spans| self.add_spans(micro, i, spans, dy, sums));
            });
        });
    }

    /// The output gradients of a run as (group, panel, depth, column).
    #[inline(always)]
    fn pack_dy(&self, run: &Run, packed: &mut [u32], panel_len: usize) {
        let s = self.shape;
        let row = |r: isize| {
            let r = usize::try_from(r).ok().filter(|&r| r < s.out_len)?;
            Some(&self.dy[(run.sequence * s.out_len + r) * s.out_channels..][..s.out_channels])
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

    /// Words of depth of one copy of a span's rows of x.
    fn x_words(&self, span: &Span) -> usize {
        let rows = span.to - span.from + self.format.per_word() - 1;
        let words = self.format.words(rows);
        words.next_multiple_of(STRIP)
    }

    /// Adds the products of some spans with block `i` (of all groups) of the input channels.
    fn add_spans<M: Micro>(
        &self,
        micro: M,
        i: usize,
        spans: &[Span],
        dy: Panels,
        sums: &mut [f32],
    ) {
        let areas = self.areas();
        let depth: usize = spans.iter().map(|span| self.x_words(span) * areas).sum();
        let a_stride = (depth.div_ceil(LINE) | 1) * LINE;
        let rows = self.block.next_multiple_of(8);
        with_buffer(rows * a_stride, |a| {
            let a = a.words_mut();
            vectorized(
                #[inline(always)]
                || self.transpose_x(micro, i, spans, rows, a, a_stride),
            );
            for (tap, c) in sums
                .chunks_exact_mut(self.block * self.c_stride())
                .enumerate()
            {
                let mut product = Product {
                    c,
                    c_stride: self.c_stride(),
                    rows: self.channels(i).next_multiple_of(M::ROWS),
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
    fn transpose_x<M: Micro>(
        &self,
        micro: M,
        i: usize,
        spans: &[Span],
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

    /// Row `i` of one copy of a span; nothing where it is not the span's, or beyond the sequence.
    #[inline(always)]
    fn x_row(&self, span: &Span, area: usize, i: usize) -> Option<&[X]> {
        let s = self.shape;
        let row = (span.from + i).checked_sub(if self.dense() { area } else { 0 })?;
        if !(span.from..span.to).contains(&row) {
            return None;
        }
        let (rows, len, row) = if self.dense() {
            match row.checked_sub(s.history) {
                None => (self.history, s.history, row),
                Some(row) => (self.x, s.in_len, row),
            }
        } else {
            let row = (row * s.stride + area * s.dilation) as isize - s.pad_left as isize;
            match usize::try_from(row) {
                Ok(row) => (self.x, s.in_len, row),
                Err(_) => {
                    let back = row + s.history as isize;
                    (self.history, s.history, usize::try_from(back).ok()?)
                }
            }
        };
        let at = (span.run.sequence * len + row) * s.in_channels;
        (row < len).then(|| &rows[at..][..s.in_channels])
    }

    /// What tap `tap` sums over `spans`, without the steps in which all of dy is zero.
    fn terms<M: Micro>(&self, spans: &[Span], tap: usize, run_len: usize) -> Vec<Term> {
        let (shift, phase) = (self.shift(tap), self.phase(tap));
        let per_word = self.format.per_word() as isize;
        let mut terms = Vec::with_capacity(spans.len());
        let mut at = 0;
        for span in spans {
            let words = self.x_words(span);
            let a = at + self.area(tap) * words;
            at += self.areas() * words;
            // the row of dy that word 0 meets; those before row 0 and after the last are zero
            let r = span.from as isize - phase as isize + shift;
            let skip = ((-r).max(0) / per_word) as usize / M::STEP * M::STEP;
            let rows = (self.shape.out_len as isize - r).max(0);
            let end = self.format.words(rows.unsigned_abs());
            let own = self.format.words(span.to - span.from + phase);
            let end = end.min(own).next_multiple_of(M::STEP);
            if skip < end {
                let b = (r + skip as isize * per_word - span.run.dy_from) / per_word;
                terms.push(Term {
                    a: a + skip,
                    b: span.index * run_len + b.unsigned_abs() * M::COLS,
                    depth: end - skip,
                });
            }
        }
        terms
    }

    /// Writes the sums (group, block, tap, in, out) as (out, in, tap).
    fn unpack(&self, sums: &[f32], dw: &mut [f32]) {
        let s = self.shape;
        let (gi, go, taps) = (s.group_in(), s.group_out(), s.kernel_size);
        let (row, c_stride) = (gi * taps, self.c_stride());
        dw.par_chunks_mut(go * row)
            .enumerate()
            .for_each(|(group, dw)| {
                // a cache line of sums goes to as many rows
                let lines = dw.par_chunks_mut(LINE * row).enumerate();
                lines.for_each(|(line, dw)| {
                    for i in 0..row {
                        let (ci, tap) = (i / taps, i % taps);
                        let block = group * self.blocks + ci / self.block;
                        let at = block * self.block_len()
                            + (tap * self.block + ci % self.block) * c_stride
                            + line * LINE;
                        let rows = dw[i..].iter_mut().step_by(row);
                        rows.zip(&sums[at..][..LINE])
                            .for_each(|(dw, &sum)| *dw = sum);
                    }
                });
            });
    }
}
