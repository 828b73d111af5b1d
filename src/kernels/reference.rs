//! The oracle: the definition of the convolution and its gradients as plain loops, never optimised.

use super::Real;
use super::conv::ConvShape;

/// The columns of a line that one tap may read.
enum Source {
    Input(usize),
    History(usize),
    Zero,
}

/// Where column tap `n` of output column `j` reads: a column of the input, one of the history, or nothing.
fn source(shape: &ConvShape, j: usize, n: usize) -> Source {
    let w = &shape.width;
    let column = (j * w.stride + n * w.dilation) as isize - w.pad_before as isize;
    if column >= w.in_len as isize {
        Source::Zero
    } else if column >= 0 {
        Source::Input(column as usize)
    } else if column + shape.history as isize >= 0 {
        Source::History((column + shape.history as isize) as usize)
    } else {
        Source::Zero
    }
}

/// Calls `visit(x index, history index, weight index, output index)` for every product of the
/// convolution.
fn each_product(
    shape: &ConvShape,
    mut visit: impl FnMut(Option<usize>, Option<usize>, usize, usize),
) {
    let (gi, go) = (shape.group_in(), shape.group_out());
    let (h, w) = (&shape.height, &shape.width);
    for b in 0..shape.batch {
        for (i, j) in pairs(h.out_len, w.out_len) {
            for (m, n) in pairs(h.kernel_size, w.kernel_size) {
                let line = (i * h.stride + m * h.dilation) as isize - h.pad_before as isize;
                if line < 0 || line >= h.in_len as isize {
                    continue;
                }
                let line = b * h.in_len + line as usize;
                let (x_row, h_row) = match source(shape, j, n) {
                    Source::Input(column) => (Some(line * w.in_len + column), None),
                    Source::History(column) => (None, Some(line * shape.history + column)),
                    Source::Zero => continue,
                };
                for co in 0..shape.out_channels {
                    for ci in 0..gi {
                        let channel = co / go * gi + ci;
                        visit(
                            x_row.map(|row| row * shape.in_channels + channel),
                            h_row.map(|row| row * shape.in_channels + channel),
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
    each_product(shape, |xi, hi, wi, yi| {
        let value = xi.map_or_else(|| hi.map_or(T::zero(), |i| history[i]), |i| x[i]);
        y[yi] += value * weight[wi];
    });
}

/// See [`super::conv::grad_input`].
pub fn grad_input<T: Real>(shape: &ConvShape, dy: &[T], weight: &[T], dx: &mut [T]) {
    dx.fill(T::zero());
    each_product(shape, |xi, _, wi, yi| {
        if let Some(i) = xi {
            dx[i] += dy[yi] * weight[wi];
        }
    });
}

/// See [`super::conv::grad_weight`].
pub fn grad_weight<T: Real>(shape: &ConvShape, x: &[T], history: &[T], dy: &[T], dw: &mut [T]) {
    dw.fill(T::zero());
    each_product(shape, |xi, hi, wi, yi| {
        let value = xi.map_or_else(|| hi.map_or(T::zero(), |i| history[i]), |i| x[i]);
        dw[wi] += value * dy[yi];
    });
}
