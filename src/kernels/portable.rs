//! Shifted-row products through the `gemm` crate, cut into pieces of fixed size over all threads.

use std::ops::Range;

use super::conv::{Axis, ConvShape, Segment};
use super::gemm_crate::{View, add_product};
use super::{Real, parallel};

/// Rows of one piece of work: long enough to repay packing the weights, short enough that a single
/// sequence still feeds several threads.
const ROWS: usize = 512;

/// Input channels of one piece of the weight gradient.
const CHANNELS: usize = 64;

/// Calls `visit(place, packed place)` for each weight; packed they are (tap, group, in, out), so that each tap of
/// each group is a plain matrix.
fn each_weight(shape: &ConvShape, mut visit: impl FnMut(usize, usize)) {
    let (gi, go, k) = (shape.group_in(), shape.group_out(), shape.taps());
    for co in 0..shape.out_channels {
        let (group, out) = (co / go, co % go);
        for i in 0..gi * k {
            let (ci, tap) = (i / k, i % k);
            visit(co * gi * k + i, ((tap * shape.groups + group) * gi + ci) * go + out);
        }
    }
}

fn packed<T: Real>(shape: &ConvShape, weight: &[T]) -> Vec<T> {
    let mut packed = vec![T::zero(); weight.len()];
    each_weight(shape, |place, to| packed[to] = weight[place]);
    packed
}

/// Splits `buffer` (lines, len, channels) into pieces of [`ROWS`] rows and runs `work(line, rows,
/// piece)` on each.
fn each_piece<T: Real>(
    buffer: &mut [T],
    len: usize,
    channels: usize,
    work: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
) {
    if buffer.is_empty() {
        return;
    }
    let sequences = buffer.chunks_mut(len * channels).enumerate();
    let pieces = sequences.flat_map(|(b, sequence)| {
        let pieces = sequence.chunks_mut(ROWS * channels).enumerate();
        pieces.map(move |(piece, rows)| (b, piece * ROWS, rows))
    });
    parallel::for_each(pieces, |(b, start, rows)| {
        work(b, start..start + rows.len() / channels, rows);
    });
}

/// See [`super::conv::forward`].
pub fn forward<T: Real>(shape: &ConvShape, x: &[T], history: &[T], weight: &[T], y: &mut [T]) {
    let packed = packed(shape, weight);
    let (ci, co) = (shape.in_channels, shape.out_channels);
    let (height, width) = (&shape.height, &shape.width);
    each_piece(y, width.out_len, co, |line, rows, piece| {
        piece.fill(T::zero());
        for tap in 0..shape.taps() {
            let (m, n) = shape.tap(tap);
            let Some(line) = source_line(height, m, line) else {
                continue;
            };
            let x = &x[line * width.in_len * ci..][..width.in_len * ci];
            let past = &history[line * shape.history * ci..][..shape.history * ci];
            for (source, segment) in
                [(past, shape.history_segment(n, &rows)), (x, width.input_segment(n, &rows))]
            {
                if !segment.out.is_empty() {
                    let out = &mut piece[(segment.out.start - rows.start) * co..];
                    let source = (&source[segment.first * ci..], width.stride);
                    add_tap(shape, (&packed, tap, false), segment.out.len(), (out, 1), source);
                }
            }
        }
    });
}

/// The line of all inputs that line `line` of all outputs reads at `tap`.
fn source_line(height: &Axis, tap: usize, line: usize) -> Option<usize> {
    let (image, r) = (line / height.out_len, line % height.out_len);
    Some(image * height.in_len + height.input(tap, r)?)
}

impl ConvShape {
    /// The outputs of `within` that read the carried history of their line at column tap `tap`.
    fn history_segment(&self, tap: usize, within: &Range<usize>) -> Segment {
        let before = (-(self.history as isize), 0);
        self.width.segment(tap, before, within)
    }
}

/// `dst[r] += src[r] · W[tap]` for `count` rows, each of `dst` and `src` some rows from the next; with the
/// transposed weight where it is an input gradient.
fn add_tap<T: Real>(
    shape: &ConvShape,
    (packed, tap, transposed): (&[T], usize, bool),
    count: usize,
    (dst, dst_step): (&mut [T], usize),
    (src, src_step): (&[T], usize),
) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    let (depth, columns) = if transposed { (go, gi) } else { (gi, go) };
    let (from, to) = (shape.groups * depth, shape.groups * columns);
    let weight = &packed[tap * gi * shape.out_channels..][..gi * shape.out_channels];
    if gi == 1 {
        for r in 0..count {
            let (src, dst) =
                (&src[r * src_step * from..][..from], &mut dst[r * dst_step * to..][..to]);
            let filters = weight.chunks_exact(go);
            if transposed {
                for ((dx, dy), w) in dst.iter_mut().zip(src.chunks_exact(go)).zip(filters) {
                    *dx += dy.iter().zip(w).map(|(&dy, &w)| dy * w).sum();
                }
            } else {
                for ((y, &x), w) in dst.chunks_exact_mut(go).zip(src).zip(filters) {
                    y.iter_mut().zip(w).for_each(|(y, &w)| *y += x * w);
                }
            }
        }
        return;
    }
    let (row_stride, col_stride) = if transposed { (1, go) } else { (go, 1) };
    for group in 0..shape.groups {
        add_product(
            (count, columns, depth),
            &mut dst[group * columns..],
            dst_step * to,
            View { data: &src[group * depth..], row_stride: src_step * from, col_stride: 1 },
            View { data: &weight[group * gi * go..], row_stride, col_stride },
        );
    }
}

/// See [`super::conv::grad_input`].
pub fn grad_input<T: Real>(shape: &ConvShape, dy: &[T], weight: &[T], dx: &mut [T]) {
    let packed = packed(shape, weight);
    let (ci, co) = (shape.in_channels, shape.out_channels);
    let (height, width) = (&shape.height, &shape.width);
    each_piece(dx, width.in_len, ci, |line, rows, piece| {
        piece.fill(T::zero());
        let (image, i) = (line / height.in_len, line % height.in_len);
        for tap in 0..shape.taps() {
            let (m, n) = shape.tap(tap);
            // the one output line that reads this line at this tap, where there is one
            let lines = readers(height, m, &(i..i + 1)).out;
            let segment = readers(width, n, &rows);
            if lines.is_empty() || segment.out.is_empty() {
                continue;
            }
            let line = image * height.out_len + lines.start;
            let dy = &dy[(line * width.out_len + segment.out.start) * co..];
            let dx = (&mut piece[segment.first * ci..], width.stride);
            add_tap(shape, (&packed, tap, true), segment.out.len(), dx, (dy, 1));
        }
    });
}

/// The outputs that read, at `tap`, the inputs `within`, and the first that they read, counted from the
/// first of those.
fn readers(axis: &Axis, tap: usize, within: &Range<usize>) -> Segment {
    let within = (within.start as isize, within.end as isize);
    axis.segment(tap, within, &(0..axis.out_len))
}

/// See [`super::conv::grad_weight`]. A piece is one tap, one group and some input channels; each
/// sums over all rows by itself, so no partial sums meet.
pub fn grad_weight<T: Real>(shape: &ConvShape, x: &[T], history: &[T], dy: &[T], dw: &mut [T]) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    if dw.is_empty() {
        return;
    }
    let mut packed = vec![T::zero(); dw.len()];
    if gi == 1 {
        parallel::for_each(packed.chunks_mut(shape.out_channels).enumerate(), |(tap, weight)| {
            each_source(shape, tap, x, history, dy, |source, dy, rows| {
                depthwise_grad_weight(shape, source, dy, rows, weight);
            });
        });
    } else {
        parallel::for_each(packed.chunks_mut(gi * go).enumerate(), |(i, matrix)| {
            let (tap, group) = (i / shape.groups, i % shape.groups);
            parallel::for_each(matrix.chunks_mut(CHANNELS * go).enumerate(), |(piece, weight)| {
                let first = group * gi + piece * CHANNELS;
                each_source(shape, tap, x, history, dy, |source, dy, rows| {
                    add_product(
                        (weight.len() / go, go, rows),
                        weight,
                        go,
                        View {
                            data: &source[first..],
                            row_stride: 1,
                            col_stride: shape.width.stride * shape.in_channels,
                        },
                        View {
                            data: &dy[group * go..],
                            row_stride: shape.out_channels,
                            col_stride: 1,
                        },
                    );
                });
            });
        });
    }
    each_weight(shape, |place, from| dw[place] = packed[from]);
}

/// Calls `add(source rows, output-gradient rows, how many)` for every line and source of `tap`.
fn each_source<T: Real>(
    shape: &ConvShape,
    tap: usize,
    x: &[T],
    history: &[T],
    dy: &[T],
    mut add: impl FnMut(&[T], &[T], usize),
) {
    let (ci, co) = (shape.in_channels, shape.out_channels);
    let (height, width) = (&shape.height, &shape.width);
    let (m, n) = shape.tap(tap);
    let all = 0..width.out_len;
    let (past, now) = (shape.history_segment(n, &all), width.input_segment(n, &all));
    for (line, dy) in dy.chunks_exact(width.out_len * co).enumerate() {
        let Some(line) = source_line(height, m, line) else {
            continue;
        };
        for (source, len, segment) in [(history, shape.history, &past), (x, width.in_len, &now)] {
            if !segment.out.is_empty() {
                let rows = &source[line * len * ci..][..len * ci];
                add(&rows[segment.first * ci..], &dy[segment.out.start * co..], segment.out.len());
            }
        }
    }
}

fn depthwise_grad_weight<T: Real>(
    shape: &ConvShape,
    source: &[T],
    dy: &[T],
    rows: usize,
    weight: &mut [T],
) {
    let go = shape.group_out();
    for (r, dy) in dy.chunks_exact(shape.out_channels).take(rows).enumerate() {
        let x = &source[r * shape.width.stride * shape.in_channels..][..shape.in_channels];
        for ((w, dy), &x) in weight.chunks_exact_mut(go).zip(dy.chunks_exact(go)).zip(x) {
            w.iter_mut().zip(dy).for_each(|(w, &dy)| *w += x * dy);
        }
    }
}
