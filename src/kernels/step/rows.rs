//! Rows as the products of a step read them.

use super::super::instructions::Instructions;
use super::super::{Kernel, Stored};
use super::{StepDtype, StepWeights};

/// Numbers of a packed row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowFormat {
    /// `f32`.
    Singles,
    /// bf16, two in a word.
    Pairs,
    /// bf16 as `f32`, where there is no instruction for pairs.
    WidePairs,
    /// Whole numbers of 16 bits up to `max`, two in a word.
    Words { max: f32 },
    /// Whole numbers from 0 to `max`, four in a word.
    Bytes { max: f32 },
}

impl RowFormat {
    /// For weights of `dtype` that are `depth` deep; see [`StepWeights::new`].
    pub fn new(kernel: Kernel, dtype: StepDtype, short: bool, depth: usize) -> Self {
        // no sum of products may overflow
        let most = f64::from(i32::MAX) / (depth.next_multiple_of(4) as f64 * 127.0);
        match dtype {
            StepDtype::F32 => Self::Singles,
            StepDtype::Bf16 if kernel.has_bf16_products() => Self::Pairs,
            StepDtype::Bf16 => Self::WidePairs,
            StepDtype::Int8 => match byte_max(kernel) {
                Some(max) if short && f64::from(max) <= most => Self::Bytes { max },
                _ => Self::Words { max: most.min(f64::from(i16::MAX)).floor() as f32 },
            },
        }
    }

    /// Numbers along the depth that a word of a panel holds for one column.
    pub fn per_panel_word(self) -> usize {
        match self {
            Self::Singles => 1,
            Self::Pairs | Self::WidePairs => 2,
            Self::Words { .. } | Self::Bytes { .. } => 4,
        }
    }

    /// Words of a row for one of a panel.
    pub fn row_words(self) -> usize {
        match self {
            Self::WidePairs | Self::Words { .. } => 2,
            Self::Singles | Self::Pairs | Self::Bytes { .. } => 1,
        }
    }
}

/// `true` if there are sums of products of bytes and words (AVX-512 VNNI).
#[cfg(target_arch = "x86_64")]
pub fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// `true` if there are sums of products of bytes for AVX2 (AVX-VNNI).
#[cfg(target_arch = "x86_64")]
pub fn has_avx_vnni() -> bool {
    is_x86_feature_detected!("avxvnni")
}

/// Largest whole number of 8 bits without sign that a kernel multiplies with int8 weights at the full rate.
fn byte_max(kernel: Kernel) -> Option<f32> {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Amx | Kernel::Avx512 => has_vnni().then_some(255.0),
        // of 7 bits, so that sums of two products fit 16
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => Some(if has_avx_vnni() { 255.0 } else { 127.0 }),
        _ => None,
    }
}

/// `x`, rounded to the nearest whole number (ties to even); less than 2²² away from 0. Vectorises, as a
/// checked conversion does not.
#[inline(always)]
fn whole(x: f32) -> i32 {
    // so large that its last bit stands for 1
    const LARGE: f32 = 12_582_912.0;
    (x + LARGE).to_bits().wrapping_sub(LARGE.to_bits()).cast_signed()
}

impl StepWeights {
    /// Packs rows of [`row_words`](Self::row_words) into `a`: of each, the inputs that its taps read, oldest
    /// first.
    ///
    /// # Panics
    /// If the taps hold more than the weights are deep: a fault of the caller.
    #[inline(always)]
    pub fn pack_rows<'a, T>(&self, a: &mut [u32], taps: impl Fn(usize) -> T)
    where
        T: Iterator<Item = &'a [f32]> + Clone,
    {
        self.kernel.vectorized(
            #[inline(always)]
            || {
                for (row, packed) in a.chunks_exact_mut(self.row_words()).enumerate() {
                    self.pack_row(taps(row), packed);
                }
            },
        );
    }

    #[inline(always)]
    fn pack_row<'a>(&self, taps: impl Iterator<Item = &'a [f32]> + Clone, row: &mut [u32]) {
        let (row, last) = row.split_at_mut(self.depth_words());
        match self.format {
            RowFormat::Singles | RowFormat::WidePairs => put(taps, row, f32::to_bits),
            RowFormat::Pairs => {
                put(taps, bytemuck::cast_slice_mut::<_, u16>(row), Stored::bf16_bits)
            }
            RowFormat::Words { max } => {
                let (low, high) = range(taps.clone());
                // not `f32::max`, which skips what is no number
                let largest = high.to_bits().max(low.abs().to_bits());
                let scale = Scale::new(max, f64::from(f32::from_bits(largest)));
                let row = bytemuck::cast_slice_mut::<_, u16>(row);
                put(taps, row, |x| whole(x * scale.up) as u16);
                last.copy_from_slice(&[scale.unit.to_bits(), 0]);
            }
            RowFormat::Bytes { max } => {
                let (low, high) = range(taps.clone());
                // wider than `f32`: two finite numbers may be far apart
                let scale = Scale::new(max, f64::from(high) - f64::from(low));
                let (zero, most) = (whole(-low * scale.up), max as i32);
                let row = bytemuck::cast_slice_mut::<_, u8>(row);
                put(taps, row, |x| (whole(x * scale.up) + zero).min(most) as u8);
                last.copy_from_slice(&[scale.unit.to_bits(), zero.cast_unsigned()]);
            }
        }
    }
}

/// Writes all numbers of all taps, and zeros up to the end of the row.
#[inline(always)]
fn put<'a, W: Copy + Default>(
    taps: impl Iterator<Item = &'a [f32]>,
    row: &mut [W],
    word: impl Fn(f32) -> W,
) {
    let mut done = 0;
    for tap in taps {
        row[done..][..tap.len()].iter_mut().zip(tap).for_each(|(to, &x)| *to = word(x));
        done += tap.len();
    }
    row[done..].fill(W::default());
}

/// The least and the largest number of a row, 0 at the least and at the most; what is no number counts as
/// beyond all.
#[inline(always)]
fn range<'a>(taps: impl Iterator<Item = &'a [f32]>) -> (f32, f32) {
    // as whole numbers: with a sign they order what is positive, without one what is negative
    let (mut high, mut low) = (0i32, 0u32);
    for tap in taps {
        for x in tap {
            high = high.max(x.to_bits().cast_signed());
            low = low.max(x.to_bits());
        }
    }
    let low = if low >> 31 == 1 { f32::from_bits(low) } else { 0.0 };
    (low, f32::from_bits(high.cast_unsigned()))
}

/// The whole numbers of a row.
struct Scale {
    /// The distance of neighbouring whole numbers.
    unit: f32,
    /// Its reciprocal; 0 where no whole number is wanted.
    up: f32,
}

impl Scale {
    /// `steps` of them reach over `range`.
    #[inline(always)]
    fn new(steps: f32, range: f64) -> Self {
        let up = if range > 0.0 { (f64::from(steps) / range) as f32 } else { 0.0 };
        // so small that its reciprocal is none, or not finite: what is not finite shows in the unit
        let up = if up.is_finite() { up } else { 0.0 };
        Self { unit: if up > 0.0 { 1.0 / up } else { (range * 0.0) as f32 }, up }
    }
}
