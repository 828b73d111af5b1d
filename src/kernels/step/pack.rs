//! Weights as the products of a step read them.

use half::bf16;

use super::super::buffer::Buffer;
use super::super::{Kernel, Stored};
use super::StepDtype;
use super::block_set::BlockSet;
use super::blocks::panel_columns;
use super::rows::RowFormat;
use crate::{Error, Result};

/// Largest whole number of an int8 weight.
const WEIGHT_MAX: f32 = 127.0;

/// The weights of a convolution or a linear layer, packed for [`product`](super::product).
///
/// Columns (output channels) lie in panels, the words of one depth next to each other; depth runs over
/// taps, oldest first, and over channels within a tap.
#[derive(Debug)]
pub struct StepWeights {
    pub(super) dtype: StepDtype,
    pub(super) kernel: Kernel,
    pub(super) format: RowFormat,
    /// None where plain loops run.
    pub(super) blocks: Option<BlockSet>,
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
    /// Sums of the int8 weights of each column of each panel.
    pub(super) sums: Vec<i32>,
}

impl StepWeights {
    /// Packs `weight` (out_channels, in_channels, kernel_size) for `kernel`. Inputs of int8 weights are rounded to
    /// whole numbers of 8 bits where they are `short` and the kernel multiplies such, otherwise to 16.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for an int8 product that is too deep for exact sums.
    ///
    /// # Panics
    /// If a slice has another length: a fault of the caller.
    pub fn new(
        kernel: Kernel,
        (dtype, short): (StepDtype, bool),
        shape: (usize, usize, usize),
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        /// The depth at which int8 rows are still of 6 bits at the least.
        const DEEPEST: usize = 1 << 18;
        let (_, in_channels, kernel_size) = shape;
        let depth = in_channels * kernel_size;
        if dtype == StepDtype::Int8 && depth > DEEPEST {
            return Err(Error::too_large(
                "int8",
                format!(
                    "{in_channels} channels x {kernel_size} taps in one sum; at most {DEEPEST} are supported"
                ),
            ));
        }
        let format = RowFormat::new(kernel, dtype, short, depth);
        let blocks = BlockSet::new(kernel, format);
        Ok(Self::of_format(kernel, dtype, (format, blocks), shape, weight, bias))
    }

    /// As [`new`](Self::new), for a format and for blocks of it, whose instructions the processor has.
    pub(super) fn of_format(
        kernel: Kernel,
        dtype: StepDtype,
        (format, blocks): (RowFormat, Option<BlockSet>),
        (out_channels, in_channels, kernel_size): (usize, usize, usize),
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let depth = in_channels * kernel_size;
        assert!(weight.len() == out_channels * depth);
        assert!(bias.is_none_or(|bias| bias.len() == out_channels));
        let cols = panel_columns(kernel);
        assert!(blocks.is_none_or(|blocks| blocks.expects() == (format.row_words(), cols)));
        let words = depth.div_ceil(format.per_panel_word()).next_multiple_of(step(kernel, dtype));
        let padded = out_channels.next_multiple_of(cols);
        let int8 = if dtype == StepDtype::Int8 { padded } else { 0 };
        let mut packed = Self {
            dtype,
            kernel,
            format,
            blocks,
            cols,
            columns: out_channels,
            depth,
            words,
            panels: Buffer::zeros(words * padded),
            bias: vec![0.0; padded],
            scales: vec![0.0; int8],
            sums: vec![0; int8],
        };
        if let Some(bias) = bias {
            packed.bias[..out_channels].copy_from_slice(bias);
        }
        for (column, row) in weight.chunks_exact(depth).enumerate() {
            packed.pack_column(column, row, in_channels, kernel_size);
        }
        packed
    }

    fn pack_column(&mut self, column: usize, row: &[f32], in_channels: usize, kernel_size: usize) {
        let (scale, cols) = (int8_scale(row), self.cols);
        let (panel, lane) = (column / cols, column % cols);
        let panel = panel * self.words * cols;
        let words = &mut self.panels.words_mut()[panel..];
        for k in 0..row.len() {
            let value = row[k % in_channels * kernel_size + k / in_channels];
            // the bytes of a word of one column, or two depths of all columns after the two before them
            let byte = match self.format {
                RowFormat::Singles => {
                    words[k * cols + lane] = value.to_bits();
                    continue;
                }
                RowFormat::Pairs => {
                    words[k / 2 * cols + lane] |= u32::from(value.bf16_bits()) << (16 * (k % 2));
                    continue;
                }
                RowFormat::WidePairs => {
                    let at = k * cols + lane;
                    words[at / 2] |= u32::from(value.bf16_bits()) << (16 * (at % 2));
                    continue;
                }
                RowFormat::Bytes { .. } => 4 * (k / 4 * cols + lane) + k % 4,
                RowFormat::Words { .. } => {
                    4 * (k / 4 * cols) + k % 4 / 2 * 2 * cols + 2 * lane + k % 2
                }
            };
            let value = int8(value, scale);
            words[byte / 4] |= u32::from(value.cast_unsigned()) << (8 * (byte % 4));
            self.sums[column] += i32::from(value);
            self.scales[column] = scale;
        }
    }

    /// Output channels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bits of the whole numbers that inputs of int8 weights are rounded to at the most; of others none.
    pub fn input_bits(&self) -> Option<u32> {
        match self.format {
            RowFormat::Singles | RowFormat::Pairs | RowFormat::WidePairs => None,
            RowFormat::Words { .. } => Some(16),
            RowFormat::Bytes { .. } => Some(8),
        }
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
            + size_of_val(&self.sums[..])
    }

    /// All panels, one after the other.
    pub(super) fn panels(&self) -> &[u32] {
        self.panels.words()
    }

    /// Words of a row along the depth.
    pub(super) fn depth_words(&self) -> usize {
        self.words * self.format.row_words()
    }

    /// Words of a packed row: of int8 the last two are its scale and what stands for 0.
    pub fn row_words(&self) -> usize {
        self.depth_words() + if self.dtype == StepDtype::Int8 { 2 } else { 0 }
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
