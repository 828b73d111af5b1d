//! Sequences of frames, for training on what is not text: tables, the archives' `.ts` files, arrays; times, scaling,
//! missing values; and what a network is asked of them.
//!
//! Nothing here knows of tensors: frames are row-major `Vec<f32>`.
//!
//! # Example
//!
//! ```
//! use candle_tcn::series::{SeriesTask, TaskKind, read_ts};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("steps.ts");
//! std::fs::write(&path, "@classLabel true up down\n@data\n1,2,3,4:up\n4,3,2:down\n")?;
//!
//! let set = read_ts(&path)?;
//! let task = SeriesTask::fit(&set, TaskKind::Classify { classes: set.classes.clone() })?;
//! let sequences = task.sequences(&set)?;
//! // of each step the value scaled by its own series, and the mean and the deviation of that
//! assert_eq!((sequences[0].inputs.len(), task.in_channels()), (4 * 3, 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod column;
mod csv;
mod csv_rows;
mod framer;
mod prepare;
mod scaling;
mod split;
mod synthetic;
mod task;
mod tensors;
mod time_form;
mod times;
mod ts;

pub use column::Column;
pub use csv::{CsvOptions, SeriesTable, read_csv};
pub use csv_rows::{CsvLayout, delimiter, number};
pub use framer::Framer;
pub use prepare::{FrameSequence, SequenceTargets};
pub use scaling::{Scaling, SeriesScale};
pub use split::{split_by_series, split_by_time};
pub use synthetic::{adding_problem, copy_memory};
pub use task::{Bands, ForecastBase, SeriesTask, TaskKind};
pub use tensors::{read_npy, read_tensors};
pub use times::{SeriesTimes, TimeStep};
pub use ts::{is_ts, read_ts};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A sequence of frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name: that of its group in a table; empty for none.
    pub name: String,
    /// The values, (time, channels); a missing one is NaN, a category its number.
    pub frames: Vec<f32>,
    /// Number of values in a frame, at least one.
    pub channels: usize,
    /// Number of its class in [`SeriesSet::classes`].
    pub class: Option<usize>,
    /// SeriesTimes of its frames, where they are known.
    pub times: Option<SeriesTimes>,
}

impl Series {
    /// A series without a name, a class and times.
    pub fn new(frames: Vec<f32>, channels: usize) -> Self {
        Self { name: String::new(), frames, channels, class: None, times: None }
    }

    /// The same series of a class.
    #[must_use]
    pub fn of_class(self, class: usize) -> Self {
        Self { class: Some(class), ..self }
    }

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

    /// The frame of a step.
    pub fn frame(&self, step: usize) -> &[f32] {
        &self.frames[step * self.channels..][..self.channels]
    }

    /// The known values of a channel.
    pub(crate) fn channel(&self, channel: usize) -> impl Iterator<Item = f64> {
        let values = self.frames.iter().skip(channel).step_by(self.channels);
        values.filter(|x| !x.is_nan()).map(|&x| f64::from(x))
    }
}

/// Sequences of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesSet {
    /// The channels.
    pub columns: Vec<Column>,
    /// Names of the classes, none where sequences have none.
    pub classes: Vec<String>,
    /// The sequences, each of at least one frame of all channels.
    pub series: Vec<Series>,
}

/// The treatment of values that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// An error says how many there are.
    #[default]
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
    /// use candle_tcn::series::{Column, Series, SeriesSet};
    ///
    /// let set = |names: [&str; 2], class| SeriesSet {
    ///     columns: vec![Column::of_numbers("x")],
    ///     classes: names.map(String::from).to_vec(),
    ///     series: vec![Series::new(vec![1.], 1).of_class(class)],
    /// };
    /// let mut rest = set(["down", "up"], 0);
    /// rest.number_classes_as(&set(["up", "down"], 0))?;
    /// assert_eq!((rest.series[0].class, &rest.classes[1][..]), (Some(1), "down"));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn number_classes_as(&mut self, other: &Self) -> Result<()> {
        let (channels, expected) = (self.columns.len(), other.columns.len());
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_is_not_known_is_named() {
        let mut set = SeriesSet {
            columns: vec![Column::of_numbers("a"), Column::of_numbers("b")],
            classes: vec!["a".into(), "b".into()],
            series: vec![Series::new(vec![1.; 6], 2), Series::new(vec![1.; 2], 2).of_class(1)],
        };
        let known = SeriesSet { classes: vec!["c".into(), "a".into()], ..set.clone() };
        let error = set.clone().number_classes_as(&known).unwrap_err().to_string();
        assert_eq!(error, "class: expected one of c, a, found b");
        // one that only the names know is no harm
        set.series[1].class = Some(0);
        set.number_classes_as(&known).unwrap();
        assert_eq!((set.series[0].class, set.series[1].class), (None, Some(1)));
        let other = SeriesSet { columns: vec![Column::of_numbers("a")], ..known };
        assert!(set.number_classes_as(&other).is_err());
    }
}
