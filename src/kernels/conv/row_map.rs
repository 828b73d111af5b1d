//! Which row of its source each row of a result reads at each tap: the one place that reckons with padding,
//! dilation, stride and history.
//!
//! The results are outputs and read inputs, or they are gradients of inputs and read gradients of outputs; the
//! weight's gradient sums over the pairs of rows of the former.

use std::ops::Range;

use super::{Axis, ConvShape};

/// One axis: result `r` reads at tap `tap` position `(r·stride + start + tap·step) / divide`, where that is whole.
#[derive(Debug, Clone, Copy)]
pub struct AxisMap {
    /// Positions that there are.
    pub len: usize,
    /// Positions before 0 that were carried.
    pub history: usize,
    /// Results.
    pub out: usize,
    pub taps: usize,
    pub stride: usize,
    pub divide: usize,
    start: isize,
    step: isize,
}

impl AxisMap {
    /// Outputs that read inputs.
    pub fn forward(axis: &Axis, history: usize) -> Self {
        Self {
            len: axis.in_len,
            history,
            out: axis.out_len,
            taps: axis.kernel_size,
            stride: axis.stride,
            divide: 1,
            start: -(axis.pad_before as isize),
            step: axis.dilation as isize,
        }
    }

    /// Gradients of inputs that read gradients of outputs: the same taps, mirrored.
    pub fn backward(axis: &Axis) -> Self {
        Self {
            len: axis.out_len,
            history: 0,
            out: axis.in_len,
            taps: axis.kernel_size,
            stride: 1,
            divide: axis.stride,
            start: axis.pad_before as isize,
            step: -(axis.dilation as isize),
        }
    }

    /// `divide` times the position that result `r` reads at `tap`.
    fn numerator(&self, tap: usize, r: usize) -> isize {
        (r * self.stride) as isize + self.start + tap as isize * self.step
    }

    /// The position that result `r` reads at `tap`; a negative one was carried.
    #[inline(always)]
    pub fn read(&self, tap: usize, r: usize) -> Option<isize> {
        let (numerator, divide) = (self.numerator(tap, r), self.divide as isize);
        // a division costs more than all the rest
        let position = if divide == 1 { numerator } else { numerator.div_euclid(divide) };
        let whole = position * divide == numerator;
        (whole && self.positions().contains(&position)).then_some(position)
    }

    fn positions(&self) -> Range<isize> {
        -(self.history as isize)..self.len as isize
    }

    /// The results of `within` that read at `tap` one of `positions`: of the range every `divide`-th.
    fn readers_of(
        &self,
        tap: usize,
        positions: Range<isize>,
        within: &Range<usize>,
    ) -> Range<usize> {
        let (start, divide) = (self.numerator(tap, 0), self.divide as isize);
        // the first result that reads this position or a later one
        let first = |position: isize| {
            let numerator = position * divide - start;
            (-(-numerator).div_euclid(self.stride as isize)).max(0).unsigned_abs()
        };
        let from = first(positions.start).max(within.start);
        let from = from + (-start - from as isize).rem_euclid(divide).unsigned_abs();
        from..first(positions.end).min(within.end).max(from)
    }

    /// The results of `within` that read anything at `tap`: of the range every `divide`-th.
    pub fn readers(&self, tap: usize, within: &Range<usize>) -> Range<usize> {
        self.readers_of(tap, self.positions(), within)
    }

    /// The tap that reads what `tap` reads, some results later: the one that reads each position last.
    fn leader(&self, tap: usize) -> usize {
        let step = self.step.unsigned_abs();
        // so many taps further on, positions have the same remainder
        let cycle = (1..self.stride).find(|taps| (taps * step).is_multiple_of(self.stride));
        let cycle = cycle.unwrap_or(self.stride);
        match self.step < 0 {
            true => tap + (self.taps - 1 - tap) / cycle * cycle,
            false => tap % cycle,
        }
    }

    /// Each tap's leader, itself where rows are not shared, and how many results later that reads the same.
    fn leaders(&self, shared: bool) -> Vec<(usize, usize)> {
        let lag = |tap: usize, leader: usize| {
            tap.abs_diff(leader) * self.step.unsigned_abs() / self.stride
        };
        let leader = |tap| if shared { self.leader(tap) } else { tap };
        (0..self.taps).map(|tap| (leader(tap), lag(tap, leader(tap)))).collect()
    }
}

/// A tap as one of those that share packed rows: its area, and how many lines and columns further on it reads
/// what the area's leader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedTap {
    pub area: usize,
    pub lines: usize,
    pub columns: usize,
}

/// The taps by areas: those of an area read the rows that its leader reads, so that these are packed once.
#[derive(Debug)]
pub struct Areas {
    /// The line and the column tap that leads each area.
    pub leaders: Vec<(usize, usize)>,
    /// Every tap.
    pub taps: Vec<SharedTap>,
    /// Most lines and columns that a tap reads further on.
    pub reach: (usize, usize),
    /// The results, or places beyond the last, at which a leader reads anything: lines and columns.
    pub real: (Range<usize>, Range<usize>),
}

impl Areas {
    /// Rows from line to line with which, at the least, no tap of a line reads a neighbour's rows: zeros between
    /// two lines serve both.
    pub fn pitch(&self, columns: &AxisMap) -> usize {
        let real = &self.real.1;
        columns.out.max(real.end).max((columns.out + self.reach.1).saturating_sub(real.start))
    }
}

/// The rows that a product reads.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a, S> {
    /// (batch, lines, columns, channels)
    data: &'a [S],
    /// (batch, lines, history, channels): the columns before column 0.
    past: &'a [S],
    pub channels: usize,
    pub lines: AxisMap,
    pub columns: AxisMap,
}

/// Results of a line, every `divide`-th from `first` on, that read rows of one buffer, every `stride`-th.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a, S> {
    pub first: usize,
    pub count: usize,
    /// From the first row on that is read.
    pub rows: &'a [S],
}

impl<'a, S: Copy> Source<'a, S> {
    /// The inputs, as outputs read them.
    pub fn forward(shape: &ConvShape, (x, history): (&'a [S], &'a [S])) -> Self {
        Self {
            data: x,
            past: history,
            channels: shape.in_channels,
            lines: AxisMap::forward(&shape.height, 0),
            columns: AxisMap::forward(&shape.width, shape.history),
        }
    }

    /// The gradients of outputs, as the gradients of inputs read them.
    pub fn backward(shape: &ConvShape, dy: &'a [S]) -> Self {
        Self {
            data: dy,
            past: &[],
            channels: shape.out_channels,
            lines: AxisMap::backward(&shape.height),
            columns: AxisMap::backward(&shape.width),
        }
    }

    /// The line (of all images) that result line `r` of an image reads at line tap `tap`.
    pub fn line_of(&self, image: usize, tap: usize, r: usize) -> Option<usize> {
        Some(image * self.lines.len + self.lines.read(tap, r)?.unsigned_abs())
    }

    /// The line (of all images) that result line `line` (of all images) reads at line tap `tap`.
    pub fn line(&self, tap: usize, line: usize) -> Option<usize> {
        self.line_of(line / self.lines.out, tap, line % self.lines.out)
    }

    /// The row of line `line` that result `r` reads at column tap `tap`.
    #[inline(always)]
    pub fn row(&self, tap: usize, line: usize, r: usize) -> Option<&'a [S]> {
        let columns = &self.columns;
        let column = columns.read(tap, r)?;
        let (rows, row) = match usize::try_from(column) {
            Ok(column) => (self.data, line * columns.len + column),
            Err(_) => (self.past, (line + 1) * columns.history - column.unsigned_abs()),
        };
        Some(&rows[row * self.channels..][..self.channels])
    }

    /// The rows of line `line` that the results `within` read at column tap `tap`: of the history, then of the
    /// line itself.
    #[inline(always)]
    pub fn runs(
        &self,
        tap: usize,
        line: usize,
        within: Range<usize>,
    ) -> impl Iterator<Item = Run<'a, S>> + Clone {
        let Self { data, past, channels, columns, .. } = *self;
        let run = |rows: &'a [S], len: usize, start: isize| {
            if len == 0 {
                return None;
            }
            let results = columns.readers_of(tap, start..start + len as isize, &within);
            let position = columns.read(tap, results.start).filter(|_| !results.is_empty())?;
            let row = line * len + (position - start).unsigned_abs();
            Some(Run {
                first: results.start,
                count: results.len().div_ceil(columns.divide),
                rows: &rows[row * channels..(line + 1) * len * channels],
            })
        };
        let history = columns.history;
        let runs = [run(past, history, -(history as isize)), run(data, columns.len, 0)];
        runs.into_iter().flatten()
    }

    /// The taps by areas, in which lines and columns are `shared` or not.
    pub fn areas(&self, shared: (bool, bool)) -> Areas {
        let (lines, columns) = (self.lines.leaders(shared.0), self.columns.leaders(shared.1));
        let mut leaders: Vec<(usize, usize)> = Vec::new();
        let mut taps = Vec::with_capacity(lines.len() * columns.len());
        for &(m, later_lines) in &lines {
            for &(n, later_columns) in &columns {
                let found = leaders.iter().position(|&leader| leader == (m, n));
                let area = found.unwrap_or(leaders.len());
                if found.is_none() {
                    leaders.push((m, n));
                }
                taps.push(SharedTap { area, lines: later_lines, columns: later_columns });
            }
        }
        let reach = (
            taps.iter().map(|tap| tap.lines).max().unwrap_or(0),
            taps.iter().map(|tap| tap.columns).max().unwrap_or(0),
        );
        let hull = |axis: &AxisMap, reach: usize, taps: &[(usize, usize)]| {
            let readers =
                taps.iter().map(|&(leader, _)| axis.readers(leader, &(0..axis.out + reach)));
            let read = readers.filter(|readers| !readers.is_empty());
            let hull = read.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
            hull.unwrap_or(0..0)
        };
        let real = (hull(&self.lines, reach.0, &lines), hull(&self.columns, reach.1, &columns));
        Areas { leaders, taps, reach, real }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Axes with any padding, dilation and stride.
    fn axes() -> impl Strategy<Value = Axis> {
        let sizes = (1usize..12, 1usize..12, 1usize..5, 1usize..5, 1usize..5, 0usize..12);
        sizes.prop_map(|(in_len, out_len, kernel_size, dilation, stride, pad_before)| Axis {
            in_len,
            out_len,
            kernel_size,
            dilation,
            stride,
            pad_before,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        /// Output `r` reads input `r·stride + tap·dilation − pad_before`; of the gradient, that input reads `r`.
        #[test]
        fn results_read_what_the_formula_says(axis in axes(), history in 0usize..6) {
            let (forward, backward) = (AxisMap::forward(&axis, history), AxisMap::backward(&axis));
            for tap in 0..axis.kernel_size {
                for r in 0..axis.out_len {
                    let input = (r * axis.stride + tap * axis.dilation) as isize - axis.pad_before as isize;
                    let there = (-(history as isize)..axis.in_len as isize).contains(&input);
                    prop_assert_eq!(forward.read(tap, r), there.then_some(input));
                    if there && input >= 0 {
                        prop_assert_eq!(backward.read(tap, input.unsigned_abs()), Some(r as isize));
                    }
                }
                let read = (0..axis.in_len).filter_map(|i| backward.read(tap, i)).count();
                let inputs = (0..axis.out_len).filter_map(|r| forward.read(tap, r));
                prop_assert_eq!(read, inputs.filter(|&input| input >= 0).count());
            }
        }

        /// Ranges and leaders say the same as single positions.
        #[test]
        fn ranges_and_leaders_agree_with_positions(axis in axes(), history in 0usize..6, from in 0usize..6) {
            for map in [AxisMap::forward(&axis, history), AxisMap::backward(&axis)] {
                let within = from..from + map.out;
                for tap in 0..map.taps {
                    let read: Vec<usize> = within.clone().filter(|&r| map.read(tap, r).is_some()).collect();
                    let readers: Vec<usize> = map.readers(tap, &within).step_by(map.divide).collect();
                    prop_assert_eq!(read, readers);
                    let (leader, lag) = map.leaders(true)[tap];
                    for r in 0..map.out {
                        prop_assert_eq!(map.read(tap, r), map.read(leader, r + lag));
                    }
                }
            }
        }

        /// Runs give the rows of the history and of the line.
        #[test]
        fn runs_agree_with_rows(axis in axes(), history in 0usize..4) {
            let shape = ConvShape {
                batch: 2,
                in_channels: 1,
                out_channels: 1,
                groups: 1,
                height: Axis::ONE,
                width: axis,
                history,
            };
            let x: Vec<usize> = (0..2 * axis.in_len).collect();
            let past: Vec<usize> = (100..100 + 2 * history).collect();
            let source = Source::forward(&shape, (&x, &past));
            for tap in 0..axis.kernel_size {
                for line in 0..2 {
                    let mut rows = vec![None; axis.out_len];
                    for run in source.runs(tap, line, 0..axis.out_len) {
                        let read = run.rows.iter().step_by(axis.stride).take(run.count);
                        rows[run.first..].iter_mut().zip(read).for_each(|(row, &x)| *row = Some(x));
                    }
                    let wanted = (0..axis.out_len).map(|r| Some(source.row(tap, line, r)?[0]));
                    prop_assert_eq!(rows, wanted.collect::<Vec<_>>());
                }
            }
        }
    }
}
