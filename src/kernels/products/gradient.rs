//! Weight gradient: `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`.
//!
//! Depth runs along time here, so x is transposed. With stride 1 every tap sums over the same rows of
//! x, each with the rows of dy that lie `shift(tap)` further: x is packed once, and a tap is another
//! first row of dy.
//!
//! The lines of an image are one such sequence of *places*, [`Gradient::pitch`] from line to line in x
//! and in dy; a tap leaves out the places where it reads beyond a line's ends or beyond the image.

use std::ops::Range;

use rayon::prelude::*;

use super::super::Stored;
use super::super::conv::ConvShape;
use super::buffer::{LINE, with_buffer};
use super::spans::{Run, Span, groups, spans};
use super::{Format, Micro, Product, Term};

/// Places of a sequence whose output gradients are packed together, at least.
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
pub fn grad_weight<M: Micro, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
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
        pitch: pitch::<M>(shape),
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

/// Whether taps share the packed rows of x; otherwise each has its own, in step with dy.
fn is_dense(shape: &ConvShape) -> bool {
    (shape.height.stride, shape.width.stride) == (1, 1)
}

/// Places from one line to the next: of dy where taps have their own rows of x. Otherwise room for the
/// columns of x (with the history) and of dy, and for as many zeros between lines as keep a tap of one
/// line off the next, or as the rounding of terms to whole steps can take in.
fn pitch<M: Micro>(shape: &ConvShape) -> usize {
    let w = &shape.width;
    if !is_dense(shape) {
        return w.out_len;
    }
    let columns = w.out_len.max(shape.history + w.in_len);
    let before = w.pad_before as isize;
    let after = (w.out_len + w.span()) as isize - w.in_len as isize - before;
    let apart = w.in_len as isize + before.max(after + shape.history as isize);
    let zeros = (apart - columns as isize).max(0).unsigned_abs();
    columns + zeros.min(M::STEP * M::FORMAT.per_word() - 1)
}

impl<X: Stored<Real = f32>, Y: Stored<Real = f32>> Gradient<'_, X, Y> {
    fn dense(&self) -> bool {
        is_dense(self.shape)
    }

    /// How much further than a place of x its place of dy is.
    fn shift(&self, tap: usize) -> isize {
        let s = self.shape;
        if !self.dense() {
            return 0;
        }
        let (m, n) = s.tap(tap);
        -s.height.position(m, 0) * self.pitch as isize - s.width.position(n, 0) - s.history as isize
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
        let last = (0..self.shape.taps()).map(|tap| self.area(tap)).max();
        last.unwrap_or(0) + 1
    }

    fn c_stride(&self) -> usize {
        (self.panels * self.cols).next_multiple_of(LINE)
    }

    fn block_len(&self) -> usize {
        self.shape.taps() * self.block * self.c_stride()
    }

    /// Places of a sequence that are summed over.
    fn len(&self) -> usize {
        let s = self.shape;
        match self.dense() {
            true => (s.height.in_len - 1) * self.pitch + s.history + s.width.in_len,
            false => self.out_len(),
        }
    }

    /// Places of a sequence's output gradients.
    fn out_len(&self) -> usize {
        (self.shape.height.out_len - 1) * self.pitch + self.shape.width.out_len
    }

    /// Lowest and highest shift.
    fn shifts(&self) -> (isize, isize) {
        let shifts = (0..self.shape.taps()).map(|tap| self.shift(tap));
        (shifts.clone().min().unwrap_or(0), shifts.max().unwrap_or(0))
    }

    /// The work in parts of about [`PART`] rows to pack.
    fn parts(&self) -> Vec<Vec<Run>> {
        let mut parts = Vec::new();
        let mut part: Vec<Run> = Vec::new();
        let mut rows = 0;
        // so long that most of what is packed is not packed for the next run again
        let shifts = self.shifts();
        let len = (shifts.1 - shifts.0)
            .unsigned_abs()
            .next_multiple_of(RUN)
            .max(RUN);
        for sequence in 0..self.shape.batch {
            for from in (0..self.len()).step_by(len) {
                let run = self.run(sequence, from, (from + len).min(self.len()), shifts);
                part.push(run);
                rows += run.words * self.format.per_word();
                if rows >= PART.max(2 * len) {
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

    fn run(&self, sequence: usize, from: usize, to: usize, shifts: (isize, isize)) -> Run {
        let per_word = self.format.per_word() as isize;
        let margin = self.step as isize * per_word;
        let (lowest, highest) = shifts;
        let first = (from as isize + lowest).max(-margin);
        let dy_from = first - first.rem_euclid(per_word);
        let end = (to as isize + highest + margin).min(self.out_len() as isize + margin);
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
                micro.vectorized(
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
        let (lines, columns) = (s.height.out_len, s.width.out_len);
        let row = |place: isize| {
            let place = usize::try_from(place)
                .ok()
                .filter(|&p| p < self.out_len())?;
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
            micro.vectorized(
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

    /// Row `i` of one copy of a span; nothing where it is not the span's, or beyond a line.
    #[inline(always)]
    fn x_row(&self, span: &Span, area: usize, i: usize) -> Option<&[X]> {
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

    /// Of line `i` of places, those at which tap `tap` reads both x and dy.
    fn places(&self, tap: usize, i: usize) -> Range<usize> {
        let s = self.shape;
        let (m, n) = s.tap(tap);
        let (history, width) = (s.history as isize, &s.width);
        let columns = if self.dense() {
            // the line and the columns of dy
            let line = i as isize - s.height.position(m, 0);
            if !(0..s.height.out_len as isize).contains(&line) {
                return 0..0;
            }
            let first = width.position(n, 0);
            let from = first.max(-history) + history;
            let to = (first + width.out_len as isize).min(width.in_len as isize) + history;
            from.max(0).unsigned_abs()..to.max(0).unsigned_abs()
        } else {
            if s.height.input(m, i).is_none() {
                return 0..0;
            }
            let all = 0..width.out_len;
            width
                .segment(n, (-history, width.in_len as isize), &all)
                .out
        };
        i * self.pitch + columns.start..i * self.pitch + columns.end
    }

    /// What tap `tap` sums over `spans`, without the steps in which all of x or of dy is zero.
    fn terms<M: Micro>(&self, spans: &[Span], tap: usize, run_len: usize) -> Vec<Term> {
        let per_word = self.format.per_word();
        let mut terms = Vec::with_capacity(spans.len());
        let mut at = 0;
        for span in spans {
            let words = self.x_words(span);
            let a = at + self.area(tap) * words;
            at += self.areas() * words;
            // the places of x and of dy at word 0
            let origin = span.from as isize - self.phase(tap) as isize;
            let dy = origin + self.shift(tap) - span.run.dy_from;
            let word = |place: usize| (place as isize - origin).unsigned_abs();
            // whole steps; where two lines meet in one, they are one range of words
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for line in span.from / self.pitch..=(span.to - 1) / self.pitch {
                let places = self.places(tap, line);
                let (from, to) = (places.start.max(span.from), places.end.min(span.to));
                if from >= to {
                    continue;
                }
                let from = word(from) / per_word / M::STEP * M::STEP;
                let to = self.format.words(word(to)).next_multiple_of(M::STEP);
                match ranges.last_mut() {
                    Some(last) if from <= last.end => last.end = to,
                    _ => ranges.push(from..to),
                }
            }
            terms.extend(ranges.into_iter().map(|words| {
                let b = dy / per_word as isize + words.start as isize;
                Term {
                    a: a + words.start,
                    b: span.index * run_len + b.unsigned_abs() * M::COLS,
                    depth: words.len(),
                }
            }));
        }
        terms
    }

    /// Writes the sums (group, block, tap, in, out) as (out, in, tap).
    fn unpack(&self, sums: &[f32], dw: &mut [f32]) {
        let s = self.shape;
        let (gi, go, taps) = (s.group_in(), s.group_out(), s.taps());
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
