//! How operands lie in memory: in words of 32 bits, each one number or a pair of bf16.

use super::super::Stored;

/// What a word of an operand holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One `f32`.
    Single,
    /// One `f32` that is a rounded `bf16`: the arithmetic of bf16 on processors without it.
    Rounded,
    /// Two `bf16`, consecutive along the depth of the product; the first in the lower half.
    Pairs,
}

impl Format {
    /// Numbers in a word.
    pub fn per_word(self) -> usize {
        match self {
            Self::Single | Self::Rounded => 1,
            Self::Pairs => 2,
        }
    }

    /// Words that hold `depth` numbers.
    pub fn words(self, depth: usize) -> usize {
        depth.div_ceil(self.per_word())
    }

    /// The numbers of one row along the depth; what `to` is longer is filled with zeros.
    #[inline(always)]
    pub fn row<S: Stored<Real = f32>>(self, from: &[S], to: &mut [u32]) {
        let used = self.words(from.len());
        match self {
            Self::Single => put(from, to, |x| x.load().to_bits()),
            Self::Rounded => put(from, to, |x| u32::from(x.bf16_bits()) << 16),
            Self::Pairs => {
                let (pairs, last) = from.as_chunks::<2>();
                for (to, [a, b]) in to.iter_mut().zip(pairs) {
                    *to = pair(*a, *b);
                }
                if let [last] = last {
                    to[used - 1] = u32::from(last.bf16_bits());
                }
            }
        }
        to[used..].fill(0);
    }

    /// One word for each column of one row (or two, of pairs) across the depth. A row that is missing
    /// counts as zeros; what `to` is longer is filled with zeros.
    #[inline(always)]
    pub fn across<S: Stored<Real = f32>>(self, rows: [Option<&[S]>; 2], to: &mut [u32]) {
        let used = match (self, rows) {
            (_, [None, None]) | (Self::Single | Self::Rounded, [None, _]) => 0,
            (Self::Single, [Some(row), _]) => {
                put(row, to, |x| x.load().to_bits());
                row.len()
            }
            (Self::Rounded, [Some(row), _]) => {
                put(row, to, |x| u32::from(x.bf16_bits()) << 16);
                row.len()
            }
            (Self::Pairs, [Some(a), Some(b)]) => {
                for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
                    *to = pair(a, b);
                }
                a.len()
            }
            (Self::Pairs, [Some(a), None]) => {
                put(a, to, |x| u32::from(x.bf16_bits()));
                a.len()
            }
            (Self::Pairs, [None, Some(b)]) => {
                put(b, to, |x| u32::from(x.bf16_bits()) << 16);
                b.len()
            }
        };
        to[used..].fill(0);
    }

    /// A word of the numbers `first` and, of pairs, `second`.
    #[inline(always)]
    pub fn word(self, first: f32, second: f32) -> u32 {
        match self {
            Self::Single => first.to_bits(),
            Self::Rounded => u32::from(first.bf16_bits()) << 16,
            Self::Pairs => pair(first, second),
        }
    }
}

#[inline(always)]
fn pair<S: Stored<Real = f32>>(a: S, b: S) -> u32 {
    u32::from(a.bf16_bits()) | u32::from(b.bf16_bits()) << 16
}

#[inline(always)]
fn put<S: Copy>(from: &[S], to: &mut [u32], word: impl Fn(S) -> u32) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = word(x);
    }
}
