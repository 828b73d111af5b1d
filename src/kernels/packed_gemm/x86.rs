//! Blocks in the vector registers of x86-64: one multiply-add of a broadcast word of A with a vector
//! of B for each row and vector of the block.

use std::arch::x86_64::*;

use pulp::x86::{V3, V4};

use super::super::instructions::Instructions;
use super::{Format, MicroKernel, Term, check_block};

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

/// Implements [`MicroKernel`] for a vector instruction set: `$rows` rows of two vectors of `$lanes`.
macro_rules! vector_micro {
    (
        impl ($($generics:tt)*) ($micro:ty), $feature:literal, $vector:ty, rows $rows:literal, lanes $lanes:literal,
        depth $depth:literal, piece $piece:literal, format $format:expr,
        $zero:ident, $load:ident, $store:ident, $add:ident,
        |$acc:ident, $b:ident, $word:ident| $multiply_add:expr, $block:ident
    ) => {
        impl $($generics)* Instructions for $micro {
            #[inline(always)]
            fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
                self.0.vectorized(work)
            }
        }

        impl $($generics)* MicroKernel for $micro {
            const ROWS: usize = $rows;
            const COLS: usize = 2 * $lanes;
            const STEP: usize = 1;
            const DEPTH: usize = $depth;
            const PIECE: usize = $piece;
            const CHANNELS: usize = 132;
            const ROWS_FIRST: bool = false;
            const FORMAT: Format = $format;

            fn block(
                self,
                (c, c_stride): (&mut [f32], usize),
                (a, a_stride): (&[u32], usize),
                b: &[u32],
                terms: &[Term],
                half: bool,
                add: bool,
            ) {
                check_block::<Self>((c.len(), c_stride), (a.len(), a_stride), b.len(), terms);
                // SAFETY: `self` proves the features; `check_block` keeps all accesses in the slices.
                unsafe {
                    let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
                    if half {
                        $block::<1>(c, c_stride, a, a_stride, b, terms, add)
                    } else {
                        $block::<2>(c, c_stride, a, a_stride, b, terms, add)
                    }
                }
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

        /// # Safety
        /// The processor has the features; `c` holds `$rows` rows of two vectors, `c_stride` apart, of which
        /// the first `VECTORS` (1 or 2) are computed;
        /// each term lies within what `a` (`$rows` rows, `a_stride` apart) and `b` point to.
        #[target_feature(enable = $feature)]
        unsafe fn $block<const VECTORS: usize>(
            c: *mut f32,
            c_stride: usize,
            a: *const u32,
            a_stride: usize,
            b: *const u32,
            terms: &[Term],
            add: bool,
        ) {
            let mut block = [[$zero(); VECTORS]; $rows];
            if add {
                // the block of C is wanted at the end
                for i in 0..$rows {
                    for j in 0..VECTORS {
                        let c = c.wrapping_add(i * c_stride + j * $lanes);
                        _mm_prefetch::<_MM_HINT_T0>(c.cast());
                    }
                }
            }
            for term in terms {
                // SAFETY: the contract above: rows `3·i + 0..3` of A and `depth` rows of the panel.
                unsafe {
                    let mut a: [*const u32; $rows / 3] =
                        std::array::from_fn(|i| a.add(term.a + 3 * i * a_stride));
                    let mut b = b.add(term.b);
                    for _ in 0..term.depth {
                        let columns: [$vector; VECTORS] =
                            std::array::from_fn(|j| $load(b.add(j * $lanes).cast()));
                        for (i, rows) in block.iter_mut().enumerate() {
                            let $word = a[i / 3].add(i % 3 * a_stride);
                            for ($acc, $b) in rows.iter_mut().zip(columns) {
                                *$acc = $multiply_add;
                            }
                        }
                        b = b.add(2 * $lanes);
                        for a in &mut a {
                            *a = a.add(1);
                        }
                    }
                }
            }
            for (i, rows) in block.into_iter().enumerate() {
                for (j, acc) in rows.into_iter().enumerate() {
                    // SAFETY: the contract above: a vector within row `i` of the block of C.
                    unsafe {
                        let c = c.add(i * c_stride + j * $lanes);
                        $store(c, if add { $add(acc, $load(c)) } else { acc });
                    }
                }
            }
        }
    };
}

vector_micro!(
    impl (<const ROUND: bool>) (Avx2<ROUND>), "avx2,fma", __m256, rows 6, lanes 8,
    depth 256, piece 132, format rounded(ROUND),
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps,
    |acc, b, word| _mm256_fmadd_ps(_mm256_broadcast_ss(&*word.cast()), b, *acc), avx2_block
);

vector_micro!(
    impl (<const ROUND: bool>) (Avx512<ROUND>), "avx512f", __m512, rows 12, lanes 16,
    depth 192, piece 264, format rounded(ROUND),
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    |acc, b, word| _mm512_fmadd_ps(_mm512_set1_ps(*word.cast()), b, *acc), avx512_block
);

vector_micro!(
    impl () (Avx512Pairs), "avx512f,avx512bf16", __m512, rows 12, lanes 16,
    depth 192, piece 264, format Format::Pairs,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    |acc, b, word| dot_pairs(*acc, *word, b), avx512_pairs_block
);

/// `acc + a.0·b.0 + a.1·b.1` for each lane, `a` a pair of bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn dot_pairs(acc: __m512, a: u32, b: __m512) -> __m512 {
    let a = _mm512_set1_epi32(a.cast_signed());
    // SAFETY: `__m512bh` is the same 512 bits, and all bits are pairs of bf16.
    let (a, b) = unsafe {
        (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
    };
    _mm512_dpbf16_ps(acc, a, b)
}

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
