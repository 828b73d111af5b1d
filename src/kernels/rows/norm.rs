//! Normalisation of rows.

use num_traits::{Float, One, Zero};

use super::super::{
    Kernel, Real, Stored, elementwise::Activation, instructions::Instructions, parallel,
};
use super::{piece_of, reduce, sum, sum_pairs};

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
    #[inline(always)]
    fn moments<S: Stored>(&self, row: &[S]) -> (S::Real, S::Real) {
        let zero = S::Real::zero();
        let n = S::Real::of(row.len() as f64);
        let mean = if self.center { sum(row, |x| x) / n } else { zero };
        let square = sum(row, |x| (x - mean) * (x - mean)) / n;
        let r = S::Real::one() / (square + S::Real::of(self.eps)).sqrt();
        (mean, r)
    }

    /// `y = then((x − mean)·r·weight + bias)` for each row, `r = 1/√(var + eps)`.
    pub fn forward<S: Stored>(
        &self,
        kernel: Kernel,
        x: &[S],
        weight: &[S::Real],
        bias: Option<&[S::Real]>,
        then: Option<Activation>,
        y: &mut [S],
    ) {
        let c = weight.len();
        let (_, piece) = piece_of(c);
        let pieces = y.chunks_mut(piece).zip(x.chunks(piece));
        parallel::for_each(pieces, |(y, x)| {
            kernel.vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        let (mean, r) = self.moments(x);
                        let numbers = y.iter_mut().zip(x).zip(weight);
                        if let Some(bias) = bias {
                            for (((y, x), &w), &b) in numbers.zip(bias) {
                                *y = S::store((x.load() - mean) * r * w + b);
                            }
                        } else {
                            for ((y, x), &w) in numbers {
                                *y = S::store((x.load() - mean) * r * w);
                            }
                        }
                    }
                },
            );
            if let Some(activation) = then {
                activation.apply_in_place(kernel, y);
            }
        });
    }

    /// As [`forward`](Self::forward), in place and on the calling thread.
    pub fn apply_in_place(
        &self,
        kernel: Kernel,
        x: &mut [f32],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) {
        kernel.vectorized(
            #[inline(always)]
            || {
                for row in x.chunks_exact_mut(weight.len()) {
                    let (mean, r) = self.moments(row);
                    let numbers = row.iter_mut().zip(weight);
                    if let Some(bias) = bias {
                        for ((x, w), b) in numbers.zip(bias) {
                            *x = (*x - mean) * r * w + b;
                        }
                    } else {
                        for (x, w) in numbers {
                            *x = (*x - mean) * r * w;
                        }
                    }
                }
            },
        );
    }

    /// The gradients of [`forward`](Self::forward), in one pass over the rows. With `g = dy·weight` and
    /// `n` the normalised row:
    ///
    /// ```text
    /// dx      = r·(g − mean(g)·[center] − n·mean(g·n))
    /// dweight = Σ over rows of dy·n
    /// dbias   = Σ over rows of dy
    /// ```
    ///
    /// `affine` (2·channels) takes the weight's and the bias's, one after the other.
    pub fn backward<S: Stored>(
        &self,
        kernel: Kernel,
        x: &[S],
        weight: &[S::Real],
        dy: &[S],
        dx: &mut [S],
        affine: &mut [S::Real],
    ) {
        let c = weight.len();
        let (_, piece) = piece_of(c);
        reduce(
            kernel,
            dx.chunks_mut(piece).zip(x.chunks(piece)).zip(dy.chunks(piece)),
            affine,
            #[inline(always)]
            |((dx, x), dy), sums| {
                let (dw, db) = sums.split_at_mut(c);
                let mut g = vec![S::Real::zero(); c];
                let rows = x.chunks_exact(c).zip(dy.chunks_exact(c));
                for (dx, (x, dy)) in dx.chunks_exact_mut(c).zip(rows) {
                    let (mean, r) = self.moments(x);
                    let sums = dw.iter_mut().zip(&mut *db);
                    let row = x.iter().zip(dy).zip(weight).zip(&mut g);
                    for ((((x, dy), &w), g), (dw, db)) in row.zip(sums) {
                        let dy = dy.load();
                        *dw += dy * ((x.load() - mean) * r);
                        *db += dy;
                        *g = dy * w;
                    }
                    self.grad_row(x, &g, (mean, r), dx);
                }
            },
        );
    }

    /// `dx` of one row.
    #[inline(always)]
    fn grad_row<S: Stored>(
        &self,
        x: &[S],
        g: &[S::Real],
        (mean, r): (S::Real, S::Real),
        dx: &mut [S],
    ) {
        let zero = S::Real::zero();
        let count = S::Real::of(g.len() as f64);
        let g_mean = if self.center { sum(g, |g| g) / count } else { zero };
        let along = sum_pairs(x, g, |x, g| g * ((x - mean) * r)) / count;
        for ((dx, x), &g) in dx.iter_mut().zip(x).zip(g) {
            *dx = S::store(r * (g - g_mean - (x.load() - mean) * r * along));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_by_hand() {
        let (kernel, mut y) = (Kernel::best(), [0.0; 2]);
        let norm = RowNorm { center: true, eps: 0.0 };
        norm.forward(kernel, &[1.0, 3.0], &[2.0, 2.0], Some(&[1.0, 1.0]), None, &mut y);
        assert_eq!(y, [-1.0, 3.0]);
        let relu = Some(Activation::Relu);
        norm.forward(kernel, &[1.0, 3.0], &[2.0, 2.0], Some(&[1.0, 1.0]), relu, &mut y);
        assert_eq!(y, [0.0, 3.0]);
        let rms = RowNorm { center: false, eps: 0.0 };
        rms.forward(kernel, &[3.0, -3.0], &[1.0, 1.0], None, None, &mut y);
        assert_eq!(y, [1.0, -1.0]);
    }
}
