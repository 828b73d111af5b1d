//! The oracle: the definition of the convolution and its gradients as plain loops, never optimised.

use super::Real;
use super::conv1d::Conv1dShape;

/// Where tap `tap` of output row `r` reads: a row of the input, a row of the history, or nothing.
enum Source {
    Input(usize),
    History(usize),
    Zero,
}

fn source(shape: &Conv1dShape, r: usize, tap: usize) -> Source {
    let row = (r * shape.stride + tap * shape.dilation) as isize - shape.pad_left as isize;
    if row >= 0 {
        if (row as usize) < shape.in_len {
            Source::Input(row as usize)
        } else {
            Source::Zero
        }
    } else {
        let back = row + shape.history as isize;
        if back >= 0 {
            Source::History(back as usize)
        } else {
            Source::Zero
        }
    }
}

/// Calls `visit(x index, history index, weight index, output index)` for every product of the
/// convolution.
fn each_product(
    shape: &Conv1dShape,
    mut visit: impl FnMut(Option<usize>, Option<usize>, usize, usize),
) {
    let (gi, go, k) = (shape.group_in(), shape.group_out(), shape.kernel_size);
    for b in 0..shape.batch {
        for r in 0..shape.out_len {
            for tap in 0..k {
                let (x_row, h_row) = match source(shape, r, tap) {
                    Source::Input(row) => (Some(b * shape.in_len + row), None),
                    Source::History(row) => (None, Some(b * shape.history + row)),
                    Source::Zero => continue,
                };
                for co in 0..shape.out_channels {
                    for ci in 0..gi {
                        let channel = co / go * gi + ci;
                        visit(
                            x_row.map(|row| row * shape.in_channels + channel),
                            h_row.map(|row| row * shape.in_channels + channel),
                            (co * gi + ci) * k + tap,
                            (b * shape.out_len + r) * shape.out_channels + co,
                        );
                    }
                }
            }
        }
    }
}

/// See [`super::conv1d::forward`].
pub fn forward<T: Real>(shape: &Conv1dShape, x: &[T], history: &[T], weight: &[T], y: &mut [T]) {
    y.fill(T::zero());
    each_product(shape, |xi, hi, wi, yi| {
        let value = xi.map_or_else(|| hi.map_or(T::zero(), |i| history[i]), |i| x[i]);
        y[yi] += value * weight[wi];
    });
}

/// See [`super::conv1d::grad_input`].
pub fn grad_input<T: Real>(shape: &Conv1dShape, dy: &[T], weight: &[T], dx: &mut [T]) {
    dx.fill(T::zero());
    each_product(shape, |xi, _, wi, yi| {
        if let Some(i) = xi {
            dx[i] += dy[yi] * weight[wi];
        }
    });
}

/// See [`super::conv1d::grad_weight`].
pub fn grad_weight<T: Real>(shape: &Conv1dShape, x: &[T], history: &[T], dy: &[T], dw: &mut [T]) {
    dw.fill(T::zero());
    each_product(shape, |xi, hi, wi, yi| {
        let value = xi.map_or_else(|| hi.map_or(T::zero(), |i| history[i]), |i| x[i]);
        dw[wi] += value * dy[yi];
    });
}
