//! Blocks of sums in the vector registers of x86-64, for packed products and for steps.
//!
//! A block is some rows of A times some panels of B. Each function here computes one; which numbers the
//! words of A and B hold is what tells them apart:
//!
//! | function | a word of A | a word of B | sums |
//! |---|---|---|---|
//! | `…_singles` | `f32` | `f32` | `f32` |
//! | `…_dots` | two bf16 | two bf16 | `f32`, by the instruction for pairs |
//! | `…_pairs` | `f32` | bf16, of two depths one after the other | `f32` |
//! | `…_split_pairs` | two bf16 | two bf16 | `f32`, the first of a pair before the second |
//! | `…_words` | two of 16 bits | four bytes, by halves | whole, of 32 bits |
//! | `…_bytes` | four bytes without sign | four bytes | whole, of 32 bits |

use std::arch::x86_64::*;

use super::buffer::LINE;
use super::packed_gemm::{GROUPS, Term};

/// A function that computes one block: rows of A times panels of B, over all terms, into rows of C whose
/// panels lie side by side; each with how far rows or panels are apart. `add`: C counts, otherwise it is
/// overwritten. Whole sums lie in C as they are.
///
/// # Safety
/// The processor has the features; `c` holds the rows; each term lies within what `a` and `b` point to.
pub type RegisterBlock = unsafe fn(
    c: (*mut f32, usize),
    a: ([*const u32; GROUPS], usize),
    b: (*const u32, usize),
    terms: &[Term],
    add: bool,
);

/// Defines a [`RegisterBlock`] of groups of `$group` rows and up to 6 panels, of each panel its first `VECTORS`
/// vectors (of two).
/// A word of B is multiplied with `$words` words of A, in `$parts` parts.
macro_rules! register_block {
    (
        $name:ident, $feature:literal, $vector:ty, group $group:literal, lanes $lanes:literal, words $words:literal, parts $parts:literal,
        $zero:ident, $load:ident, $store:ident, $add:ident,
        |$b:ident, $j:ident, $part:ident| $weights:expr,
        |$acc:ident, $w:ident, $x:ident, $x_part:ident| $multiply_add:expr
    ) => {
        pub mod $name {
            use super::*;

            /// Rows of a group.
            pub const GROUP: usize = $group;

            /// A block of sums, and the words that it reads next: the first row of every group and every third panel
            /// have pointers, those after them are reached by index registers.
            struct RunningSums<const ROWS: usize, const PANELS: usize, const VECTORS: usize> {
                block: [[[$vector; VECTORS]; PANELS]; ROWS],
                a: [*const u32; GROUPS],
                a_stride: usize,
                b: [*const u32; 2],
                b_stride: usize,
            }

            /// See [`RegisterBlock`].
            #[target_feature(enable = $feature)]
            pub unsafe fn block<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
                (c, c_stride): (*mut f32, usize),
                (a, a_stride): ([*const u32; GROUPS], usize),
                (b, b_stride): (*const u32, usize),
                terms: &[Term],
                add: bool,
            ) {
                const { assert!(ROWS <= GROUPS * $group && PANELS <= 6 && VECTORS <= 2) };
                let block = [[[$zero(); VECTORS]; PANELS]; ROWS];
                let mut sums = RunningSums { block, a, a_stride, b: [b; 2], b_stride };
                if add {
                    prefetch(c.cast(), c_stride, ROWS, PANELS * VECTORS * $lanes);
                }
                for term in terms {
                    // loops, not `from_fn`: that is compiled for every block, and takes as long as the block
                    for (row, first) in sums.a.iter_mut().zip(a) {
                        *row = first.wrapping_add($words * term.a);
                    }
                    for (i, panel) in sums.b.iter_mut().enumerate() {
                        *panel = b.wrapping_add(term.b + 3 * i * b_stride);
                    }
                    for _ in 0..term.depth {
                        // SAFETY: the contract: `depth` words of each row and rows of each panel.
                        unsafe { multiply(&mut sums) };
                        for panel in &mut sums.b {
                            *panel = panel.wrapping_add(2 * $lanes);
                        }
                        for row in &mut sums.a {
                            *row = row.wrapping_add($words);
                        }
                    }
                }
                for (i, rows) in sums.block.into_iter().enumerate() {
                    for (p, panel) in rows.into_iter().enumerate() {
                        for (j, acc) in panel.into_iter().enumerate() {
                            // SAFETY: the contract: a vector within row `i` of the block of C.
                            unsafe {
                                let c = c.add(i * c_stride + (2 * p + j) * $lanes);
                                $store(
                                    c.cast(),
                                    if add { $add(acc, $load(c.cast())) } else { acc },
                                );
                            }
                        }
                    }
                }
            }

            /// Adds the products of the next words, part after part.
            ///
            /// # Safety
            /// The processor has the features; the pointers are to words of each row and of each panel.
            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn multiply<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
                sums: &mut RunningSums<ROWS, PANELS, VECTORS>,
            ) {
                for $part in 0..$parts {
                    let mut columns = [[$zero(); VECTORS]; PANELS];
                    for (p, columns) in columns.iter_mut().enumerate() {
                        let $b = sums.b[p / 3].wrapping_add(p % 3 * sums.b_stride);
                        for ($j, column) in columns.iter_mut().enumerate() {
                            // SAFETY: the contract.
                            *column = unsafe { $weights };
                        }
                    }
                    for (i, rows) in sums.block.iter_mut().enumerate() {
                        let $x = i % $group * sums.a_stride + $part * $words / $parts;
                        let ($x, $x_part) = (sums.a[i / $group].wrapping_add($x), $part);
                        for (panel, columns) in rows.iter_mut().zip(columns) {
                            for ($acc, $w) in panel.iter_mut().zip(columns) {
                                // SAFETY: the contract.
                                *$acc = unsafe { $multiply_add };
                            }
                        }
                    }
                }
            }
        }
    };
}

/// Asks for rows of words that are wanted later; they need not be there.
#[inline(always)]
pub fn prefetch(first: *const u32, stride: usize, rows: usize, words: usize) {
    for i in 0..rows {
        for j in (0..words).step_by(LINE) {
            // SAFETY: a hint, which reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(i * stride + j).cast()) };
        }
    }
}

register_block!(
    avx2_singles, "avx2,fma", __m256, group 2, lanes 8, words 1, parts 1,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps,
    |b, j, _part| _mm256_loadu_ps(b.add(8 * j).cast()),
    |acc, w, x, _part| _mm256_fmadd_ps(_mm256_broadcast_ss(&*x.cast()), w, *acc)
);

register_block!(
    avx512_singles, "avx512f", __m512, group 4, lanes 16, words 1, parts 1,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    |b, j, _part| _mm512_loadu_ps(b.add(16 * j).cast()),
    |acc, w, x, _part| _mm512_fmadd_ps(_mm512_set1_ps(*x.cast()), w, *acc)
);

register_block!(
    avx512_dots, "avx512f,avx512bf16", __m512, group 4, lanes 16, words 1, parts 1,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    |b, j, _part| _mm512_loadu_ps(b.add(16 * j).cast()),
    |acc, w, x, _part| dot_pairs(*acc, *x, w)
);

register_block!(
    avx2_pairs, "avx2,fma", __m256, group 2, lanes 8, words 2, parts 2,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps,
    |b, j, part| {
        let numbers = _mm_loadu_si128(b.add(8 * part + 4 * j).cast());
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(numbers)))
    },
    |acc, w, x, _part| _mm256_fmadd_ps(_mm256_broadcast_ss(&*x.cast()), w, *acc)
);

register_block!(
    avx512_pairs, "avx512f", __m512, group 4, lanes 16, words 2, parts 2,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    |b, j, part| {
        let numbers = _mm256_loadu_si256(b.add(16 * part + 8 * j).cast());
        avx512_half(_mm512_cvtepu16_epi32(numbers), 0)
    },
    |acc, w, x, _part| _mm512_fmadd_ps(_mm512_set1_ps(*x.cast()), w, *acc)
);

register_block!(
    avx512_split_pairs, "avx512f", __m512, group 4, lanes 16, words 1, parts 2,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    |b, j, part| avx512_half(_mm512_loadu_si512(b.add(16 * j).cast()), part),
    |acc, w, x, part| {
        _mm512_fmadd_ps(avx512_half(_mm512_set1_epi32((*x).cast_signed()), part), w, *acc)
    }
);

register_block!(
    avx2_words, "avx2", __m256i, group 2, lanes 8, words 2, parts 2,
    _mm256_setzero_si256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_add_epi32,
    |b, j, part| _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(8 * part + 4 * j).cast())),
    |acc, w, x, _part| {
        _mm256_add_epi32(*acc, _mm256_madd_epi16(w, _mm256_set1_epi32((*x).cast_signed())))
    }
);

register_block!(
    avx512_words, "avx512f,avx512bw", __m512i, group 4, lanes 16, words 2, parts 2,
    _mm512_setzero_si512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_add_epi32,
    |b, j, part| _mm512_cvtepi8_epi16(_mm256_loadu_si256(b.add(16 * part + 8 * j).cast())),
    |acc, w, x, _part| {
        _mm512_add_epi32(*acc, _mm512_madd_epi16(w, _mm512_set1_epi32((*x).cast_signed())))
    }
);

register_block!(
    vnni_words, "avx512f,avx512bw,avx512vnni", __m512i, group 4, lanes 16, words 2, parts 2,
    _mm512_setzero_si512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_add_epi32,
    |b, j, part| _mm512_cvtepi8_epi16(_mm256_loadu_si256(b.add(16 * part + 8 * j).cast())),
    |acc, w, x, _part| _mm512_dpwssd_epi32(*acc, w, _mm512_set1_epi32((*x).cast_signed()))
);

register_block!(
    avx2_bytes, "avx2", __m256i, group 2, lanes 8, words 1, parts 1,
    _mm256_setzero_si256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_add_epi32,
    |b, j, _part| _mm256_loadu_si256(b.add(8 * j).cast()),
    |acc, w, x, _part| {
        // sums of two products of 7 and 8 bits fit 16
        let sums = _mm256_maddubs_epi16(_mm256_set1_epi32((*x).cast_signed()), w);
        _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)))
    }
);

register_block!(
    avx_vnni_bytes, "avx2,avxvnni", __m256i, group 2, lanes 8, words 1, parts 1,
    _mm256_setzero_si256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_add_epi32,
    |b, j, _part| _mm256_loadu_si256(b.add(8 * j).cast()),
    |acc, w, x, _part| _mm256_dpbusd_avx_epi32(*acc, _mm256_set1_epi32((*x).cast_signed()), w)
);

register_block!(
    vnni_bytes, "avx512f,avx512vnni", __m512i, group 4, lanes 16, words 1, parts 1,
    _mm512_setzero_si512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_add_epi32,
    |b, j, _part| _mm512_loadu_si512(b.add(16 * j).cast()),
    |acc, w, x, _part| _mm512_dpbusd_epi32(*acc, _mm512_set1_epi32((*x).cast_signed()), w)
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

/// The first (0) or the second (1) bf16 of each word.
#[inline]
#[target_feature(enable = "avx512f")]
fn avx512_half(pairs: __m512i, half: usize) -> __m512 {
    _mm512_castsi512_ps(match half {
        0 => _mm512_slli_epi32::<16>(pairs),
        _ => _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())),
    })
}
