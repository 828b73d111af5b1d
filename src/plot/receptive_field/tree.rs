//! Layout of the picture of a stack: integers only.

use crate::geometry::{Field, Layer, Reach, Stack};
use crate::{Error, Result};

/// Steps shown beyond each end of a field that is drawn whole.
const BEYOND: i64 = 2;
/// A kernel with more taps than this shows only the edges that end inside the picture.
const MAX_TAPS: usize = 9;
/// Most columns that an edge reaches beyond the picture.
const FAR: i64 = 4096;

// pixels
pub(super) const GUTTER: i64 = 176;
const TOP: i64 = 104;
const ROW: i64 = 46;
const BOTTOM: i64 = 48;
pub(super) const MARGIN: i64 = 28;
const MIN_WIDTH: i64 = 640;

/// One row of dots: the output of a layer, or the input.
pub(super) struct Level {
    /// Its steps that the output reads, in its own count.
    reach: Reach,
    /// Width of one of its steps, in steps of the lowest row.
    pub(super) jump: i64,
}

/// The layers that are drawn, from the output down.
pub(super) struct Tree<'a> {
    /// One more than there are layers.
    pub(super) levels: Vec<Level>,
    pub(super) layers: Vec<&'a Layer>,
    /// Name of the lowest row: the input, or the layer whose output it shows.
    pub(super) lowest: &'a str,
    pub(super) field: Field,
    /// Residual paths that no taps at offset 0 run along: from which level to which.
    pub(super) bypasses: Vec<(usize, usize)>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(stack: &'a Stack, lowest: &'a str) -> Result<Self> {
        let layers: Vec<&Layer> = stack.layers().rev().collect();
        let field = stack.receptive_field()?;
        let mut jump = signed(field.jump)?;
        let mut levels = Vec::new();
        for count in 0..=layers.len() {
            let reach = stack.suffix(count).reach()?.ok_or_else(|| {
                Error::too_large(
                    "the picture",
                    "the steps that are read form too many separate runs; use smaller kernels or \
                     dilations that grow from 1",
                )
            })?;
            if let Some(above) = count.checked_sub(1) {
                jump /= signed(layers[above].stride())?;
            }
            levels.push(Level { reach, jump });
        }
        let mut bypasses = Vec::new();
        let mut level = 0;
        for block in stack.blocks().iter().rev() {
            let from = level;
            level += block.layers().len();
            let along_taps = |layer: &Layer| layer.left().is_multiple_of(layer.dilation());
            if block.is_residual() && !block.layers().iter().all(along_taps) {
                bypasses.push((from, level));
            }
        }
        Ok(Self { levels, layers, lowest, field, bypasses })
    }
}

/// A tree and the part of it that is shown.
pub(super) struct Picture<'a> {
    pub(super) tree: &'a Tree<'a>,
    /// The first and the last step shown, as offsets from the output.
    pub(super) low: i64,
    pub(super) high: i64,
    /// Pixels from one step to the next.
    pub(super) pitch: i64,
}

impl<'a> Picture<'a> {
    /// The whole field where it is at most `columns` wide, else the steps nearest to the output.
    pub(super) fn new(tree: &'a Tree<'a>, columns: i64) -> Self {
        let Field { left, right, .. } = tree.field;
        // a field is far smaller than i64 holds, see Stack::receptive_field
        let (left, right) = (left as i64, right as i64);
        let (low, high) = if left + right + 1 + 2 * BEYOND <= columns {
            (-left - BEYOND, right + BEYOND)
        } else {
            let share = i128::from(columns) * i128::from(right) / i128::from(1 + left + right);
            (share as i64 + 1 - columns, share as i64)
        };
        let pitch = (1056 / (high - low + 1)).clamp(8, 40);
        Self { tree, low, high, pitch }
    }

    pub(super) fn columns(&self) -> i64 {
        self.high - self.low + 1
    }

    pub(super) fn is_whole(&self) -> bool {
        self.columns() as u128 >= self.tree.field.total as u128
    }

    /// Width and height in pixels, without a caption.
    pub(super) fn size(&self) -> (u32, u32) {
        let width = GUTTER + self.columns() * self.pitch + MARGIN;
        let height = TOP + ROW * self.tree.layers.len() as i64 + BOTTOM;
        (width.max(MIN_WIDTH) as u32, height as u32)
    }

    /// Place of the step at `offset` in the row of `level`; steps far outside are moved nearer.
    pub(super) fn point(&self, level: usize, offset: i64) -> (i32, i32) {
        let offset = offset.clamp(self.low - FAR, self.high + FAR);
        let x = GUTTER + (offset - self.low) * self.pitch + self.pitch / 2;
        (x as i32, (TOP + ROW * level as i64) as i32)
    }

    /// The steps of `level` between `low` and `high`, in steps of the lowest row.
    pub(super) fn steps(&self, level: usize, low: i64, high: i64) -> impl Iterator<Item = i64> {
        let jump = self.tree.levels[level].jump;
        (low.div_euclid(jump)..=high.div_euclid(jump))
            .map(move |step| step * jump)
            .filter(move |step| (low..=high).contains(step))
    }

    /// `true` if the output reads the step of `level` at `offset`.
    pub(super) fn reached(&self, level: usize, offset: i64) -> bool {
        let Level { reach, jump } = &self.tree.levels[level];
        offset % jump == 0 && reach.contains(offset / jump)
    }

    fn shows(&self, offset: i64) -> bool {
        (self.low..=self.high).contains(&offset)
    }

    /// The taps of the layer below `level` as offsets in steps of the lowest row.
    fn taps(&self, level: usize) -> Vec<i64> {
        let layer = self.tree.layers[level];
        let jump = self.tree.levels[level + 1].jump;
        if layer.kernel_size() == 1 {
            return vec![0];
        }
        // these fit, as the field does
        let (left, dilation) = (layer.left() as i64 * jump, layer.dilation() as i64 * jump);
        let last = layer.kernel_size() as i64 - 1;
        // an edge within the picture and its margins is no longer than this
        let longest =
            if layer.kernel_size() <= MAX_TAPS { i64::MAX / 4 } else { 2 * self.columns() };
        let first = ((left - longest) / dilation).max(0);
        let last = ((left + longest) / dilation).min(last);
        (first..=last).map(|tap| tap * dilation - left).collect()
    }

    /// The edges below `level` with an end in the picture (both, where there are many taps), as
    /// few long lines: from step to step along the taps that two of them share, with each step's
    /// other taps on the way.
    pub(super) fn edges(&self, level: usize) -> Vec<Vec<(i32, i32)>> {
        let taps = self.taps(level);
        let many = self.tree.layers[level].kernel_size() > MAX_TAPS;
        let drawn = |from: i64, tap: i64| match many {
            true => self.shows(from) && self.shows(from + tap),
            false => self.shows(from) || self.shows(from + tap),
        };
        let steps = self.readers(level, &taps);
        let between = taps.get(1).map_or(0, |second| second - taps[0]);
        // the second tap of one step is the first of the next
        let linked = |step: i64| {
            let next = step + between;
            between > 0
                && [step, next].iter().all(|s| steps.binary_search(s).is_ok())
                && drawn(step, taps[1])
                && drawn(next, taps[0])
        };
        let mut lines = Vec::new();
        for &start in steps.iter().filter(|&&step| !linked(step - between)) {
            let mut step = start;
            let mut line = vec![self.point(level, step)];
            loop {
                for &tap in taps.iter().filter(|&&tap| drawn(step, tap)) {
                    line.extend([self.point(level + 1, step + tap), self.point(level, step)]);
                }
                if !linked(step) {
                    break;
                }
                line.push(self.point(level + 1, step + taps[1]));
                step += between;
                line.push(self.point(level, step));
            }
            if line.len() > 1 {
                lines.push(line);
            }
        }
        lines
    }

    /// The reached steps of `level`, in order, which stand in the picture or read a step there.
    fn readers(&self, level: usize, taps: &[i64]) -> Vec<i64> {
        let shown = self.low..=self.high;
        let outside = shown.clone().flat_map(|to| taps.iter().map(move |tap| to - tap));
        let mut steps: Vec<i64> = shown.chain(outside).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.retain(|&step| self.reached(level, step));
        steps
    }
}

fn signed(value: usize) -> Result<i64> {
    i64::try_from(value)
        .map_err(|_| Error::too_large("the stride", format!("{value}; lower the strides")))
}
