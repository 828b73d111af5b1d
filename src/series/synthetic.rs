//! Made-up tasks that show how far back a network looks.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Column, Series, SeriesSet};

/// The adding problem: of random numbers from 0 to 1, two are marked; the target of the last step is their sum.
///
/// Columns `value`, `marker` and `sum`; the first mark is in the first half of a sequence, the second in the other. To
/// answer 1 always has a squared error of 0.167.
///
/// # References
/// Hochreiter and Schmidhuber 1997, section 5.4; as in Bai et al. 2018 (arXiv:1803.01271, section 5.1).
///
/// # Panics
/// For sequences of fewer than two steps.
///
/// # Example
///
/// ```
/// let set = candle_tcn::series::adding_problem(10, 3, 1);
/// let frames = &set.series[0].frames;
/// let marked = frames.chunks(3).filter(|frame| frame[1] == 1.).map(|frame| frame[0]);
/// assert_eq!(marked.sum::<f32>(), frames[3 * 10 - 1]);
/// ```
pub fn adding_problem(steps: usize, count: usize, seed: u64) -> SeriesSet {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let columns = ["value", "marker", "sum"].map(Column::of_numbers).to_vec();
    let mut series = Vec::with_capacity(count);
    for _ in 0..count {
        let marks = [rng.random_range(0..steps / 2), rng.random_range(steps / 2..steps)];
        let mut frames = Vec::with_capacity(3 * steps);
        for step in 0..steps {
            let marker = if marks.contains(&step) { 1.0 } else { 0.0 };
            frames.extend([rng.random_range(0.0..1.0f32), marker, f32::NAN]);
        }
        frames[3 * steps - 1] = marks.iter().map(|mark| frames[3 * mark]).sum();
        series.push(Series::new(frames, 3));
    }
    SeriesSet { columns, series, ..SeriesSet::default() }
}

/// Copy memory: ten symbols from 1 to 8, then blanks (0), then ten times a sign (9) at which they are to be said again.
///
/// A column `symbol` of numbers, and the target `copy` of categories; sequences of `blanks` + 20 steps.
///
/// # References
/// Arjovsky et al. 2016 (arXiv:1511.06464), section 4.1; as in Bai et al. 2018 (arXiv:1803.01271, section 5.1).
///
/// # Example
///
/// ```
/// let set = candle_tcn::series::copy_memory(5, 1, 1);
/// let frames = &set.series[0].frames;
/// assert_eq!(set.series[0].len(), 25);
/// for step in 0..10 {
///     assert_eq!(frames[2 * (15 + step) + 1], frames[2 * step]);
/// }
/// ```
pub fn copy_memory(blanks: usize, count: usize, seed: u64) -> SeriesSet {
    const SYMBOLS: usize = 10;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let categories = (0..10).map(|symbol: u32| symbol.to_string()).collect();
    let columns = vec![Column::of_numbers("symbol"), Column { name: "copy".into(), categories }];
    let steps = blanks + 2 * SYMBOLS;
    let mut series = Vec::with_capacity(count);
    for _ in 0..count {
        let symbols: [f32; SYMBOLS] = std::array::from_fn(|_| rng.random_range(1..9u32) as f32);
        let mut frames = vec![0.0; 2 * steps];
        for (step, symbol) in symbols.into_iter().enumerate() {
            frames[2 * step] = symbol;
            frames[2 * (steps - SYMBOLS + step)] = 9.0;
            frames[2 * (steps - SYMBOLS + step) + 1] = symbol;
        }
        series.push(Series::new(frames, 2));
    }
    SeriesSet { columns, series, ..SeriesSet::default() }
}
