//! Dropout whose mask is a function of (seed, stream, position): computed anew in the backward pass
//! instead of stored, and the same for any number of threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::instructions::Instructions;
use super::pieces::{PIECE, each_piece, whole_rows};
use super::{Kernel, Real, Stored, parallel};

/// The key of a mask: a seed for the run, a stream for the layer and step, and where in it the tensor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskKey {
    /// The run's seed.
    pub seed: u64,
    /// The layer's and step's own number.
    pub stream: u64,
    /// Position of the tensor's first number: above 0 where the tensor is a later part of a batch.
    pub offset: u64,
}

impl MaskKey {
    /// The key of a whole batch.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream, offset: 0 }
    }
}

/// Draws made at a time: their bytes stay in the first-level cache.
const DRAWS: usize = 1 << 10;

/// The mask of one key and probability: a factor for every position of a tensor, 0 where dropped and
/// [`scale`](Self::scale) where kept.
///
/// Position `i` is dropped where the half `offset + i`, of 16 bits, of the words of `ChaCha8(seed, stream)`, low
/// half first, is below `p·65536`.
#[derive(Debug, Clone)]
pub struct DropoutMask {
    words: ChaCha8Rng,
    threshold: u16,
    offset: u64,
}

impl DropoutMask {
    /// The mask of `key` with dropout probability `p` (at least 0, below 1; resolution 1/65536).
    pub fn new(key: MaskKey, p: f64) -> Self {
        let mut words = ChaCha8Rng::seed_from_u64(key.seed);
        words.set_stream(key.stream);
        let threshold = ((p * 65536.0).round() as u32).min(65535) as u16;
        Self { words, threshold, offset: key.offset }
    }

    /// The factor of kept numbers: `1/(1 − p)`.
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - f64::from(self.threshold) / 65536.0)
    }

    /// Multiplies `xs` by the factors of positions `first`, `first + 1`, …, on this thread.
    pub fn apply<S: Stored>(&mut self, isa: impl Instructions, first: usize, xs: &mut [S]) {
        let (threshold, scale) = (self.threshold, S::Real::of(self.scale()));
        self.draw(
            isa,
            first,
            xs.len(),
            #[inline(always)]
            |at, draws| {
                for (x, draw) in xs[at..].iter_mut().zip(draws) {
                    *x = S::store(x.load() * factor(*draw, threshold, scale));
                }
            },
        );
    }

    /// `y = x·factor` at positions `first`, `first + 1`, …; slices of one length.
    fn multiply<S: Stored>(&mut self, isa: impl Instructions, first: usize, x: &[S], y: &mut [S]) {
        let (threshold, scale) = (self.threshold, S::Real::of(self.scale()));
        self.draw(
            isa,
            first,
            x.len(),
            #[inline(always)]
            |at, draws| {
                for ((y, x), draw) in y[at..].iter_mut().zip(&x[at..]).zip(draws) {
                    *y = S::store(x.load() * factor(*draw, threshold, scale));
                }
            },
        );
    }

    /// The factors of channels: every sequence starts at a whole word.
    fn row<T: Real>(&mut self, kernel: Kernel, sequence: usize, channels: usize) -> Vec<T> {
        let mut factors = vec![T::one(); channels];
        self.apply(kernel, sequence * channels.next_multiple_of(2), &mut factors);
        factors
    }

    /// Runs through the draws of positions `first`, …, `first + count − 1`, some at a time:
    /// `run(at, draws)` gets those from position `first + at` on. `run` is vectorised.
    fn draw(
        &mut self,
        isa: impl Instructions,
        first: usize,
        count: usize,
        mut run: impl FnMut(usize, &[[u8; 2]]),
    ) {
        let first = self.offset + first as u64;
        self.words.set_word_pos(u128::from(first / 2));
        let mut draws = [[0; 2]; DRAWS];
        let mut at = 0;
        if first % 2 == 1 && count > 0 {
            self.words.fill_bytes(draws[..2].as_flattened_mut());
            run(0, &draws[1..2]);
            at = 1;
        }
        while at < count {
            let draws = &mut draws[..DRAWS.min(count - at)];
            self.words.fill_bytes(draws.as_flattened_mut());
            isa.vectorized(
                #[inline(always)]
                || run(at, draws),
            );
            at += draws.len();
        }
    }
}

/// Branch-free, so that loops over it vectorise.
#[inline(always)]
fn factor<T: Real>(draw: [u8; 2], threshold: u16, scale: T) -> T {
    let dropped = u16::from_le_bytes(draw) < threshold;
    if dropped { T::zero() } else { scale }
}

/// Element dropout of the piece of a tensor that starts at its element `first`, in place and on this
/// thread, for known instructions or for those of a [`Kernel`]: piece by piece the same as [`elements`] of
/// the whole, bit for bit. For many short pieces, keep a [`DropoutMask`] and use [`DropoutMask::apply`].
pub fn apply_in_place<S: Stored>(
    isa: impl Instructions,
    key: MaskKey,
    p: f64,
    first: usize,
    xs: &mut [S],
) {
    DropoutMask::new(key, p).apply(isa, first, xs);
}

/// Element dropout: each number is zeroed with probability `p` (resolution 1/65536), the others are
/// scaled by `1/(1 − p)`. `torch.nn.Dropout`.
pub fn elements<S: Stored>(kernel: Kernel, key: MaskKey, p: f64, x: &[S], y: &mut [S]) {
    let mask = DropoutMask::new(key, p);
    let pieces = y.chunks_mut(PIECE).zip(x.chunks(PIECE));
    parallel::for_each(pieces.enumerate(), |(i, (y, x))| {
        mask.clone().multiply(kernel, i * PIECE, x, y);
    });
}

/// Channel dropout: in each sequence (`len` rows of `channels`) whole channels are zeroed.
/// `torch.nn.Dropout1d`.
pub fn channels<S: Stored>(
    kernel: Kernel,
    key: MaskKey,
    p: f64,
    (len, channels): (usize, usize),
    x: &[S],
    y: &mut [S],
) {
    if x.is_empty() {
        return;
    }
    let mask = DropoutMask::new(key, p);
    let sequences = y.chunks_mut(len * channels).zip(x.chunks(len * channels));
    parallel::for_each(sequences.enumerate(), |(i, (y, x))| {
        let factors: Vec<S::Real> = mask.clone().row(kernel, i, channels);
        let piece = whole_rows(channels);
        each_piece(
            kernel,
            y.chunks_mut(piece).zip(x.chunks(piece)),
            #[inline(always)]
            |(y, x)| {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    for ((y, x), factor) in y.iter_mut().zip(x).zip(&factors) {
                        *y = S::store(x.load() * *factor);
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel::Portable;
    const KEY: MaskKey = MaskKey::new(7, 3);

    #[test]
    fn keeps_the_mean_and_depends_on_the_key() {
        let x = vec![1f32; 100_000];
        let (mut y, mut again, mut other) = (x.clone(), x.clone(), x.clone());
        elements(KERNEL, KEY, 0.25, &x, &mut y);
        elements(KERNEL, KEY, 0.25, &x, &mut again);
        elements(KERNEL, MaskKey { stream: 4, ..KEY }, 0.25, &x, &mut other);
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
        elements(KERNEL, KEY, 0.5, &x, &mut y);
        assert_ne!(y[..PIECE], y[PIECE..]);
    }

    /// One draw after another, as the definition has it.
    fn by_definition(p: f64, first: usize, count: usize) -> Vec<f64> {
        let threshold = ((p * 65536.0).round() as u32).min(65535);
        let mut rng = ChaCha8Rng::seed_from_u64(KEY.seed);
        rng.set_stream(KEY.stream);
        rng.set_word_pos((first / 2) as u128);
        let halves = std::iter::repeat_with(|| rng.next_u32()).flat_map(|w| [w & 0xffff, w >> 16]);
        let kept = 1.0 / (1.0 - f64::from(threshold) / 65536.0);
        let factors = halves.map(|half| if half < threshold { 0.0 } else { kept });
        factors.skip(first % 2).take(count).collect()
    }

    #[test]
    fn masks_are_those_of_the_definition() {
        for count in [1, 7, 64, 3 * PIECE + 5] {
            let mut y = vec![0f64; count];
            elements(KERNEL, KEY, 0.3, &vec![1.0; count], &mut y);
            assert_eq!(y, by_definition(0.3, 0, count));
            let mut y = vec![0f64; 3 * 4 * count];
            channels(KERNEL, KEY, 0.3, (4, count), &vec![1.0; y.len()], &mut y);
            for (i, sequence) in y.chunks(4 * count).enumerate() {
                let row = by_definition(0.3, i * count.next_multiple_of(2), count);
                assert!(sequence.chunks(count).all(|r| r == row));
            }
        }
    }

    #[test]
    fn piece_by_piece_is_the_same_as_the_whole() {
        let x: Vec<half::bf16> =
            (0..5000).map(|i| half::bf16::from_f32((i % 37) as f32 * 0.11 - 2.0)).collect();
        let mut whole = x.clone();
        elements(KERNEL, KEY, 0.4, &x, &mut whole);
        for piece in [1, 3, 450, 1025, 4999] {
            let (mut y, mut mask) = (x.clone(), DropoutMask::new(KEY, 0.4));
            for (i, y) in y.chunks_mut(piece).enumerate() {
                mask.apply(KERNEL, i * piece, y);
            }
            assert_eq!(y, whole);
            let mut y = x[piece..].to_vec();
            apply_in_place(KERNEL, MaskKey { offset: piece as u64, ..KEY }, 0.4, 0, &mut y);
            assert_eq!(y, whole[piece..]);
            let piece = piece.max(8);
            let mut y = x[7..piece].to_vec();
            apply_in_place(KERNEL, KEY, 0.4, 7, &mut y);
            assert_eq!(y, whole[7..piece]);
        }
    }

    #[test]
    fn channels_drop_whole() {
        let x = vec![1f64; 3 * 5 * 8];
        let mut y = x.clone();
        channels(KERNEL, KEY, 0.5, (5, 8), &x, &mut y);
        for sequence in y.chunks(40) {
            for row in sequence.chunks(8) {
                assert_eq!(row, &sequence[..8]);
            }
        }
        assert!(y.contains(&0.0) && y.contains(&2.0));
    }
}
