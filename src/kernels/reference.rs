//! The oracle: the definition of the convolution and its gradients as plain loops, never optimised.

use super::Real;
use super::conv::{AxisMap, ConvShape};

/// Calls `visit(input, weight index, output index)` for every product of the convolution; the input is an index
/// into `x`, or into the history where `past` says so: `(past, index)`.
fn each_product(shape: &ConvShape, mut visit: impl FnMut((bool, usize), usize, usize)) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    let lines = AxisMap::forward(&shape.height, 0);
    let columns = AxisMap::forward(&shape.width, shape.history);
    for (out_line, j) in pairs(shape.batch * lines.out, columns.out) {
        let (image, i) = (out_line / lines.out, out_line % lines.out);
        for (tap, (m, n)) in pairs(lines.taps, columns.taps).enumerate() {
            let (Some(line), Some(column)) = (lines.read(m, i), columns.read(n, j)) else {
                continue;
            };
            let past = column < 0;
            let (len, first) =
                if past { (columns.history, columns.history as isize) } else { (columns.len, 0) };
            let line = image * lines.len + line.unsigned_abs();
            let row = line * len + (first + column).unsigned_abs();
            for (co, ci) in pairs(shape.out_channels, gi) {
                visit(
                    (past, row * shape.in_channels + co / go * gi + ci),
                    (co * gi + ci) * shape.taps() + tap,
                    (out_line * columns.out + j) * shape.out_channels + co,
                );
            }
        }
    }
}

fn pairs(lines: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..lines).flat_map(move |i| (0..columns).map(move |j| (i, j)))
}
/// See [`super::conv::forward`].
pub fn forward<T: Real>(shape: &ConvShape, x: &[T], history: &[T], weight: &[T], y: &mut [T]) {
    y.fill(T::zero());
    each_product(shape, |(past, xi), wi, yi| {
        let x = if past { history[xi] } else { x[xi] };
        y[yi] += x * weight[wi];
    });
}

/// See [`super::conv::grad_input`].
pub fn grad_input<T: Real>(shape: &ConvShape, dy: &[T], weight: &[T], dx: &mut [T]) {
    dx.fill(T::zero());
    each_product(shape, |(past, xi), wi, yi| {
        if !past {
            dx[xi] += dy[yi] * weight[wi];
        }
    });
}

/// See [`super::conv::grad_weight`].
pub fn grad_weight<T: Real>(shape: &ConvShape, x: &[T], history: &[T], dy: &[T], dw: &mut [T]) {
    dw.fill(T::zero());
    each_product(shape, |(past, xi), wi, yi| {
        let x = if past { history[xi] } else { x[xi] };
        dw[wi] += x * dy[yi];
    });
}
