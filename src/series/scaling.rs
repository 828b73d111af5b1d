//! Channels of mean 0 and deviation 1.

use serde::{Deserialize, Serialize};

use super::SeriesSet;
use crate::{Error, Result};

/// Mean and standard deviation of each channel, of all known values of all sequences.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{Scaling, Series, SeriesSet};
///
/// let series = Series { frames: vec![1., 10., 3., 30.], channels: 2, class: None };
/// let channels = vec!["a".to_string(), "b".to_string()];
/// let mut set = SeriesSet { channels, classes: vec![], series: vec![series] };
///
/// let scaling = Scaling::fit(&set)?;
/// assert_eq!((scaling.mean(1), scaling.deviation(1)), (20., 10.));
/// scaling.apply(&mut set)?;
/// assert_eq!(set.series[0].frames, [-1., -1., 1., 1.]);
/// assert_eq!(scaling.undo(1, 0.5), 25.);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Scaling {
    /// Measures the channels of a set: that of training alone, so that nothing of the rest is known.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a channel without two different values, which says nothing and has no deviation.
    pub fn fit(set: &SeriesSet) -> Result<Self> {
        let channels = set.channels.len();
        let (mut mean, mut deviation) = (vec![0.0; channels], vec![0.0; channels]);
        for channel in 0..channels {
            let known = || set.series.iter().flat_map(|series| series.channel(channel));
            let count = known().count() as f64;
            let first = known().next();
            if known().all(|x| Some(x) == first) {
                let expected = "two different values at the least";
                let found = match first {
                    Some(first) => format!("nothing but {first}"),
                    None => "none".into(),
                };
                return Err(Error::invalid(set.channels[channel].as_str(), expected, found));
            }
            mean[channel] = known().sum::<f64>() / count;
            let squares = known().map(|x| (x - mean[channel]).powi(2)).sum::<f64>();
            deviation[channel] = (squares / count).sqrt();
        }
        Ok(Self { mean, deviation })
    }

    /// Mean of a channel.
    pub fn mean(&self, channel: usize) -> f64 {
        self.mean[channel]
    }

    /// Standard deviation of a channel, above 0.
    pub fn deviation(&self, channel: usize) -> f64 {
        self.deviation[channel]
    }

    /// Scales a set: values become distances from the mean, in deviations. Missing values stay missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of channels than that of the set that was measured.
    pub fn apply(&self, set: &mut SeriesSet) -> Result<()> {
        let (channels, expected) = (set.channels.len(), self.mean.len());
        Error::require(channels == expected, "channels", &expected.to_string(), channels)?;
        for series in &mut set.series {
            for frame in series.frames.chunks_exact_mut(series.channels) {
                for ((x, mean), deviation) in frame.iter_mut().zip(&self.mean).zip(&self.deviation)
                {
                    *x = ((f64::from(*x) - mean) / deviation) as f32;
                }
            }
        }
        Ok(())
    }

    /// The value of a channel in its own units.
    pub fn undo(&self, channel: usize, scaled: f64) -> f64 {
        scaled * self.deviation[channel] + self.mean[channel]
    }
}

impl super::Series {
    /// The known values of a channel.
    fn channel(&self, channel: usize) -> impl Iterator<Item = f64> {
        let values = self.frames.iter().skip(channel).step_by(self.channels);
        values.filter(|x| !x.is_nan()).map(|&x| f64::from(x))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Series;
    use super::*;

    fn set(frames: &[f32]) -> SeriesSet {
        let series = Series { frames: frames.to_vec(), channels: 1, class: None };
        SeriesSet { channels: vec!["x".into()], classes: Vec::new(), series: vec![series] }
    }

    #[test]
    fn a_large_offset_costs_no_digits() {
        let mut set = set(&[1e6, 1e6 + 1., f32::NAN, 1e6 + 2., 1e6 + 3.]);
        let scaling = Scaling::fit(&set).unwrap();
        assert_eq!(scaling.mean(0), 1e6 + 1.5);
        assert!((scaling.deviation(0) - 1.25f64.sqrt()).abs() < 1e-12);
        scaling.apply(&mut set).unwrap();
        assert!(set.series[0].frames[2].is_nan());
        assert!((f64::from(set.series[0].frames[4]) - 1.5 / 1.25f64.sqrt()).abs() < 1e-6);
        assert!((scaling.undo(0, f64::from(set.series[0].frames[4])) - (1e6 + 3.)).abs() < 1e-6);
    }

    #[test]
    fn a_constant_channel_is_named() {
        for (frames, expected) in [
            (
                &[0.1, 0.1, 0.1][..],
                "x: expected two different values at the least, found nothing but 0.1",
            ),
            (&[f32::NAN], "x: expected two different values at the least, found none"),
        ] {
            let error = Scaling::fit(&set(frames)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
