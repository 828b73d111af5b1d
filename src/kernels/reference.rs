//! The oracle: the definition of the convolution and its gradients as plain loops, never optimised.

use super::Real;
use super::conv::ConvShape;

/// Calls `visit(input, weight index, output index)` for every product of the convolution; the input is an index
/// into `x`, or into the history where `past` says so: `(past, index)`.
fn each_product(shape: &ConvShape, mut visit: impl FnMut((bool, usize), usize, usize)) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    let (h, w) = (&shape.height, &shape.width);
    for b in 0..shape.batch {
        for (i, j) in pairs(h.out_len, w.out_len) {
            for (m, n) in pairs(h.kernel_size, w.kernel_size) {
                let line = (i * h.stride + m * h.dilation) as isize - h.pad_before as isize;
                let column = (j * w.stride + n * w.dilation) as isize - w.pad_before as isize;
                let past = column < 0;
                let (len, column) = match past {
                    true => (shape.history, column + shape.history as isize),
                    false => (w.in_len, column),
                };
                if !(0..h.in_len as isize).contains(&line) || !(0..len as isize).contains(&column) {
                    continue;
                }
                let row = (b * h.in_len + line as usize) * len + column as usize;
                for co in 0..shape.out_channels {
                    for ci in 0..gi {
                        visit(
                            (past, row * shape.in_channels + co / go * gi + ci),
                            ((co * gi + ci) * h.kernel_size + m) * w.kernel_size + n,
                            ((b * h.out_len + i) * w.out_len + j) * shape.out_channels + co,
                        );
                    }
                }
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
