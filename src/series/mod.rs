//! Sequences of frames in, for training on what is not text: the archives' `.ts` files, scaling, missing values.
//!
//! Nothing here knows of tensors: frames are row-major `Vec<f32>`.
//!
//! # Example
//!
//! ```
//! use candle_tcn::series::{Missing, Scaling, read_ts};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("steps.ts");
//! std::fs::write(&path, "@classLabel true up down\n@data\n1,2,?,4:up\n4,3,2:down\n")?;
//!
//! let mut set = read_ts(&path)?;
//! assert_eq!(set.classes, ["up", "down"]);
//! let lengths: Vec<usize> = set.series.iter().map(|series| series.len()).collect();
//! assert_eq!(lengths, [4, 3]);
//!
//! let scaling = Scaling::fit(&set)?;
//! scaling.apply(&mut set)?;
//! set.fill(Missing::Last)?;
//! // the missing value is the one before it
//! assert_eq!(set.series[0].frames[2], set.series[0].frames[1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod scaling;
mod ts;

pub use scaling::Scaling;
pub use ts::read_ts;

use crate::{Error, Result};

/// A sequence of frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The values, (time, channels); a missing one is NaN.
    pub frames: Vec<f32>,
    /// Number of values in a frame, at least one.
    pub channels: usize,
    /// Number of its class in [`SeriesSet::classes`].
    pub class: Option<usize>,
}

impl Series {
    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len() / self.channels
    }

    /// `true` without frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Number of missing values.
    pub fn missing(&self) -> usize {
        self.frames.iter().filter(|x| x.is_nan()).count()
    }
}

/// Sequences of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesSet {
    /// Names of the channels.
    pub channels: Vec<String>,
    /// Names of the classes, none where sequences have none.
    pub classes: Vec<String>,
    /// The sequences, each of at least one frame of all channels.
    pub series: Vec<Series>,
}

/// The treatment of values that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// An error says how many there are.
    Refuse,
    /// The last value of the channel before it stands in, 0 (the mean of scaled values) before the first: nothing of
    /// the future is used.
    Last,
    /// As [`Missing::Last`], and for each channel another says where its value is known: 1, or missing: 0.
    LastAndMask,
}

impl SeriesSet {
    /// Number of missing values.
    pub fn missing(&self) -> usize {
        self.series.iter().map(Series::missing).sum()
    }

    /// Numbers the classes as `other` does, by their names: a file for testing may name them in another order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a class that a series has and `other` does not name, and for another number of channels.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::series::{Series, SeriesSet};
    ///
    /// let set = |names: [&str; 2], class| SeriesSet {
    ///     channels: vec!["x".into()],
    ///     classes: names.map(String::from).to_vec(),
    ///     series: vec![Series { frames: vec![1.], channels: 1, class: Some(class) }],
    /// };
    /// let mut rest = set(["down", "up"], 0);
    /// rest.number_classes_as(&set(["up", "down"], 0))?;
    /// assert_eq!((rest.series[0].class, &rest.classes[1][..]), (Some(1), "down"));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn number_classes_as(&mut self, other: &Self) -> Result<()> {
        let (channels, expected) = (self.channels.len(), other.channels.len());
        Error::require(channels == expected, "channels", &expected.to_string(), channels)?;
        let number = |name: &String| other.classes.iter().position(|class| class == name);
        let numbers: Vec<Option<usize>> = self.classes.iter().map(number).collect();
        for class in self.series.iter_mut().filter_map(|series| series.class.as_mut()) {
            let name = self.classes.get(*class).map_or("one without a name", String::as_str);
            let expected = || format!("one of {}", other.classes.join(", "));
            let new = numbers.get(*class).copied().flatten();
            *class = new.ok_or_else(|| Error::invalid("class", expected(), name))?;
        }
        self.classes.clone_from(&other.classes);
        Ok(())
    }

    /// Fills missing values. Scale before: what stands before the first value is 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] for missing values that are to be refused.
    pub fn fill(&mut self, missing: Missing) -> Result<()> {
        if missing == Missing::Refuse {
            let found = self.missing();
            return Error::require(found == 0, "series", "no missing values", found);
        }
        let marks = missing == Missing::LastAndMask;
        for series in &mut self.series {
            series.fill(marks);
        }
        if marks {
            let names = self.channels.iter().map(|name| format!("{name} known"));
            let names: Vec<String> = names.collect();
            self.channels.extend(names);
        }
        Ok(())
    }
}

impl Series {
    /// Fills missing values by the last one; `marks` adds a channel for each that says which are known.
    fn fill(&mut self, marks: bool) {
        let mut last = vec![0.0; self.channels];
        let mut filled = Vec::with_capacity(self.frames.len() * if marks { 2 } else { 1 });
        for frame in self.frames.chunks_exact(self.channels) {
            for (last, &x) in last.iter_mut().zip(frame) {
                if !x.is_nan() {
                    *last = x;
                }
            }
            filled.extend_from_slice(&last);
            if marks {
                filled.extend(frame.iter().map(|x| if x.is_nan() { 0.0 } else { 1.0 }));
            }
        }
        self.frames = filled;
        self.channels *= if marks { 2 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps() -> SeriesSet {
        let nan = f32::NAN;
        SeriesSet {
            channels: vec!["a".into(), "b".into()],
            classes: Vec::new(),
            series: vec![
                Series { frames: vec![nan, 1., 2., nan, nan, 3.], channels: 2, class: None },
                Series { frames: vec![nan, nan], channels: 2, class: None },
            ],
        }
    }

    #[test]
    fn nothing_of_the_future_or_of_another_series_fills_a_gap() {
        let mut set = gaps();
        set.fill(Missing::Last).unwrap();
        assert_eq!(set.series[0].frames, [0., 1., 2., 1., 2., 3.]);
        assert_eq!(set.series[1].frames, [0., 0.]);
        assert_eq!(set.missing(), 0);
    }

    #[test]
    fn marks_say_what_is_known() {
        let mut set = gaps();
        set.fill(Missing::LastAndMask).unwrap();
        assert_eq!(set.channels, ["a", "b", "a known", "b known"]);
        let frames = [0., 1., 0., 1., 2., 1., 1., 0., 2., 3., 0., 1.];
        assert_eq!(set.series[0].frames, frames);
        assert_eq!((set.series[0].channels, set.series[0].len()), (4, 3));
    }

    #[test]
    fn a_class_that_is_not_known_is_named() {
        let mut set = gaps();
        set.classes = vec!["a".into(), "b".into()];
        set.series[1].class = Some(1);
        let known = SeriesSet { classes: vec!["c".into(), "a".into()], ..set.clone() };
        let error = set.clone().number_classes_as(&known).unwrap_err().to_string();
        assert_eq!(error, "class: expected one of c, a, found b");
        // one that only the names know is no harm
        set.series[1].class = Some(0);
        set.number_classes_as(&known).unwrap();
        assert_eq!((set.series[0].class, set.series[1].class), (None, Some(1)));
        let other = SeriesSet { channels: vec!["a".into()], ..known };
        assert!(set.number_classes_as(&other).is_err());
    }

    #[test]
    fn gaps_are_counted_and_refused() {
        let error = gaps().fill(Missing::Refuse).unwrap_err().to_string();
        assert_eq!(error, "series: expected no missing values, found 5");
    }
}
