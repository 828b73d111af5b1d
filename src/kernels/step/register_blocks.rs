//! Blocks of sums in registers: some rows times some panels of weights.

use std::marker::PhantomData;

use super::super::elementwise::Activation;
use super::StepWeights;
use super::lanes::Lanes;

/// The multiplication of a panel row with the words of a row that belong to it.
pub trait Multiply<const COLS: usize, L: Lanes<COLS>> {
    /// The sums of one row and one panel.
    type Sums: Copy;
    /// No sums yet.
    fn zero(lanes: L) -> Self::Sums;
    /// Adds part `part` of the products of a panel row; `x` is the row's word for this part.
    fn add(lanes: L, part: usize, sums: Self::Sums, w: &[u32; COLS], x: u32) -> Self::Sums;
    /// The sums as numbers.
    fn finish(lanes: L, sums: Self::Sums) -> [f32; COLS];
}

/// Words of one `f32`.
#[derive(Debug)]
pub struct Singles;

impl<const COLS: usize, L: Lanes<COLS>> Multiply<COLS, L> for Singles {
    type Sums = L::Floats;
    #[inline(always)]
    fn zero(lanes: L) -> L::Floats {
        lanes.zero_floats()
    }
    #[inline(always)]
    fn add(lanes: L, _: usize, sums: L::Floats, w: &[u32; COLS], x: u32) -> L::Floats {
        lanes.singles(sums, w, f32::from_bits(x))
    }
    #[inline(always)]
    fn finish(lanes: L, sums: L::Floats) -> [f32; COLS] {
        lanes.floats(sums)
    }
}

/// Words of two bf16.
#[derive(Debug)]
pub struct Pairs;

impl<const COLS: usize, L: Lanes<COLS>> Multiply<COLS, L> for Pairs {
    type Sums = L::Floats;
    #[inline(always)]
    fn zero(lanes: L) -> L::Floats {
        lanes.zero_floats()
    }
    #[inline(always)]
    fn add(lanes: L, part: usize, sums: L::Floats, w: &[u32; COLS], x: u32) -> L::Floats {
        match part {
            0 => lanes.lower(sums, w, f32::from_bits(x)),
            _ => lanes.upper(sums, w, f32::from_bits(x)),
        }
    }
    #[inline(always)]
    fn finish(lanes: L, sums: L::Floats) -> [f32; COLS] {
        lanes.floats(sums)
    }
}

/// Words of four bytes.
#[derive(Debug)]
pub struct Bytes;

impl<const COLS: usize, L: Lanes<COLS>> Multiply<COLS, L> for Bytes {
    type Sums = L::Sums;
    #[inline(always)]
    fn zero(lanes: L) -> L::Sums {
        lanes.zero_sums()
    }
    #[inline(always)]
    fn add(lanes: L, part: usize, sums: L::Sums, w: &[u32; COLS], x: u32) -> L::Sums {
        match part {
            0 => lanes.bytes::<0>(sums, w, x),
            _ => lanes.bytes::<1>(sums, w, x),
        }
    }
    #[inline(always)]
    fn finish(lanes: L, sums: L::Sums) -> [f32; COLS] {
        lanes.sums(sums)
    }
}

/// The operands of a product on one thread.
#[derive(Clone, Copy)]
pub struct PackedRows<'a> {
    pub w: &'a StepWeights,
    /// Rows of [`StepWeights::row_words`].
    pub a: &'a [u32],
    /// The column of the weights that a row of the result begins with: of a single row, 0 of several.
    pub first: usize,
    pub relu: bool,
}

impl<'a> PackedRows<'a> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.a.len() / self.w.row_words()
    }

    /// See [`product`](super::product); `M` multiplies `PARTS` words of a row with a panel row.
    #[inline(always)]
    pub fn product<const COLS: usize, L, M, const PARTS: usize>(self, lanes: L, y: &mut [f32])
    where
        L: Lanes<COLS>,
        M: Multiply<COLS, L>,
    {
        let blocks = Blocks::<COLS, L, M, PARTS> { rows: self, lanes, multiply: PhantomData };
        let panels = (y.len() / self.count()).div_ceil(COLS);
        if self.count() == 1 {
            return blocks.one_row(panels, y);
        }
        for panel in 0..panels {
            blocks.panel(panel, y);
        }
    }

    /// Stores the sums of one panel as far as there are columns.
    #[inline(always)]
    fn store<const COLS: usize>(
        &self,
        first: usize,
        scale: Option<f32>,
        sums: &[f32; COLS],
        y: &mut [f32],
    ) {
        let mut sums = *sums;
        if let Some(scale) = scale {
            for (sum, column) in sums.iter_mut().zip(&self.w.scales[first..][..COLS]) {
                *sum *= scale * column;
            }
        }
        for (sum, bias) in sums.iter_mut().zip(&self.w.bias[first..][..COLS]) {
            *sum += bias;
        }
        if self.relu {
            for sum in &mut sums {
                *sum = Activation::Relu.apply(*sum);
            }
        }
        match y.first_chunk_mut::<COLS>() {
            Some(y) => *y = sums,
            None => y.copy_from_slice(&sums[..y.len()]),
        }
    }
}

/// A product cut into blocks.
struct Blocks<'a, const COLS: usize, L, M, const PARTS: usize> {
    rows: PackedRows<'a>,
    lanes: L,
    multiply: PhantomData<M>,
}

impl<const COLS: usize, L, M, const PARTS: usize> Blocks<'_, COLS, L, M, PARTS>
where
    L: Lanes<COLS>,
    M: Multiply<COLS, L>,
{
    /// A single row: several panels at once, so that no sum waits for the one before it.
    #[inline(always)]
    fn one_row(&self, panels: usize, y: &mut [f32]) {
        let mut panel = 0;
        while panel < panels {
            // groups of one size, as far as they go, so that none is left with too few sums at once
            let left = panels - panel;
            let group = left.div_ceil(left.div_ceil(6));
            match group {
                1 => self.block::<1, 1>(0, panel, y),
                2 => self.block::<1, 2>(0, panel, y),
                3 => self.block::<1, 3>(0, panel, y),
                4 => self.block::<1, 4>(0, panel, y),
                5 => self.block::<1, 5>(0, panel, y),
                _ => self.block::<1, 6>(0, panel, y),
            }
            panel += group;
        }
    }

    /// All rows with one panel, which stays in the cache.
    #[inline(always)]
    fn panel(&self, panel: usize, y: &mut [f32]) {
        let (mut row, rows) = (0, self.rows.count());
        while row < rows {
            // 7 and 8 go as 4 and 3 or 4
            let block = match rows - row {
                7 | 8 => 4,
                left => left.min(6),
            };
            match block {
                1 => self.block::<1, 1>(row, panel, y),
                2 => self.block::<2, 1>(row, panel, y),
                3 => self.block::<3, 1>(row, panel, y),
                4 => self.block::<4, 1>(row, panel, y),
                5 => self.block::<5, 1>(row, panel, y),
                _ => self.block::<6, 1>(row, panel, y),
            }
            row += block;
        }
    }

    /// `R` rows from `row` on with `P` panels from `panel` on.
    #[inline(always)]
    fn block<const R: usize, const P: usize>(&self, row: usize, panel: usize, y: &mut [f32]) {
        let PackedRows { w, a, first, .. } = self.rows;
        let (words, depth) = (w.row_words(), w.depth_words());
        let stride = y.len() / self.rows.count();
        let a = |r: usize| &a[(row + r) * words..][..words];
        let rows = std::array::from_fn(|r| a(r)[..depth].as_chunks::<PARTS>().0);
        let first = first / COLS + panel;
        let panels = std::array::from_fn(|p| w.panel(first + p).as_chunks::<COLS>().0);
        let sums = self.sums::<R, P>(rows, panels);
        for (r, sums) in sums.iter().enumerate() {
            // of int8 the word after the row is its scale
            let scale = a(r).get(depth).map(|&bits| f32::from_bits(bits));
            let y = &mut y[(row + r) * stride..][..stride];
            for (p, sums) in sums.iter().enumerate() {
                let y = &mut y[(panel + p) * COLS..];
                self.rows.store((first + p) * COLS, scale, sums, y);
            }
        }
    }

    // plain counters: iterators would take the sums out of their registers
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn sums<const R: usize, const P: usize>(
        &self,
        rows: [&[[u32; PARTS]]; R],
        panels: [&[[u32; COLS]]; P],
    ) -> [[[f32; COLS]; P]; R] {
        let (lanes, depth) = (self.lanes, panels[0].len());
        let (rows, panels) = (rows.map(|row| &row[..depth]), panels.map(|panel| &panel[..depth]));
        let mut sums = [[M::zero(lanes); P]; R];
        for k in 0..depth {
            for part in 0..PARTS {
                for r in 0..R {
                    for p in 0..P {
                        sums[r][p] =
                            M::add(lanes, part, sums[r][p], &panels[p][k], rows[r][k][part]);
                    }
                }
            }
        }
        let mut numbers = [[[0.0; COLS]; P]; R];
        for r in 0..R {
            for p in 0..P {
                numbers[r][p] = M::finish(lanes, sums[r][p]);
            }
        }
        numbers
    }
}
