//! Forward and input gradient: both are `out[r] = Σ_tap source[r + offset(tap)] · W[tap]`.

use super::super::buffer::LINE;
use super::super::conv::{ConvShape, RowEpilogue, Source};
use super::super::{Stored, parallel};
use super::areas::Areas;
use super::weight_panels::{WeightPanels, pack_row};
use super::{Gemm, MicroKernel, ScratchWords, Term};

/// A product of packed rows with packed weights over a whole batch.
struct Shifted<'a, S> {
    source: Source<'a, S>,
    groups: usize,
    panels: WeightPanels,
    weight: &'a [u32],
    epilogue: &'a RowEpilogue<'a, f32>,
}

/// The blocks that a result is cut into, and the packing of the rows that a block reads.
struct PiecePlan {
    /// Consecutive rows that no block reaches across.
    unit: usize,
    /// Rows of a block: part of one line, or whole lines.
    size: usize,
    areas: Areas,
    /// Rows from line to line of several lines: packed, and of the product.
    pitch: (usize, usize),
}

/// Consecutive rows of the result, `columns` of each of `lines` lines, and the rows that they read: for each area
/// `packed_lines` lines, `pitch` rows from line to line; of the product there are `sums_pitch`.
struct RowBlock<'a> {
    line: usize,
    lines: usize,
    column: usize,
    columns: usize,
    areas: &'a Areas,
    packed_lines: usize,
    pitch: usize,
    sums_pitch: usize,
}

impl RowBlock<'_> {
    /// Rows of the product: those of the result and those between its lines.
    fn rows<M: MicroKernel>(&self) -> usize {
        ((self.lines - 1) * self.sums_pitch + self.columns).next_multiple_of(M::ROW_STEP)
    }

    /// Packed rows from the first to the last that the product reads at one tap.
    fn reach<M: MicroKernel>(&self) -> usize {
        (self.lines - 1) * (self.pitch - self.sums_pitch) + self.rows::<M>()
    }

    /// The packed row that each tap reads first.
    fn first_rows(&self) -> impl Iterator<Item = usize> {
        let taps = self.areas.taps.iter();
        taps.map(|tap| (tap.area * self.packed_lines + tap.lines) * self.pitch + tap.columns)
    }
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

    /// The cheapest plan for a result of `rows` rows.
    fn plan<M: MicroKernel>(&self, rows: usize) -> PiecePlan {
        let shared = [(true, true), (false, true), (true, false), (false, false)];
        let plans = shared.map(|shared| self.plan_shared::<M>(rows, shared));
        let (_, plan) = plans.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("four plans");
        plan
    }

    /// The plan in which taps share packed lines and columns or not, and its cost for each row.
    fn plan_shared<M: MicroKernel>(&self, rows: usize, shared: (bool, bool)) -> (f64, PiecePlan) {
        let Source { lines, columns, .. } = &self.source;
        let areas = Areas::new(lines, columns, shared);
        let (width, height) = (columns.out, lines.out);
        let even = |all: usize, most: usize| all.div_ceil(all.div_ceil(most));
        let (unit, count, size, pitch) = if width >= M::TUNING.piece / 2 {
            let size = even(width, M::TUNING.piece).next_multiple_of(M::ROW_STEP);
            (width, 1, size, (size, size))
        } else {
            let pitch = areas.pitch(columns);
            // without gaps, where groups of rows end with the lines
            let pitch = (pitch, pitch.min(width.next_multiple_of(M::ROW_STEP)));
            let most = (M::TUNING.piece / pitch.0).max(1);
            // lines that are shared are those of one image
            let lines = if areas.reach.0 > 0 { height } else { rows / width };
            let count = even(lines, most);
            (lines * width, count, count * width, pitch)
        };
        let packed = areas.leaders.len() * (count + areas.reach.0) * pitch.0;
        let computed = ((count - 1) * pitch.1 + size / count) * areas.taps.len();
        let cost = packed * M::TUNING.packing + computed * self.panels.columns;
        (cost as f64 / size as f64, PiecePlan { unit, size, areas, pitch })
    }

    /// Computes all result rows, in blocks.
    fn run<M: MicroKernel, Y: Stored<Real = f32>>(&self, micro: M, out: &mut [Y]) {
        let channels = self.groups * self.panels.columns;
        if out.is_empty() {
            return;
        }
        let PiecePlan { unit, size, areas, pitch } = &self.plan::<M>(out.len() / channels);
        let units = out.chunks_mut(unit * channels).enumerate();
        parallel::for_each(units, |(u, out)| {
            let blocks = out.chunks_mut(size * channels).enumerate();
            parallel::for_each(blocks, |(b, out)| {
                let (first, width) = (u * unit + b * size, self.source.columns.out);
                let lines = (out.len() / channels).div_ceil(width);
                let columns = out.len() / channels / lines;
                // one line has no gaps
                let one = columns + areas.reach.1;
                let (pitch, sums_pitch) = if lines == 1 { (one, one) } else { *pitch };
                let block = RowBlock {
                    line: first / width,
                    lines,
                    column: first % width,
                    columns,
                    areas,
                    packed_lines: lines + areas.reach.0,
                    pitch,
                    sums_pitch,
                };
                self.block(micro, &block, out);
            });
        });
    }

    /// One block: `out[r] = epilogue(Σ_tap rows[r + first row of the tap] · W[tap])`.
    fn block<M: MicroKernel, Y: Stored<Real = f32>>(
        &self,
        micro: M,
        block: &RowBlock,
        out: &mut [Y],
    ) {
        let rows = block.rows::<M>();
        let last = block.first_rows().max().unwrap_or(0);
        let packed = block.areas.leaders.len() * block.packed_lines * block.pitch;
        let mut a = ScratchWords::new(packed.max(last + block.reach::<M>()) * self.a_stride());
        let a = a.words();
        micro.vectorized(
            #[inline(always)]
            || self.pack::<M>(block, a),
        );
        let first_rows = block.first_rows().enumerate();
        let taps: Vec<_> = first_rows.filter(|&(tap, _)| self.reads(tap, block)).collect();
        let mut c = ScratchWords::new(rows * self.c_stride::<M>());
        let c = c.floats();
        self.multiply(micro, (a, (block.sums_pitch, block.pitch)), &taps, c);
        micro.vectorized(
            #[inline(always)]
            || self.store(micro, block, c, out),
        );
    }

    /// `true` if any row of the block reads something at `tap`.
    fn reads(&self, tap: usize, block: &RowBlock) -> bool {
        let columns = &self.source.columns;
        let (m, n) = (tap / columns.taps, tap % columns.taps);
        let within = block.column..block.column + block.columns;
        !columns.readers(n, columns.positions(), &within).is_empty()
            && (0..block.lines).any(|l| self.source.line(m, block.line + l).is_some())
    }

    /// The lines of all areas, and zeros behind them.
    #[inline(always)]
    fn pack<M: MicroKernel>(&self, block: &RowBlock, a: &mut [u32]) {
        let height = self.source.lines.out;
        for (p, a) in a.chunks_mut(block.pitch * self.a_stride()).enumerate() {
            let (area, l) = (p / block.packed_lines, p % block.packed_lines);
            let found = block.areas.leaders.get(area).and_then(|&(m, n)| {
                // lines that taps share go on beyond the image
                let (image, r) = match block.areas.reach.0 {
                    0 => ((block.line + l) / height, (block.line + l) % height),
                    _ => (block.line / height, block.line % height + l),
                };
                Some((n, self.source.line_of(image, m, r)?))
            });
            match found {
                Some((tap, line)) => self.pack_line::<M>(tap, line, block, a),
                None => a.fill(0),
            }
        }
    }

    /// The rows of `line` that the columns of the block, and those up to the next line, read at a column tap.
    #[inline(always)]
    fn pack_line<M: MicroKernel>(&self, tap: usize, line: usize, block: &RowBlock, a: &mut [u32]) {
        let (source, a_stride, words) = (&self.source, self.a_stride(), self.panels.words);
        let runs = source.runs(tap, line, block.column..block.column + block.pitch);
        if runs.clone().map(|run| run.count).sum::<usize>() < block.pitch {
            a.fill(0);
        }
        let channels = source.channels / self.groups;
        let (from, to) =
            (source.columns.stride * source.channels, source.columns.divide * a_stride);
        for run in runs {
            let a = &mut a[(run.first - block.column) * a_stride..];
            for (k, packed) in a.chunks_mut(to).take(run.count).enumerate() {
                pack_row(M::FORMAT, &run.rows[k * from..], self.groups, channels, words, packed);
            }
        }
    }

    /// `C = Σ A · W[tap]` over `taps`, each with its first row of A.
    fn multiply<M: MicroKernel>(
        &self,
        micro: M,
        (a, lines): (&[u32], (usize, usize)),
        taps: &[(usize, usize)],
        c: &mut [f32],
    ) {
        let WeightPanels { words, panels, stride, .. } = self.panels;
        let (a_stride, c_stride) = (self.a_stride(), self.c_stride::<M>());
        let rows = c.len() / c_stride;
        if taps.is_empty() {
            c.fill(0.0);
        }
        for group in 0..self.groups {
            let mut terms = Vec::with_capacity(taps.len());
            for done in (0..words).step_by(M::TUNING.turn) {
                for &(tap, first_row) in taps {
                    terms.push(Term {
                        a: first_row * a_stride + group * words + done,
                        b: (tap * words + done) * M::COLS,
                        depth: M::TUNING.turn.min(words - done),
                    });
                }
            }
            let mut product = Gemm {
                c: &mut c[group * panels * M::COLS..],
                c_stride,
                rows,
                a,
                a_stride,
                lines,
                b: &self.weight[group * panels * stride..][..panels * stride],
                panel_stride: stride,
                columns: self.panels.columns,
            };
            product.run(micro, &terms, false);
        }
    }

    /// The results of a block, of its sums in C.
    #[inline(always)]
    fn store<M: MicroKernel, Y: Stored<Real = f32>>(
        &self,
        micro: M,
        block: &RowBlock,
        c: &[f32],
        out: &mut [Y],
    ) {
        let (columns, width) = (self.panels.columns, self.panels.panels * M::COLS);
        let (channels, c_stride) = (self.groups * columns, self.c_stride::<M>());
        for (l, out) in out.chunks_mut(block.columns * channels).enumerate() {
            let c = &c[l * block.sums_pitch * c_stride..];
            for (c, out) in c.chunks_exact(c_stride).zip(out.chunks_exact_mut(channels)) {
                for (g, out) in out.chunks_exact_mut(columns).enumerate() {
                    self.epilogue.store_row(&c[g * width..][..columns], g * columns, out);
                }
            }
            let first = (block.line + l) * self.source.columns.out + block.column;
            self.epilogue.drop_elements(micro, first * channels, out);
        }
    }
}

/// `out = epilogue(Σ_tap rows · W[tap])`, with the transposed weight where that of the input gradient is meant.
fn product<M: MicroKernel, S: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    (source, transposed): (Source<S>, bool),
    weight: &[f32],
    epilogue: &RowEpilogue<f32>,
    out: &mut [Y],
) {
    let panels = WeightPanels::new::<M>(shape, transposed);
    let mut packed = ScratchWords::new(panels.len(shape));
    let packed = packed.words();
    panels.pack(micro, shape, weight, packed);
    Shifted { source, groups: shape.groups, panels, weight: packed, epilogue }.run(micro, out);
}

/// See [`forward`](super::super::conv::forward).
pub fn forward<M: MicroKernel, X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    micro: M,
    shape: &ConvShape,
    input: (&[X], &[X]),
    weight: &[f32],
    epilogue: &RowEpilogue<f32>,
    y: &mut [Y],
) {
    let source = Source::forward(shape, input);
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
    let source = Source::backward(shape, dy);
    let nothing = RowEpilogue { bias: None, relu: false, dropout: None };
    product(micro, shape, (source, true), weight, &nothing, dx);
}
