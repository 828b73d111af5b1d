//! Packed operands in memory: words of 32 bits, each one number or a pair of bf16.

use super::super::Stored;

/// Contents of a word of an operand.
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
            Self::Single => put(from, to, single),
            Self::Rounded => put(from, to, upper),
            Self::Pairs => {
                let (pairs, last) = from.as_chunks::<2>();
                for (to, [a, b]) in to.iter_mut().zip(pairs) {
                    *to = lower(*a) | upper(*b);
                }
                if let [last] = last {
                    to[used - 1] = lower(*last);
                }
            }
        }
        to[used..].fill(0);
    }

    /// One word for each column of one row (or two, of pairs) across the depth. A row that is missing
    /// counts as zeros; what `to` is longer is filled with zeros.
    #[inline(always)]
    pub fn across<S: Stored<Real = f32>>(self, rows: [Option<&[S]>; 2], to: &mut [u32]) {
        let used = rows[0].or(rows[1].filter(|_| self == Self::Pairs)).map_or(0, <[S]>::len);
        match (self, rows) {
            (_, [None, None]) | (Self::Single | Self::Rounded, [None, _]) => {}
            (Self::Single, [Some(row), _]) => put(row, to, single),
            (Self::Rounded, [Some(row), _]) => put(row, to, upper),
            (Self::Pairs, [Some(a), Some(b)]) => {
                for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
                    *to = lower(a) | upper(b);
                }
            }
            (Self::Pairs, [Some(a), None]) => put(a, to, lower),
            (Self::Pairs, [None, Some(b)]) => put(b, to, upper),
        }
        to[used..].fill(0);
    }

    /// A word of the numbers `first` and, of pairs, `second`.
    #[inline(always)]
    pub fn word(self, first: f32, second: f32) -> u32 {
        match self {
            Self::Single => single(first),
            Self::Rounded => upper(first),
            Self::Pairs => lower(first) | upper(second),
        }
    }
}

#[inline(always)]
fn single<S: Stored<Real = f32>>(x: S) -> u32 {
    x.load().to_bits()
}

/// As bf16 in the lower half of a word.
#[inline(always)]
fn lower<S: Stored<Real = f32>>(x: S) -> u32 {
    u32::from(x.bf16_bits())
}

/// As bf16 in the upper half of a word.
#[inline(always)]
fn upper<S: Stored<Real = f32>>(x: S) -> u32 {
    lower(x) << 16
}

#[inline(always)]
fn put<S: Copy>(from: &[S], to: &mut [u32], word: impl Fn(S) -> u32) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = word(x);
    }
}
