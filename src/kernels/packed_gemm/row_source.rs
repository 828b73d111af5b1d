//! The rows that the taps of a product read, and the pieces that its result is cut into.

use super::super::conv::Axis;
use super::MicroKernel;

/// The positions of one axis that a product reads: at tap `tap`, result `r` reads position
/// `(r·stride + start + tap·step) / divide`, where that is whole.
#[derive(Clone, Copy)]
pub struct Reads {
    /// Positions that there are.
    pub len: usize,
    /// Results.
    pub out: usize,
    pub taps: usize,
    pub stride: usize,
    pub divide: usize,
    pub start: isize,
    pub step: isize,
}

impl Reads {
    /// Those of the input that outputs read.
    pub fn forward(axis: &Axis) -> Self {
        Self {
            len: axis.in_len,
            out: axis.out_len,
            taps: axis.kernel_size,
            stride: axis.stride,
            divide: 1,
            start: -(axis.pad_before as isize),
            step: axis.dilation as isize,
        }
    }

    /// Those of the outputs' gradients that the inputs' gradients read.
    pub fn backward(axis: &Axis) -> Self {
        Self {
            len: axis.out_len,
            out: axis.in_len,
            taps: axis.kernel_size,
            stride: 1,
            divide: axis.stride,
            start: axis.pad_before as isize,
            step: -(axis.dilation as isize),
        }
    }

    pub fn position(&self, tap: usize, r: usize) -> Option<isize> {
        let i = (r * self.stride) as isize + self.start + tap as isize * self.step;
        let divide = self.divide as isize;
        (i % divide == 0).then_some(i / divide)
    }

    /// `true` if neighbouring results read neighbouring positions.
    pub fn is_dense(&self) -> bool {
        (self.stride, self.divide) == (1, 1)
    }

    /// From the first tap to the last.
    pub fn span(&self) -> usize {
        (self.taps - 1) * self.step.unsigned_abs()
    }

    /// Of what is dense: the first position that result 0 reads.
    pub fn first(&self) -> isize {
        let span = self.span() as isize;
        self.start - if self.step < 0 { span } else { 0 }
    }

    /// Of what is dense: how far behind the first position result 0 reads at `tap`.
    pub fn offset(&self, tap: usize) -> usize {
        let tap = if self.step < 0 { self.taps - 1 - tap } else { tap };
        tap * self.step.unsigned_abs()
    }
}

/// The rows that a product reads.
#[derive(Clone, Copy)]
pub struct RowSource<'a, S> {
    /// (batch, lines, columns, channels)
    pub data: &'a [S],
    /// (batch, lines, history, channels): the columns before column 0.
    pub past: &'a [S],
    pub history: usize,
    pub channels: usize,
    pub lines: Reads,
    pub columns: Reads,
}

impl<'a, S> RowSource<'a, S> {
    /// The line (of all images) that result line `line` (of all images) reads at line tap `tap`.
    pub fn line(&self, tap: usize, line: usize) -> Option<usize> {
        let (image, r) = (line / self.lines.out, line % self.lines.out);
        let i = usize::try_from(self.lines.position(tap, r)?).ok()?;
        (i < self.lines.len).then_some(image * self.lines.len + i)
    }

    /// Column `column` of a line; nothing beyond its ends, which counts as zeros.
    #[inline(always)]
    pub fn row(&self, line: usize, column: isize) -> Option<&'a [S]> {
        let (rows, len, i) = if column >= 0 {
            (self.data, self.columns.len, column as usize)
        } else {
            let back = column + self.history as isize;
            (self.past, self.history, usize::try_from(back).ok()?)
        };
        (i < len).then(|| &rows[(line * len + i) * self.channels..][..self.channels])
    }

    /// `true` if the results `from..from + count` of a line read anything at column tap `tap`.
    pub fn has_columns(&self, tap: usize, from: usize, count: usize) -> bool {
        if !self.columns.is_dense() {
            return true;
        }
        let first = self.columns.first() + (from + self.columns.offset(tap)) as isize;
        first < self.columns.len as isize && first + count as isize > -(self.history as isize)
    }
}

/// The pieces of a result, and the packing of the rows that a piece reads.
#[derive(Debug, Clone, Copy)]
pub struct PiecePlan {
    /// Consecutive rows that no piece reaches across.
    pub unit: usize,
    /// Rows of a piece.
    pub size: usize,
    pub packing: Packing,
}

#[derive(Debug, Clone, Copy)]
pub enum Packing {
    /// The rows of one tap after those of another.
    Taps,
    /// Lines with the columns around them that their taps read, `pitch` rows from line to line: the taps of
    /// a line are one buffer read from several first rows. Neighbours share the zeros between them. A piece
    /// of one line takes its own pitch.
    Lines { pitch: usize },
}

/// Packed lines that the line taps of some result lines read: the same (`shared`), or each its own.
#[derive(Debug, Clone, Copy)]
pub struct PackedLines {
    pub shared: bool,
    pub lines: usize,
}

/// Consecutive rows of the result: `columns` of each of `lines` lines, from one column on.
#[derive(Debug, Clone, Copy)]
pub struct RowBlock {
    pub line: usize,
    pub lines: usize,
    pub column: usize,
    pub columns: usize,
}

impl<S> RowSource<'_, S> {
    pub fn taps(&self) -> usize {
        self.lines.taps * self.columns.taps
    }

    /// Cuts a result of `rows` rows, each of `channels` channels in a group.
    pub fn plan<M: MicroKernel>(&self, rows: usize, channels: usize) -> PiecePlan {
        let width = self.columns.out;
        if width >= M::PIECE / 2 {
            let size = width.div_ceil(width.div_ceil(M::PIECE));
            let packed = self.lines.taps * (size + self.columns.span());
            let packing = match self.columns.is_dense() && packed <= self.taps() * size {
                true => Packing::Lines { pitch: width },
                false => Packing::Taps,
            };
            let size = size.next_multiple_of(M::ROW_STEP);
            return PiecePlan { unit: width, size, packing };
        }
        self.plan_lines::<M>(rows, channels).unwrap_or_else(|| {
            let size = rows.div_ceil(rows.div_ceil(M::PIECE)).next_multiple_of(M::ROW_STEP);
            PiecePlan { unit: rows, size, packing: Packing::Taps }
        })
    }

    /// Pieces of several whole lines, where they cost less than packing the rows of each tap.
    fn plan_lines<M: MicroKernel>(&self, rows: usize, channels: usize) -> Option<PiecePlan> {
        let RowSource { lines, columns, .. } = self;
        if !columns.is_dense() {
            return None;
        }
        let (width, height) = (columns.out, lines.out);
        let pitch = self.pitch();
        let fit = (M::PIECE / pitch).max(1).min(rows / width);
        // whole images, or an even part of one
        let (unit, count) = match fit >= height {
            true => (rows, fit / height * height),
            false => (height * width, height.div_ceil(height.div_ceil(fit))),
        };
        let packed = self.packed_lines(count, fit < height).lines * pitch;
        let saved = (self.taps() * count * width).checked_sub(packed)?;
        let wasted = (count - 1) * (pitch - width) * self.taps() * channels;
        (wasted <= saved * M::PACKING).then_some(PiecePlan {
            unit,
            size: count * width,
            packing: Packing::Lines { pitch },
        })
    }

    /// The least rows from line to line with which no tap of a line reads a neighbour's rows.
    fn pitch(&self) -> usize {
        let columns = &self.columns;
        let (len, before) = (columns.len as isize, -columns.first());
        let after = (columns.out + columns.span()) as isize - len - before;
        let pitch = len + before.max(after + self.history as isize);
        (pitch.max(0) as usize).clamp(columns.out, columns.out + columns.span())
    }

    /// The packed lines of `lines` result lines, of one image or several.
    pub fn packed_lines(&self, lines: usize, one_image: bool) -> PackedLines {
        let reads = &self.lines;
        let (all, each) = (lines + reads.span(), reads.taps * lines);
        let shared = reads.is_dense() && one_image && all <= each;
        PackedLines { shared, lines: if shared { all } else { each } }
    }
    /// The rows `first..first + rows` of the result, part of one line or whole lines.
    pub fn block(&self, first: usize, rows: usize) -> RowBlock {
        let width = self.columns.out;
        let lines = rows.div_ceil(width);
        RowBlock { line: first / width, lines, column: first % width, columns: rows / lines }
    }
}
