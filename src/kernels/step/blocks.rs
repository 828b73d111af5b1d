//! Blocks of a step's product: some rows times some panels of weights, then scale, bias and activation.

use super::super::elementwise::Activation;
use super::super::instructions::Instructions;
use super::super::{Kernel, MOST_COLS as COLUMNS};
use super::StepWeights;
use super::rows::RowFormat;

/// Rows of the largest block.
pub const ROWS: usize = 12;

/// Panels of the widest block.
const PANELS: usize = 6;

/// Sums that are finished at once.
const LANES: usize = 16;

/// Columns of a panel.
pub fn panel_columns(kernel: Kernel) -> usize {
    match kernel {
        Kernel::Amx | Kernel::Avx512 => COLUMNS,
        _ => 16,
    }
}

/// Rows of the next block when `left` are left, so that none is left alone.
pub fn block_rows(wide: bool, left: usize) -> usize {
    match left {
        1..=4 => left,
        5 => 3,
        7 => 4,
        6 | 9 | 10 => 6,
        8 if !wide => 4,
        _ if !wide => 6,
        8 | 11 | 13 => 8,
        _ => ROWS,
    }
}

/// Panels that a block of `rows` takes at the most: enough sums at once, few enough for the registers.
pub fn block_panels(wide: bool, rows: usize) -> usize {
    match rows {
        1 => PANELS,
        2 if wide => 3,
        2 => 2,
        3 | 4 if wide => 2,
        _ => 1,
    }
}

/// The operands of a product on one thread.
#[derive(Clone, Copy)]
pub struct PackedRows<'a> {
    pub w: &'a StepWeights,
    /// Rows of [`StepWeights::row_words`].
    pub a: &'a [u32],
    /// The panel of the weights that a row of the result begins with: of a single row, 0 of several.
    pub first: usize,
    pub relu: bool,
}

/// The sums of a block, as `f32` or, of int8, as whole numbers.
#[repr(align(64))]
struct Sums([f32; ROWS * COLUMNS]);

impl PackedRows<'_> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.a.len() / self.w.row_words()
    }

    /// See [`product`](super::product).
    pub fn product(self, y: &mut [f32]) {
        let (cols, rows) = (self.w.cols, self.count());
        let columns = y.len() / rows;
        let (panels, wide) = (columns.div_ceil(cols), cols == COLUMNS);
        // few rows: many sums at once; otherwise panels that stay in the cache while all rows pass by
        let together = if rows < 6 {
            PANELS
        } else if wide {
            2
        } else {
            1
        };
        let mut sums = Sums([0.0; ROWS * COLUMNS]);
        let mut panel = 0;
        while panel < panels {
            // groups of one size, as far as they go, so that none is left with too few sums at once
            let left = panels - panel;
            let group = left.div_ceil(left.div_ceil(together));
            let mut row = 0;
            while row < rows {
                let block = block_rows(wide, rows - row);
                let mut at = panel;
                while at < panel + group {
                    let panels = block_panels(wide, block).min(panel + group - at);
                    let stride = panels * cols;
                    let sums = &mut sums.0[..block * stride];
                    self.multiply((row, block), (self.first + at, panels), sums);
                    let y = &mut y[row * columns..][..block * columns];
                    self.store(row, at * cols, sums, stride, y);
                    at += panels;
                }
                row += block;
            }
            panel += group;
        }
    }

    /// The sums of `rows` from `row` on with `panels` from `panel` on.
    fn multiply(
        self,
        (row, rows): (usize, usize),
        (panel, panels): (usize, usize),
        sums: &mut [f32],
    ) {
        let (w, stride) = (self.w, self.w.row_words());
        let (a, panel_len) = (&self.a[row * stride..][..rows * stride], w.words * w.cols);
        let b = &w.panels()[panel * panel_len..][..panels * panel_len];
        if let Some(blocks) = w.blocks {
            return blocks.multiply((a, stride), (b, panel_len), sums);
        }
        for (row, sums) in a.chunks_exact(stride).zip(sums.chunks_exact_mut(panels * w.cols)) {
            let panels = b.chunks_exact(panel_len).zip(sums.chunks_exact_mut(w.cols));
            panels.for_each(|(panel, sums)| plain(w.format, &row[..w.depth_words()], panel, sums));
        }
    }

    /// Stores sums of rows from `row` on, columns from `first` on, as far as there are columns.
    fn store(self, row: usize, first: usize, sums: &[f32], stride: usize, y: &mut [f32]) {
        let (w, words) = (self.w, self.w.row_words());
        let columns = y.len() / (sums.len() / stride);
        let at = self.first * w.cols + first;
        w.kernel.vectorized(
            #[inline(always)]
            || {
                let rows = sums.chunks_exact(stride).zip(y.chunks_exact_mut(columns));
                for (i, (sums, y)) in rows.enumerate() {
                    let tail = &self.a[(row + i) * words..][..words][w.depth_words()..];
                    let lanes = sums.as_chunks().0.iter().zip(y[first..].chunks_mut(LANES));
                    for (j, (sums, y)) in lanes.enumerate() {
                        let numbers = self.finish(*sums, tail, at + j * LANES);
                        match y.first_chunk_mut() {
                            Some(y) => *y = numbers,
                            None => y.copy_from_slice(&numbers[..y.len()]),
                        }
                    }
                }
            },
        );
    }

    /// The results of columns from `at` on; `tail` is what a row ends with.
    #[inline(always)]
    fn finish(self, sums: [f32; LANES], tail: &[u32], at: usize) -> [f32; LANES] {
        let bias = chunk(&self.w.bias, at);
        let mut numbers = [0.0; LANES];
        if let [unit, zero] = *tail {
            let (unit, zero) = (f32::from_bits(unit), zero.cast_signed());
            let (scales, totals) = (chunk(&self.w.scales, at), chunk(&self.w.sums, at));
            for j in 0..LANES {
                let sum = sums[j].to_bits().cast_signed();
                let sum = sum.wrapping_sub(zero.wrapping_mul(totals[j]));
                numbers[j] = sum as f32 * (unit * scales[j]) + bias[j];
            }
        } else {
            (0..LANES).for_each(|j| numbers[j] = sums[j] + bias[j]);
        }
        if self.relu {
            numbers.iter_mut().for_each(|y| *y = Activation::Relu.apply(*y));
        }
        numbers
    }
}

/// The numbers from `at` on, in registers.
#[inline(always)]
fn chunk<T: Copy + Default>(numbers: &[T], at: usize) -> [T; LANES] {
    let mut chunk = [T::default(); LANES];
    chunk.copy_from_slice(&numbers[at..][..LANES]);
    chunk
}

/// The sums of one row and one panel, in the order of the register blocks.
fn plain(format: RowFormat, row: &[u32], panel: &[u32], sums: &mut [f32]) {
    let cols = sums.len();
    let half = |word: u32, half: usize| {
        f32::from_bits(if half == 0 { word << 16 } else { word & 0xffff_0000 })
    };
    let byte = |word: u32, at: usize| i32::from(word.to_le_bytes()[at].cast_signed());
    sums.fill(0.0);
    let mut whole = [0i32; COLUMNS];
    for (k, columns) in panel.chunks_exact(cols).enumerate() {
        match format {
            RowFormat::Singles => {
                let x = f32::from_bits(row[k]);
                sums.iter_mut().zip(columns).for_each(|(sum, &w)| *sum += f32::from_bits(w) * x);
            }
            RowFormat::Pairs => {
                for part in 0..2 {
                    let x = half(row[k], part);
                    sums.iter_mut().zip(columns).for_each(|(sum, &w)| *sum += half(w, part) * x);
                }
            }
            RowFormat::WidePairs => {
                for part in 0..2 {
                    let x = f32::from_bits(row[2 * k + part]);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let at = cols * part + i;
                        *sum += half(columns[at / 2], at % 2) * x;
                    }
                }
            }
            RowFormat::Words { .. } => {
                for part in 0..2 {
                    let x =
                        [row[2 * k + part] as i16, (row[2 * k + part] >> 16) as i16].map(i32::from);
                    for (i, sum) in whole[..cols].iter_mut().enumerate() {
                        let pair = columns[(cols * part + i) / 2];
                        let w = [0, 1].map(|j| byte(pair, (cols * part + i) % 2 * 2 + j));
                        *sum += w[0] * x[0] + w[1] * x[1];
                    }
                }
            }
            RowFormat::Bytes { .. } => {
                let x = row[k].to_le_bytes().map(i32::from);
                for (sum, &w) in whole.iter_mut().zip(columns) {
                    *sum += (0..4).map(|j| byte(w, j) * x[j]).sum::<i32>();
                }
            }
        }
    }
    if matches!(format, RowFormat::Words { .. } | RowFormat::Bytes { .. }) {
        sums.iter_mut().zip(whole).for_each(|(to, sum)| *to = f32::from_bits(sum.cast_unsigned()));
    }
}
