//! The steps of a receptive field that are read, and the holes between them.
//!
//! The reached steps are kept as sorted runs. A stack without holes is one run however wide its
//! field, so the answer is exact and cheap for every stack that anyone would train; only a stack
//! that falls into more than [`MAX_RUNS`] runs is given up.

use super::{Block, Layer, Stack};
use crate::Result;
use serde::Serialize;

/// The most runs that one set of reached steps may have.
const MAX_RUNS: usize = 1 << 18;
/// The most runs that one walk down a stack may go through: some tenths of a second of work.
const MAX_WORK: usize = 1 << 26;
/// Most holes that [`Holes::first`] lists.
const LISTED_HOLES: usize = 8;

/// Steps from the first to the second, both included.
type Interval = (i64, i64);

/// The steps that one output step reads, as offsets from it: sorted runs, with a gap of at least
/// one step from each to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    runs: Vec<Interval>,
}

/// The steps inside a receptive field that no path reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holes {
    /// Their number.
    pub count: usize,
    /// The offsets of the eight nearest to the output step, nearest first.
    pub first: Vec<i64>,
}

impl Reach {
    /// The output step itself.
    fn point() -> Self {
        Self { runs: vec![(0, 0)] }
    }

    /// `true` if the step at `offset` is read.
    pub fn contains(&self, offset: i64) -> bool {
        let after = self.runs.partition_point(|run| run.0 <= offset);
        after > 0 && offset <= self.runs[after - 1].1
    }

    /// Number of steps that are read.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.1.abs_diff(run.0) + 1).sum()
    }

    /// First and last offset of each run of steps that are read, lowest first.
    #[cfg(feature = "models")]
    pub(crate) fn runs(&self) -> Vec<(i64, i64)> {
        self.runs.clone()
    }

    /// The gaps between the runs, as first and last offset.
    fn gaps(&self) -> impl DoubleEndedIterator<Item = Interval> {
        self.runs.windows(2).map(|pair| (pair[0].1 + 1, pair[1].0 - 1))
    }

    /// The steps between the first and the last that is read which are not read themselves.
    pub fn holes(&self) -> Holes {
        let count = self.gaps().map(|(low, high)| high.abs_diff(low) as usize + 1).sum();
        let back = self.gaps().rev().filter(|gap| gap.0 <= 0);
        let back = back.flat_map(|(low, high)| (low..=high.min(0)).rev());
        let ahead = self.gaps().filter(|gap| gap.1 > 0);
        let ahead = ahead.flat_map(|(low, high)| low.max(1)..=high);
        let mut first: Vec<i64> = back.take(LISTED_HOLES).chain(ahead.take(LISTED_HOLES)).collect();
        first.sort_by_key(|&offset| (offset.unsigned_abs(), offset));
        first.truncate(LISTED_HOLES);
        Holes { count, first }
    }
}

impl Stack {
    /// The input steps that one output step reads; `None` where they form too many separate runs
    /// (more than 262,144) to be listed.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`](crate::Error::TooLarge) where the receptive field overflows.
    ///
    /// # Example
    ///
    /// Kernel 2 at dilation 3 alone reads the step itself and the third before it.
    ///
    /// ```
    /// use candle_tcn::geometry::{Holes, Padding, Stack};
    /// let stack = Stack::uniform(2, &[3], 1, Padding::Causal)?;
    /// let holes = stack.reach()?.map(|reach| reach.holes());
    /// assert_eq!(stack.receptive_field()?.total, 4);
    /// assert_eq!(holes, Some(Holes { count: 2, first: vec![-1, -2] }));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn reach(&self) -> Result<Option<Reach>> {
        self.receptive_field()?;
        Ok(sums(&self.blocks))
    }

    /// The last `count` layers as a stack of their own. A block that is cut loses the path around
    /// it, which ends at the input of its first layer.
    #[cfg(any(test, feature = "models"))]
    pub(crate) fn suffix(&self, count: usize) -> Self {
        let mut missing = count;
        let mut blocks = Vec::new();
        for block in self.blocks.iter().rev() {
            if missing == 0 {
                break;
            }
            let cut = block.layers.len().saturating_sub(missing);
            missing = missing.saturating_sub(block.layers.len());
            blocks.push(Block {
                layers: block.layers[cut..].to_vec(),
                residual: block.residual && cut == 0,
            });
        }
        blocks.reverse();
        Self::new(blocks)
    }
}

/// The set of sums of one tap from each layer, in input steps.
///
/// Sums may be taken in any order. From the input on, small dilations come first in the usual
/// schedules, and the set stays one run.
///
/// The caller has checked the receptive field: every offset met here lies within it, so that no
/// sum overflows.
fn sums(blocks: &[Block]) -> Option<Reach> {
    let mut work = WorkLimit(MAX_WORK);
    let mut reach = Reach::point();
    let mut jump = 1;
    for block in blocks {
        let mut through = reach.clone();
        for layer in &block.layers {
            through = work.taps(&through, layer, jump)?;
            jump = jump.checked_mul(layer.stride())?;
        }
        reach = match block.residual {
            true => work.union(&reach, &through)?,
            false => through,
        };
    }
    Some(reach)
}

/// Operations on sets of steps, and how many runs they may still go through.
struct WorkLimit(usize);

impl WorkLimit {
    /// The positions that `layer`, whose steps are `jump` input steps wide, makes of those in `set`.
    /// Taps are doubled rather than added one by one: the union for `n` taps, moved by `n`
    /// dilations, gives the next `n`.
    fn taps(&mut self, set: &Reach, layer: &Layer, jump: usize) -> Option<Reach> {
        self.0 = self.0.checked_sub(set.runs.len())?;
        let mut reach = shift(set, -steps(layer.left(), jump)?);
        let mut taps = 1;
        while taps < layer.kernel_size() {
            let more = taps.min(layer.kernel_size() - taps);
            let by = steps(more.checked_mul(layer.dilation())?, jump)?;
            reach = self.union(&reach, &shift(&reach, by))?;
            taps += more;
        }
        Some(reach)
    }

    /// The steps in either set.
    fn union(&mut self, a: &Reach, b: &Reach) -> Option<Reach> {
        self.0 = self.0.checked_sub(a.runs.len() + b.runs.len())?;
        let mut runs: Vec<Interval> = Vec::with_capacity(a.runs.len());
        let (mut a, mut b) = (a.runs.as_slice(), b.runs.as_slice());
        loop {
            let next = match (a, b) {
                ([x, rest @ ..], [y, ..]) if x.0 <= y.0 => take(&mut a, *x, rest),
                (_, [y, rest @ ..]) => take(&mut b, *y, rest),
                ([x, rest @ ..], []) => take(&mut a, *x, rest),
                ([], []) => break,
            };
            match runs.last_mut() {
                Some(last) if next.0 <= last.1 + 1 => last.1 = last.1.max(next.1),
                _ => runs.push(next),
            }
        }
        (runs.len() <= MAX_RUNS).then_some(Reach { runs })
    }
}

/// `count` steps that are `jump` input steps wide each.
fn steps(count: usize, jump: usize) -> Option<i64> {
    i64::try_from(count.checked_mul(jump)?).ok()
}

/// `set`, moved by `by` steps.
fn shift(set: &Reach, by: i64) -> Reach {
    let runs = set.runs.iter().map(|run| (run.0 + by, run.1 + by));
    Reach { runs: runs.collect() }
}

fn take<'a>(from: &mut &'a [Interval], run: Interval, rest: &'a [Interval]) -> Interval {
    *from = rest;
    run
}
