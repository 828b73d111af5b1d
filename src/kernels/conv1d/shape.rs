//! The sizes of a convolution, and which rows its taps read.

use std::ops::Range;

use crate::{Error, Result};

/// The sizes of one 1-D dilated convolution. All are counted in elements or rows (time steps).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dShape {
    /// Sequences.
    pub batch: usize,
    /// Input rows per sequence.
    pub in_len: usize,
    /// Output rows per sequence.
    pub out_len: usize,
    /// Numbers per input row.
    pub in_channels: usize,
    /// Numbers per output row.
    pub out_channels: usize,
    /// Taps.
    pub kernel_size: usize,
    /// Rows between two taps.
    pub dilation: usize,
    /// Input rows between two output rows.
    pub stride: usize,
    /// Independent channel groups; divides both channel counts.
    pub groups: usize,
    /// Rows before the first input row that output row 0 starts at.
    pub pad_left: usize,
    /// Rows of carried history that stand right before the input (zero rows before them).
    pub history: usize,
}

/// A run of output rows that read one source at one tap: output rows `out` read source rows
/// `first`, `first + stride`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub out: Range<usize>,
    pub first: usize,
}

impl Conv1dShape {
    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups.max(1)
    }

    /// Output rows within `within` whose source row `r·stride + offset` lies in `lo..hi`, with the
    /// first source row counted from `lo`.
    fn segment(&self, tap: usize, lo: isize, hi: isize, within: &Range<usize>) -> Segment {
        let stride = self.stride as isize;
        let offset = (tap * self.dilation) as isize - self.pad_left as isize;
        let from = (lo - offset).max(0) as usize;
        let to = (hi - offset).max(0) as usize;
        let start = from.div_ceil(self.stride).max(within.start);
        let end = to.div_ceil(self.stride).min(within.end).max(start);
        Segment {
            out: start..end,
            first: if start < end {
                (start as isize * stride + offset - lo) as usize
            } else {
                0
            },
        }
    }

    /// The output rows of `within` that read the input at `tap`, and where they start reading.
    pub(in super::super) fn input_segment(&self, tap: usize, within: &Range<usize>) -> Segment {
        self.segment(tap, 0, self.in_len as isize, within)
    }

    /// The same for the carried history.
    pub(in super::super) fn history_segment(&self, tap: usize, within: &Range<usize>) -> Segment {
        self.segment(tap, -(self.history as isize), 0, within)
    }

    /// A pointwise convolution sees no neighbours, so the whole batch is one long sequence.
    pub(super) fn merged(&self) -> Self {
        let pointwise = self.kernel_size == 1 && self.stride == 1 && self.pad_left == 0;
        if pointwise && self.history == 0 && self.in_len == self.out_len {
            let rows = self.batch * self.in_len;
            Self {
                batch: 1,
                in_len: rows,
                out_len: rows,
                ..*self
            }
        } else {
            *self
        }
    }

    pub(super) fn weight_len(&self) -> usize {
        product([self.out_channels, self.group_in(), self.kernel_size])
    }

    /// Whether every row number of the convolution fits a signed integer, with room to add some.
    fn is_addressable(&self) -> bool {
        let taps = self.kernel_size.checked_mul(self.dilation);
        let rows = self.out_len.checked_mul(self.stride);
        let sizes = [
            taps,
            rows,
            Some(self.in_len),
            Some(self.pad_left),
            Some(self.history),
        ];
        sizes
            .into_iter()
            .try_fold(0usize, |sum, size| sum.checked_add(size?))
            .is_some_and(|sum| sum <= isize::MAX as usize / 4)
    }

    pub(super) fn check(&self, buffers: &[(&'static str, usize, usize)]) -> Result<()> {
        if self.groups == 0
            || self.stride == 0
            || self.kernel_size == 0
            || !self.in_channels.is_multiple_of(self.groups)
            || !self.out_channels.is_multiple_of(self.groups)
        {
            return Err(Error::invalid(
                "convolution",
                "kernel_size, stride and groups of at least 1, groups dividing both channel counts",
                format!("{self:?}"),
            ));
        }
        if !self.is_addressable() {
            return Err(Error::too_large("the convolution", format!("{self:?}")));
        }
        for &(name, expected, found) in buffers {
            if expected != found {
                return Err(Error::invalid(name, format!("{expected} elements"), found));
            }
        }
        Ok(())
    }

    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (
            product([self.batch, self.in_len, self.in_channels]),
            product([self.batch, self.history, self.in_channels]),
            product([self.batch, self.out_len, self.out_channels]),
        )
    }
}

/// A number of elements; what overflows is longer than any slice.
fn product(sizes: [usize; 3]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}
