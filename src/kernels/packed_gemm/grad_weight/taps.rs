//! The geometry of a weight gradient: the places of x and dy that each tap sums over.

use std::ops::Range;

use super::super::super::Stored;
use super::super::super::conv::ConvShape;
use super::super::{MicroKernel, Term};
use super::row_spans::{RowRun, RowSpan};
use super::{Gradient, STRIP};

/// Places of a sequence whose output gradients are packed together, at least.
const RUN: usize = 1024;

/// Rows whose output gradients are packed at once.
const PART: usize = 4096;

/// `true` if taps share the packed rows of x; otherwise each has its own, in step with dy.
fn is_dense(shape: &ConvShape) -> bool {
    (shape.height.stride, shape.width.stride) == (1, 1)
}

/// Places from one line to the next: of dy where taps have their own rows of x. Otherwise room for the
/// columns of x (with the history) and of dy, and for as many zeros between lines as keep a tap of one
/// line off the next, or as the rounding of terms to whole steps can take in.
pub(super) fn pitch<M: MicroKernel>(shape: &ConvShape) -> usize {
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
    pub(super) fn dense(&self) -> bool {
        is_dense(self.shape)
    }

    /// Distance from a place of x to its place of dy.
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
        self.shift(tap).rem_euclid(self.format.per_word() as isize).unsigned_abs()
    }

    /// Number of the packed copy of x that a tap reads.
    fn area(&self, tap: usize) -> usize {
        if self.dense() { self.phase(tap) } else { tap }
    }

    pub(super) fn areas(&self) -> usize {
        let last = (0..self.shape.taps()).map(|tap| self.area(tap)).max();
        last.unwrap_or(0) + 1
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
    pub(super) fn out_len(&self) -> usize {
        (self.shape.height.out_len - 1) * self.pitch + self.shape.width.out_len
    }

    /// Lowest and highest shift.
    fn shifts(&self) -> (isize, isize) {
        let shifts = (0..self.shape.taps()).map(|tap| self.shift(tap));
        (shifts.clone().min().unwrap_or(0), shifts.max().unwrap_or(0))
    }

    /// The work in parts of about [`PART`] rows to pack.
    pub(super) fn parts(&self) -> Vec<Vec<RowRun>> {
        let mut parts = Vec::new();
        let mut part: Vec<RowRun> = Vec::new();
        let mut rows = 0;
        // so long that most of what is packed is not packed for the next run again
        let shifts = self.shifts();
        let len = (shifts.1 - shifts.0).unsigned_abs().next_multiple_of(RUN).max(RUN);
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

    fn run(&self, sequence: usize, from: usize, to: usize, shifts: (isize, isize)) -> RowRun {
        let per_word = self.format.per_word() as isize;
        let margin = self.step as isize * per_word;
        let (lowest, highest) = shifts;
        let first = (from as isize + lowest).max(-margin);
        let dy_from = first - first.rem_euclid(per_word);
        let end = (to as isize + highest + margin).min(self.out_len() as isize + margin);
        RowRun {
            sequence,
            from,
            to,
            dy_from,
            words: self.format.words((end - dy_from).max(0).unsigned_abs()),
        }
    }

    /// Words of depth of one copy of a span's rows of x.
    pub(super) fn x_words(&self, span: &RowSpan) -> usize {
        let rows = span.to - span.from + self.format.per_word() - 1;
        let words = self.format.words(rows);
        words.next_multiple_of(STRIP)
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
            width.segment(n, (-history, width.in_len as isize), &all).out
        };
        i * self.pitch + columns.start..i * self.pitch + columns.end
    }

    /// Terms of tap `tap` over `spans`, without the steps in which all of x or of dy is zero.
    pub(super) fn terms<M: MicroKernel>(
        &self,
        spans: &[RowSpan],
        tap: usize,
        run_len: usize,
    ) -> Vec<Term> {
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
}
