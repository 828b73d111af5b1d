//! Shifted-row products through the `gemm` crate, cut into pieces of fixed size over all threads.

use std::ops::Range;

use rayon::prelude::*;

use super::Real;
use super::conv::{Axis, ConvShape, Segment};
use super::matmul::{View, add_product};

/// Rows of one piece of work: long enough to repay packing the weights, short enough that a single
/// sequence still feeds several threads.
const ROWS: usize = 512;

/// Input channels of one piece of the weight gradient.
const CHANNELS: usize = 64;

/// The weight as `(tap, group, in, out)`, so that each tap of each group is a plain matrix.
fn pack<T: Real>(shape: &ConvShape, weight: &[T]) -> Vec<T> {
    let (gi, go, k) = (shape.group_in(), shape.group_out(), shape.taps());
    let mut packed = vec![T::zero(); weight.len()];
    for (co, filter) in weight.chunks_exact((gi * k).max(1)).enumerate() {
        let (group, out) = (co / go, co % go);
        for (i, &w) in filter.iter().enumerate() {
            let (ci, tap) = (i / k, i % k);
            packed[((tap * shape.groups + group) * gi + ci) * go + out] = w;
        }
    }
    packed
}

/// The inverse of [`pack`].
fn unpack<T: Real>(shape: &ConvShape, packed: &[T], weight: &mut [T]) {
    let (gi, go, k) = (shape.group_in(), shape.group_out(), shape.taps());
    for (co, filter) in weight.chunks_exact_mut((gi * k).max(1)).enumerate() {
        let (group, out) = (co / go, co % go);
        for (i, w) in filter.iter_mut().enumerate() {
            let (ci, tap) = (i / k, i % k);
            *w = packed[((tap * shape.groups + group) * gi + ci) * go + out];
        }
    }
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
    buffer.par_chunks_mut(len * channels).enumerate().for_each(|(b, sequence)| {
        sequence.par_chunks_mut(ROWS * channels).enumerate().for_each(|(piece, rows)| {
            let start = piece * ROWS;
            work(b, start..start + rows.len() / channels, rows);
        });
    });
}

/// See [`super::conv::forward`].
pub fn forward<T: Real>(shape: &ConvShape, x: &[T], history: &[T], weight: &[T], y: &mut [T]) {
    let packed = pack(shape, weight);
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
                    tap_forward(shape, tap, source, &segment, &packed, out);
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

/// `out[r] += source[first + r·stride] · W[tap]` for the rows of one segment.
fn tap_forward<T: Real>(
    shape: &ConvShape,
    tap: usize,
    source: &[T],
    segment: &Segment,
    packed: &[T],
    out: &mut [T],
) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    let (ci, co) = (shape.in_channels, shape.out_channels);
    let source = &source[segment.first * ci..];
    let weight = &packed[tap * gi * co..][..gi * co];
    if gi == 1 {
        for (r, row) in out.chunks_mut(co).take(segment.out.len()).enumerate() {
            let x = &source[r * shape.width.stride * ci..][..ci];
            for ((y, w), &x) in row.chunks_exact_mut(go).zip(weight.chunks_exact(go)).zip(x) {
                y.iter_mut().zip(w).for_each(|(y, &w)| *y += x * w);
            }
        }
        return;
    }
    for group in 0..shape.groups {
        add_product(
            (segment.out.len(), go, gi),
            &mut out[group * go..],
            co,
            View {
                data: &source[group * gi..],
                row_stride: shape.width.stride * ci,
                col_stride: 1,
            },
            View { data: &weight[group * gi * go..], row_stride: go, col_stride: 1 },
        );
    }
}

/// See [`super::conv::grad_input`].
pub fn grad_input<T: Real>(shape: &ConvShape, dy: &[T], weight: &[T], dx: &mut [T]) {
    let packed = pack(shape, weight);
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
            let from = &dy[(line * width.out_len + segment.out.start) * co..];
            tap_grad_input(shape, tap, from, &segment, &packed, piece);
        }
    });
}

/// The outputs that read, at `tap`, the inputs `within`, and the first that they read, counted from the
/// first of those.
fn readers(axis: &Axis, tap: usize, within: &Range<usize>) -> Segment {
    let within = (within.start as isize, within.end as isize);
    axis.segment(tap, within, &(0..axis.out_len))
}

/// `dx[first + r·stride] += dy[r] · W[tap]ᵀ` for the rows of one segment.
fn tap_grad_input<T: Real>(
    shape: &ConvShape,
    tap: usize,
    dy: &[T],
    segment: &Segment,
    packed: &[T],
    dx: &mut [T],
) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    let (ci, co) = (shape.in_channels, shape.out_channels);
    let dx = &mut dx[segment.first * ci..];
    let weight = &packed[tap * gi * co..][..gi * co];
    if gi == 1 {
        for (r, row) in dy.chunks(co).take(segment.out.len()).enumerate() {
            let dx = &mut dx[r * shape.width.stride * ci..][..ci];
            for ((dy, w), dx) in row.chunks_exact(go).zip(weight.chunks_exact(go)).zip(dx) {
                *dx += dy.iter().zip(w).map(|(&dy, &w)| dy * w).sum();
            }
        }
        return;
    }
    for group in 0..shape.groups {
        add_product(
            (segment.out.len(), gi, go),
            &mut dx[group * gi..],
            shape.width.stride * ci,
            View { data: &dy[group * go..], row_stride: co, col_stride: 1 },
            View { data: &weight[group * gi * go..], row_stride: 1, col_stride: go },
        );
    }
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
        packed.par_chunks_mut(shape.out_channels).enumerate().for_each(|(tap, weight)| {
            each_source(shape, tap, x, history, dy, |source, dy, rows| {
                depthwise_grad_weight(shape, source, dy, rows, weight);
            });
        });
    } else {
        packed.par_chunks_mut(gi * go).enumerate().for_each(|(i, matrix)| {
            let (tap, group) = (i / shape.groups, i % shape.groups);
            matrix.par_chunks_mut(CHANNELS * go).enumerate().for_each(|(piece, weight)| {
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
    unpack(shape, &packed, dw);
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
