//! The geometry of a weight gradient: the places of x and dy that each tap sums over.
//!
//! A sequence is a line of places, the lines of an image one after the other, `pitch` places from line to line, in x
//! as in dy. A tap pairs each place of dy with the place of x that lies [`Tap::offset`] further.

use std::ops::Range;

use super::super::super::conv::{AxisMap, Source};
use super::super::areas::Areas;
use super::super::{MicroKernel, Term};
use super::STRIP;

/// Places of a sequence whose output gradients are packed together, at least.
const RUN: usize = 1024;
/// Rows whose output gradients are packed at once.
const PART: usize = 4096;
/// Places of x that are transposed at once.
const SUB: usize = 512;
/// Places of x whose products are summed before the result goes back to memory.
const GROUP: usize = 1024;

/// Consecutive places of one sequence whose output gradients are packed together.
#[derive(Clone, Copy)]
pub struct PlaceRun {
    pub sequence: usize,
    pub from: usize,
    pub to: usize,
    /// The place of dy that is packed first; before the sequence where negative.
    pub dy_from: isize,
    /// Words of depth of the packed rows.
    pub words: usize,
}

/// Places of a run that are transposed together.
#[derive(Clone, Copy)]
pub struct RowSpan {
    pub run: PlaceRun,
    /// Number of the run in its part.
    pub index: usize,
    pub from: usize,
    pub to: usize,
}

/// The spans of run `index` of a part, at most [`SUB`] places each.
pub fn spans((index, &run): (usize, &PlaceRun)) -> impl Iterator<Item = RowSpan> {
    let span = move |from| RowSpan { run, index, from, to: run.to.min(from + SUB) };
    (run.from..run.to).step_by(SUB).map(span)
}

/// Cuts spans into groups of at most [`GROUP`] places, at least one span each.
pub fn groups(spans: &[RowSpan]) -> impl Iterator<Item = &[RowSpan]> {
    let mut rest = spans;
    std::iter::from_fn(move || {
        let mut places = 0;
        let fits = |span: &&RowSpan| {
            places += span.to - span.from;
            places <= GROUP
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// A copy of x: the rows that the leader of an area reads, `first` places later.
#[derive(Clone, Copy)]
struct Copied {
    area: usize,
    /// Of pairs, the first row of x may stand second in its word, so that pairs of dy stay pairs.
    first: usize,
}

struct Tap {
    /// Number of the copy of x that it reads.
    copy: usize,
    /// Distance from a place of dy to its place of x.
    offset: isize,
    /// Lines and columns of the result that its area's leader is behind.
    lag: (usize, usize),
}

/// The row of line `line` that result `r` reads at column tap `tap`.
#[inline(always)]
fn row_of<'a, X>(source: &Source<'a, X>, line: usize, tap: usize, r: usize) -> Option<&'a [X]> {
    let columns = &source.columns;
    let column = columns.read(tap, r)?;
    let (rows, row) = match usize::try_from(column) {
        Ok(column) => (source.data, line * columns.len + column),
        Err(_) => (source.past, (line + 1) * columns.history - column.unsigned_abs()),
    };
    Some(&rows[row * source.channels..][..source.channels])
}

/// The places of a convolution.
pub struct Places {
    lines: AxisMap,
    columns: AxisMap,
    leaders: Vec<(usize, usize)>,
    /// Lines and columns of the results, as leaders read, that have a place of x.
    real: (Range<usize>, Range<usize>),
    copies: Vec<Copied>,
    taps: Vec<Tap>,
    pitch: usize,
    /// Places of a sequence of x and of dy.
    len: (usize, usize),
    /// Rows in a word, and words that are multiplied at once.
    per_word: usize,
    step: usize,
}

impl Places {
    pub fn new<M: MicroKernel, X: Copy>(source: &Source<X>) -> Self {
        let Source { lines, columns, .. } = *source;
        let areas = Areas::new(&lines, &columns, (true, true));
        let (real_lines, real_columns) = &areas.real;
        let (per_word, step) = (M::FORMAT.per_word(), M::STEP);
        // room for the columns of x and of dy, and for as many zeros between lines as keep a tap of one line off
        // the next, or as the rounding of terms to whole steps can take in
        let room = columns.out.max(real_columns.len());
        let zeros = areas.pitch(&columns).saturating_sub(room);
        let pitch = room + zeros.min(step * per_word - 1);
        let mut places = Self {
            lines,
            columns,
            leaders: areas.leaders.clone(),
            real: areas.real.clone(),
            copies: Vec::new(),
            taps: Vec::with_capacity(areas.taps.len()),
            pitch,
            len: (
                real_lines.len().saturating_sub(1) * pitch + real_columns.len(),
                (lines.out - 1) * pitch + columns.out,
            ),
            per_word,
            step,
        };
        places.add_taps(&areas);
        places
    }

    fn add_taps(&mut self, areas: &Areas) {
        let mut numbers = vec![None; areas.leaders.len() * self.per_word];
        for tap in &areas.taps {
            let lines = tap.lines as isize - self.real.0.start as isize;
            let offset =
                lines * self.pitch as isize + tap.columns as isize - self.real.1.start as isize;
            let first = (-offset).rem_euclid(self.per_word as isize).unsigned_abs();
            let copy = *numbers[tap.area * self.per_word + first].get_or_insert_with(|| {
                self.copies.push(Copied { area: tap.area, first });
                self.copies.len() - 1
            });
            self.taps.push(Tap { copy, offset, lag: (tap.lines, tap.columns) });
        }
    }

    /// Copies of x.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// The rows of a copy of a span, then nothing without end; nothing also for places between lines.
    #[inline(always)]
    pub fn x_rows<'a, X: Copy>(
        &self,
        source: &Source<'a, X>,
        span: &RowSpan,
        copy: usize,
    ) -> impl FnMut() -> Option<&'a [X]> {
        let (Copied { area, first }, pitch) = (self.copies[copy], self.pitch);
        let ((m, n), source) = (self.leaders[area], *source);
        let (lines, columns) = (self.real.0.start, self.real.1.clone());
        let (mut i, mut j) = (span.from / pitch, span.from % pitch);
        let line_at = move |i: usize| source.line_of(span.run.sequence, m, lines + i);
        let mut line = line_at(i);
        let (mut before, mut left) = (first, span.to - span.from);
        move || {
            if before > 0 || left == 0 {
                before = before.saturating_sub(1);
                return None;
            }
            left -= 1;
            let found = if j < columns.len() { line } else { None };
            let row = found.and_then(|line| row_of(&source, line, n, columns.start + j));
            j += 1;
            if j == pitch {
                (i, j) = (i + 1, 0);
                line = line_at(i);
            }
            row
        }
    }

    /// The rows of dy, as numbers of rows of all sequences, from the first that a run packs; nothing between lines
    /// and beyond the sequence.
    #[inline(always)]
    pub fn dy_rows(&self, run: &PlaceRun) -> impl FnMut() -> Option<usize> {
        let (pitch, lines, columns) = (self.pitch, self.lines.out, self.columns.out);
        let mut before = (-run.dy_from).max(0).unsigned_abs();
        let from = run.dy_from.max(0).unsigned_abs();
        let (mut i, mut j) = (from / pitch, from % pitch);
        let first = run.sequence * lines;
        move || {
            if before > 0 {
                before -= 1;
                return None;
            }
            let row = (i < lines && j < columns).then_some((first + i) * columns + j);
            j += 1;
            if j == pitch {
                (i, j) = (i + 1, 0);
            }
            row
        }
    }

    /// The work on `batch` sequences in parts of about [`PART`] rows to pack.
    pub fn parts(&self, batch: usize) -> Vec<Vec<PlaceRun>> {
        let offsets = || self.taps.iter().map(|tap| tap.offset);
        let lowest = offsets().min().unwrap_or(0);
        let highest = offsets().max().unwrap_or(0);
        // so long that most of what is packed is not packed for the next run again
        let len = (highest - lowest).unsigned_abs().next_multiple_of(RUN).max(RUN);
        let runs = (0..batch).flat_map(|sequence| {
            let starts = (0..self.len.0).step_by(len);
            starts.map(move |from| (sequence, from..self.len.0.min(from + len)))
        });
        let (mut parts, mut part, mut rows) = (Vec::new(), Vec::new(), 0);
        for (sequence, places) in runs {
            let run = self.run(sequence, places, lowest..highest);
            rows += run.words * self.per_word;
            part.push(run);
            if rows >= PART.max(2 * len) {
                parts.push(std::mem::take(&mut part));
                rows = 0;
            }
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }

    fn run(&self, sequence: usize, places: Range<usize>, offsets: Range<isize>) -> PlaceRun {
        let per_word = self.per_word as isize;
        let margin = self.step as isize * per_word;
        let first = (places.start as isize - offsets.end).max(-margin);
        let dy_from = first - first.rem_euclid(per_word);
        let end = (places.end as isize - offsets.start).min(self.len.1 as isize) + margin;
        let words = (end - dy_from).max(0).unsigned_abs().div_ceil(self.per_word);
        PlaceRun { sequence, from: places.start, to: places.end, dy_from, words }
    }

    /// Words of depth of one copy of a span's rows of x.
    pub fn x_words(&self, span: &RowSpan) -> usize {
        let rows = span.to - span.from + self.per_word - 1;
        rows.div_ceil(self.per_word).next_multiple_of(STRIP)
    }

    /// Of line `i` of the places of x, those that tap `tap` (the `m`-th of the lines, `n`-th of the columns) pairs
    /// with one of dy.
    fn of_tap(&self, tap: &Tap, (m, n): (usize, usize), i: usize) -> Range<usize> {
        let line = (self.real.0.start + i).checked_sub(tap.lag.0);
        let line = line.filter(|&line| line < self.lines.out && self.lines.read(m, line).is_some());
        if line.is_none() {
            return 0..0;
        }
        let results = self.columns.readers(n, self.columns.positions(), &(0..self.columns.out));
        let place = |result: usize| i * self.pitch + result + tap.lag.1 - self.real.1.start;
        if results.is_empty() { 0..0 } else { place(results.start)..place(results.end) }
    }

    /// Terms of tap `tap` over `spans`, without the steps in which all of x or of dy is zero.
    pub fn terms<M: MicroKernel>(
        &self,
        spans: &[RowSpan],
        tap: usize,
        run_len: usize,
    ) -> Vec<Term> {
        let number = (tap / self.columns.taps, tap % self.columns.taps);
        let (tap, per_word) = (&self.taps[tap], self.per_word);
        let mut terms = Vec::with_capacity(spans.len());
        let mut at = 0;
        for span in spans {
            let words = self.x_words(span);
            let a = at + tap.copy * words;
            at += self.copies.len() * words;
            // the places of x and of dy at word 0
            let origin = span.from as isize - self.copies[tap.copy].first as isize;
            let dy = origin - tap.offset - span.run.dy_from;
            let word = |place: usize| (place as isize - origin).unsigned_abs();
            // whole steps; where two lines meet in one, they are one range of words
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for line in span.from / self.pitch..=(span.to - 1) / self.pitch {
                let places = self.of_tap(tap, number, line);
                let (from, to) = (places.start.max(span.from), places.end.min(span.to));
                if from >= to {
                    continue;
                }
                let from = word(from) / per_word / M::STEP * M::STEP;
                let to = word(to).div_ceil(per_word).next_multiple_of(M::STEP);
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
