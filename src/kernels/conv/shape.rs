//! The sizes of a convolution.

use crate::{Error, Result};

/// One axis of a convolution. All is counted in positions along it: output `r` reads, at tap `tap`,
/// input `r·stride + tap·dilation − pad_before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Inputs.
    pub in_len: usize,
    /// Outputs.
    pub out_len: usize,
    /// Taps.
    pub kernel_size: usize,
    /// Inputs between two taps.
    pub dilation: usize,
    /// Inputs between two outputs.
    pub stride: usize,
    /// Positions before the first input that output 0 starts at.
    pub pad_before: usize,
}

impl Axis {
    /// The axis that is not there: one input, one output, one tap.
    pub const ONE: Self =
        Self { in_len: 1, out_len: 1, kernel_size: 1, dilation: 1, stride: 1, pad_before: 0 };

    /// `true` if each output reads the input of its own place.
    fn is_pointwise(&self) -> bool {
        (self.kernel_size, self.stride, self.pad_before) == (1, 1, 0) && self.in_len == self.out_len
    }

    /// All that is counted along the axis, together.
    fn extent(&self) -> Option<usize> {
        let taps = self.kernel_size.checked_mul(self.dilation)?;
        let outputs = self.out_len.checked_mul(self.stride)?;
        let sizes = [outputs, self.in_len, self.pad_before];
        let mut sizes = sizes.into_iter();
        sizes.try_fold(taps, |sum, size| sum.checked_add(size))
    }
}

/// The sizes of one dilated convolution: of lines of columns (`height` and `width` of an image), or,
/// where `height` is [`Axis::ONE`], of sequences of time steps. A row is one column of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Images or sequences.
    pub batch: usize,
    /// Numbers per input row.
    pub in_channels: usize,
    /// Numbers per output row.
    pub out_channels: usize,
    /// Independent channel groups; divides both channel counts.
    pub groups: usize,
    /// Lines.
    pub height: Axis,
    /// Columns of a line, or time steps of a sequence.
    pub width: Axis,
    /// Columns of carried history that stand right before each line's input (zero columns before them).
    pub history: usize,
}

impl ConvShape {
    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups.max(1)
    }

    /// Taps along both axes: tap `m·width.kernel_size + n` is tap `m` of the lines, `n` of the columns.
    pub fn taps(&self) -> usize {
        self.height.kernel_size.saturating_mul(self.width.kernel_size)
    }

    /// The line's and the column's part of a tap.
    pub(crate) fn tap(&self, tap: usize) -> (usize, usize) {
        (tap / self.width.kernel_size, tap % self.width.kernel_size)
    }

    /// The same convolution with the axes along which it sees no neighbour made part of the batch.
    pub(super) fn merged(&self) -> Self {
        let mut merged = *self;
        if self.height.is_pointwise() {
            merged.batch *= self.height.in_len;
            merged.height = Axis::ONE;
        }
        if merged.height == Axis::ONE && self.width.is_pointwise() && self.history == 0 {
            let rows = merged.batch * self.width.in_len;
            merged.batch = 1;
            merged.width.in_len = rows;
            merged.width.out_len = rows;
        }
        merged
    }

    pub(super) fn weight_len(&self) -> usize {
        product([self.out_channels, self.group_in(), self.taps()])
    }

    /// `true` if every row number of the convolution fits a signed integer, with room to add some.
    fn is_addressable(&self) -> bool {
        let width = self.width.extent();
        let width = width.and_then(|width| width.checked_add(self.history));
        let rows = self.height.extent().zip(width);
        rows.and_then(|(lines, columns)| lines.checked_mul(columns))
            .is_some_and(|rows| rows <= isize::MAX as usize / 4)
    }

    pub(super) fn check(&self, buffers: &[(&'static str, usize, usize)]) -> Result<()> {
        let axes = [self.height, self.width];
        if self.groups == 0
            || axes.iter().any(|axis| axis.stride == 0 || axis.kernel_size == 0)
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

    /// Input rows of an image.
    pub(crate) fn in_rows(&self) -> usize {
        self.height.in_len.saturating_mul(self.width.in_len)
    }

    /// Output rows of an image.
    pub(crate) fn out_rows(&self) -> usize {
        self.height.out_len.saturating_mul(self.width.out_len)
    }

    /// Elements of the input, the history and the output.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let history = self.height.in_len.saturating_mul(self.history);
        (
            product([self.batch, self.in_rows(), self.in_channels]),
            product([self.batch, history, self.in_channels]),
            product([self.batch, self.out_rows(), self.out_channels]),
        )
    }
}

/// A number of elements; what overflows is longer than any slice.
fn product(sizes: [usize; 3]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}
