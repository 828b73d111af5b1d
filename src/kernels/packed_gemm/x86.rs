//! Blocks in the vector registers of x86-64: one multiply-add of a broadcast word of A with a vector
//! of B for each row and vector of the block.

use std::arch::x86_64::*;

use pulp::x86::{V3, V4};

use super::super::instructions::Instructions;
use super::super::register_blocks::{RegisterBlock, avx2_singles, avx512_dots, avx512_singles};
use super::{BlockRows, Format, MicroKernel, Term, Tuning, check_block};

/// `true` if there are dot products of bf16 pairs (AVX512-BF16).
pub fn has_bf16_pairs() -> bool {
    V4::is_available() && is_x86_feature_detected!("avx512bf16")
}

/// AVX2 and FMA: 6 rows of two vectors of 8. `ROUND` says whether operands are rounded to bf16.
#[derive(Debug, Clone, Copy)]
pub struct Avx2<const ROUND: bool>(V3);

impl<const ROUND: bool> Avx2<ROUND> {
    /// The proof that the processor has it.
    pub fn new() -> Option<Self> {
        V3::try_new().map(Self)
    }
}

/// AVX-512: 12 rows of two vectors of 16. `ROUND` says whether operands are rounded to bf16.
#[derive(Debug, Clone, Copy)]
pub struct Avx512<const ROUND: bool>(V4);

impl<const ROUND: bool> Avx512<ROUND> {
    /// The proof that the processor has it.
    pub fn new() -> Option<Self> {
        V4::try_new().map(Self)
    }
}

/// AVX512-BF16: as [`Avx512`], each word a pair of bf16.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Pairs(V4);

impl Avx512Pairs {
    /// The proof that the processor has it.
    pub fn new() -> Option<Self> {
        V4::try_new().filter(|_| has_bf16_pairs()).map(Self)
    }
}

const fn rounded(round: bool) -> Format {
    if round { Format::Rounded } else { Format::Single }
}

/// Implements [`MicroKernel`] with a register block of `$rows` rows of two vectors of `$lanes`.
macro_rules! vector_micro {
    (
        impl ($($generics:tt)*) ($micro:ty), rows $rows:literal of $($part:literal)|+, lanes $lanes:literal,
        depth $depth:literal, piece $piece:literal, format $format:expr, $block:ident
    ) => {
        impl $($generics)* Instructions for $micro {
            #[inline(always)]
            fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
                self.0.vectorized(work)
            }
        }

        impl $($generics)* MicroKernel for $micro {
            const ROWS: usize = $rows;
            const ROW_STEP: usize = $block::GROUP;
            const COLS: usize = 2 * $lanes;
            const STEP: usize = 1;
            const FORMAT: Format = $format;
            const TUNING: Tuning = Tuning {
                depth: $depth,
                piece: $piece,
                channels: 132,
                rows_first: false,
                turn: usize::MAX,
                packing: 2 * $lanes,
            };

            fn block(
                self,
                (c, c_stride): (&mut [f32], usize),
                a: BlockRows,
                b: &[u32],
                terms: &[Term],
                (rows, half): (usize, bool),
                add: bool,
            ) {
                check_block::<Self>(rows, (c.len(), c_stride), &a, b.len(), terms);
                let groups = a.groups.map(|first| a.words.as_ptr().wrapping_add(first));
                let block: RegisterBlock = match (rows, half) {
                    ($rows, false) => $block::block::<$rows, 1, 2>,
                    ($rows, true) => $block::block::<$rows, 1, 1>,
                    $(($part, false) => $block::block::<$part, 1, 2>,
                    ($part, true) => $block::block::<$part, 1, 1>,)+
                    _ => unreachable!("product: {rows} rows in a block"),
                };
                // SAFETY: `self` proves the features; `check_block` keeps all accesses in the slices.
                unsafe { block((c.as_mut_ptr(), c_stride), (groups, a.stride), (b.as_ptr(), 0), terms, add) }
            }

            fn transpose(
                self,
                from: &[u32],
                stride: usize,
                (rows, columns): (usize, usize),
                to: &mut [u32],
                to_stride: usize,
            ) {
                // SAFETY: `self` proves AVX2, which every processor with AVX-512 has.
                unsafe { transpose(from, stride, (rows, columns), to, to_stride) }
            }
        }
    };
}

vector_micro!(
    impl (<const ROUND: bool>) (Avx2<ROUND>), rows 6 of 4 | 2, lanes 8,
    depth 256, piece 132, format rounded(ROUND), avx2_singles
);

vector_micro!(
    impl (<const ROUND: bool>) (Avx512<ROUND>), rows 12 of 8 | 4, lanes 16,
    depth 720, piece 264, format rounded(ROUND), avx512_singles
);

vector_micro!(
    impl () (Avx512Pairs), rows 12 of 8 | 4, lanes 16,
    depth 720, piece 264, format Format::Pairs, avx512_dots
);

/// See [`MicroKernel::transpose`].
///
/// # Panics
/// If the sizes are not multiples of 8 or a slice is too short: a fault of the caller.
#[target_feature(enable = "avx2")]
pub fn transpose(
    from: &[u32],
    stride: usize,
    (rows, columns): (usize, usize),
    to: &mut [u32],
    to_stride: usize,
) {
    assert!(rows.is_multiple_of(8) && columns.is_multiple_of(8));
    for row in (0..rows).step_by(8) {
        for column in (0..columns).step_by(8) {
            transpose_block(
                &from[row * stride + column..],
                stride,
                &mut to[column * to_stride + row..],
                to_stride,
            );
        }
    }
}

/// Transposes 8 × 8 words: neighbours by twos, by fours, then halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_block(from: &[u32], stride: usize, to: &mut [u32], to_stride: usize) {
    assert!(from.len() >= 7 * stride + 8 && to.len() >= 7 * to_stride + 8);
    // SAFETY: the assertion keeps 8 words of 8 rows within the slice.
    let row = |i: usize| unsafe { _mm256_loadu_ps(from.as_ptr().add(i * stride).cast()) };
    let rows: [__m256; 8] = std::array::from_fn(row);
    let mut twos = [_mm256_setzero_ps(); 8];
    for i in 0..4 {
        twos[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = [_mm256_setzero_ps(); 8];
    for i in 0..2 {
        for j in 0..2 {
            let (a, b) = (twos[4 * i + j], twos[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = _mm256_shuffle_ps::<0x44>(a, b);
            fours[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(a, b);
        }
    }
    for i in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
        let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
        for (column, words) in [(i, low), (4 + i, high)] {
            // SAFETY: the assertion keeps 8 words of 8 columns within the slice.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(column * to_stride).cast(), words) };
        }
    }
}
