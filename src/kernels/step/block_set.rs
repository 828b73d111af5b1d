//! The register blocks of a step's products.

use super::super::Kernel;
use super::super::packed_gemm::{GROUPS, Term};
use super::super::register_blocks::{self, RegisterBlock};
use super::rows::{RowFormat, has_avx_vnni, has_vnni};

/// The register blocks that multiply rows of one format with panels of weights.
#[derive(Debug, Clone, Copy)]
pub struct BlockSet {
    /// The block of some rows and some panels, one of those that
    /// [`block_rows`](super::blocks::block_rows) and [`block_panels`](super::blocks::block_panels) give.
    shape: fn(usize, usize) -> RegisterBlock,
    row_words: usize,
    cols: usize,
    /// Rows of a group.
    group: usize,
}

/// The functions of one module of [`register_blocks`] as a [`BlockSet`]; `narrow` of 16 columns, `wide` of 32.
macro_rules! block_set {
    ($block:ident, $words:literal, $cols:literal: $($rows:literal x $panels:literal),+) => {
        pub fn $block() -> Self {
            fn shape(rows: usize, panels: usize) -> RegisterBlock {
                match (rows, panels) {
                    $(($rows, $panels) => register_blocks::$block::block::<$rows, $panels, 2>,)+
                    _ => unreachable!("step: a block of {rows} x {panels}"),
                }
            }
            Self { shape, row_words: $words, cols: $cols, group: register_blocks::$block::GROUP }
        }
    };
    (narrow $block:ident, $words:literal) => {
        block_set!($block, $words, 16: 1 x 1, 1 x 2, 1 x 3, 1 x 4, 1 x 5, 1 x 6, 2 x 1, 2 x 2, 3 x 1, 4 x 1, 6 x 1);
    };
    (wide $block:ident, $words:literal) => {
        block_set!($block, $words, 32: 1 x 1, 1 x 2, 1 x 3, 1 x 4, 1 x 5, 1 x 6, 2 x 1, 2 x 2, 2 x 3,
            3 x 1, 3 x 2, 4 x 1, 4 x 2, 6 x 1, 8 x 1, 12 x 1);
    };
}

/// Each needs the instructions that its module names.
impl BlockSet {
    block_set!(narrow avx2_singles, 1);
    block_set!(narrow avx2_pairs, 2);
    block_set!(narrow avx2_words, 2);
    block_set!(narrow avx2_bytes, 1);
    block_set!(narrow avx_vnni_bytes, 1);
    block_set!(wide avx512_singles, 1);
    block_set!(wide avx512_pairs, 2);
    block_set!(wide avx512_split_pairs, 1);
    block_set!(wide avx512_dots, 1);
    block_set!(wide avx512_words, 2);
    block_set!(wide vnni_words, 2);
    block_set!(wide vnni_bytes, 1);

    /// The fastest that `kernel` has for rows of `format`; none where plain loops run.
    pub fn new(kernel: Kernel, format: RowFormat) -> Option<Self> {
        if !kernel.is_available() {
            return None;
        }
        let set = match (kernel, format) {
            (Kernel::Portable | Kernel::Reference | Kernel::Candle, _) => return None,
            (Kernel::Avx2, RowFormat::Singles) => Self::avx2_singles,
            (Kernel::Avx2, RowFormat::WidePairs) => Self::avx2_pairs,
            (Kernel::Avx2, RowFormat::Words { .. }) => Self::avx2_words,
            (Kernel::Avx2, RowFormat::Bytes { .. }) if has_avx_vnni() => Self::avx_vnni_bytes,
            (Kernel::Avx2, RowFormat::Bytes { .. }) => Self::avx2_bytes,
            (_, RowFormat::Singles) => Self::avx512_singles,
            (_, RowFormat::WidePairs) => Self::avx512_pairs,
            // next to tiles the instruction for pairs is slow
            (Kernel::Amx, RowFormat::Pairs) => Self::avx512_split_pairs,
            (_, RowFormat::Pairs) if kernel.has_bf16_products() => Self::avx512_dots,
            (_, RowFormat::Words { .. }) if has_vnni() => Self::vnni_words,
            (_, RowFormat::Words { .. }) => Self::avx512_words,
            (_, RowFormat::Bytes { .. }) if has_vnni() => Self::vnni_bytes,
            (_, RowFormat::Pairs | RowFormat::Bytes { .. }) => return None,
        };
        Some(set())
    }

    /// Words of a row for one of a panel, and columns of a panel.
    pub fn expects(self) -> (usize, usize) {
        (self.row_words, self.cols)
    }

    /// The sums of some rows of `a`, `stride` words apart, with some panels of `b`, as `sums` (rows, panels, columns).
    ///
    /// # Panics
    /// If the slices are not whole rows and panels of one size.
    pub fn multiply(
        self,
        (a, stride): (&[u32], usize),
        (b, panel_len): (&[u32], usize),
        sums: &mut [f32],
    ) {
        let (rows, panels, depth) = (a.len() / stride, b.len() / panel_len, panel_len / self.cols);
        assert!(a.len() == rows * stride && b.len() == panels * panel_len);
        assert!(depth * self.row_words <= stride && depth * self.cols == panel_len);
        assert!(sums.len() == rows * panels * self.cols);
        let terms = [Term { a: 0, b: 0, depth }];
        let sums = (sums.as_mut_ptr(), panels * self.cols);
        let group = |i| a.as_ptr().wrapping_add(i * self.group * stride);
        let groups: [_; GROUPS] = [group(0), group(1), group(2)];
        // SAFETY: `new` chooses only blocks whose features the processor has; the assertions keep what a block of this
        // shape reads and writes within the slices.
        unsafe {
            (self.shape)(rows, panels)(
                sums,
                (groups, stride),
                (b.as_ptr(), panel_len),
                &terms,
                false,
            )
        }
    }
}
