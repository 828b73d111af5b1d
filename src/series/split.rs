//! Parts of data: to train on, to validate on, to test on.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Series, SeriesSet};
use crate::{Error, Result};

/// The ends of the first two parts of a series of `steps`, by time: what comes last is tested.
///
/// # Errors
/// [`Error::Invalid`] for shares that leave no step to train on.
///
/// # Example
///
/// ```
/// use candle_tcn::series::split_by_time;
/// assert_eq!(split_by_time(100, 0.1, 0.2)?, [70, 80]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn split_by_time(steps: usize, valid: f64, test: f64) -> Result<[usize; 2]> {
    check_shares(valid, test)?;
    let count = |share: f64| (steps as f64 * share).round() as usize;
    let ends =
        [steps.saturating_sub(count(valid) + count(test)), steps.saturating_sub(count(test))];
    Error::require(ends[0] > 0, "series", "steps to train on", format!("{steps} steps in all"))?;
    Ok(ends)
}

fn check_shares(valid: f64, test: f64) -> Result<()> {
    for (name, share) in [("valid_fraction", valid), ("test_fraction", test)] {
        let expected = "a number of at least 0 and below 1";
        Error::require((0.0..1.0).contains(&share), name, expected, share)?;
    }
    let expected = "below 1 together with valid_fraction";
    Error::require(valid + test < 1.0, "test_fraction", expected, test)
}

/// The parts of a set of several series, each whole; of each class its share, and at least one to train on.
///
/// # Errors
/// As [`split_by_time`].
pub fn split_by_series(set: SeriesSet, valid: f64, test: f64) -> Result<[SeriesSet; 3]> {
    check_shares(valid, test)?;
    let empty = || SeriesSet {
        series: Vec::new(),
        columns: set.columns.clone(),
        classes: set.classes.clone(),
    };
    let mut parts = [empty(), empty(), empty()];
    let mut by_class: Vec<Vec<Series>> = vec![Vec::new(); set.classes.len() + 1];
    for series in set.series {
        let class = series.class.unwrap_or(set.classes.len());
        by_class[class].push(series);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for mut series in by_class.into_iter().filter(|series| !series.is_empty()) {
        series.shuffle(&mut rng);
        let count = |share: f64| (series.len() as f64 * share).round() as usize;
        let test = count(test).min(series.len() - 1);
        let valid = count(valid).min(series.len() - 1 - test);
        parts[2].series.extend(series.drain(..test));
        parts[1].series.extend(series.drain(..valid));
        parts[0].series.extend(series);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_in_every_part_and_one_is_left_to_train_on() {
        let series =
            |i: usize| Series::new(vec![i as f32], 1).of_class(usize::from(i.is_multiple_of(10)));
        let set = SeriesSet {
            classes: vec!["many".into(), "few".into()],
            series: (0..101).map(series).collect(),
            ..SeriesSet::default()
        };
        let parts = split_by_series(set, 0.2, 0.1).unwrap();
        let count =
            |part: &SeriesSet, class| part.series.iter().filter(|s| s.class == Some(class)).count();
        let counts = parts.each_ref().map(|part| [count(part, 0), count(part, 1)]);
        assert_eq!(counts, [[63, 8], [18, 2], [9, 1]]);

        let one = SeriesSet { series: vec![Series::new(vec![1.], 1)], ..SeriesSet::default() };
        assert_eq!(split_by_series(one, 0.4, 0.5).unwrap()[0].series.len(), 1);
    }

    #[test]
    fn shares_that_leave_nothing_are_refused() {
        for (valid, test) in [(0.5, 0.5), (1.0, 0.0), (-0.1, 0.0), (0.0, f64::NAN)] {
            assert!(split_by_time(100, valid, test).is_err());
        }
        assert!(split_by_time(1, 0.0, 0.6).is_err());
    }
}
