//! The question that a network of series answers, and the way from columns to its inputs: `task.json` of a model
//! directory.

use serde::{Deserialize, Serialize};

use super::{Column, CsvOptions, Framer, Missing, Scaling, SeriesScale, SeriesSet};
use crate::{Error, Result};

/// Most steps that a forecast goes ahead, and that a season has.
const MAX_STEPS: usize = 1 << 16;

/// Steps whose mean and deviation scale a forecast's inputs where no season says how many.
const WINDOW: usize = 32;

/// The question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskKind {
    /// One of several classes for a whole series.
    Classify {
        /// Their names.
        classes: Vec<String>,
    },
    /// The next values of the targets, at every step.
    Forecast {
        /// Number of steps ahead.
        horizon: usize,
        /// Steps of a season, as 24 of hours for days.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        season: Option<usize>,
        /// Levels of quantiles; none for a forecast of points.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        levels: Vec<f64>,
    },
    /// The value of each target, at every step.
    Regress {
        /// Steps from the input to the target: 0 for its own step, 1 for the next.
        shift: usize,
    },
    /// One of the categories of the target, at every step.
    Label {
        /// As of [`TaskKind::Regress`].
        shift: usize,
    },
    /// Each of the targets on or off, which are 1 or 0, at every step.
    Multilabel {
        /// As of [`TaskKind::Regress`].
        shift: usize,
    },
}

/// The naive forecast that a network's outputs are added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForecastBase {
    /// The last value.
    #[default]
    Last,
    /// The value of a season before; the last value where that is not known.
    Season,
}

/// Corrections of a forecast's quantiles by which they hold on data that training has not seen: for each level a
/// multiple of the spread.
///
/// # References
/// Romano, Patterson and Candès, *Conformalized quantile regression* (arXiv:1905.03222), one-sided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bands(pub Vec<f64>);

fn is_steps(steps: usize) -> bool {
    (1..=MAX_STEPS).contains(&steps)
}

/// A task: the question, and how columns become inputs and targets of a network.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{Column, Series, SeriesSet, SeriesTask, TaskKind};
///
/// let days = (0..60).map(|day| (day % 7) as f32 + 0.1 * day as f32).collect();
/// let set = SeriesSet {
///     columns: vec![Column::of_numbers("visits")],
///     series: vec![Series::new(days, 1)],
///     ..SeriesSet::default()
/// };
/// let kind = TaskKind::Forecast { horizon: 3, season: Some(7), levels: vec![0.1, 0.5, 0.9] };
/// let task = SeriesTask::fit(&set, kind)?;
/// // the value, how restless it is, and the value a season before the last day of the forecast; three days, three levels
/// assert_eq!((task.in_channels(), task.out_channels()), (3, 9));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesTask {
    /// The question.
    pub task: TaskKind,
    /// Columns of a frame, in their order.
    pub columns: Vec<Column>,
    /// Names of those that go in.
    pub inputs: Vec<String>,
    /// Names of those that are asked for.
    pub targets: Vec<String>,
    /// Names of inputs that are known as far ahead as the forecast goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
    /// `true` if hour, weekday and month go in.
    #[serde(default)]
    pub calendar: bool,
    /// The treatment of missing values.
    pub missing: Missing,
    /// The scaling of inputs, and of targets that are numbers.
    pub scale: SeriesScale,
    /// Mean and deviation of each column in training.
    pub scaling: Scaling,
    /// Mean and deviation in training of the logarithm of a series' own deviation, for [`SeriesScale::Series`].
    #[serde(default, skip_serializing_if = "Scaling::is_empty")]
    pub sizes: Scaling,
    /// The naive forecast that a forecast adds to.
    #[serde(default)]
    pub base: ForecastBase,
    /// Deviation of what a forecast adds, in units of the scaling, for each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<f64>,
    /// Corrections of quantiles, found on the validation part.
    #[serde(default)]
    pub bands: Bands,
    /// Facts of training that naive answers need: counts of the classes, of a multilabel task the shares of its targets,
    /// of a forecast the mean absolute error of the seasonal naive one for each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub naive: Vec<f64>,
    /// The parts of a table.
    #[serde(default)]
    pub csv: CsvOptions,
}

impl SeriesTask {
    /// The task with the usual options, fitted to a set: that of training alone.
    ///
    /// # Errors
    /// As [`refit`](Self::refit).
    pub fn fit(set: &SeriesSet, kind: TaskKind) -> Result<Self> {
        Self::of(set, kind)?.refit(set)
    }

    /// The task with the usual options: all columns go in, but for targets of the same step; a forecast is of all columns
    /// of numbers, any other task of the last column.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a set without columns.
    pub fn of(set: &SeriesSet, kind: TaskKind) -> Result<Self> {
        let columns = set.columns.clone();
        Error::require(!columns.is_empty(), "columns", "at least one", "none")?;
        let names = |columns: &[Column]| columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let numbers: Vec<Column> = columns.iter().filter(|c| c.is_of_numbers()).cloned().collect();
        let targets = match &kind {
            TaskKind::Classify { .. } => Vec::new(),
            TaskKind::Forecast { .. } => names(&numbers),
            _ => names(&columns[columns.len() - 1..]),
        };
        let scale = match &kind {
            TaskKind::Classify { .. } => SeriesScale::Series,
            TaskKind::Forecast { season, .. } => {
                SeriesScale::Window(season.unwrap_or(WINDOW).max(4))
            }
            TaskKind::Regress { .. } | TaskKind::Label { .. } => SeriesScale::Set,
            TaskKind::Multilabel { .. } => SeriesScale::None,
        };
        let mut task = Self {
            task: kind,
            inputs: Vec::new(),
            targets: Vec::new(),
            known: Vec::new(),
            calendar: false,
            missing: Missing::Refuse,
            scale,
            scaling: Scaling::none(columns.len()),
            sizes: Scaling::default(),
            base: ForecastBase::Last,
            spread: vec![1.0; targets.len()],
            bands: Bands::default(),
            naive: Vec::new(),
            csv: CsvOptions::default(),
            columns,
        };
        task.ask_for(targets);
        Ok(task)
    }

    /// Asks for these columns; those of the same step do not go in.
    pub fn ask_for(&mut self, targets: Vec<String>) {
        let goes_in = |column: &&Column| self.lead() > 0 || !targets.contains(&column.name);
        self.inputs =
            self.columns.iter().filter(goes_in).map(|column| column.name.clone()).collect();
        self.spread = vec![1.0; targets.len()];
        self.targets = targets;
    }

    /// Measures scaling and naive answers on a set: that of training alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the option, or a column that never changes.
    pub fn refit(mut self, set: &SeriesSet) -> Result<Self> {
        self.validate()?;
        if self.scale != SeriesScale::None {
            self.scaling = Scaling::fit(set)?;
        }
        self.measure(set)?;
        Ok(self)
    }

    /// Checks that all fields fit each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let names: Vec<&str> = self.columns.iter().map(|column| &column.name[..]).collect();
        let lists = [("input", &self.inputs), ("target", &self.targets), ("known", &self.known)];
        for (field, list) in lists {
            for name in list {
                let known = names.contains(&&name[..]);
                Error::require(known, field, &format!("one of {}", names.join(", ")), name)?;
            }
        }
        for name in &self.known {
            let is_input = self.inputs.contains(name) && !self.targets.contains(name);
            Error::require(is_input, "known", "columns that go in and are not asked for", name)?;
        }
        self.validate_question()?;
        Error::require(!self.inputs.is_empty(), "columns", "one that goes in", "none")?;
        self.validate_scaling()
    }

    fn validate_question(&self) -> Result<()> {
        let expected = format!("a whole number from 1 to {MAX_STEPS}");
        let steps =
            |field: &str, steps: usize| Error::require(is_steps(steps), field, &expected, steps);
        match &self.task {
            TaskKind::Classify { classes } => {
                let many = classes.len() >= 2;
                Error::require(many, "classes", "two at the least", classes.len())
            }
            TaskKind::Forecast { horizon, season, .. } => {
                steps("horizon", *horizon)?;
                steps("season", season.unwrap_or(1))?;
                self.expect_targets(true)
            }
            TaskKind::Regress { shift } | TaskKind::Multilabel { shift } => {
                steps("shift", (*shift).max(1))?;
                self.expect_targets(true)
            }
            TaskKind::Label { shift } => {
                steps("shift", (*shift).max(1))?;
                let one = self.targets.len() == 1;
                Error::require(one, "target", "one column of categories", self.targets.len())?;
                self.expect_targets(false)
            }
        }
    }

    fn validate_scaling(&self) -> Result<()> {
        let is_forecast = matches!(self.task, TaskKind::Forecast { .. });
        let rolling = match self.scale {
            SeriesScale::Window(steps) => is_forecast && is_steps(steps),
            _ => true,
        };
        let expected = "a window of at least one step, for a forecast";
        Error::require(rolling, "scale", expected, "another")?;
        let of_series = self.scale == SeriesScale::Series;
        let whole = !of_series || matches!(self.task, TaskKind::Classify { .. });
        let expected = "one that does not look ahead (series is for classes of whole ones)";
        Error::require(whole, "scale", expected, "series")?;
        let sizes = !of_series || self.sizes.is_empty() || self.sizes.len() == self.columns.len();
        let fits = self.scaling.is_sound() && self.scaling.len() == self.columns.len() && sizes;
        let above = |spread: &f64| spread.is_finite() && *spread > 0.0;
        let spreads = self.spread.len() == self.targets.len() && self.spread.iter().all(above);
        let expected = "a deviation above 0 of each column";
        Error::require(fits && spreads, "scaling", expected, "another")
    }

    fn expect_targets(&self, of_numbers: bool) -> Result<()> {
        Error::require(!self.targets.is_empty(), "target", "at least one column", "none")?;
        let wrong = self
            .target_columns()
            .into_iter()
            .find(|&i| self.columns[i].is_of_numbers() != of_numbers);
        let expected =
            if of_numbers { "a column of numbers" } else { "a column of categories (texts)" };
        match wrong {
            Some(i) => Err(Error::invalid("target", expected, &self.columns[i].name)),
            None => Ok(()),
        }
    }

    /// Steps from an input to the last target of its step.
    pub fn lead(&self) -> usize {
        match self.task {
            TaskKind::Classify { .. } => 0,
            TaskKind::Forecast { horizon, .. } => horizon,
            TaskKind::Regress { shift }
            | TaskKind::Label { shift }
            | TaskKind::Multilabel { shift } => shift,
        }
    }

    /// Steps of a season; 1 where there is none.
    pub fn season(&self) -> usize {
        match self.task {
            TaskKind::Forecast { season, .. } => season.unwrap_or(1),
            _ => 1,
        }
    }

    /// Levels of quantiles; the middle alone where a forecast is of points.
    pub fn levels(&self) -> &[f64] {
        match &self.task {
            TaskKind::Forecast { levels, .. } if !levels.is_empty() => levels,
            _ => &[0.5],
        }
    }

    /// Names of the classes, or of the target's categories.
    pub fn classes(&self) -> &[String] {
        match &self.task {
            TaskKind::Classify { classes } => classes,
            TaskKind::Label { .. } => &self.columns[self.target_columns()[0]].categories,
            _ => &[],
        }
    }

    /// Numbers of a frame as the network takes it.
    pub fn in_channels(&self) -> usize {
        let columns = self.input_columns();
        let numbers = columns.iter().filter(|&&i| self.columns[i].is_of_numbers()).count();
        let width: usize = columns.iter().map(|&i| self.columns[i].width()).sum();
        let sizes = match self.scale {
            SeriesScale::None | SeriesScale::Set => 0,
            SeriesScale::Series => 2 * numbers,
            SeriesScale::Window(_) => numbers,
        };
        let masks = if self.missing == Missing::LastAndMask { numbers } else { 0 };
        let seasons = if self.season() > 1 { self.targets.len() } else { 0 };
        width + sizes + masks + seasons + if self.calendar { 6 } else { 0 }
    }

    /// Numbers of an answer.
    pub fn out_channels(&self) -> usize {
        match &self.task {
            TaskKind::Classify { .. } | TaskKind::Label { .. } => self.classes().len(),
            TaskKind::Forecast { horizon, .. } => {
                horizon * self.targets.len() * self.levels().len()
            }
            TaskKind::Regress { .. } | TaskKind::Multilabel { .. } => self.targets.len(),
        }
    }

    /// Places in a frame of the columns that go in.
    pub(super) fn input_columns(&self) -> Vec<usize> {
        self.places(&self.inputs)
    }

    /// Places in a frame of the columns that are asked for.
    pub fn target_columns(&self) -> Vec<usize> {
        self.places(&self.targets)
    }

    pub(super) fn places(&self, names: &[String]) -> Vec<usize> {
        let place = |name: &String| self.columns.iter().position(|column| column.name == *name);
        names.iter().filter_map(place).collect()
    }

    /// A walk over the steps of a series, which makes the network's frames.
    pub fn framer(&self) -> Framer<'_> {
        Framer::new(self)
    }
}
