//! Softmax cross-entropy of rows of logits.

use num_traits::{Float, Zero};
use rayon::prelude::*;

use super::super::{Kernel, Real, Stored, math::Functions, pieces::each_piece};
use super::{fold, piece_of, reduce, sum};

/// The sum over rows of `−ln softmax(logits)[target]`, in nats; `logits` has `targets.len()` rows of
/// `vocab` numbers. Rows are summed in double precision.
///
/// Every target must be below `vocab`.
pub fn cross_entropy<S: Stored>(
    kernel: Kernel,
    logits: &[S],
    vocab: usize,
    targets: &[u32],
) -> f64 {
    let (rows, piece) = piece_of(vocab);
    let mut total = [0f64];
    reduce(
        kernel,
        logits.par_chunks(piece).zip(targets.par_chunks(rows)),
        &mut total,
        #[inline(always)]
        |(logits, targets), total| {
            for (row, &target) in logits.chunks_exact(vocab).zip(targets) {
                let top = largest(row);
                let sum = sum(
                    row,
                    #[inline(always)]
                    |x| (x - top).exponential(),
                );
                total[0] += sum.f64().ln() - (row[target as usize].load() - top).f64();
            }
        },
    );
    total[0]
}

/// The gradient of [`cross_entropy`] times `scale`: `scale·(softmax(logits) − onehot(target))`.
pub fn cross_entropy_grad<S: Stored>(
    kernel: Kernel,
    logits: &[S],
    vocab: usize,
    targets: &[u32],
    scale: S::Real,
    out: &mut [S],
) {
    let (rows, piece) = piece_of(vocab);
    let pieces =
        out.par_chunks_mut(piece).zip(logits.par_chunks(piece)).zip(targets.par_chunks(rows));
    each_piece(
        kernel,
        pieces,
        #[inline(always)]
        |((out, logits), targets)| {
            let mut powers = vec![S::Real::zero(); vocab];
            let rows = out.chunks_exact_mut(vocab).zip(logits.chunks_exact(vocab));
            for ((out, row), &target) in rows.zip(targets) {
                let top = largest(row);
                for (power, x) in powers.iter_mut().zip(row) {
                    *power = (x.load() - top).exponential();
                }
                let factor = scale / sum(&powers, |x| x);
                for (out, &power) in out.iter_mut().zip(&powers) {
                    *out = S::store(power * factor);
                }
                let target = target as usize;
                out[target] = S::store(powers[target] * factor - scale);
            }
        },
    );
}

/// The largest number of a row, NaN apart.
#[inline(always)]
fn largest<S: Stored>(row: &[S]) -> S::Real {
    fold(row, S::Real::neg_infinity(), |x| x, |a, b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_equal_logits_is_log_vocab() {
        let loss = cross_entropy(Kernel::best(), &[5f32; 12], 4, &[0, 3, 1]);
        assert!((loss - 3.0 * 4f64.ln()).abs() < 1e-6);
        let mut grad = [0f64; 4];
        cross_entropy_grad(Kernel::best(), &[0.0; 4], 4, &[2], 1.0, &mut grad);
        assert_eq!(grad, [0.25, 0.25, -0.75, 0.25]);
    }
}
