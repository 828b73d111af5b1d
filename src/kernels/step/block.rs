//! Blocks of sums in registers: some rows times some panels of weights.

use super::super::elementwise::Activation;
use super::lanes::Lanes;
use super::{StepEpilogue, StepWeights};

/// How a panel row is multiplied with the words of a row that belong to it.
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

// plain counters: iterators would take the sums out of their registers
#[allow(clippy::needless_range_loop)]
/// The sums of `R` rows and `P` panels; a row has `PARTS` words for each panel row.
#[inline(always)]
fn block<const COLS: usize, L, M, const PARTS: usize, const R: usize, const P: usize>(
    lanes: L,
    rows: [&[[u32; PARTS]]; R],
    panels: [&[[u32; COLS]]; P],
) -> [[[f32; COLS]; P]; R]
where
    L: Lanes<COLS>,
    M: Multiply<COLS, L>,
{
    let depth = panels[0].len();
    let (rows, panels) = (
        rows.map(|row| &row[..depth]),
        panels.map(|panel| &panel[..depth]),
    );
    let mut sums = [[M::zero(lanes); P]; R];
    for k in 0..depth {
        for part in 0..PARTS {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = M::add(lanes, part, sums[r][p], &panels[p][k], rows[r][k][part]);
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

/// A product on one thread, panels outside, rows inside: see [`product`](super::product).
#[inline(always)]
pub fn rows_of_panels<const COLS: usize, L, M, const PARTS: usize>(
    lanes: L,
    w: &StepWeights,
    a: &[u32],
    first: usize,
    epilogue: StepEpilogue,
    y: &mut [f32],
) where
    L: Lanes<COLS>,
    M: Multiply<COLS, L>,
{
    let words = w.row_words();
    let rows = a.len() / words;
    let stride = y.len() / rows;
    let panels = stride.div_ceil(COLS);
    let product = Rows {
        w,
        a,
        first,
        stride,
        epilogue,
    };
    let mut panel = 0;
    while panel < panels {
        // groups of one size, as far as they go, so that none is left with too few sums at once
        let left = panels - panel;
        let group = if rows == 1 {
            left.div_ceil(left.div_ceil(6))
        } else {
            1
        };
        if rows == 1 {
            match group {
                1 => product.block::<COLS, L, M, PARTS, 1, 1>(lanes, 0, panel, y),
                2 => product.block::<COLS, L, M, PARTS, 1, 2>(lanes, 0, panel, y),
                3 => product.block::<COLS, L, M, PARTS, 1, 3>(lanes, 0, panel, y),
                4 => product.block::<COLS, L, M, PARTS, 1, 4>(lanes, 0, panel, y),
                5 => product.block::<COLS, L, M, PARTS, 1, 5>(lanes, 0, panel, y),
                _ => product.block::<COLS, L, M, PARTS, 1, 6>(lanes, 0, panel, y),
            }
            panel += group;
            continue;
        }
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            match left {
                1 => product.block::<COLS, L, M, PARTS, 1, 1>(lanes, row, panel, y),
                2 => product.block::<COLS, L, M, PARTS, 2, 1>(lanes, row, panel, y),
                3 => product.block::<COLS, L, M, PARTS, 3, 1>(lanes, row, panel, y),
                4 | 7 | 8 => product.block::<COLS, L, M, PARTS, 4, 1>(lanes, row, panel, y),
                5 => product.block::<COLS, L, M, PARTS, 5, 1>(lanes, row, panel, y),
                _ => product.block::<COLS, L, M, PARTS, 6, 1>(lanes, row, panel, y),
            }
            row += match left {
                4 | 7 | 8 => 4,
                left => left.min(6),
            };
        }
        panel += 1;
    }
}

/// What the blocks of a product have in common.
struct Rows<'a> {
    w: &'a StepWeights,
    a: &'a [u32],
    /// The column of the weights that a row of the result begins with.
    first: usize,
    stride: usize,
    epilogue: StepEpilogue,
}

impl Rows<'_> {
    #[inline(always)]
    fn block<const COLS: usize, L, M, const PARTS: usize, const R: usize, const P: usize>(
        &self,
        lanes: L,
        row: usize,
        panel: usize,
        y: &mut [f32],
    ) where
        L: Lanes<COLS>,
        M: Multiply<COLS, L>,
    {
        let (words, depth) = (self.w.row_words(), self.w.depth_words());
        let a = |r: usize| &self.a[(row + r) * words..][..words];
        let rows = std::array::from_fn(|r| a(r)[..depth].as_chunks::<PARTS>().0);
        let first = self.first / COLS + panel;
        let panels = std::array::from_fn(|p| self.w.panel(first + p).as_chunks::<COLS>().0);
        let sums = block::<COLS, L, M, PARTS, R, P>(lanes, rows, panels);
        for (r, sums) in sums.iter().enumerate() {
            // of int8 the word after the row is its scale
            let scale = a(r).get(depth).map(|&bits| f32::from_bits(bits));
            let y = &mut y[(row + r) * self.stride..][..self.stride];
            for (p, sums) in sums.iter().enumerate() {
                let y = &mut y[(panel + p) * COLS..];
                self.store((first + p) * COLS, scale, sums, y);
            }
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
        if self.epilogue.relu {
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
