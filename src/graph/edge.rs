//! Facts of a value: axes, channels, reach, rate.

/// Axes of a value beside the batch and the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// (batch, time, channels).
    Sequence,
    /// (batch, height, width, channels).
    Image,
}

/// Reach along one axis, and the rate of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Input steps before the present one.
    pub left: usize,
    /// Input steps after it.
    pub right: usize,
    /// Input steps from one row to the next, as a fraction.
    pub step: (usize, usize),
}

impl Span {
    pub const POINT: Self = Self { left: 0, right: 0, step: (1, 1) };

    /// Of `rows` rows of this value, in input steps.
    fn in_steps(self, rows: usize) -> Option<usize> {
        Some(rows.checked_mul(self.step.0)?.div_ceil(self.step.1))
    }

    /// After taps that reach `left` rows back and `right` rows ahead.
    pub fn extend(self, left: usize, right: usize) -> Option<Self> {
        let left = self.left.checked_add(self.in_steps(left)?)?;
        let right = self.right.checked_add(self.in_steps(right)?)?;
        (left.checked_add(right)? < usize::MAX >> 4).then_some(Self { left, right, ..self })
    }

    /// With `stride` rows to one, or one to `up`.
    pub fn resampled(self, stride: usize, up: usize) -> Option<Self> {
        let (mut down, mut over) = (self.step.0.checked_mul(stride)?, self.step.1.checked_mul(up)?);
        let (mut a, mut b) = (down, over);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        (down, over) = (down / a, over / a);
        Some(Self { step: (down, over), ..self })
    }

    fn union(self, other: Self) -> Self {
        Self {
            left: self.left.max(other.left),
            right: self.right.max(other.right),
            step: self.step,
        }
    }
}

/// Facts of a value of a [`Graph`](super::Graph).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Axes beside the batch and the channels.
    pub axes: Axes,
    /// Numbers of a row; of token ids the size of the vocabulary.
    pub channels: usize,
    /// Token ids, not numbers.
    pub ids: bool,
    /// One row a sequence or an image: a mean over the others.
    pub single: bool,
    /// `true` if a row depends on all rows of its sequence.
    pub whole: bool,
    /// `true` if a row depends on other sequences of the batch.
    pub mixes: bool,
    /// Of the height, or of nothing; and of the time, or the width.
    pub(crate) spans: [Span; 2],
}

impl Edge {
    /// A value that depends on nothing but its own row.
    pub(crate) fn point(axes: Axes, channels: usize) -> Self {
        let spans = [Span::POINT; 2];
        Self { axes, channels, ids: false, single: false, whole: false, mixes: false, spans }
    }

    /// Steps before the present one that a row sees, or pixels to its left.
    pub fn left(&self) -> usize {
        self.spans[1].left
    }

    /// Steps after the present one that a row sees, or pixels to its right.
    pub fn right(&self) -> usize {
        self.spans[1].right
    }

    /// Input steps from one row to the next, as a fraction.
    pub fn rate(&self) -> (usize, usize) {
        self.spans[1].step
    }

    /// Steps of the input, one axis each, that a row sees: itself counted.
    pub fn field(&self) -> [usize; 2] {
        self.spans.map(|span| span.left + span.right + 1)
    }

    /// The facts of two values that meet row by row.
    pub(crate) fn meet(&self, other: &Self) -> Self {
        Self {
            whole: self.whole || other.whole,
            mixes: self.mixes || other.mixes,
            spans: [self.spans[0].union(other.spans[0]), self.spans[1].union(other.spans[1])],
            ..*self
        }
    }

    /// The shape, as an error names it.
    pub(crate) fn shape(&self) -> String {
        let channels = self.channels;
        match self.axes {
            _ if self.single => format!("one row of {channels} numbers a sequence"),
            Axes::Sequence if self.ids => "(batch, time)".into(),
            Axes::Sequence => format!("(batch, time, {channels})"),
            Axes::Image => format!("(batch, height, width, {channels})"),
        }
    }
}
