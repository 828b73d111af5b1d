//! Batch norm: one mean and variance per channel, over all rows.

use num_traits::Zero;

use super::instructions::Instructions;
use super::pieces::each_piece;
use super::{Kernel, Real, Stored, parallel};

/// Rows of one piece of a sum; the sums of pieces are added in their order, in double precision.
const ROWS: usize = 256;

/// For each channel the sum over rows of `f(channel, x, y)`; `y` as long as `x`.
fn sums<T: Stored>(
    kernel: Kernel,
    x: &[T],
    y: &[T],
    channels: usize,
    f: impl Fn(usize, T::Real, T::Real) -> T::Real + Sync,
) -> Vec<f64> {
    let piece = |(x, y): (&[T], &[T])| {
        let mut sums = vec![T::Real::zero(); channels];
        kernel.vectorized(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(channels).zip(y.chunks_exact(channels));
                for (x, y) in rows {
                    let numbers = sums.iter_mut().zip(x).zip(y).enumerate();
                    for (i, ((sum, &x), &y)) in numbers {
                        *sum += f(i, x.load(), y.load());
                    }
                }
            },
        );
        sums
    };
    let size = ROWS * channels;
    let pieces = parallel::map(x.chunks(size).zip(y.chunks(size)), piece);
    let mut total = vec![0.0; channels];
    for piece in pieces {
        for (total, sum) in total.iter_mut().zip(piece) {
            *total += sum.f64();
        }
    }
    total
}

/// `out = f(channel, x, y)` for every number; slices of one length.
fn map<T: Stored>(
    kernel: Kernel,
    x: &[T],
    y: &[T],
    channels: usize,
    out: &mut [T],
    f: impl Fn(usize, T::Real, T::Real) -> T::Real + Sync,
) {
    let size = ROWS * channels;
    each_piece(
        kernel,
        out.chunks_mut(size).zip(x.chunks(size)).zip(y.chunks(size)),
        #[inline(always)]
        |((out, x), y)| {
            let rows = x.chunks_exact(channels).zip(y.chunks_exact(channels));
            for (out, (x, y)) in out.chunks_exact_mut(channels).zip(rows) {
                let numbers = out.iter_mut().zip(x).zip(y).enumerate();
                for (i, ((out, &x), &y)) in numbers {
                    *out = T::store(f(i, x.load(), y.load()));
                }
            }
        },
    );
}

/// Mean and variance of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Rows that were seen.
    pub rows: usize,
    /// The mean of each channel.
    pub mean: Vec<f64>,
    /// The mean squared distance from it.
    pub var: Vec<f64>,
}

fn rounded<R: Real>(values: &[f64]) -> Vec<R> {
    values.iter().map(|&value| R::of(value)).collect()
}

impl Moments {
    /// Those of `x`: rows of `channels` numbers, at least one of each.
    pub fn of<T: Stored>(kernel: Kernel, x: &[T], channels: usize) -> Self {
        let rows = x.len() / channels;
        let count = rows as f64;
        let add = |_: usize, x, _| x;
        let mut mean = sums(kernel, x, x, channels, add);
        mean.iter_mut().for_each(|mean| *mean /= count);
        let center = rounded::<T::Real>(&mean);
        let square = |i: usize, x: T::Real, _| (x - center[i]) * (x - center[i]);
        let mut var = sums(kernel, x, x, channels, square);
        var.iter_mut().for_each(|var| *var /= count);
        Self { rows, mean, var }
    }

    /// Reciprocal deviations, `1/√(var + eps)`.
    fn reciprocal<R: Real>(&self, eps: f64) -> Vec<R> {
        let r = |&var: &f64| R::of(1.0 / (var + eps).sqrt());
        self.var.iter().map(r).collect()
    }

    /// `y = (x − mean)/√(var + eps)·weight + bias`.
    pub fn normalize<T: Stored>(
        &self,
        kernel: Kernel,
        eps: f64,
        x: &[T],
        weight: &[T::Real],
        bias: &[T::Real],
        y: &mut [T],
    ) {
        let mean = rounded::<T::Real>(&self.mean);
        let mut scale = self.reciprocal::<T::Real>(eps);
        for (scale, &weight) in scale.iter_mut().zip(weight) {
            *scale = *scale * weight;
        }
        let f = |i: usize, x: T::Real, _| (x - mean[i]) * scale[i] + bias[i];
        map(kernel, x, x, weight.len(), y, f);
    }

    /// The gradients of weight, `Σ dy·(x − mean)·r`, and of bias, `Σ dy`, with `r = 1/√(var + eps)`.
    pub fn grad_affine<T: Stored>(
        &self,
        kernel: Kernel,
        eps: f64,
        x: &[T],
        dy: &[T],
    ) -> [Vec<f64>; 2] {
        let channels = self.mean.len();
        let (mean, r) = (rounded::<T::Real>(&self.mean), self.reciprocal::<T::Real>(eps));
        let along = |i: usize, x: T::Real, dy: T::Real| dy * (x - mean[i]) * r[i];
        let add = |_: usize, dy, _| dy;
        [sums(kernel, x, dy, channels, along), sums(kernel, dy, dy, channels, add)]
    }

    /// `dx = weight·r·(dy − d_bias/n − (x − mean)·r·d_weight/n)`: the moments depend on `x`, too.
    /// `affine` are the gradients of weight and bias.
    pub fn grad_input<T: Stored>(
        &self,
        kernel: Kernel,
        eps: f64,
        (x, dy): (&[T], &[T]),
        weight: &[T::Real],
        affine: &[Vec<f64>; 2],
        dx: &mut [T],
    ) {
        let mean = rounded::<T::Real>(&self.mean);
        let r = self.reciprocal::<T::Real>(eps);
        let [along, shift] = affine.each_ref().map(|sums| {
            let means: Vec<f64> = sums.iter().map(|sum| sum / self.rows as f64).collect();
            rounded::<T::Real>(&means)
        });
        // of each channel: what multiplies all, what is taken off, what is taken off along x
        let per_channel = |i: usize| (weight[i] * r[i], shift[i], r[i] * along[i]);
        let channels: Vec<_> = (0..weight.len()).map(per_channel).collect();
        let f = |i: usize, x: T::Real, dy: T::Real| {
            let (scale, shift, slope) = channels[i];
            scale * (dy - shift - (x - mean[i]) * slope)
        };
        map(kernel, x, dy, weight.len(), dx, f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    const KERNEL: Kernel = Kernel::Portable;

    #[test]
    fn moments_by_hand_and_over_pieces() {
        let moments = Moments::of(KERNEL, &[1f32, 10., 3., 30.], 2);
        assert_eq!((moments.mean, moments.var), (vec![2., 20.], vec![1., 100.]));
        let x: Vec<f64> = (0..3 * 1000).map(f64::from).collect();
        let moments = Moments::of(KERNEL, &x, 3);
        assert_eq!(moments.mean, [1498.5, 1499.5, 1500.5]);
        // of 0, 3, 6, …: 9·(n² − 1)/12
        assert!((moments.var[1] / (9.0 * 999_999.0 / 12.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn bf16_rows_are_normalized_in_f32() {
        let x = [1f32, 3.].map(bf16::from_f32);
        let mut y = x;
        Moments::of(KERNEL, &x, 1).normalize(KERNEL, 0.0, &x, &[2.0], &[0.5], &mut y);
        assert_eq!(y.map(f32::from), [-1.5, 2.5]);
    }
}
