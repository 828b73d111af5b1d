//! Shifted-row products through the `gemm` crate, cut into pieces of fixed size over all threads.

use std::ops::Range;

use super::conv::{ConvShape, RowRun, Source};
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
    shifted_rows(shape, &Source::forward(shape, (x, history)), (weight, false), y);
}

/// See [`super::conv::grad_input`].
pub fn grad_input<T: Real>(shape: &ConvShape, dy: &[T], weight: &[T], dx: &mut [T]) {
    shifted_rows(shape, &Source::backward(shape, dy), (weight, true), dx);
}

/// `out[r] = Σ_tap source[r + offset(tap)] · W[tap]`, with the transposed weight where it is an input gradient.
fn shifted_rows<T: Real>(
    shape: &ConvShape,
    source: &Source<T>,
    (weight, transposed): (&[T], bool),
    out: &mut [T],
) {
    let packed = packed(shape, weight);
    let columns = &source.columns;
    let channels = if transposed { shape.in_channels } else { shape.out_channels };
    each_piece(out, columns.out, channels, |line, rows, piece| {
        piece.fill(T::zero());
        for tap in 0..shape.taps() {
            let (m, n) = shape.tap(tap);
            let Some(line) = source.line(m, line) else {
                continue;
            };
            for run in source.runs(n, line, rows.clone()) {
                let out = (&mut piece[(run.first - rows.start) * channels..], columns.divide);
                let weight = (&packed[..], tap, transposed);
                add_tap(shape, weight, run.count, out, (run.rows, columns.stride));
            }
        }
    });
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
            if go == 1 {
                multiply_add(dst, src, weight);
            } else if transposed {
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

/// See [`super::conv::grad_weight`]. A piece is one tap, one group and some input channels; each
/// sums over all rows by itself, so no partial sums meet.
pub fn grad_weight<T: Real>(shape: &ConvShape, x: &[T], history: &[T], dy: &[T], dw: &mut [T]) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    if dw.is_empty() {
        return;
    }
    let source = Source::forward(shape, (x, history));
    let mut packed = vec![T::zero(); dw.len()];
    if gi == 1 {
        parallel::for_each(packed.chunks_mut(shape.out_channels).enumerate(), |(tap, weight)| {
            each_run(&source, tap, dy, shape.out_channels, |run, dy| {
                depthwise_grad_weight(
                    shape,
                    run.rows,
                    &dy[..run.count * shape.out_channels],
                    weight,
                );
            });
        });
    } else {
        parallel::for_each(packed.chunks_mut(gi * go).enumerate(), |(i, matrix)| {
            let (tap, group) = (i / shape.groups, i % shape.groups);
            parallel::for_each(matrix.chunks_mut(CHANNELS * go).enumerate(), |(piece, weight)| {
                let first = group * gi + piece * CHANNELS;
                let col_stride = source.columns.stride * shape.in_channels;
                each_run(&source, tap, dy, shape.out_channels, |run, dy| {
                    add_product(
                        (weight.len() / go, go, run.count),
                        weight,
                        go,
                        View { data: &run.rows[first..], row_stride: 1, col_stride },
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

/// Calls `add(rows read, output gradients of the rows that read them)` for every line and source of `tap`.
fn each_run<T: Real>(
    source: &Source<T>,
    tap: usize,
    dy: &[T],
    channels: usize,
    mut add: impl FnMut(RowRun<T>, &[T]),
) {
    let columns = &source.columns;
    let (m, n) = (tap / columns.taps, tap % columns.taps);
    for (line, dy) in dy.chunks_exact(columns.out * channels).enumerate() {
        if let Some(line) = source.line(m, line) {
            for run in source.runs(n, line, 0..columns.out) {
                let first = run.first * channels;
                add(run, &dy[first..]);
            }
        }
    }
}

fn depthwise_grad_weight<T: Real>(shape: &ConvShape, source: &[T], dy: &[T], weight: &mut [T]) {
    let go = shape.group_out();
    for (r, dy) in dy.chunks_exact(shape.out_channels).enumerate() {
        let x = &source[r * shape.width.stride * shape.in_channels..][..shape.in_channels];
        if go == 1 {
            multiply_add(weight, x, dy);
            continue;
        }
        for ((w, dy), &x) in weight.chunks_exact_mut(go).zip(dy.chunks_exact(go)).zip(x) {
            w.iter_mut().zip(dy).for_each(|(w, &dy)| *w += x * dy);
        }
    }
}

/// `sums += a·b`, number by number: a filter for each channel by itself.
fn multiply_add<T: Real>(sums: &mut [T], a: &[T], b: &[T]) {
    for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
        *sum += a * b;
    }
}
