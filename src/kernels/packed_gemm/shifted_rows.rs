//! Forward and input gradient: both are `out[r] = Σ_tap rows[source(tap, r)] · W[tap]`.

use super::super::conv::{ConvShape, RowEpilogue};
use super::super::{Stored, parallel};
use super::buffer::{LINE, with_buffer};
use super::row_source::{PackedLines, Packing, PiecePlan, Reads, RowBlock, RowSource};
use super::weight_panels::{WeightPanels, pack_row};
use super::{Gemm, MicroKernel, Term};

/// A product of packed rows with packed weights over a whole batch.
struct Shifted<'a, S> {
    source: RowSource<'a, S>,
    groups: usize,
    panels: WeightPanels,
    weight: &'a [u32],
}

/// Rounds words up to an odd number of cache lines, so that equal columns of neighbouring rows do not
/// compete for the same places of a cache.
fn spread(words: usize) -> usize {
    (words.div_ceil(LINE) | 1) * LINE
}

impl<S: Stored<Real = f32>> Shifted<'_, S> {
    fn a_stride(&self) -> usize {
        spread(self.groups * self.panels.words)
    }

    fn c_stride<M: MicroKernel>(&self) -> usize {
        spread(self.groups * self.panels.panels * M::COLS)
    }

    /// Computes all result rows in pieces; `finish(first row, C, its stride, rows of the result)`
    /// stores some rows of a piece.
    fn run<M: MicroKernel, Y: Send>(
        &self,
        micro: M,
        out: &mut [Y],
        finish: impl Fn(usize, &[f32], usize, &mut [Y]) + Sync,
    ) {
        let channels = self.groups * self.panels.columns;
        if out.is_empty() {
            return;
        }
        let PiecePlan { unit, size, packing } =
            self.source.plan::<M>(out.len() / channels, self.panels.columns);
        let units = out.chunks_mut(unit * channels).enumerate();
        parallel::for_each(units, |(u, out)| {
            let pieces = out.chunks_mut(size * channels).enumerate();
            parallel::for_each(pieces, |(p, out)| {
                let first = u * unit + p * size;
                let rows = out.len() / channels;
                match packing {
                    Packing::Taps => self.taps_apart(micro, first, rows, |c, stride| {
                        micro.vectorized(
                            #[inline(always)]
                            || finish(first, c, stride, out),
                        );
                    }),
                    Packing::Lines { pitch } => {
                        let block = self.source.block(first, rows);
                        self.lines_apart(micro, block, pitch, |c, stride, pitch| {
                            micro.vectorized(
                                #[inline(always)]
                                || {
                                    let lines = out.chunks_mut(block.columns * channels);
                                    for (l, out) in lines.enumerate() {
                                        let c = &c[l * pitch * stride..];
                                        finish(first + l * block.columns, c, stride, out);
                                    }
                                },
                            );
                        });
                    }
                }
            });
        });
    }
    /// The result rows of `block`, its lines `pitch` rows apart.
    fn lines_apart<M: MicroKernel>(
        &self,
        micro: M,
        block: RowBlock,
        pitch: usize,
        finish: impl FnOnce(&[f32], usize, usize),
    ) {
        let RowSource { lines, columns, .. } = &self.source;
        let pitch = match block.lines {
            1 => block.columns + columns.span(),
            _ => pitch,
        };
        let rows = ((block.lines - 1) * pitch + block.columns).next_multiple_of(M::ROW_STEP);
        let (image, last) = (block.line / lines.out, (block.line + block.lines - 1) / lines.out);
        let packed = self.source.packed_lines(block.lines, image == last);
        let first_row = |m: usize| match packed.shared {
            true => lines.offset(m) * pitch,
            false => m * block.lines * pitch,
        };
        let last_row = (0..lines.taps).map(first_row).max().unwrap_or(0);
        let a_len = (last_row + columns.span() + rows) * self.a_stride();
        with_buffer(a_len, |a| {
            let a = &mut a.words_mut()[..a_len];
            micro.vectorized(
                #[inline(always)]
                || self.pack_lines::<M>(&block, packed, pitch, a),
            );
            let mut taps = Vec::with_capacity(self.source.taps());
            for m in 0..lines.taps {
                let mut of_block = block.line..block.line + block.lines;
                if !of_block.any(|line| self.source.line(m, line).is_some()) {
                    continue;
                }
                for n in 0..columns.taps {
                    if self.source.has_columns(n, block.column, block.columns) {
                        taps.push((m * columns.taps + n, first_row(m) + columns.offset(n)));
                    }
                }
            }
            self.multiply(micro, a, rows, &taps, |c, stride| finish(c, stride, pitch));
        });
    }

    /// All columns that the taps of the block's lines read, once for each packed line.
    #[inline(always)]
    fn pack_lines<M: MicroKernel>(
        &self,
        block: &RowBlock,
        packed: PackedLines,
        pitch: usize,
        a: &mut [u32],
    ) {
        let RowSource { lines, columns, .. } = &self.source;
        let last_column = block.columns + columns.span();
        let first_column = columns.first() + block.column as isize;
        for (p, a) in a.chunks_mut(pitch * self.a_stride()).enumerate() {
            let line = match packed {
                _ if p >= packed.lines => None,
                PackedLines { shared: true, .. } => {
                    let (image, r) = (block.line / lines.out, block.line % lines.out);
                    let i = usize::try_from((r + p) as isize + lines.first()).ok();
                    i.filter(|&i| i < lines.len).map(|i| image * lines.len + i)
                }
                _ => self.source.line(p / block.lines, block.line + p % block.lines),
            };
            for (i, packed) in a.chunks_exact_mut(self.a_stride()).enumerate() {
                let row = match line {
                    Some(line) if i < last_column => {
                        self.source.row(line, first_column + i as isize)
                    }
                    _ => None,
                };
                self.pack_row::<M>(row, packed);
            }
        }
    }

    /// The result rows `first..first + rows`, each tap's rows by themselves.
    fn taps_apart<M: MicroKernel>(
        &self,
        micro: M,
        first: usize,
        rows: usize,
        finish: impl FnOnce(&[f32], usize),
    ) {
        let padded = rows.next_multiple_of(M::ROW_STEP);
        let a_len = self.source.taps() * padded * self.a_stride();
        with_buffer(a_len, |a| {
            let a = &mut a.words_mut()[..a_len];
            let mut taps = Vec::with_capacity(self.source.taps());
            let each = a.chunks_exact_mut(padded * self.a_stride());
            for (tap, a) in each.enumerate() {
                let found = micro.vectorized(
                    #[inline(always)]
                    || self.pack_tap::<M>(tap, first, rows, a),
                );
                if found {
                    taps.push((tap, tap * padded));
                }
            }
            self.multiply(micro, a, padded, &taps, finish);
        });
    }

    /// The rows that one tap reads; whether there are any.
    #[inline(always)]
    fn pack_tap<M: MicroKernel>(
        &self,
        tap: usize,
        first: usize,
        rows: usize,
        a: &mut [u32],
    ) -> bool {
        let RowSource { columns, .. } = &self.source;
        let (m, n) = (tap / columns.taps, tap % columns.taps);
        let (mut line, mut column) = (first / columns.out, first % columns.out);
        let mut from = self.source.line(m, line);
        let mut found = false;
        for (i, packed) in a.chunks_exact_mut(self.a_stride()).enumerate() {
            let row = match from {
                Some(from) if i < rows => {
                    columns.position(n, column).and_then(|column| self.source.row(from, column))
                }
                _ => None,
            };
            found |= row.is_some();
            self.pack_row::<M>(row, packed);
            column += 1;
            if column == columns.out && i + 1 < rows {
                (line, column) = (line + 1, 0);
                from = self.source.line(m, line);
            }
        }
        found
    }

    #[inline(always)]
    fn pack_row<M: MicroKernel>(&self, row: Option<&[S]>, packed: &mut [u32]) {
        let channels = self.source.channels / self.groups;
        pack_row(M::FORMAT, row, channels, self.panels.words, packed);
    }

    /// `C = Σ A · W[tap]` over `taps`, each with its first row of A; then `finish(C, its stride)`.
    fn multiply<M: MicroKernel>(
        &self,
        micro: M,
        a: &[u32],
        rows: usize,
        taps: &[(usize, usize)],
        finish: impl FnOnce(&[f32], usize),
    ) {
        let WeightPanels { words, panels, stride, .. } = self.panels;
        let c_stride = self.c_stride::<M>();
        with_buffer(rows * c_stride, |c| {
            let c = &mut c.floats_mut()[..rows * c_stride];
            if taps.is_empty() {
                c.fill(0.0);
            }
            for group in 0..self.groups {
                let terms = |done: usize| {
                    taps.iter().map(move |&(tap, first_row)| Term {
                        a: first_row * self.a_stride() + group * words + done,
                        b: (tap * words + done) * M::COLS,
                        depth: M::TURN.min(words - done),
                    })
                };
                let turns = (0..words).step_by(M::TURN);
                let terms: Vec<Term> = turns.flat_map(terms).collect();
                let mut product = Gemm {
                    c: &mut c[group * panels * M::COLS..],
                    c_stride,
                    rows,
                    a,
                    a_stride: self.a_stride(),
                    b: &self.weight[group * panels * stride..][..panels * stride],
                    panel_stride: stride,
                    columns: self.panels.columns,
                };
                product.run(micro, &terms, false);
            }
            finish(c, c_stride);
        });
    }
}

/// `out = epilogue(Σ_tap rows · W[tap])`, with the transposed weight where that of the input gradient is meant.
fn product<M: MicroKernel, S: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    (source, transposed): (RowSource<S>, bool),
    weight: &[f32],
    epilogue: &RowEpilogue<f32>,
    out: &mut [Y],
) {
    let panels = WeightPanels::new::<M>(shape, transposed);
    with_buffer(panels.len(shape), |packed| {
        panels.pack(micro, shape, weight, &mut packed.words_mut()[..panels.len(shape)]);
        let groups = shape.groups;
        let shifted = Shifted { source, groups, panels, weight: packed.words() };
        let (columns, width) = (panels.columns, panels.panels * M::COLS);
        let channels = groups * columns;
        shifted.run(
            micro,
            out,
            #[inline(always)]
            |first, c, stride, out| {
                for (c, out) in c.chunks_exact(stride).zip(out.chunks_exact_mut(channels)) {
                    for (g, out) in out.chunks_exact_mut(columns).enumerate() {
                        epilogue.store_row(&c[g * width..][..columns], g * columns, out);
                    }
                }
                epilogue.drop_elements(micro, first * channels, out);
            },
        );
    });
}

/// See [`forward`](super::super::conv::forward).
pub fn forward<M: MicroKernel, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    (x, history): (&[X], &[X]),
    weight: &[f32],
    epilogue: &RowEpilogue<f32>,
    y: &mut [Y],
) {
    let source = RowSource {
        data: x,
        past: history,
        history: shape.history,
        channels: shape.in_channels,
        lines: Reads::forward(&shape.height),
        columns: Reads::forward(&shape.width),
    };
    product(micro, shape, (source, false), weight, epilogue, y);
}

/// See [`grad_input`](super::super::conv::grad_input).
pub fn grad_input<M: MicroKernel, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    dy: &[Y],
    weight: &[f32],
    dx: &mut [X],
) {
    let source = RowSource {
        data: dy,
        past: &[],
        history: 0,
        channels: shape.out_channels,
        lines: Reads::backward(&shape.height),
        columns: Reads::backward(&shape.width),
    };
    let nothing = RowEpilogue { bias: None, relu: false, dropout: None };
    product(micro, shape, (source, true), weight, &nothing, dx);
}
