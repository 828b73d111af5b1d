//! Softmax cross-entropy of rows of logits.

use num_traits::{Float, Zero};

use super::super::{Kernel, Real, Stored, math::Functions, pieces::each_piece};
use super::{fold, piece_of, reduce, sum};

/// The target of a row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The class that the row should name.
    pub class: u32,
    /// Factor of the row's loss; a row of weight 0 is not read.
    pub weight: f64,
}

/// A target that counts once.
impl From<u32> for Target {
    fn from(class: u32) -> Self {
        Self { class, weight: 1.0 }
    }
}

/// The sum over rows of `−weight·ln softmax(logits)[class]`, in nats; `logits` has `targets.len()` rows of
/// `vocab` numbers. Rows are summed in double precision.
///
/// Every class of a row that counts must be below `vocab`.
pub fn cross_entropy<S: Stored>(
    kernel: Kernel,
    logits: &[S],
    vocab: usize,
    targets: &[Target],
) -> f64 {
    let (rows, piece) = piece_of(vocab);
    let mut total = [0f64];
    reduce(
        kernel,
        logits.chunks(piece).zip(targets.chunks(rows)),
        &mut total,
        #[inline(always)]
        |(logits, targets), total| {
            for (row, target) in logits.chunks_exact(vocab).zip(targets) {
                if target.weight == 0.0 {
                    continue;
                }
                let top = largest(row);
                let sum = sum(
                    row,
                    #[inline(always)]
                    |x| (x - top).exponential(),
                );
                let nats = sum.f64().ln() - (row[target.class as usize].load() - top).f64();
                total[0] += target.weight * nats;
            }
        },
    );
    total[0]
}

/// The gradient of [`cross_entropy`] times `scale`: `scale·weight·(softmax(logits) − onehot(class))`.
pub fn cross_entropy_grad<S: Stored>(
    kernel: Kernel,
    logits: &[S],
    vocab: usize,
    targets: &[Target],
    scale: S::Real,
    out: &mut [S],
) {
    let (rows, piece) = piece_of(vocab);
    let pieces = out.chunks_mut(piece).zip(logits.chunks(piece)).zip(targets.chunks(rows));
    each_piece(
        kernel,
        pieces,
        #[inline(always)]
        |((out, logits), targets)| {
            let mut powers = vec![S::Real::zero(); vocab];
            let rows = out.chunks_exact_mut(vocab).zip(logits.chunks_exact(vocab));
            for ((out, row), target) in rows.zip(targets) {
                if target.weight == 0.0 {
                    out.fill(S::store(S::Real::zero()));
                    continue;
                }
                let scale = scale * S::Real::of(target.weight);
                let top = largest(row);
                for (power, x) in powers.iter_mut().zip(row) {
                    *power = (x.load() - top).exponential();
                }
                let factor = scale / sum(&powers, |x| x);
                for (out, &power) in out.iter_mut().zip(&powers) {
                    *out = S::store(power * factor);
                }
                let class = target.class as usize;
                out[class] = S::store(powers[class] * factor - scale);
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
        let targets = [0, 3, 1].map(Target::from);
        let loss = cross_entropy(Kernel::best(), &[5f32; 12], 4, &targets);
        assert!((loss - 3.0 * 4f64.ln()).abs() < 1e-6);
        let mut grad = [0f64; 4];
        cross_entropy_grad(Kernel::best(), &[0.0; 4], 4, &[2.into()], 1.0, &mut grad);
        assert_eq!(grad, [0.25, 0.25, -0.75, 0.25]);
    }

    #[test]
    fn a_row_counts_by_its_weight() {
        let targets = [(0, 2.0), (9, 0.0)].map(|(class, weight)| Target { class, weight });
        let logits = [[0.0; 4], [f64::NAN; 4]];
        let loss = cross_entropy(Kernel::best(), logits.as_flattened(), 4, &targets);
        assert!((loss - 2.0 * 4f64.ln()).abs() < 1e-12);
        let mut grad = [7f64; 8];
        cross_entropy_grad(Kernel::best(), logits.as_flattened(), 4, &targets, 0.5, &mut grad);
        assert_eq!(grad, [-0.75, 0.25, 0.25, 0.25, 0., 0., 0., 0.]);
    }
}
