//! Numbers of mean 0 and deviation 1.

use serde::{Deserialize, Serialize};

use super::SeriesSet;
use crate::{Error, Result};

/// The mean and the deviation by which values are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeriesScale {
    /// None: values stay as they are.
    None,
    /// Those of the training part.
    #[default]
    Set,
    /// Those of the series, which go in beside its values: for whole series that differ in size.
    Series,
    /// Those of so many last steps: for series that grow.
    Window(usize),
}

/// Mean and standard deviation of each channel, of all known values of all sequences.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{Column, Scaling, Series, SeriesSet};
///
/// let columns = vec![Column::of_numbers("a"), Column::of_numbers("b")];
/// let series = vec![Series::new(vec![1., 10., 3., 30.], 2)];
/// let set = SeriesSet { columns, series, ..SeriesSet::default() };
///
/// let scaling = Scaling::fit(&set)?;
/// assert_eq!((scaling.mean(1), scaling.deviation(1)), (20., 10.));
/// assert_eq!((scaling.apply(1, 25.), scaling.undo(1, 0.5)), (0.5, 25.));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Scaling {
    /// Measures the channels of a set: that of training alone, so that nothing of the rest is known. Categories keep mean
    /// 0 and deviation 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a channel without two different values, which says nothing and has no deviation.
    pub fn fit(set: &SeriesSet) -> Result<Self> {
        let channels = set.columns.len();
        let (mut mean, mut deviation) = (vec![0.0; channels], vec![1.0; channels]);
        for (channel, column) in set.columns.iter().enumerate().filter(|(_, c)| c.is_of_numbers()) {
            let known = || set.series.iter().flat_map(|series| series.channel(channel));
            let count = known().count() as f64;
            let first = known().next();
            if known().all(|x| Some(x) == first) {
                let expected = "two different values at the least";
                let found = match first {
                    Some(first) => format!("nothing but {first}"),
                    None => "none".into(),
                };
                return Err(Error::invalid(format!("column {:?}", column.name), expected, found));
            }
            mean[channel] = known().sum::<f64>() / count;
            let squares = known().map(|x| (x - mean[channel]).powi(2)).sum::<f64>();
            deviation[channel] = (squares / count).sqrt();
        }
        Ok(Self { mean, deviation })
    }

    /// Values stay as they are.
    pub fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], deviation: vec![1.0; channels] }
    }

    /// The scaling by these means and deviations.
    pub(super) fn of(moments: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mean, deviation) = moments.unzip();
        Self { mean, deviation }
    }

    /// Mean of a channel.
    pub fn mean(&self, channel: usize) -> f64 {
        self.mean[channel]
    }

    /// Standard deviation of a channel, above 0.
    pub fn deviation(&self, channel: usize) -> f64 {
        self.deviation[channel]
    }

    /// Distance of a value of a channel from the mean, in deviations.
    pub fn apply(&self, channel: usize, x: f64) -> f64 {
        (x - self.mean[channel]) / self.deviation[channel]
    }

    /// The value of a channel in its own units.
    pub fn undo(&self, channel: usize, scaled: f64) -> f64 {
        scaled * self.deviation[channel] + self.mean[channel]
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.mean.len()
    }

    /// `true` without channels.
    pub fn is_empty(&self) -> bool {
        self.mean.is_empty()
    }

    /// `true` for finite means and deviations above 0.
    pub(super) fn is_sound(&self) -> bool {
        let above = self.deviation.iter().all(|&d| d.is_finite() && d > 0.0);
        above && self.mean.iter().all(|m| m.is_finite()) && self.mean.len() == self.deviation.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Column, Series};
    use super::*;

    fn set(frames: &[f32]) -> SeriesSet {
        let columns = vec![Column::of_numbers("x")];
        SeriesSet { columns, series: vec![Series::new(frames.to_vec(), 1)], ..SeriesSet::default() }
    }

    #[test]
    fn a_large_offset_costs_no_digits() {
        let scaling = Scaling::fit(&set(&[1e6, 1e6 + 1., f32::NAN, 1e6 + 2., 1e6 + 3.])).unwrap();
        assert_eq!(scaling.mean(0), 1e6 + 1.5);
        assert!((scaling.deviation(0) - 1.25f64.sqrt()).abs() < 1e-12);
        assert!((scaling.apply(0, 1e6 + 3.) - 1.5 / 1.25f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_constant_channel_is_named() {
        for (frames, expected) in [(&[0.5, 0.5, 0.5][..], "nothing but 0.5"), (&[f32::NAN], "none")]
        {
            let error = Scaling::fit(&set(frames)).unwrap_err().to_string();
            let start = "column \"x\": expected two different values at the least, found ";
            assert_eq!(error, format!("{start}{expected}"));
        }
    }
}
