//! The flags of series, and the task that they make.

use candle_tcn::models::ModelConfig;
use candle_tcn::nn::Pool;
use candle_tcn::series::{CsvOptions, Missing, SeriesScale, SeriesSet, SeriesTask, TaskKind};
use candle_tcn::train::loss::{CrossEntropy, Loss, MultiLabel, PointLoss, Quantiles};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::super::masked::Task;
use crate::flags::expect_together;
use crate::usage_error;

/// Levels of a forecast that does not say which: a band of 80 % and its middle.
const LEVELS: [f64; 3] = [0.1, 0.5, 0.9];

/// Flags of tasks on series, as `run.json` keeps them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Series (--task classify, forecast, regress, label, multilabel)")]
pub struct SeriesArgs {
    /// Columns that are asked for (default: of a forecast all columns of numbers, else the last column)
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    target: Vec<String>,
    /// Column of the times (default: one named time, timestamp, date or datetime)
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// Column that numbers the rows, left out (one without a name always is)
    #[arg(long, value_name = "COLUMN")]
    index: Option<String>,
    /// Columns that are left out
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    ignore: Vec<String>,
    /// Column whose values tell several series in a table apart
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Columns that are known as far ahead as a forecast goes, such as holidays
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    known: Vec<String>,
    /// Let hour, weekday and month go in, of the times
    #[arg(long)]
    calendar: bool,
    /// Steps that a forecast goes ahead (default: 1)
    #[arg(long, value_name = "N")]
    pub horizon: Option<usize>,
    /// Steps of a season, such as 24 of hours: what a forecast is compared with, and may build on
    #[arg(long, value_name = "N")]
    season: Option<usize>,
    /// Levels of quantiles of a forecast (default: 0.1 0.5 0.9, with --loss none)
    #[arg(long, value_name = "Q", num_args = 1..)]
    quantiles: Vec<f64>,
    /// Steps from an input to its target, with --task regress, label and multilabel: 1 asks for the next step (default: 0,
    /// with --task multilabel 1)
    #[arg(long, value_name = "N")]
    shift: Option<usize>,
    /// Loss of numbers (default: of a forecast that of quantiles, else mse)
    #[arg(long, value_enum)]
    loss: Option<LossName>,
    /// Treatment of missing values (default: refuse; rows that are missing from a grid of times take the last values)
    #[arg(long, value_enum)]
    missing: Option<MissingName>,
    /// Scaling of numbers: none, set (by the training part), series (each by its own, for classify) or window[:N] (by the
    /// last N steps, for forecasts) (default: series for classify, window for forecast, none for multilabel, else set)
    #[arg(long, value_name = "KIND")]
    scale: Option<String>,
    /// The way in which the steps of a series become one, with --task classify (default: that of the network)
    #[arg(long, value_enum)]
    pool: Option<PoolName>,
    /// Multiply the numbers of a series by a factor from 1 - A to 1 + A, another one each time that it trains (default: 0.35)
    #[arg(long, value_name = "A")]
    stretch: Option<f64>,
    /// Let rare classes count as much as frequent ones
    #[arg(long)]
    class_weights: bool,
    /// Fraction of the data that neither trains nor chooses weights, and is measured in the end: the last part of each
    /// series of a forecast and of a single series, else as many series (default: 0.2 of a forecast, else 0)
    #[arg(long, value_name = "F")]
    pub test_fraction: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum LossName {
    /// Mean squared error
    Mse,
    /// Mean absolute error
    Mae,
    /// Squares up to a deviation of 1, absolute errors beyond
    Huber,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum MissingName {
    /// An error
    Refuse,
    /// The last value stands in
    Last,
    /// The same, and beside it goes in whether the value is known
    Mask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum PoolName {
    /// Mean over its steps
    Mean,
    /// Greatest number of each channel
    Max,
    /// Both, side by side
    MeanMax,
    /// Last step
    Last,
}

impl SeriesArgs {
    /// The parts of a table.
    pub fn csv(&self) -> CsvOptions {
        let ignore = self.ignore.iter().chain(&self.index).cloned().collect();
        let (time, group) = (self.time.clone(), self.group.clone());
        CsvOptions { time, group, ignore, ..CsvOptions::default() }
    }

    /// Refuses flags that belong to another task; `task` is none for language models.
    pub fn check(&self, task: Option<Task>) -> anyhow::Result<()> {
        let is = |tasks: &[Task]| task.is_some_and(|task| tasks.contains(&task));
        let (forecast, classify) = (is(&[Task::Forecast]), is(&[Task::Classify]));
        let steps = is(&[Task::Regress, Task::Label, Task::Multilabel]);
        let numbers = is(&[Task::Forecast, Task::Regress]);
        let classes = is(&[Task::Classify, Task::Label]);
        let of_series = "--task classify, forecast, regress, label or multilabel";
        expect_together(&[
            ("--time", self.time.is_some() && task.is_none(), of_series),
            ("--index", self.index.is_some() && task.is_none(), of_series),
            ("--ignore", !self.ignore.is_empty() && task.is_none(), of_series),
            ("--group", self.group.is_some() && task.is_none(), of_series),
            ("--calendar", self.calendar && task.is_none(), of_series),
            ("--missing", self.missing.is_some() && task.is_none(), of_series),
            ("--scale", self.scale.is_some() && task.is_none(), of_series),
            ("--test-fraction", self.test_fraction.is_some() && task.is_none(), of_series),
            (
                "--target",
                !self.target.is_empty() && !forecast && !steps,
                "--task forecast, regress, label or multilabel",
            ),
            ("--known", !self.known.is_empty() && !forecast, "--task forecast"),
            ("--horizon", self.horizon.is_some() && !forecast, "--task forecast"),
            ("--season", self.season.is_some() && !forecast, "--task forecast"),
            ("--quantiles", !self.quantiles.is_empty() && !forecast, "--task forecast"),
            ("--shift", self.shift.is_some() && !steps, "--task regress, label or multilabel"),
            ("--loss", self.loss.is_some() && !numbers, "--task forecast or regress"),
            ("--pool", self.pool.is_some() && !classify, "--task classify"),
            ("--stretch", self.stretch.is_some() && !classify, "--task classify"),
            ("--class-weights", self.class_weights && !classes, "--task classify or label"),
        ])?;
        expect_together(&[(
            "--loss",
            self.loss.is_some() && !self.quantiles.is_empty(),
            "a forecast of points, without --quantiles",
        )])
    }

    /// The question.
    fn kind(&self, task: Task, set: &SeriesSet) -> anyhow::Result<TaskKind> {
        let shift = self.shift.unwrap_or(usize::from(task == Task::Multilabel));
        Ok(match task {
            Task::Classify if set.classes.is_empty() => {
                bail_usage!("--task classify: expected series with a class each, found none")
            }
            Task::Classify => TaskKind::Classify { classes: set.classes.clone() },
            Task::Regress => TaskKind::Regress { shift },
            Task::Label => TaskKind::Label { shift },
            Task::Multilabel => TaskKind::Multilabel { shift },
            _ => {
                let levels = match (self.loss, &self.quantiles[..]) {
                    (Some(_), _) => Vec::new(),
                    (None, []) => LEVELS.to_vec(),
                    (None, levels) => Quantiles::new(levels.to_vec())?.levels().to_vec(),
                };
                let (horizon, season) = (self.horizon.unwrap_or(1), self.season);
                TaskKind::Forecast { horizon, season, levels }
            }
        })
    }

    /// The task before it is fitted; `lacks_rows` says that whole rows are missing from a grid of times, and nothing else.
    pub fn task(
        &self,
        task: Task,
        set: &SeriesSet,
        lacks_rows: bool,
    ) -> anyhow::Result<SeriesTask> {
        let mut made = SeriesTask::of(set, self.kind(task, set)?)?;
        if task == Task::Multilabel && self.target.is_empty() {
            made.ask_for(set.columns.iter().map(|column| column.name.clone()).collect());
        }
        if !self.target.is_empty() {
            let is_there = |name: &&String| set.columns.iter().any(|column| column.name == **name);
            if let Some(name) = self.target.iter().find(|name| !is_there(name)) {
                let names: Vec<&str> = set.columns.iter().map(|column| &column.name[..]).collect();
                bail_usage!("--target: expected one of {}, found {name}", names.join(", "));
            }
            made.ask_for(self.target.clone());
        }
        made.known.clone_from(&self.known);
        made.calendar = self.calendar;
        if self.calendar
            && set
                .series
                .iter()
                .any(|series| series.times.as_ref().is_none_or(|times| times.calendar(0).is_none()))
        {
            bail_usage!(
                "--calendar: expected a column of dates or times (--time COLUMN), found none"
            );
        }
        made.missing = match self.missing {
            // a grid with holes is no surprise, a value that is missing is one
            None if lacks_rows => Missing::Last,
            None | Some(MissingName::Refuse) => Missing::Refuse,
            Some(MissingName::Last) => Missing::Last,
            Some(MissingName::Mask) => Missing::LastAndMask,
        };
        if let Some(scale) = &self.scale {
            made.scale = self.read_scale(scale, made.scale)?;
        }
        made.csv = self.csv();
        Ok(made)
    }

    fn read_scale(&self, text: &str, usual: SeriesScale) -> anyhow::Result<SeriesScale> {
        let (name, steps) =
            text.split_once(':').map_or((text, None), |(name, steps)| (name, Some(steps)));
        Ok(match (name, steps.map(str::parse), usual) {
            ("none", None, _) => SeriesScale::None,
            ("set", None, _) => SeriesScale::Set,
            ("series", None, _) => SeriesScale::Series,
            ("window", None, SeriesScale::Window(usual)) => SeriesScale::Window(usual),
            ("window", Some(Ok(steps)), _) => SeriesScale::Window(steps),
            _ => bail_usage!(
                "--scale: expected none, set, series, or of a forecast window or window:N, found {text}"
            ),
        })
    }

    /// The share by which series are stretched while a task trains, and the number of their channels.
    pub fn stretch(&self, task: &SeriesTask) -> (f64, usize) {
        const USUAL: f64 = 0.35;
        let is_number = |name: &String| {
            let mut columns = task.columns.iter().filter(|column| column.name == *name);
            columns.all(|column| column.is_of_numbers())
        };
        match task.task {
            // numbers stand before all that is derived of them
            TaskKind::Classify { .. } if task.inputs.iter().all(is_number) => {
                (self.stretch.unwrap_or(USUAL), task.inputs.len())
            }
            _ => (0.0, 0),
        }
    }

    /// The network with the pool that is asked for, else with the usual one, where there is one.
    pub fn with_pool(
        &self,
        model: ModelConfig,
        usual: Option<PoolName>,
    ) -> anyhow::Result<ModelConfig> {
        let Some(pool) = self.pool.or(usual) else { return Ok(model) };
        let ModelConfig::TemporalConvNet(mut network) = model else {
            return Err(usage_error("--pool: expected a network on frames (temporal_conv_net)"));
        };
        network.pool = Some(match pool {
            PoolName::Mean => Pool::Mean,
            PoolName::Max => Pool::Max,
            PoolName::MeanMax => Pool::MeanMax,
            PoolName::Last => Pool::Last,
        });
        Ok(ModelConfig::TemporalConvNet(network))
    }

    /// The loss of a task.
    pub fn loss(&self, task: &SeriesTask) -> anyhow::Result<Box<dyn Loss>> {
        Ok(match (&task.task, self.loss) {
            (TaskKind::Classify { .. } | TaskKind::Label { .. }, _) => Box::new(CrossEntropy {
                ignored: Some(candle_tcn::series::SequenceTargets::UNKNOWN),
                class_weights: self.class_weights.then(|| balanced(&task.naive)),
            }),
            (TaskKind::Multilabel { .. }, _) => Box::new(MultiLabel),
            (TaskKind::Forecast { levels, .. }, None) if !levels.is_empty() => {
                Box::new(Quantiles::new(levels.clone())?)
            }
            (_, None | Some(LossName::Mse)) => Box::new(PointLoss::Mse),
            (_, Some(LossName::Mae)) => Box::new(PointLoss::Mae),
            (_, Some(LossName::Huber)) => Box::new(PointLoss::Huber { delta: 1.0 }),
        })
    }
}

/// Weights by which each class counts as much as the others, of mean 1 over what there is.
fn balanced(counts: &[f64]) -> Vec<f64> {
    let present = counts.iter().filter(|&&count| count > 0.0).count().max(1) as f64;
    let total: f64 = counts.iter().sum();
    counts.iter().map(|&count| if count > 0.0 { total / (present * count) } else { 1.0 }).collect()
}
