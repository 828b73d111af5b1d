//! Batch-reduced GEMM of packed operands, `C += Σ_term A_term · B_term` (as in arXiv:2104.08002), and the three
//! convolution products made of it.
//!
//! Operands are words (see [`Format`]). The rows of A are any distance apart, so that a dilated
//! convolution's taps are one buffer read from several first rows. B lies in *panels* of
//! [`MicroKernel::COLS`] columns, the words of one depth next to each other. C is `f32`.

mod amx;
#[cfg(test)]
pub mod amx_in_loops;
mod areas;
mod ceiling;
mod format;
mod grad_weight;
mod scratch;
mod shifted_rows;
mod weight_panels;
mod x86;

pub use format::Format;
pub use scratch::ScratchWords;
pub use {
    amx::Amx, amx::has_amx, ceiling::ceiling, x86::Avx2, x86::Avx512, x86::Avx512Pairs,
    x86::has_bf16_pairs,
};

use super::Stored;
use super::conv::{ConvShape, Operands};
use super::instructions::Instructions;

/// Runs one product of a convolution.
pub fn run<M: MicroKernel, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    operands: Operands<f32, X, Y>,
) {
    match operands {
        Operands::Forward { x, weight, epilogue, y } => {
            shifted_rows::forward(micro, shape, x, weight, epilogue, y);
        }
        Operands::GradInput { dy, weight, dx } => {
            shifted_rows::grad_input(micro, shape, dy, weight, dx);
        }
        Operands::GradWeight { x, dy, dw } => grad_weight::grad_weight(micro, shape, x, dy, dw),
    }
}

/// One term of a sum of products: where its operands begin, in words from the first of A and from the
/// first of B's panel, and how many words deep it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Term {
    pub a: usize,
    pub b: usize,
    pub depth: usize,
}

/// Sizes of the work around a block, found by measurement.
pub struct Tuning {
    /// Words of depth whose share of a panel stays in the first-level cache.
    pub depth: usize,
    /// Rows of C that share packed rows of A.
    pub piece: usize,
    /// Input channels whose weight gradients are summed by one thread at once, a multiple of `ROW_STEP`.
    pub channels: usize,
    /// `true` if a block row of A is kept in the cache while panels pass by; otherwise a panel is, while rows pass by.
    pub rows_first: bool,
    /// Words of a tap's depth after which it is the next tap's turn: taps read the same rows of A but for
    /// a few, which are still in the first-level cache then.
    pub turn: usize,
    /// Multiply-adds that take as long as packing a word of A.
    pub packing: usize,
}

/// Most groups of rows of A in a block: the rows of a group are equally far apart, groups lie anywhere.
pub const GROUPS: usize = 3;

/// The rows of A for one block of C: those of a group are `stride` words apart.
#[derive(Clone, Copy)]
pub struct BlockRows<'a> {
    pub words: &'a [u32],
    pub stride: usize,
    /// Places of the first rows of groups of [`MicroKernel::ROW_STEP`] rows, as many as the block has.
    pub groups: [usize; GROUPS],
}

/// A product of one block of C, `ROWS × COLS`, in registers: the only part that knows the processor.
pub trait MicroKernel: Instructions + Send + Sync {
    /// Rows of a block.
    const ROWS: usize;
    /// Rows of a group of A, see [`BlockRows`]; rows of the last block are a multiple of it.
    const ROW_STEP: usize = Self::ROWS;
    /// Columns of a block, and of a panel of B.
    const COLS: usize;
    /// Words of depth that are multiplied at once; every depth is a multiple of it.
    const STEP: usize;
    /// Contents of a word.
    const FORMAT: Format;
    /// Sizes found by measurement: they change the time alone.
    const TUNING: Tuning;

    /// `C (+)= Σ A_term · B_term` for one block; `c` begins at it (with the distance of its rows), `b` at its panel.
    /// `rows`: those of the block, a multiple of `ROW_STEP`; `half`: its right half is not wanted. `add`: C counts,
    /// otherwise it is overwritten. There is at least one term.
    ///
    /// # Panics
    /// If a slice is too short for what the terms read or the block takes: a fault of the caller.
    fn block(
        self,
        c: (&mut [f32], usize),
        a: BlockRows,
        b: &[u32],
        terms: &[Term],
        shape: (usize, bool),
        add: bool,
    );

    /// Prepares this thread for blocks; called before every product.
    fn begin(self) {}

    /// Transposes `columns` words of each of `rows` rows, `stride` apart, into rows `to_stride` apart.
    /// Both sizes are multiples of 8.
    fn transpose(
        self,
        from: &[u32],
        stride: usize,
        (rows, columns): (usize, usize),
        to: &mut [u32],
        to_stride: usize,
    ) {
        for (row, from) in from.chunks(stride).take(rows).enumerate() {
            for (column, &word) in from[..columns].iter().enumerate() {
                to[column * to_stride + row] = word;
            }
        }
    }
}

/// Checks that one block lies within its slices, for the implementations of [`MicroKernel::block`].
fn check_block<M: MicroKernel>(
    rows: usize,
    (c_len, c_stride): (usize, usize),
    a: &BlockRows,
    b_len: usize,
    terms: &[Term],
) {
    // the last of `rows` rows, `stride` apart, of which the first is at `first`
    let last = |first: usize, rows: usize, stride: usize| {
        (rows - 1).checked_mul(stride).and_then(|last| last.checked_add(first))
    };
    // `true` if `words` from `first` on lie within `len`
    let holds = |len: usize, first: Option<usize>, words: Option<usize>| {
        let end = first.zip(words).and_then(|(first, words)| first.checked_add(words));
        end.is_some_and(|end| end <= len)
    };
    assert!(
        rows <= GROUPS * M::ROW_STEP && rows > 0 && rows.is_multiple_of(M::ROW_STEP),
        "product: odd rows"
    );
    assert!(holds(c_len, last(0, rows, c_stride), Some(M::COLS)), "product: C too short");
    // of the row that lies furthest: once for all terms, which may be short
    let furthest = a.groups.iter().take(rows / M::ROW_STEP).max();
    let a_last = furthest.and_then(|&first| last(first, M::ROW_STEP, a.stride));
    for term in terms {
        let a_end = term.a.checked_add(term.depth);
        let b_words = term.depth.checked_mul(M::COLS);
        let b_end = b_words.and_then(|words| words.checked_add(term.b));
        assert!(holds(a.words.len(), a_last, a_end), "product: A too short");
        assert!(holds(b_len, Some(0), b_end), "product: B too short");
        assert!(term.depth.is_multiple_of(M::STEP), "product: odd depth");
    }
}

/// The operands and the result of one product.
pub struct Gemm<'a> {
    /// `rows × columns`, rounded up to whole panels, rows `c_stride` apart.
    pub c: &'a mut [f32],
    pub c_stride: usize,
    /// A multiple of [`MicroKernel::ROW_STEP`].
    pub rows: usize,
    pub a: &'a [u32],
    pub a_stride: usize,
    /// Rows of C that belong together, a multiple of [`MicroKernel::ROW_STEP`] unless all do, and rows of A from the
    /// first of such a line to the first of the next.
    pub lines: (usize, usize),
    /// Panels of `columns` columns together, `panel_stride` words apart.
    pub b: &'a [u32],
    pub panel_stride: usize,
    pub columns: usize,
}

impl Gemm<'_> {
    /// `C (+)= Σ A_term · B_term`, one thread.
    pub fn run<M: MicroKernel>(&mut self, micro: M, terms: &[Term], add: bool) {
        micro.begin();
        let mut add = add;
        let terms = cut::<M>(terms);
        let mut rest = &terms[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting::<M>(rest));
            self.pass(micro, now, add);
            rest = later;
            add = true;
        }
    }

    /// `C = A · B` of whole rows, `depth` words deep, one thread. Allocates nothing, as steps must not.
    pub fn run_depth<M: MicroKernel>(&mut self, micro: M, depth: usize) {
        micro.begin();
        let parts = depth.div_ceil(M::TUNING.depth).max(1);
        let part = depth.div_ceil(parts).next_multiple_of(M::STEP);
        for done in (0..depth).step_by(part) {
            let term = Term { a: done, b: done * M::COLS, depth: part.min(depth - done) };
            self.pass(micro, &[term], done > 0);
        }
    }

    /// All blocks of C, for terms that fit the cache.
    fn pass<M: MicroKernel>(&mut self, micro: M, terms: &[Term], add: bool) {
        let (blocks, panels) = (self.rows.div_ceil(M::ROWS), self.columns.div_ceil(M::COLS));
        if M::TUNING.rows_first {
            for row in 0..blocks {
                (0..panels).for_each(|panel| self.block(micro, row, panel, terms, add));
            }
        } else {
            for panel in 0..panels {
                (0..blocks).for_each(|row| self.block(micro, row, panel, terms, add));
            }
        }
    }

    fn block<M: MicroKernel>(
        &mut self,
        micro: M,
        row: usize,
        panel: usize,
        terms: &[Term],
        add: bool,
    ) {
        let first = row * M::ROWS;
        let columns = self.columns - panel * M::COLS;
        let groups = [0, 1, 2].map(|group| {
            let (row, (rows, pitch)) = (first + group * M::ROW_STEP, self.lines);
            // a division costs as much as a few words of depth
            let row = if self.rows <= rows { row } else { row / rows * pitch + row % rows };
            row * self.a_stride
        });
        micro.block(
            (&mut self.c[first * self.c_stride + panel * M::COLS..], self.c_stride),
            BlockRows { words: self.a, stride: self.a_stride, groups },
            &self.b[panel * self.panel_stride..],
            terms,
            (M::ROWS.min(self.rows - first), columns <= M::COLS / 2),
            add,
        );
    }
}

/// The same terms, none deeper than [`Tuning::depth`], cut evenly.
fn cut<M: MicroKernel>(terms: &[Term]) -> Vec<Term> {
    let mut all = Vec::with_capacity(terms.len());
    for term in terms {
        let parts = term.depth.div_ceil(M::TUNING.depth).max(1);
        let depth = term.depth.div_ceil(parts).next_multiple_of(M::STEP);
        let mut done = 0;
        while done < term.depth {
            all.push(Term {
                a: term.a + done,
                b: term.b + done * M::COLS,
                depth: depth.min(term.depth - done),
            });
            done += depth;
        }
    }
    all
}

/// Number of first terms that together are not deeper than [`Tuning::depth`]; at least one.
fn fitting<M: MicroKernel>(terms: &[Term]) -> usize {
    let mut depth = 0;
    let fits = |term: &&Term| {
        depth += term.depth;
        depth <= M::TUNING.depth
    };
    terms.iter().take_while(fits).count().max(1)
}
