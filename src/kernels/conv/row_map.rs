//! The row of its source that each row of a result reads at each tap: the one place that reckons with padding,
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
    pub step: isize,
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

    /// All positions.
    pub fn positions(&self) -> Range<isize> {
        -(self.history as isize)..self.len as isize
    }

    /// The results of `within` that read at `tap` one of `positions`: of the range every `divide`-th.
    pub fn readers(
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
}

/// The rows that a product reads.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a, S> {
    /// (batch, lines, columns, channels)
    pub data: &'a [S],
    /// (batch, lines, history, channels): the columns before column 0.
    pub past: &'a [S],
    pub channels: usize,
    pub lines: AxisMap,
    pub columns: AxisMap,
}

/// Results of a line, every `divide`-th from `first` on, that read rows of one buffer, every `stride`-th.
#[derive(Debug, Clone, Copy)]
pub struct RowRun<'a, S> {
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

    /// The rows of line `line` that the results `within` read at column tap `tap`: of the history, then of the
    /// line itself.
    #[inline(always)]
    pub fn runs(
        &self,
        tap: usize,
        line: usize,
        within: Range<usize>,
    ) -> impl Iterator<Item = RowRun<'a, S>> + Clone {
        let Self { data, past, channels, columns, .. } = *self;
        let run = |rows: &'a [S], len: usize, start: isize| {
            if len == 0 {
                return None;
            }
            let results = columns.readers(tap, start..start + len as isize, &within);
            let position = columns.read(tap, results.start).filter(|_| !results.is_empty())?;
            let row = line * len + (position - start).unsigned_abs();
            Some(RowRun {
                first: results.start,
                count: results.len().div_ceil(columns.divide),
                rows: &rows[row * channels..(line + 1) * len * channels],
            })
        };
        let history = columns.history;
        let runs = [run(past, history, -(history as isize)), run(data, columns.len, 0)];
        runs.into_iter().flatten()
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

        /// Ranges say the same as single positions.
        #[test]
        fn ranges_agree_with_positions(axis in axes(), history in 0usize..6, from in 0usize..6) {
            for map in [AxisMap::forward(&axis, history), AxisMap::backward(&axis)] {
                let within = from..from + map.out;
                for tap in 0..map.taps {
                    let read: Vec<usize> = within.clone().filter(|&r| map.read(tap, r).is_some()).collect();
                    let readers: Vec<usize> = map.readers(tap, map.positions(), &within).step_by(map.divide).collect();
                    prop_assert_eq!(read, readers);
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
                    let wanted = (0..axis.out_len).map(|r| {
                        let column = source.columns.read(tap, r)?;
                        Some(match usize::try_from(column) {
                            Ok(column) => line * axis.in_len + column,
                            Err(_) => 100 + (line + 1) * history - column.unsigned_abs(),
                        })
                    });
                    prop_assert_eq!(rows, wanted.collect::<Vec<_>>());
                }
            }
        }
    }
}
