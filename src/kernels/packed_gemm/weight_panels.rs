//! Weights and rows packed in the layout that [`MicroKernel`](super::MicroKernel) reads.

use super::super::conv::ConvShape;
use super::super::{MOST_COLS, Stored, parallel};
use super::{Format, MicroKernel};

/// The matrices of a weight, one for each tap and group, with the inner axis of the product first.
#[derive(Debug, Clone, Copy)]
pub struct WeightPanels {
    /// Numbers along the depth of one group's product.
    pub depth: usize,
    /// Columns of one group's product.
    pub columns: usize,
    /// Words of one tap's depth in a panel.
    pub words: usize,
    /// Panels of one group.
    pub panels: usize,
    /// Words from panel to panel: those of all taps.
    pub stride: usize,
    /// `true` if depth is `out_channels`, for the input gradient; otherwise it is `in_channels`.
    transposed: bool,
}

impl WeightPanels {
    /// The sizes for a product that contracts the input channels or, `transposed`, the output channels.
    pub fn new<M: MicroKernel>(shape: &ConvShape, transposed: bool) -> Self {
        let (gi, go) = (shape.group_in(), shape.group_out());
        let (depth, columns) = if transposed { (go, gi) } else { (gi, go) };
        let words = M::FORMAT.words(depth).next_multiple_of(M::STEP);
        Self {
            depth,
            columns,
            words,
            panels: columns.div_ceil(M::COLS),
            stride: shape.taps() * words * M::COLS,
            transposed,
        }
    }

    /// Words of all panels of all groups.
    pub fn len(&self, shape: &ConvShape) -> usize {
        shape.groups * self.panels * self.stride
    }

    /// Packs `weight` (out_channels, in_channels / groups, taps) as (group, panel, tap, depth,
    /// column), zeros beyond the last depth and column.
    pub fn pack<M: MicroKernel>(
        &self,
        micro: M,
        shape: &ConvShape,
        weight: &[f32],
        packed: &mut [u32],
    ) {
        let group_len = shape.group_out() * shape.group_in() * shape.taps();
        parallel::for_each(packed.chunks_exact_mut(self.stride).enumerate(), |(i, panel)| {
            let (group, first) = (i / self.panels, i % self.panels * M::COLS);
            let weight = &weight[group * group_len..][..group_len];
            micro.vectorized(
                #[inline(always)]
                || self.pack_panel::<M>(shape, weight, first, panel),
            );
        });
    }

    #[inline(always)]
    fn pack_panel<M: MicroKernel>(
        &self,
        shape: &ConvShape,
        weight: &[f32],
        first: usize,
        panel: &mut [u32],
    ) {
        let (taps, row) = (shape.taps(), shape.group_in() * shape.taps());
        // how far the next depth and the next column are in the weight
        let (along, across) = if self.transposed { (row, taps) } else { (taps, row) };
        let columns = M::COLS.min(self.columns - first);
        let per_word = M::FORMAT.per_word();
        let column = |depth: usize, tap: usize| {
            weight[first * across + depth * along + tap..].iter().step_by(across).take(columns)
        };
        let mut second = [0.0; MOST_COLS];
        for k in 0..self.words {
            for tap in 0..taps {
                let words = &mut panel[(tap * self.words + k) * M::COLS..][..M::COLS];
                words.fill(0);
                if k * per_word < self.depth {
                    let numbers = column(k * per_word, tap);
                    words.iter_mut().zip(numbers).for_each(|(word, x)| *word = x.to_bits());
                }
                if M::FORMAT == Format::Single {
                    continue;
                }
                // gathered before, so that rounding is vectorised
                if per_word == 2 {
                    second.fill(0.0);
                    if 2 * k + 1 < self.depth {
                        let numbers = column(2 * k + 1, tap);
                        second.iter_mut().zip(numbers).for_each(|(to, &x)| *to = x);
                    }
                }
                for (word, &second) in words.iter_mut().zip(&second) {
                    *word = M::FORMAT.word(f32::from_bits(*word), second);
                }
            }
        }
    }
}

/// Packs one row of `groups` groups: each group's channels from a word of its own, `words` words each.
#[inline(always)]
pub fn pack_row<S: Stored<Real = f32>>(
    format: Format,
    row: &[S],
    groups: usize,
    group_channels: usize,
    words: usize,
    packed: &mut [u32],
) {
    for group in 0..groups {
        let row = &row[group * group_channels..][..group_channels];
        format.row(row, &mut packed[group * words..][..words]);
    }
}
