//! Sequences of a network's inputs and targets.

use std::ops::Range;

use super::framer::{log_size, moments};
use super::{
    ForecastBase, Framer, Missing, Scaling, Series, SeriesScale, SeriesSet, SeriesTask, TaskKind,
};
use crate::{Error, Result};

/// A sequence as a network takes it, and what is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameSequence {
    /// (time, channels)
    pub inputs: Vec<f32>,
    /// Numbers of a frame.
    pub channels: usize,
    /// Answers that should come out.
    pub targets: SequenceTargets,
}

/// Targets of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceTargets {
    /// A class for the whole.
    Class(u32),
    /// A class for each step; [`SequenceTargets::UNKNOWN`] where none is asked for.
    Classes(Vec<u32>),
    /// Numbers for each step, (time, width); NaN where none is asked for.
    Numbers {
        /// The numbers.
        values: Vec<f32>,
        /// Those of a step.
        width: usize,
    },
}

impl SequenceTargets {
    /// The class of a step that is not asked for.
    pub const UNKNOWN: u32 = u32::MAX;

    /// The steps of a part.
    fn part(&self, steps: Range<usize>) -> Self {
        match self {
            Self::Class(class) => Self::Class(*class),
            Self::Classes(classes) => Self::Classes(classes[steps].to_vec()),
            Self::Numbers { values, width } => {
                let values = values[steps.start * width..steps.end * width].to_vec();
                Self::Numbers { values, width: *width }
            }
        }
    }

    /// `true` if something is asked of a step.
    fn asks(&self, step: usize) -> bool {
        match self {
            Self::Class(_) => true,
            Self::Classes(classes) => classes[step] != Self::UNKNOWN,
            Self::Numbers { values, width } => {
                values[step * width..][..*width].iter().any(|x| !x.is_nan())
            }
        }
    }

    /// Asks nothing of a step.
    fn hide(&mut self, step: usize) {
        match self {
            Self::Class(_) => {}
            Self::Classes(classes) => classes[step] = Self::UNKNOWN,
            Self::Numbers { values, width } => values[step * *width..][..*width].fill(f32::NAN),
        }
    }
}

impl FrameSequence {
    /// Number of steps.
    pub fn len(&self) -> usize {
        self.inputs.len() / self.channels
    }

    /// `true` without steps.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The steps of a part.
    ///
    /// # Panics
    /// For steps that it has not.
    pub fn part(&self, steps: Range<usize>) -> Self {
        let inputs = self.inputs[steps.start * self.channels..steps.end * self.channels].to_vec();
        Self { inputs, channels: self.channels, targets: self.targets.part(steps) }
    }

    /// `true` if something is asked of it.
    pub fn asks(&self) -> bool {
        (0..self.len()).any(|step| self.targets.asks(step))
    }

    /// Asks nothing of the steps of a part.
    pub fn hide(&mut self, steps: Range<usize>) {
        steps.for_each(|step| self.targets.hide(step));
    }
}

impl SeriesTask {
    /// The sequences of a set, whose columns are the task's.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column for values that are missing where they are refused, a target that is no 0 or 1
    /// of a multilabel task, and a series without a class or with one that is not known.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::series::{Column, SequenceTargets, Series, SeriesSet, SeriesTask, TaskKind};
    ///
    /// let (x, mood) = (Column::of_numbers("x"), Column { name: "mood".into(), categories: vec!["low".into(), "high".into()] });
    /// let set = SeriesSet {
    ///     columns: vec![x, mood],
    ///     series: vec![Series::new(vec![1., 0., 5., 1., 6., 1.], 2)],
    ///     ..SeriesSet::default()
    /// };
    /// let task = SeriesTask::fit(&set, TaskKind::Label { shift: 0 })?;
    /// assert_eq!((&task.inputs[..], &task.targets[..]), (&["x".to_string()][..], &["mood".to_string()][..]));
    /// assert_eq!(task.sequences(&set)?[0].targets, SequenceTargets::Classes(vec![0, 1, 1]));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn sequences(&self, set: &SeriesSet) -> Result<Vec<FrameSequence>> {
        self.expect_columns(set)?;
        set.series.iter().map(|series| self.sequence(set, series)).collect()
    }

    fn expect_columns(&self, set: &SeriesSet) -> Result<()> {
        let (found, expected) = (set.columns.len(), self.columns.len());
        Error::require(found == expected, "channels", &expected.to_string(), found)?;
        if self.missing != Missing::Refuse {
            return Ok(());
        }
        for column in self.input_columns() {
            let missing = |series: &Series| series.len() - series.channel(column).count();
            let count: usize = set.series.iter().map(missing).sum();
            let first = set.series.iter().find_map(|series| {
                (0..series.len()).find(|&step| series.frame(step)[column].is_nan())
            });
            if let Some(first) = first {
                let field = format!("column {:?}", self.columns[column].name);
                let found = format!("{count}, first in step {}", first + 1);
                return Err(Error::invalid(field, "no missing values", found));
            }
        }
        Ok(())
    }

    fn sequence(&self, set: &SeriesSet, series: &Series) -> Result<FrameSequence> {
        let channels = self.in_channels();
        let mut inputs = Vec::with_capacity(series.len() * channels);
        let (mut numbers, columns) = (Vec::new(), self.target_columns());
        self.walk(series, &mut inputs, |framer, step, _| {
            if let TaskKind::Forecast { horizon, .. } = self.task {
                for (target, &column) in columns.iter().enumerate() {
                    for ahead in 1..=horizon {
                        let y = (step + ahead < series.len())
                            .then(|| series.frame(step + ahead)[column]);
                        let y = y.map_or(f64::NAN, f64::from);
                        numbers.push(
                            ((y - framer.base(target, ahead)) / framer.spread(target)) as f32,
                        );
                    }
                }
            }
        });
        let targets = match &self.task {
            TaskKind::Classify { classes } => {
                SequenceTargets::Class(self.class_of(set, series, classes)?)
            }
            TaskKind::Forecast { .. } => SequenceTargets::Numbers {
                values: numbers,
                width: self.out_channels() / self.levels().len(),
            },
            TaskKind::Label { shift } => SequenceTargets::Classes(self.labels(series, *shift)),
            TaskKind::Regress { shift } => self.numbers(series, *shift, |column, x| {
                Ok(self.scaling.apply(column, f64::from(x)) as f32)
            })?,
            TaskKind::Multilabel { shift } => self.numbers(series, *shift, |column, x| {
                let expected = "0 or 1, as of a multilabel task";
                let field = || format!("column {:?}", self.columns[column].name);
                if x == 0.0 || x == 1.0 { Ok(x) } else { Err(Error::invalid(field(), expected, x)) }
            })?,
        };
        Ok(FrameSequence { inputs, channels, targets })
    }

    /// Walks over a series and appends its frames; `see` gets the step after its frame, which is the third.
    pub fn walk(
        &self,
        series: &Series,
        frames: &mut Vec<f32>,
        mut see: impl FnMut(&Framer, usize, &[f32]),
    ) {
        let mut framer = Framer::of_series(self, series);
        let lead = self.lead();
        for step in 0..series.len() {
            let row = series.frame(step);
            let ahead = (step + lead < series.len()).then(|| series.frame(step + lead));
            let calendar = series.times.as_ref().and_then(|times| times.calendar(step));
            let start = frames.len();
            framer.push(row, ahead, calendar, frames);
            see(&framer, step, &frames[start..]);
        }
    }

    fn class_of(&self, set: &SeriesSet, series: &Series, classes: &[String]) -> Result<u32> {
        let name = series.class.and_then(|class| set.classes.get(class));
        let Some(name) = name else { return Ok(SequenceTargets::UNKNOWN) };
        let place = classes.iter().position(|class| class == name);
        let expected = || format!("one of {}, as in training", classes.join(", "));
        place.map(|class| class as u32).ok_or_else(|| Error::invalid("class", expected(), name))
    }

    fn labels(&self, series: &Series, shift: usize) -> Vec<u32> {
        let column = self.target_columns()[0];
        let label = |step: usize| {
            let label = (step + shift < series.len()).then(|| series.frame(step + shift)[column]);
            label.filter(|x| !x.is_nan()).map_or(SequenceTargets::UNKNOWN, |x| x as u32)
        };
        (0..series.len()).map(label).collect()
    }

    /// The targets of each step, as `number` has them; NaN where they are missing.
    fn numbers(
        &self,
        series: &Series,
        shift: usize,
        number: impl Fn(usize, f32) -> Result<f32>,
    ) -> Result<SequenceTargets> {
        let columns = self.target_columns();
        let mut values = Vec::with_capacity(series.len() * columns.len());
        for step in 0..series.len() {
            let row = (step + shift < series.len()).then(|| series.frame(step + shift));
            for &column in &columns {
                let x = row.map_or(f32::NAN, |row| row[column]);
                values.push(if x.is_nan() { x } else { number(column, x)? });
            }
        }
        Ok(SequenceTargets::Numbers { values, width: columns.len() })
    }

    /// Asks for nothing but what stands in `steps` of the series that a sequence was made of.
    pub fn limit(&self, sequence: &mut FrameSequence, steps: Range<usize>) {
        let len = sequence.len();
        match (&self.task, &mut sequence.targets) {
            (TaskKind::Forecast { horizon, .. }, SequenceTargets::Numbers { values, width }) => {
                for (place, x) in values.iter_mut().enumerate() {
                    let (step, ahead) = (place / *width, place % *width % horizon + 1);
                    if !steps.contains(&(step + ahead)) {
                        *x = f32::NAN;
                    }
                }
            }
            (_, targets) => {
                let lead = self.lead();
                (0..len)
                    .filter(|step| !steps.contains(&(step + lead)))
                    .for_each(|step| targets.hide(step));
            }
        }
    }

    /// Measures what the scaling alone does not say: sizes, the base of a forecast, its spread, naive answers.
    pub(super) fn measure(&mut self, set: &SeriesSet) -> Result<()> {
        if self.scale == SeriesScale::Series {
            self.sizes = self.measured_sizes(set);
        }
        self.naive = match &self.task {
            TaskKind::Classify { .. } | TaskKind::Label { .. } => {
                let mut counts = vec![0.0; self.classes().len()];
                for sequence in self.sequences(set)? {
                    let classes = match &sequence.targets {
                        SequenceTargets::Class(class) => std::slice::from_ref(class),
                        SequenceTargets::Classes(classes) => &classes[..],
                        SequenceTargets::Numbers { .. } => &[],
                    };
                    for &class in classes {
                        counts.get_mut(class as usize).into_iter().for_each(|count| *count += 1.0);
                    }
                }
                counts
            }
            TaskKind::Multilabel { .. } => {
                let share =
                    |&column: &usize| moments(set.series.iter().flat_map(|s| s.channel(column))).0;
                self.target_columns().iter().map(share).collect()
            }
            TaskKind::Forecast { .. } => self.measure_forecast(set)?,
            TaskKind::Regress { .. } => Vec::new(),
        };
        Ok(())
    }

    fn measured_sizes(&self, set: &SeriesSet) -> Scaling {
        let log = |column: usize| {
            let of_all = self.scaling.deviation(column);
            moments(
                set.series.iter().map(|series| log_size(of_all, moments(series.channel(column)).1)),
            )
        };
        Scaling::of((0..self.columns.len()).map(log).map(|(mean, d)| (mean, d.max(0.01))))
    }

    /// Takes the better of the naive forecasts as the base, and gives the mean absolute error of the seasonal one for each
    /// target.
    fn measure_forecast(&mut self, set: &SeriesSet) -> Result<Vec<f64>> {
        let longest = set.series.iter().map(Series::len).max().unwrap_or(0);
        let fits = longest > self.lead() + 1;
        let expected = format!("less than the {longest} steps that there are to train on, by two");
        Error::require(fits, "horizon", &expected, self.lead())?;
        let mut errors = Vec::new();
        for base in [ForecastBase::Last, ForecastBase::Season] {
            self.base = base;
            errors.push(self.base_errors(set));
        }
        let mean = |of: &[BaseErrors]| of.iter().map(|errors| errors.mean).sum::<f64>();
        let is_seasonal = self.season() > 1 && mean(&errors[1]) < mean(&errors[0]);
        self.base = if is_seasonal { ForecastBase::Season } else { ForecastBase::Last };
        let best = &errors[usize::from(is_seasonal)];
        self.spread = best.iter().map(|errors| errors.deviation.max(1e-6)).collect();
        Ok(self.naive_errors(set))
    }

    /// The mean absolute error of the naive forecast by a season, or by one step, for each target (Hyndman and Koehler's
    /// scale).
    fn naive_errors(&self, set: &SeriesSet) -> Vec<f64> {
        let of = |&column: &usize| {
            let (mut sum, mut count) = (0.0, 0u32);
            for series in &set.series {
                for step in self.season()..series.len() {
                    let error =
                        series.frame(step)[column] - series.frame(step - self.season())[column];
                    if !error.is_nan() {
                        sum += f64::from(error.abs());
                        count += 1;
                    }
                }
            }
            if count > 0 && sum > 0.0 { sum / f64::from(count) } else { 1.0 }
        };
        self.target_columns().iter().map(of).collect()
    }

    fn base_errors(&mut self, set: &SeriesSet) -> Vec<BaseErrors> {
        self.spread = vec![1.0; self.targets.len()];
        let (horizon, season) = (self.lead(), self.season());
        let columns = self.target_columns();
        let mut errors = vec![Vec::new(); columns.len()];
        for series in &set.series {
            self.walk(series, &mut Vec::new(), |framer, step, _| {
                for (target, (&column, errors)) in columns.iter().zip(&mut errors).enumerate() {
                    // where the season is known, so that both bases are judged by the same
                    let last = (series.len() - 1 - step).min(horizon);
                    for ahead in (1..=last).filter(|_| step + 1 >= season) {
                        let y = f64::from(series.frame(step + ahead)[column]);
                        let error = (y - framer.base(target, ahead)) / framer.spread(target);
                        errors.extend(Some(error.abs() as f32).filter(|error| !error.is_nan()));
                    }
                }
            });
        }
        errors.into_iter().map(BaseErrors::of).collect()
    }
}

/// Absolute errors of a base in units of the scaling.
struct BaseErrors {
    mean: f64,
    /// Deviation of a normal distribution whose errors have the same median: outages and the like do not count.
    deviation: f64,
}

impl BaseErrors {
    fn of(mut errors: Vec<f32>) -> Self {
        // the median of the absolute values of standard normal numbers
        const MEDIAN: f64 = 0.6745;
        errors.sort_unstable_by(f32::total_cmp);
        let (mean, _) = moments(errors.iter().map(|&error| f64::from(error)));
        let median = errors.get(errors.len() / 2).copied().unwrap_or(1.0);
        Self { mean, deviation: (f64::from(median) / MEDIAN).max(0.01 * mean) }
    }
}
