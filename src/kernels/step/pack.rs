//! Weights and rows as the products of a step read them.

use super::super::instructions::Instructions;
use super::super::packed_gemm::Buffer;
use super::super::{Kernel, Stored};
use super::StepDtype;
use crate::{Error, Result};
use half::bf16;

/// Largest whole number of an int8 weight.
const WEIGHT_MAX: f32 = 127.0;

/// Numbers along the depth that one word of a panel holds for one column.
fn per_word(dtype: StepDtype) -> usize {
    match dtype {
        StepDtype::F32 => 1,
        StepDtype::Bf16 => 2,
        StepDtype::Int8 => 4,
    }
}

/// The weights of a convolution or a linear layer, packed for [`product`](super::product).
///
/// Columns (output channels) lie in panels of `cols`, the words of one depth next to each other; depth
/// runs over taps, oldest first, and over channels within a tap.
#[derive(Debug)]
pub struct StepWeights {
    pub(super) dtype: StepDtype,
    pub(super) kernel: Kernel,
    /// Columns of a panel.
    pub(super) cols: usize,
    pub(super) columns: usize,
    depth: usize,
    /// Words of a panel along the depth.
    pub(super) words: usize,
    panels: Buffer,
    /// One for each column of each panel.
    pub(super) bias: Vec<f32>,
    /// Scales of int8 weights, one for each column of each panel.
    pub(super) scales: Vec<f32>,
    /// Largest whole number of an int8 row: no sum of products may overflow.
    row_max: f32,
}

impl StepWeights {
    /// Packs `weight` (out_channels, in_channels, kernel_size) for `kernel`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for an int8 product that is too deep for exact sums.
    ///
    /// # Panics
    /// If a slice has another length: a fault of the caller.
    pub fn new(
        kernel: Kernel,
        dtype: StepDtype,
        (out_channels, in_channels, kernel_size): (usize, usize, usize),
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        /// The depth at which int8 rows are still of 6 bits at the least.
        const DEEPEST: usize = 1 << 18;
        let depth = in_channels * kernel_size;
        assert!(weight.len() == out_channels * depth);
        assert!(bias.is_none_or(|bias| bias.len() == out_channels));
        if dtype == StepDtype::Int8 && depth > DEEPEST {
            return Err(Error::too_large(
                "int8",
                format!(
                    "{in_channels} channels x {kernel_size} taps in one sum; at most {DEEPEST} are supported"
                ),
            ));
        }
        let cols = match kernel {
            Kernel::Amx | Kernel::Avx512 => 32,
            _ => 16,
        };
        let words = depth.div_ceil(per_word(dtype)).next_multiple_of(step(kernel, dtype));
        let padded = out_channels.next_multiple_of(cols);
        let mut packed = Self {
            dtype,
            kernel,
            cols,
            columns: out_channels,
            depth,
            words,
            panels: Buffer::zeros(words * padded),
            bias: vec![0.0; padded],
            scales: Vec::new(),
            row_max: 0.0,
        };
        if let Some(bias) = bias {
            packed.bias[..out_channels].copy_from_slice(bias);
        }
        if dtype == StepDtype::Int8 {
            let products = (packed.words * per_word(dtype)) as f64 * f64::from(WEIGHT_MAX);
            packed.row_max =
                (f64::from(i32::MAX) / products).min(f64::from(i16::MAX)).floor() as f32;
            packed.scales = vec![0.0; padded];
        }
        for (column, row) in weight.chunks_exact(depth).enumerate() {
            packed.pack_column(column, row, in_channels, kernel_size);
        }
        Ok(packed)
    }

    fn pack_column(&mut self, column: usize, row: &[f32], in_channels: usize, kernel_size: usize) {
        let scale = int8_scale(row);
        if self.dtype == StepDtype::Int8 {
            self.scales[column] = scale;
        }
        let (panel, lane) = (column / self.cols, column % self.cols);
        let panel = panel * self.words * self.cols;
        let words = self.panels.words_mut();
        for k in 0..row.len() {
            let value = row[k % in_channels * kernel_size + k / in_channels];
            match self.dtype {
                StepDtype::F32 => words[panel + k * self.cols + lane] = value.to_bits(),
                StepDtype::Bf16 => {
                    let word = &mut words[panel + k / 2 * self.cols + lane];
                    *word |= u32::from(value.bf16_bits()) << (16 * (k % 2));
                }
                StepDtype::Int8 => {
                    // two depths of all columns after the two before them, each column's two together
                    let byte = k / 4 * 4 * self.cols + k % 4 / 2 * 2 * self.cols + 2 * lane + k % 2;
                    let value = int8(value, scale).cast_unsigned();
                    words[panel + byte / 4] |= u32::from(value) << (8 * (byte % 4));
                }
            }
        }
    }

    /// Output channels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Weights, those that fill up panels not counted.
    pub(super) fn count(&self) -> usize {
        self.columns * self.depth
    }

    /// Bytes that a step reads.
    pub fn bytes(&self) -> usize {
        size_of_val(self.panels.words())
            + size_of_val(&self.bias[..])
            + size_of_val(&self.scales[..])
    }

    pub(super) fn panel(&self, panel: usize) -> &[u32] {
        &self.panels.words()[panel * self.words * self.cols..][..self.words * self.cols]
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn panels(&self) -> &[u32] {
        self.panels.words()
    }

    /// Words of a row along the depth.
    pub(super) fn depth_words(&self) -> usize {
        match self.dtype {
            StepDtype::F32 => self.words,
            StepDtype::Bf16 | StepDtype::Int8 => 2 * self.words,
        }
    }

    /// Words of a packed row: of int8 the last is its scale.
    pub fn row_words(&self) -> usize {
        self.depth_words() + usize::from(self.dtype == StepDtype::Int8)
    }

    /// Packs rows of [`row_words`](Self::row_words) into `a`: of each, the inputs that its taps read, oldest
    /// first.
    ///
    /// # Panics
    /// As [`pack_row`](Self::pack_row).
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

    /// Packs one row: the inputs that the taps read, oldest first. `row` has [`row_words`](Self::row_words).
    ///
    /// # Panics
    /// If the taps hold more than the weights are deep: a fault of the caller.
    #[inline(always)]
    pub fn pack_row<'a>(&self, taps: impl Iterator<Item = &'a [f32]> + Clone, row: &mut [u32]) {
        if self.dtype == StepDtype::Int8 {
            return self.pack_int8_row(taps, row);
        }
        let mut done = 0;
        for tap in taps {
            let to = &mut row[done..][..tap.len()];
            to.iter_mut().zip(tap).for_each(|(to, x)| *to = x.to_bits());
            done += tap.len();
        }
        row[done..].fill(0);
    }

    #[inline(always)]
    fn pack_int8_row<'a>(&self, taps: impl Iterator<Item = &'a [f32]> + Clone, row: &mut [u32]) {
        let (row, last) = row.split_at_mut(row.len() - 1);
        // a maximum that does not skip what is no number
        let largest =
            |tap: &[f32]| tap.iter().fold(0u32, |max, x| max.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(taps.clone().map(largest).max().unwrap_or(0));
        let up = if largest > 0.0 { self.row_max / largest } else { 0.0 };
        // so small that its reciprocal is none, or not finite: what is not finite shows in the scale
        let up = if up.is_finite() { up } else { 0.0 };
        let whole = |x: f32| (x * up).round_ties_even() as i32;
        let mut done = 0;
        for tap in taps {
            // a tap may begin in the middle of a word
            for &x in &tap[..(done % 2).min(tap.len())] {
                row[done / 2] |= (whole(x) << 16).cast_unsigned();
            }
            let rest = &tap[(done % 2).min(tap.len())..];
            let to = &mut row[done.div_ceil(2)..];
            let (pairs, odd) = rest.as_chunks::<2>();
            for (to, [a, b]) in to.iter_mut().zip(pairs) {
                *to = (whole(*a) & 0xffff | whole(*b) << 16).cast_unsigned();
            }
            if let [x] = odd {
                to[pairs.len()] = (whole(*x) & 0xffff).cast_unsigned();
            }
            done += tap.len();
        }
        row[done.div_ceil(2)..].fill(0);
        let scale = if up > 0.0 { 1.0 / up } else { largest * 0.0 };
        last[0] = scale.to_bits();
    }
}

/// Words of depth that the products go by.
fn step(kernel: Kernel, dtype: StepDtype) -> usize {
    #[cfg(target_arch = "x86_64")]
    if (kernel, dtype) == (Kernel::Amx, StepDtype::Bf16) {
        return super::amx::STEP;
    }
    let _ = (kernel, dtype);
    1
}

/// Scale of the int8 weights of one output channel.
fn int8_scale(row: &[f32]) -> f32 {
    row.iter().fold(0.0f32, |max, x| max.max(x.abs())) / WEIGHT_MAX
}

fn int8(value: f32, scale: f32) -> i8 {
    if scale > 0.0 { (value / scale).round_ties_even() as i8 } else { 0 }
}

/// `weight` (out_channels, any) as a step of this type computes with it.
pub fn round_weight(dtype: StepDtype, weight: &mut [f32], out_channels: usize) {
    match dtype {
        StepDtype::F32 => {}
        StepDtype::Bf16 => weight.iter_mut().for_each(|x| *x = bf16::store(*x).load()),
        StepDtype::Int8 => {
            let (numbers, scales) = quantize(weight, out_channels);
            weight.copy_from_slice(&dequantize(&numbers, &scales));
        }
    }
}

/// `weight` (out_channels, any) as whole numbers from −127 to 127, and what 1 stands for in each channel.
pub fn quantize(weight: &[f32], out_channels: usize) -> (Vec<i8>, Vec<f32>) {
    let rows = weight.chunks_exact(depth(weight.len(), out_channels));
    let scales: Vec<f32> = rows.clone().map(int8_scale).collect();
    let numbers = rows.zip(&scales);
    let numbers = numbers.flat_map(|(row, &scale)| row.iter().map(move |&x| int8(x, scale)));
    (numbers.collect(), scales)
}

/// The inverse of [`quantize`], up to rounding.
pub fn dequantize(numbers: &[i8], scales: &[f32]) -> Vec<f32> {
    let rows = numbers.chunks_exact(depth(numbers.len(), scales.len()));
    let weights = rows.zip(scales);
    weights.flat_map(|(row, &scale)| row.iter().map(move |&x| f32::from(x) * scale)).collect()
}

fn depth(len: usize, out_channels: usize) -> usize {
    (len / out_channels.max(1)).max(1)
}
