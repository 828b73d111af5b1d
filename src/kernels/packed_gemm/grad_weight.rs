//! Weight gradient: `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`.
//!
//! Depth runs along time here, so x is transposed. Every tap sums over the same rows of x, each with a row of dy that
//! lies some places before: x is packed once, and a tap is another first row of dy. With a stride, taps that read
//! rows of one remainder share them.

mod places;

use super::super::buffer::LINE;
use super::super::conv::{ConvShape, Source};
use super::super::register_blocks::prefetch;
use super::super::{Stored, parallel};
use super::{Format, Gemm, MicroKernel, ScratchWords};
use places::{PlaceRun, Places, RowSpan, groups, spans};

/// Words of depth that are transposed at once, a cache line of the result: a multiple of
/// [`MicroKernel::STEP`].
const STRIP: usize = LINE;

/// Rows between one that is packed and one that is asked for: memory takes as long as packing them.
const AHEAD: usize = 32;

/// Asks for what lies as many numbers behind rows; not for short rows, many of which come with a line of the cache.
#[inline(always)]
fn ask_for<S>(rows: [Option<&[S]>; 2], numbers: usize) {
    for row in rows.into_iter().flatten() {
        let words = size_of_val(row) / size_of::<u32>();
        if words >= 4 * LINE {
            prefetch(row.as_ptr().wrapping_add(numbers).cast(), 0, 1, words);
        }
    }
}

/// The packed output gradients of a part, from one group's on: how far panels and spans are apart.
#[derive(Clone, Copy)]
struct Panels<'a> {
    words: &'a [u32],
    panel_len: usize,
    run_len: usize,
}

struct Gradient<'a, X, Y> {
    shape: &'a ConvShape,
    source: Source<'a, X>,
    places: Places,
    dy: &'a [Y],
    format: Format,
    cols: usize,
    /// Input channels of a block, a multiple of the micro kernel's rows.
    block: usize,
    blocks: usize,
    panels: usize,
}

/// See [`grad_weight`](super::super::conv::grad_weight).
pub fn grad_weight<M: MicroKernel, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    input: (&[X], &[X]),
    dy: &[Y],
    dw: &mut [f32],
) {
    // the same sums in other blocks: the number of threads does not show in them
    let blocks = shape.group_in().div_ceil(M::TUNING.channels);
    let blocks = blocks.next_multiple_of(rayon::current_num_threads());
    let block = shape.group_in().div_ceil(blocks).next_multiple_of(M::ROW_STEP);
    let blocks = shape.group_in().div_ceil(block);
    let source = Source::forward(shape, input);
    let gradient = Gradient {
        shape,
        source,
        places: Places::new::<M, X>(&source),
        dy,
        format: M::FORMAT,
        cols: M::COLS,
        block,
        blocks,
        panels: shape.group_out().div_ceil(M::COLS),
    };
    let mut sums = ScratchWords::new(shape.groups * blocks * gradient.block_len());
    let sums = sums.floats();
    parallel::for_each(sums.chunks_mut(1 << 16), |sums| sums.fill(0.0));
    for part in gradient.places.parts(shape.batch) {
        gradient.add_part(micro, &part, sums);
    }
    gradient.unpack(sums, dw);
}

impl<X: Stored<Real = f32>, Y: Stored<Real = f32>> Gradient<'_, X, Y> {
    fn c_stride(&self) -> usize {
        (self.panels * self.cols).next_multiple_of(LINE)
    }

    fn block_len(&self) -> usize {
        self.shape.taps() * self.block * self.c_stride()
    }

    /// Adds the products of one part to the sums.
    fn add_part<M: MicroKernel>(&self, micro: M, part: &[PlaceRun], sums: &mut [f32]) {
        let words = part.iter().map(|run| run.words).max().unwrap_or(0);
        // a line more, so that panels do not compete for the same places of a cache
        let panel_len = words * M::COLS + LINE;
        let group_len = self.panels * panel_len;
        let run_len = self.shape.groups * group_len;
        let spans: Vec<RowSpan> = part.iter().enumerate().flat_map(spans).collect();
        let mut dy = ScratchWords::new(part.len() * run_len);
        let dy = dy.words();
        parallel::for_each(dy.chunks_exact_mut(run_len).zip(part), |(dy, run)| {
            micro.vectorized(
                #[inline(always)]
                || self.pack_dy(run, dy, panel_len),
            );
        });
        let blocks = sums.chunks_exact_mut(self.block_len()).enumerate();
        parallel::for_each(blocks, |(i, sums)| {
            let dy = Panels { words: &dy[i / self.blocks * group_len..], panel_len, run_len };
            groups(&spans).for_each(|spans| self.add_spans(micro, i, spans, dy, sums));
        });
    }

    /// The output gradients of a run as (group, panel, depth, column).
    #[inline(always)]
    fn pack_dy(&self, run: &PlaceRun, packed: &mut [u32], panel_len: usize) {
        let s = self.shape;
        let mut rows = self.places.dy_rows(run);
        let mut next = || Some(&self.dy[rows()? * s.out_channels..][..s.out_channels]);
        let pairs = self.format == Format::Pairs;
        for j in 0..run.words {
            let rows = [next(), if pairs { next() } else { None }];
            ask_for(rows, AHEAD * s.out_channels);
            // panels of all groups, without divisions
            let mut at = j * self.cols;
            for group in 0..s.groups {
                for first in (0..s.group_out()).step_by(self.cols) {
                    let from = group * s.group_out() + first;
                    let to = from + self.cols.min(s.group_out() - first);
                    let rows = rows.map(|row| row.map(|row| &row[from..to]));
                    self.format.across(rows, &mut packed[at..][..self.cols]);
                    at += panel_len;
                }
            }
        }
    }

    /// Input channels of block `i` (of all groups); the last of a group may have fewer than others.
    fn channels(&self, i: usize) -> usize {
        let first = i % self.blocks * self.block;
        self.block.min(self.shape.group_in() - first)
    }

    /// Adds the products of some spans with block `i` (of all groups) of the input channels.
    fn add_spans<M: MicroKernel>(
        &self,
        micro: M,
        i: usize,
        spans: &[RowSpan],
        dy: Panels,
        sums: &mut [f32],
    ) {
        let words: usize = spans.iter().map(|span| self.places.x_words(span)).sum();
        let depth = words * self.places.copies();
        let a_stride = (depth.div_ceil(LINE) | 1) * LINE;
        let rows = self.block.next_multiple_of(8);
        let mut a = ScratchWords::new(rows * a_stride);
        let a = a.words();
        micro.vectorized(
            #[inline(always)]
            || self.transpose_x(micro, i, spans, rows, a, a_stride),
        );
        for (tap, c) in sums.chunks_exact_mut(self.block * self.c_stride()).enumerate() {
            let mut product = Gemm {
                c,
                c_stride: self.c_stride(),
                rows: self.channels(i).next_multiple_of(M::ROW_STEP),
                a,
                a_stride,
                lines: (usize::MAX, 0),
                b: dy.words,
                panel_stride: dy.panel_len,
                columns: self.shape.group_out(),
            };
            product.run(micro, &self.places.terms::<M>(spans, tap, dy.run_len), true);
        }
    }

    /// Packs all copies of the rows of x of `spans`, input channels of block `i` across, transposed.
    #[inline(always)]
    fn transpose_x<M: MicroKernel>(
        &self,
        micro: M,
        i: usize,
        spans: &[RowSpan],
        rows: usize,
        a: &mut [u32],
        a_stride: usize,
    ) {
        let s = self.shape;
        let (channels, pairs) = (self.channels(i), self.format == Format::Pairs);
        let row_len = s.width.stride * s.in_channels;
        let channel = i / self.blocks * s.group_in() + i % self.blocks * self.block;
        let mut across = ScratchWords::new(STRIP * rows);
        let across = across.words();
        let mut at = 0;
        for span in spans {
            for copy in 0..self.places.copies() {
                let mut row = self.places.x_rows(&self.source, span, copy);
                let mut next = || Some(&row()?[channel..][..channels]);
                for _ in 0..self.places.x_words(span) / STRIP {
                    for across in across.chunks_exact_mut(rows) {
                        let rows = [next(), if pairs { next() } else { None }];
                        ask_for(rows, AHEAD * row_len);
                        self.format.across(rows, across);
                    }
                    micro.transpose(across, rows, (STRIP, rows), &mut a[at..], a_stride);
                    at += STRIP;
                }
            }
        }
    }

    /// Writes the sums (group, block, tap, in, out) as (out, in, tap).
    fn unpack(&self, sums: &[f32], dw: &mut [f32]) {
        let s = self.shape;
        let (gi, go, taps) = (s.group_in(), s.group_out(), s.taps());
        let (row, c_stride) = (gi * taps, self.c_stride());
        let groups = dw.chunks_mut(go * row).enumerate();
        // a cache line of sums goes to as many rows
        let lines = groups.flat_map(|(group, dw)| {
            dw.chunks_mut(LINE * row).enumerate().map(move |(line, dw)| (group, line, dw))
        });
        parallel::for_each(lines, |(group, line, dw)| {
            for i in 0..row {
                let (ci, tap) = (i / taps, i % taps);
                let block = group * self.blocks + ci / self.block;
                let at = block * self.block_len()
                    + (tap * self.block + ci % self.block) * c_stride
                    + line * LINE;
                let rows = dw[i..].iter_mut().step_by(row);
                rows.zip(&sums[at..][..LINE]).for_each(|(dw, &sum)| *dw = sum);
            }
        });
    }
}
