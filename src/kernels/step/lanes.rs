//! The vector registers that single steps are computed in: one row of a weight panel at a time.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m256i, __m512, __m512i};

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use super::super::instructions::Instructions;

/// Operations on a panel row: `COLS` columns in two vectors.
///
/// Everything here is to be inlined into code that is compiled for the instructions: a closure on the way
/// that is not `#[inline(always)]` turns each instruction into a call, fifty times slower.
pub trait Lanes<const COLS: usize>: Instructions {
    /// One number for each column.
    type Floats: Copy;
    /// One 32-bit sum for each column.
    type Sums: Copy;

    /// Zeros.
    fn zero_floats(self) -> Self::Floats;
    /// Zeros.
    fn zero_sums(self) -> Self::Sums;
    /// `acc + w·x`, each word of `w` an `f32`.
    fn singles(self, acc: Self::Floats, w: &[u32; COLS], x: f32) -> Self::Floats;
    /// `acc + w·x`, `w` the bf16 in the lower halves.
    fn lower(self, acc: Self::Floats, w: &[u32; COLS], x: f32) -> Self::Floats;
    /// `acc + w·x`, `w` the bf16 in the upper halves.
    fn upper(self, acc: Self::Floats, w: &[u32; COLS], x: f32) -> Self::Floats;
    /// `acc + w[2i]·x.0 + w[2i + 1]·x.1` for column `i`: `w` is half (`HALF`: 0 or 1) of the bytes of a
    /// row, `x` a pair of 16-bit numbers.
    fn bytes<const HALF: usize>(self, acc: Self::Sums, w: &[u32; COLS], x: u32) -> Self::Sums;
    /// The numbers.
    fn floats(self, sums: Self::Floats) -> [f32; COLS];
    /// The sums as numbers.
    fn sums(self, sums: Self::Sums) -> [f32; COLS];
}

/// Without vector instructions of our choice: whatever the compiler makes of it.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Instructions for Plain {}

impl Lanes<16> for Plain {
    type Floats = [f32; 16];
    type Sums = [i32; 16];

    #[inline(always)]
    fn zero_floats(self) -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    fn zero_sums(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn singles(self, acc: [f32; 16], w: &[u32; 16], x: f32) -> [f32; 16] {
        std::array::from_fn(|i| acc[i] + f32::from_bits(w[i]) * x)
    }
    #[inline(always)]
    fn lower(self, acc: [f32; 16], w: &[u32; 16], x: f32) -> [f32; 16] {
        std::array::from_fn(|i| acc[i] + f32::from_bits(w[i] << 16) * x)
    }
    #[inline(always)]
    fn upper(self, acc: [f32; 16], w: &[u32; 16], x: f32) -> [f32; 16] {
        std::array::from_fn(|i| acc[i] + f32::from_bits(w[i] & 0xffff_0000) * x)
    }
    #[inline(always)]
    fn bytes<const HALF: usize>(self, acc: [i32; 16], w: &[u32; 16], x: u32) -> [i32; 16] {
        let x = [x as i16, (x >> 16) as i16].map(i32::from);
        std::array::from_fn(|i| {
            let pair = w[8 * HALF + i / 2] >> (16 * (i % 2));
            let w = [pair as i8, (pair >> 8) as i8].map(i32::from);
            acc[i] + w[0] * x[0] + w[1] * x[1]
        })
    }
    #[inline(always)]
    fn floats(self, sums: [f32; 16]) -> [f32; 16] {
        sums
    }
    #[inline(always)]
    fn sums(self, sums: [i32; 16]) -> [f32; 16] {
        sums.map(|sum| sum as f32)
    }
}

/// `f` of both vectors. (`map` of arrays would keep the instructions from being inlined.)
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> [T; 2] {
    [f(0), f(1)]
}

/// The `N` words from `N·PART` on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn part<const N: usize, const COLS: usize>(w: &[u32; COLS], part: usize) -> [u32; N] {
    w.as_chunks::<N>().0[part]
}

#[cfg(target_arch = "x86_64")]
impl Lanes<16> for V3 {
    type Floats = [__m256; 2];
    type Sums = [__m256i; 2];

    #[inline(always)]
    fn zero_floats(self) -> Self::Floats {
        [self.avx._mm256_setzero_ps(); 2]
    }
    #[inline(always)]
    fn zero_sums(self) -> Self::Sums {
        [self.avx._mm256_setzero_si256(); 2]
    }
    #[inline(always)]
    fn singles(self, acc: Self::Floats, w: &[u32; 16], x: f32) -> Self::Floats {
        let x = self.avx._mm256_set1_ps(x);
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<8, 16>(w, i));
                self.fma._mm256_fmadd_ps(w, x, acc[i])
            },
        )
    }
    #[inline(always)]
    fn lower(self, acc: Self::Floats, w: &[u32; 16], x: f32) -> Self::Floats {
        let x = self.avx._mm256_set1_ps(x);
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<8, 16>(w, i));
                let w = self.avx2._mm256_slli_epi32::<16>(w);
                let w = self.avx._mm256_castsi256_ps(w);
                self.fma._mm256_fmadd_ps(w, x, acc[i])
            },
        )
    }
    #[inline(always)]
    fn upper(self, acc: Self::Floats, w: &[u32; 16], x: f32) -> Self::Floats {
        let x = self.avx._mm256_set1_ps(x);
        let mask = self.avx._mm256_set1_epi32(0xffff_0000_u32.cast_signed());
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<8, 16>(w, i));
                let w = self.avx2._mm256_and_si256(w, mask);
                let w = self.avx._mm256_castsi256_ps(w);
                self.fma._mm256_fmadd_ps(w, x, acc[i])
            },
        )
    }
    #[inline(always)]
    fn bytes<const HALF: usize>(self, acc: Self::Sums, w: &[u32; 16], x: u32) -> Self::Sums {
        let x = self.avx._mm256_set1_epi32(x.cast_signed());
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<4, 16>(w, 2 * HALF + i));
                let w = self.avx2._mm256_cvtepi8_epi16(w);
                let products = self.avx2._mm256_madd_epi16(w, x);
                self.avx2._mm256_add_epi32(acc[i], products)
            },
        )
    }
    #[inline(always)]
    fn floats(self, sums: Self::Floats) -> [f32; 16] {
        pulp::cast::<[[f32; 8]; 2], _>([pulp::cast(sums[0]), pulp::cast(sums[1])])
    }
    #[inline(always)]
    fn sums(self, sums: Self::Sums) -> [f32; 16] {
        self.floats([self.avx._mm256_cvtepi32_ps(sums[0]), self.avx._mm256_cvtepi32_ps(sums[1])])
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes<32> for V4 {
    type Floats = [__m512; 2];
    type Sums = [__m512i; 2];

    #[inline(always)]
    fn zero_floats(self) -> Self::Floats {
        [self.avx512f._mm512_setzero_ps(); 2]
    }
    #[inline(always)]
    fn zero_sums(self) -> Self::Sums {
        [self.avx512f._mm512_setzero_si512(); 2]
    }
    #[inline(always)]
    fn singles(self, acc: Self::Floats, w: &[u32; 32], x: f32) -> Self::Floats {
        let x = self.avx512f._mm512_set1_ps(x);
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<16, 32>(w, i));
                self.avx512f._mm512_fmadd_ps(w, x, acc[i])
            },
        )
    }
    #[inline(always)]
    fn lower(self, acc: Self::Floats, w: &[u32; 32], x: f32) -> Self::Floats {
        let x = self.avx512f._mm512_set1_ps(x);
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<16, 32>(w, i));
                let w = self.avx512f._mm512_slli_epi32::<16>(w);
                let w = self.avx512f._mm512_castsi512_ps(w);
                self.avx512f._mm512_fmadd_ps(w, x, acc[i])
            },
        )
    }
    #[inline(always)]
    fn upper(self, acc: Self::Floats, w: &[u32; 32], x: f32) -> Self::Floats {
        let x = self.avx512f._mm512_set1_ps(x);
        let mask = self.avx512f._mm512_set1_epi32(0xffff_0000_u32.cast_signed());
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<16, 32>(w, i));
                let w = self.avx512f._mm512_and_si512(w, mask);
                let w = self.avx512f._mm512_castsi512_ps(w);
                self.avx512f._mm512_fmadd_ps(w, x, acc[i])
            },
        )
    }
    #[inline(always)]
    fn bytes<const HALF: usize>(self, acc: Self::Sums, w: &[u32; 32], x: u32) -> Self::Sums {
        let x = self.avx512f._mm512_set1_epi32(x.cast_signed());
        each(
            #[inline(always)]
            |i| {
                let w = pulp::cast(part::<8, 32>(w, 2 * HALF + i));
                let w = self.avx512bw._mm512_cvtepi8_epi16(w);
                let products = self.avx512bw._mm512_madd_epi16(w, x);
                self.avx512f._mm512_add_epi32(acc[i], products)
            },
        )
    }
    #[inline(always)]
    fn floats(self, sums: Self::Floats) -> [f32; 32] {
        pulp::cast::<[[f32; 16]; 2], _>([pulp::cast(sums[0]), pulp::cast(sums[1])])
    }
    #[inline(always)]
    fn sums(self, sums: Self::Sums) -> [f32; 32] {
        self.floats([
            self.avx512f._mm512_cvtepi32_ps(sums[0]),
            self.avx512f._mm512_cvtepi32_ps(sums[1]),
        ])
    }
}
