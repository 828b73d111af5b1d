//! Dropout whose mask is a function of (seed, stream, position): computed anew in the backward pass
//! instead of stored, and the same for any number of threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Real;

/// Which mask: a seed for the run and a stream for the layer and step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskKey {
    /// The run's seed.
    pub seed: u64,
    /// The layer's and step's own number.
    pub stream: u64,
}

/// Elements of one piece of work; every piece seeks to its own place in the random stream.
const PIECE: usize = 1 << 14;

/// Cuts `x` and `y` into pieces of `piece` elements; `run(draw, x, y)` fills each piece, `draw` being
/// the next factor of the mask: 0 where dropped, `1/(1 − p)` where kept. A piece takes `draws` of them.
fn masked<T: Real>(
    key: MaskKey,
    p: f64,
    (piece, draws): (usize, usize),
    x: &[T],
    y: &mut [T],
    run: impl Fn(&mut dyn FnMut() -> T, &[T], &mut [T]) + Sync,
) {
    let threshold = ((p * 65536.0).round() as u32).min(65535);
    let scale = T::of(1.0 / (1.0 - f64::from(threshold) / 65536.0));
    y.par_chunks_mut(piece)
        .zip(x.par_chunks(piece))
        .enumerate()
        .for_each(|(i, (y, x))| {
            let mut rng = ChaCha8Rng::seed_from_u64(key.seed);
            rng.set_stream(key.stream);
            // two 16-bit draws come from one 32-bit word
            rng.set_word_pos((i * draws.div_ceil(2)) as u128);
            let mut word = 0;
            let mut half = false;
            let mut draw = || {
                word = if half { word >> 16 } else { rng.next_u32() };
                half = !half;
                if word & 0xffff < threshold {
                    T::zero()
                } else {
                    scale
                }
            };
            run(&mut draw, x, y);
        });
}

/// Element dropout: each number is zeroed with probability `p` (resolution 1/65536), the others are
/// scaled by `1/(1 − p)`. `torch.nn.Dropout`.
pub fn elements<T: Real>(key: MaskKey, p: f64, x: &[T], y: &mut [T]) {
    let run = |draw: &mut dyn FnMut() -> T, x: &[T], y: &mut [T]| {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * draw());
    };
    masked(key, p, (PIECE, PIECE), x, y, run);
}

/// Channel dropout: in each sequence (`len` rows of `channels`) whole channels are zeroed.
/// `torch.nn.Dropout1d`.
pub fn channels<T: Real>(
    key: MaskKey,
    p: f64,
    (len, channels): (usize, usize),
    x: &[T],
    y: &mut [T],
) {
    if x.is_empty() {
        return;
    }
    let run = |draw: &mut dyn FnMut() -> T, x: &[T], y: &mut [T]| {
        let mask: Vec<T> = (0..channels).map(|_| draw()).collect();
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            y.iter_mut()
                .zip(x)
                .zip(&mask)
                .for_each(|((y, &x), &m)| *y = x * m);
        }
    };
    masked(key, p, (len * channels, channels), x, y, run);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MaskKey = MaskKey { seed: 7, stream: 3 };

    #[test]
    fn keeps_the_mean_and_depends_on_the_key() {
        let x = vec![1f32; 100_000];
        let (mut y, mut again, mut other) = (x.clone(), x.clone(), x.clone());
        elements(KEY, 0.25, &x, &mut y);
        elements(KEY, 0.25, &x, &mut again);
        elements(MaskKey { stream: 4, ..KEY }, 0.25, &x, &mut other);
        assert_eq!(y, again);
        assert_ne!(y, other);
        let kept = y.iter().filter(|&&v| v != 0.0).count() as f64 / 1e5;
        assert!((kept - 0.75).abs() < 0.01, "kept {kept}");
        assert!(y.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
    }

    #[test]
    fn a_mask_does_not_repeat_from_piece_to_piece() {
        let x = vec![1f32; 2 * PIECE];
        let mut y = x.clone();
        elements(KEY, 0.5, &x, &mut y);
        assert_ne!(y[..PIECE], y[PIECE..]);
    }

    #[test]
    fn channels_drop_whole() {
        let x = vec![1f64; 3 * 5 * 8];
        let mut y = x.clone();
        channels(KEY, 0.5, (5, 8), &x, &mut y);
        for sequence in y.chunks(40) {
            for row in sequence.chunks(8) {
                assert_eq!(row, &sequence[..8]);
            }
        }
        assert!(y.contains(&0.0) && y.contains(&2.0));
    }
}
