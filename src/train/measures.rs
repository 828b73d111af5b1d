//! Measures of what a network says of sequences: of classes and of forecasts.

use crate::{Error, Result};

/// Counts of what was said of each class.
///
/// # Example
///
/// ```
/// use candle_tcn::train::Confusion;
///
/// let mut confusion = Confusion::new(2);
/// for (class, said) in [(0, 0), (0, 0), (0, 0), (0, 1), (1, 1)] {
///     confusion.add(class, said)?;
/// }
/// assert_eq!(confusion.accuracy(), 0.8);
/// assert_eq!(confusion.balanced_accuracy(), (0.75 + 1.0) / 2.0);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// (class, said)
    counts: Vec<u64>,
}

impl Confusion {
    /// No counts of so many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts a sequence (or a step) of `class` of which `said` was said.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a class that there is not.
    pub fn add(&mut self, class: usize, said: usize) -> Result<()> {
        let expected = format!("a number below {}", self.classes);
        let most = class.max(said);
        Error::require(most < self.classes, "class", &expected, most)?;
        self.counts[class * self.classes + said] += 1;
        Ok(())
    }

    /// Number of times that `said` was said of `class`.
    ///
    /// # Panics
    /// For a class that there is not.
    pub fn count(&self, class: usize, said: usize) -> u64 {
        self.counts[class * self.classes + said]
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of all counts.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share of what is right, from 0 to 1; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        ratio(right, self.total())
    }

    /// The mean over the classes that occur of the share of what is right.
    pub fn balanced_accuracy(&self) -> f64 {
        self.mean(|class| {
            (self.of(class) > 0).then(|| ratio(self.count(class, class), self.of(class)))
        })
    }

    /// The mean over the classes that occur or are said of F1, the harmonic mean of precision and recall.
    ///
    /// # References
    /// `sklearn.metrics.f1_score(average="macro")`.
    pub fn macro_f1(&self) -> f64 {
        self.mean(|class| {
            let both = self.of(class) + self.said(class);
            (both > 0).then(|| ratio(2 * self.count(class, class), both))
        })
    }

    fn of(&self, class: usize) -> u64 {
        (0..self.classes).map(|said| self.count(class, said)).sum()
    }

    fn said(&self, said: usize) -> u64 {
        (0..self.classes).map(|class| self.count(class, said)).sum()
    }

    fn mean(&self, of: impl Fn(usize) -> Option<f64>) -> f64 {
        let (mut sum, mut count) = (0.0, 0u64);
        for value in (0..self.classes).filter_map(of) {
            sum += value;
            count += 1;
        }
        if count == 0 { 0.0 } else { sum / count as f64 }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Distances of forecasts from what came.
///
/// # Example
///
/// ```
/// use candle_tcn::train::ForecastErrors;
///
/// let mut errors = ForecastErrors::default();
/// errors.add(&[1., 2., 3.], &[1., 4., f64::NAN]); // what is missing does not count
/// assert_eq!((errors.count(), errors.mae(), errors.rmse()), (2, 1., 2f64.sqrt()));
///
/// // the seasonal naive forecast of 1, 2, 3, 6 by a season of two steps is wrong by 2 and 4
/// let naive = ForecastErrors::seasonal_naive(&[1., 2., 3., 6.], 2)?;
/// assert_eq!(naive.mae(), 3.);
/// assert_eq!(errors.mase(&naive), 1. / 3.);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ForecastErrors {
    count: u64,
    absolute: f64,
    squares: f64,
}

impl ForecastErrors {
    /// Adds forecasts of as many values; a value that is NaN is missing.
    ///
    /// # Panics
    /// For slices of two lengths.
    pub fn add(&mut self, forecasts: &[f64], values: &[f64]) {
        assert_eq!(forecasts.len(), values.len(), "forecasts of as many values");
        for (forecast, value) in forecasts.iter().zip(values).filter(|(_, value)| !value.is_nan()) {
            self.count += 1;
            self.absolute += (forecast - value).abs();
            self.squares += (forecast - value).powi(2);
        }
    }

    /// The errors, over a series, of the forecast that says of each step what was `season` steps before: those that
    /// [`mase`](Self::mase) compares with, of the training part.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless the season is above 0 and shorter than the series.
    pub fn seasonal_naive(series: &[f64], season: usize) -> Result<Self> {
        let expected =
            format!("a number of steps from 1 to below {}, the series' own", series.len());
        Error::require(season > 0 && season < series.len(), "season", &expected, season)?;
        let mut errors = Self::default();
        let pairs = series.iter().zip(&series[season..]).filter(|(before, _)| !before.is_nan());
        pairs.for_each(|(&before, &value)| errors.add(&[before], &[value]));
        Ok(errors)
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean absolute error, in the units of the values; NaN of nothing.
    pub fn mae(&self) -> f64 {
        self.absolute / self.count as f64
    }

    /// Root of the mean squared error, in the units of the values; NaN of nothing.
    pub fn rmse(&self) -> f64 {
        (self.squares / self.count as f64).sqrt()
    }

    /// Mean absolute error as a multiple of that of the [seasonal naive forecast](Self::seasonal_naive).
    ///
    /// # References
    /// Hyndman and Koehler, *Another look at measures of forecast accuracy*, International Journal of Forecasting 22
    /// (2006), section 3.
    pub fn mase(&self, naive: &Self) -> f64 {
        self.mae() / naive.mae()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, of the classes 0, 0, 1, 1, 1 and 3, of which 0, 1, 1, 1, 2 and 0 was said.
    #[test]
    fn classes_that_never_occur_and_classes_that_are_never_said() {
        let mut confusion = Confusion::new(5);
        for (class, said) in [(0, 0), (0, 1), (1, 1), (1, 1), (1, 2), (3, 0)] {
            confusion.add(class, said).unwrap();
        }
        assert_eq!(confusion.accuracy(), 0.5);
        // recalls 1/2, 2/3 and 0 of the three that occur
        assert!((confusion.balanced_accuracy() - (0.5 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        // F1 1/2, 2/3, 0 and 0 of the four that occur or are said
        assert!((confusion.macro_f1() - (0.5 + 2.0 / 3.0) / 4.0).abs() < 1e-12);
        assert_eq!((confusion.count(3, 0), confusion.count(4, 4)), (1, 0));
    }

    #[test]
    fn nothing_is_right_of_nothing_and_unknown_classes_are_refused() {
        let mut confusion = Confusion::new(2);
        let measures = [confusion.accuracy(), confusion.balanced_accuracy(), confusion.macro_f1()];
        assert_eq!(measures, [0.0; 3]);
        let error = confusion.add(0, 2).unwrap_err().to_string();
        assert_eq!(error, "class: expected a number below 2, found 2");
    }

    #[test]
    fn missing_values_count_nowhere() {
        let nan = f64::NAN;
        let naive = ForecastErrors::seasonal_naive(&[1., nan, 2., 5., 4.], 2).unwrap();
        // of 2 by 1 and of 4 by 2; 5 has nothing before it
        assert_eq!((naive.count(), naive.mae()), (2, 1.5));
        for season in [0, 3] {
            assert!(ForecastErrors::seasonal_naive(&[1., 2., 3.], season).is_err());
        }
    }
}
