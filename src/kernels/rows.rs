//! Work on rows: normalisation, weight norm, sums of rows, softmax cross-entropy.

use rayon::prelude::*;

use super::Real;

/// Rows of one piece of a reduction; partial sums are added in the order of the pieces.
const ROWS: usize = 256;

/// Per-channel affine normalisation of a row: layer norm or root-mean-square norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowNorm {
    /// Subtract the mean first (layer norm) or not (RMS norm).
    pub center: bool,
    /// Added to the variance, or to the mean square.
    pub eps: f64,
}

impl RowNorm {
    /// Mean and reciprocal deviation of one row.
    fn moments<T: Real>(&self, row: &[T]) -> (T, T) {
        let n = T::of(row.len() as f64);
        let mean = if self.center {
            row.iter().copied().sum::<T>() / n
        } else {
            T::zero()
        };
        let square = row.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / n;
        (mean, T::one() / (square + T::of(self.eps)).sqrt())
    }

    /// `y = (x − mean)·r·weight + bias` for each row, `r = 1/√(var + eps)`.
    pub fn forward<T: Real>(&self, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
        let c = weight.len();
        y.par_chunks_mut(ROWS * c)
            .zip(x.par_chunks(ROWS * c))
            .for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    let (mean, r) = self.moments(x);
                    y.iter_mut()
                        .zip(x)
                        .zip(weight)
                        .for_each(|((y, &x), &w)| *y = (x - mean) * r * w);
                    if let Some(bias) = bias {
                        y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b);
                    }
                }
            });
    }

    /// `dx = r·(g − mean(g)·[center] − n·mean(g·n))` with `g = dy·weight`, `n` the normalised row.
    pub fn grad_input<T: Real>(&self, x: &[T], weight: &[T], dy: &[T], dx: &mut [T]) {
        let c = weight.len();
        let count = T::of(c as f64);
        let pieces = dx
            .par_chunks_mut(ROWS * c)
            .zip(x.par_chunks(ROWS * c))
            .zip(dy.par_chunks(ROWS * c));
        pieces.for_each(|((dx, x), dy)| {
            let rows = dx
                .chunks_exact_mut(c)
                .zip(x.chunks_exact(c))
                .zip(dy.chunks_exact(c));
            for ((dx, x), dy) in rows {
                let (mean, r) = self.moments(x);
                dx.iter_mut()
                    .zip(dy)
                    .zip(weight)
                    .for_each(|((g, &dy), &w)| *g = dy * w);
                let g_mean = if self.center {
                    dx.iter().copied().sum::<T>() / count
                } else {
                    T::zero()
                };
                let along = dx
                    .iter()
                    .zip(x)
                    .map(|(&g, &x)| g * (x - mean) * r)
                    .sum::<T>()
                    / count;
                dx.iter_mut()
                    .zip(x)
                    .for_each(|(g, &x)| *g = r * (*g - g_mean - (x - mean) * r * along));
            }
        });
    }

    /// The weight's and the bias's gradients, one after the other in `out` (2·channels).
    pub fn grad_affine<T: Real>(&self, x: &[T], dy: &[T], out: &mut [T]) {
        let c = out.len() / 2;
        let piece = |(x, dy): (&[T], &[T]), sums: &mut [T]| {
            let (dw, db) = sums.split_at_mut(c);
            for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                let (mean, r) = self.moments(x);
                dw.iter_mut()
                    .zip(x)
                    .zip(dy)
                    .for_each(|((w, &x), &dy)| *w += dy * (x - mean) * r);
                db.iter_mut().zip(dy).for_each(|(b, &dy)| *b += dy);
            }
        };
        reduce(
            x.par_chunks(ROWS * c).zip(dy.par_chunks(ROWS * c)),
            out,
            piece,
        );
    }
}

/// Adds up what `piece` makes of each item, in order, whatever the number of threads.
fn reduce<T: Real, I: Send>(
    items: impl IndexedParallelIterator<Item = I>,
    out: &mut [T],
    piece: impl Fn(I, &mut [T]) + Sync,
) {
    let width = out.len();
    let partial: Vec<Vec<T>> = items
        .map(|item| {
            let mut sums = vec![T::zero(); width];
            piece(item, &mut sums);
            sums
        })
        .collect();
    out.fill(T::zero());
    for sums in partial {
        out.iter_mut().zip(sums).for_each(|(o, s)| *o += s);
    }
}

/// The sum of all rows: the gradient of a bias. `out` has one number per channel.
pub fn sum_rows<T: Real>(x: &[T], out: &mut [T]) {
    let c = out.len();
    reduce(x.par_chunks(ROWS * c), out, |x, sums| {
        for row in x.chunks_exact(c) {
            sums.iter_mut().zip(row).for_each(|(s, &x)| *s += x);
        }
    });
}

/// Weight norm `w = g·v/‖v‖`, one norm per output channel (Salimans & Kingma 2016,
/// arXiv:1602.07868; `torch.nn.utils.weight_norm` with `dim=0`). `g` has one number per channel.
pub fn weight_norm<T: Real>(v: &[T], g: &[T], w: &mut [T]) {
    let n = v.len() / g.len();
    w.par_chunks_mut(n)
        .zip(v.par_chunks(n))
        .zip(g)
        .for_each(|((w, v), &g)| {
            let scale = g / norm(v);
            w.iter_mut().zip(v).for_each(|(w, &v)| *w = v * scale);
        });
}

/// The gradient of [`weight_norm`] by `v`: `g/‖v‖·(dw − v·(dw·v)/‖v‖²)`.
pub fn weight_norm_grad_v<T: Real>(v: &[T], g: &[T], dw: &[T], dv: &mut [T]) {
    let n = v.len() / g.len();
    let rows = dv
        .par_chunks_mut(n)
        .zip(v.par_chunks(n))
        .zip(dw.par_chunks(n))
        .zip(g);
    rows.for_each(|(((dv, v), dw), &g)| {
        let length = norm(v);
        let along = dot(dw, v) / (length * length);
        let scale = g / length;
        dv.iter_mut()
            .zip(v)
            .zip(dw)
            .for_each(|((dv, &v), &dw)| *dv = scale * (dw - v * along));
    });
}

/// The gradient of [`weight_norm`] by `g`: `dw·v/‖v‖`.
pub fn weight_norm_grad_g<T: Real>(v: &[T], dw: &[T], dg: &mut [T]) {
    let n = v.len() / dg.len();
    dg.par_iter_mut()
        .zip(v.par_chunks(n))
        .zip(dw.par_chunks(n))
        .for_each(|((dg, v), dw)| {
            *dg = dot(dw, v) / norm(v);
        });
}

/// `‖v‖`, the Euclidean length.
pub fn norm<T: Real>(v: &[T]) -> T {
    dot(v, v).sqrt()
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

/// The sum over rows of `−ln softmax(logits)[target]`, in nats; `logits` has `targets.len()` rows of
/// `vocab` numbers. Rows are summed in double precision.
///
/// Every target must be below `vocab`.
pub fn cross_entropy<T: Real>(logits: &[T], vocab: usize, targets: &[u32]) -> f64 {
    let mut total = [0f64];
    reduce(
        logits
            .par_chunks(ROWS * vocab)
            .zip(targets.par_chunks(ROWS)),
        &mut total,
        |(logits, targets), sum| {
            for (row, &target) in logits.chunks_exact(vocab).zip(targets) {
                let (top, log_sum) = log_sum_exp(row);
                sum[0] += log_sum - (row[target as usize] - top).f64();
            }
        },
    );
    total[0]
}

/// The gradient of [`cross_entropy`] times `scale`: `scale·(softmax(logits) − onehot(target))`.
pub fn cross_entropy_grad<T: Real>(
    logits: &[T],
    vocab: usize,
    targets: &[u32],
    scale: T,
    out: &mut [T],
) {
    let pieces = out
        .par_chunks_mut(ROWS * vocab)
        .zip(logits.par_chunks(ROWS * vocab));
    pieces
        .zip(targets.par_chunks(ROWS))
        .for_each(|((out, logits), targets)| {
            let rows = out.chunks_exact_mut(vocab).zip(logits.chunks_exact(vocab));
            for ((out, row), &target) in rows.zip(targets) {
                let (top, log_sum) = log_sum_exp(row);
                let shift = top + T::of(log_sum);
                out.iter_mut()
                    .zip(row)
                    .for_each(|(o, &x)| *o = (x - shift).exp() * scale);
                out[target as usize] = out[target as usize] - scale;
            }
        });
}

/// The largest of a row and `ln Σ e^(x − largest)`.
fn log_sum_exp<T: Real>(row: &[T]) -> (T, f64) {
    let top = row.iter().copied().fold(T::neg_infinity(), T::max);
    let sum: T = row.iter().map(|&x| (x - top).exp()).sum();
    (top, sum.f64().ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_by_hand() {
        let mut y = [0.0; 2];
        let norm = RowNorm {
            center: true,
            eps: 0.0,
        };
        norm.forward(&[1.0, 3.0], &[2.0, 2.0], Some(&[1.0, 1.0]), &mut y);
        assert_eq!(y, [-1.0, 3.0]);
        RowNorm {
            center: false,
            eps: 0.0,
        }
        .forward(&[3.0, -3.0], &[1.0, 1.0], None, &mut y);
        assert_eq!(y, [1.0, -1.0]);
    }

    #[test]
    fn cross_entropy_of_equal_logits_is_log_vocab() {
        let loss = cross_entropy(&[5f32; 12], 4, &[0, 3, 1]);
        assert!((loss - 3.0 * 4f64.ln()).abs() < 1e-6);
        let mut grad = [0f64; 4];
        cross_entropy_grad(&[0.0; 4], 4, &[2], 1.0, &mut grad);
        assert_eq!(grad, [0.25, 0.25, -0.75, 0.25]);
    }

    #[test]
    fn weight_norm_has_the_length_of_its_gain() {
        let mut w = [0.0; 4];
        weight_norm(&[3.0, 4.0, 0.0, 2.0], &[10.0, 1.0], &mut w);
        assert_eq!(w, [6.0, 8.0, 0.0, 1.0]);
    }

    #[test]
    fn sums_do_not_depend_on_threads() {
        let x: Vec<f32> = (0..3000 * 7)
            .map(|i| ((i * 37) % 101) as f32 * 0.013)
            .collect();
        let sum_with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut out = [0f32; 7];
            pool.install(|| sum_rows(&x, &mut out));
            out
        };
        assert_eq!(sum_with(1), sum_with(2));
    }
}
