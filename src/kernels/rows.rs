//! Work on rows: sums of rows, normalisation, weight norm, softmax cross-entropy.

mod loss;
mod norm;
mod weight_norm;

use num_traits::Zero;

use super::instructions::Instructions;
use super::pieces::{each_piece, map_pairs};
use super::{Kernel, Real, Stored, parallel};

pub use loss::{Target, cross_entropy, cross_entropy_grad};
pub use norm::RowNorm;
pub use weight_norm::{weight_norm, weight_norm_grad};

/// `y = scales[row]·x`, rows of `width` numbers.
pub fn scale<S: Stored>(kernel: Kernel, x: &[S], width: usize, scales: &[f32], y: &mut [S]) {
    let (rows, piece) = piece_of(width);
    let pieces = y.chunks_mut(piece).zip(x.chunks(piece)).zip(scales.chunks(rows));
    each_piece(
        kernel,
        pieces,
        #[inline(always)]
        |((y, x), scales)| {
            let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
            for ((y, x), &scale) in rows.zip(scales) {
                let scale = S::Real::of(f64::from(scale));
                for (y, x) in y.iter_mut().zip(x) {
                    *y = S::store(x.load() * scale);
                }
            }
        },
    );
}

/// Rows of one piece of a reduction, at most; partial sums are added in the order of the pieces.
const ROWS: usize = 256;

/// Numbers of one piece of a reduction, about.
const PIECE: usize = 1 << 15;

/// Running sums of one row: additions need not wait for each other, and fill whole vectors.
const LANES: usize = 16;

/// The rows of one piece, and its numbers, when a row has `width` numbers.
fn piece_of(width: usize) -> (usize, usize) {
    let rows = (PIECE / width.max(1)).clamp(1, ROWS);
    (rows, rows * width.max(1))
}

/// Adds up what `piece` makes of each item, in order, whatever the number of threads.
fn reduce<T: Real, I: Send>(
    kernel: Kernel,
    items: impl Iterator<Item = I>,
    out: &mut [T],
    piece: impl Fn(I, &mut [T]) + Sync,
) {
    let width = out.len();
    let partial = parallel::map(items, |item| {
        let mut sums = vec![T::zero(); width];
        kernel.vectorized(
            #[inline(always)]
            || piece(item, &mut sums),
        );
        sums
    });
    out.fill(T::zero());
    for sums in partial {
        out.iter_mut().zip(sums).for_each(|(o, s)| *o += s);
    }
}

/// Combines all `term(x[i])`, beginning with `start`, in an order that depends on the length alone.
#[inline(always)]
fn fold<S: Stored>(
    x: &[S],
    start: S::Real,
    term: impl Fn(S::Real) -> S::Real,
    combine: impl Fn(S::Real, S::Real) -> S::Real,
) -> S::Real {
    let mut lanes = [start; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, term(x.load()));
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = combine(*lane, term(x.load()));
    }
    fold_lanes(lanes, combine)
}

/// Σ `term(x[i])`, in the same order.
#[inline(always)]
fn sum<S: Stored>(x: &[S], term: impl Fn(S::Real) -> S::Real) -> S::Real {
    fold(
        x,
        S::Real::zero(),
        term,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Σ `term(a[i], b[i])`, in the same order.
#[inline(always)]
fn sum_pairs<A: Stored, B: Stored<Real = A::Real>>(
    a: &[A],
    b: &[B],
    term: impl Fn(A::Real, A::Real) -> A::Real,
) -> A::Real {
    let mut lanes = [A::Real::zero(); LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(a.load(), b.load());
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += term(a.load(), b.load());
    }
    fold_lanes(
        lanes,
        #[inline(always)]
        |a, b| a + b,
    )
}

#[inline(always)]
fn fold_lanes<T: Real>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low = combine(*low, *high);
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of all rows: the gradient of a bias. `out` has one number per channel.
pub fn sum_rows<S: Stored>(kernel: Kernel, x: &[S], out: &mut [S::Real]) {
    let c = out.len();
    reduce(
        kernel,
        x.chunks(piece_of(c).1),
        out,
        #[inline(always)]
        |x, sums| {
            for row in x.chunks_exact(c) {
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += x.load();
                }
            }
        },
    );
}

/// The gradient of `y = scale·max(0, z + bias)` on rows of `db.len()` channels, from `y` itself: writes
/// `dz = scale·dy` where `y > 0` and 0 elsewhere, and `db`, the sum of the rows of `dz` before they are
/// rounded. Where dropout follows the ReLU, `scale` is that of its [mask](super::dropout::DropoutMask::scale):
/// what it dropped is 0 in `y`.
pub fn relu_grad_with_bias<S: Stored>(
    kernel: Kernel,
    y: &[S],
    dy: &[S],
    scale: S::Real,
    dz: &mut [S],
    db: &mut [S::Real],
) {
    let c = db.len();
    let (_, piece) = piece_of(c);
    reduce(
        kernel,
        dz.chunks_mut(piece).zip(y.chunks(piece)).zip(dy.chunks(piece)),
        db,
        #[inline(always)]
        |((dz, y), dy), sums| {
            // kept in a register, as no store can change it
            let factor = scale;
            let rows = y.chunks_exact(c).zip(dy.chunks_exact(c));
            for (dz, (y, dy)) in dz.chunks_exact_mut(c).zip(rows) {
                for (((dz, y), dy), sum) in dz.iter_mut().zip(y).zip(dy).zip(&mut *sums) {
                    let grad = dy.load() * relu_slope(y.load(), factor);
                    *sum += grad;
                    *dz = S::store(grad);
                }
            }
        },
    );
}

/// The same without a bias: `dz = scale·dy` where `y > 0`.
pub fn relu_grad<S: Stored>(kernel: Kernel, y: &[S], dy: &[S], scale: S::Real, dz: &mut [S]) {
    map_pairs(kernel, y, dy, dz, move |y, dy| dy * relu_slope(y, scale));
}

#[inline(always)]
fn relu_slope<T: Real>(y: T, scale: T) -> T {
    if y > T::zero() { scale } else { T::zero() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_depend_on_threads() {
        let x: Vec<f32> = (0..3000 * 7).map(|i| ((i * 37) % 101) as f32 * 0.013).collect();
        let sum_with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = [0f32; 7];
            pool.install(|| sum_rows(Kernel::best(), &x, &mut out));
            out
        };
        assert_eq!(sum_with(1), sum_with(2));
    }

    #[test]
    fn relu_gradients_by_hand() {
        let (y, dy) = ([2.0, 0.0, 0.0, 4.0], [1.0, 2.0, 3.0, 4.0]);
        let (mut dz, mut db) = ([7.0; 4], [7.0; 2]);
        relu_grad_with_bias(Kernel::best(), &y, &dy, 2.0, &mut dz, &mut db);
        assert_eq!((dz, db), ([2.0, 0.0, 0.0, 8.0], [2.0, 8.0]));
        let mut again = [7.0; 4];
        relu_grad(Kernel::best(), &y, &dy, 2.0, &mut again);
        assert_eq!(again, dz);
    }
}
