//! Answers as rows of a table.

use candle_tcn::models::SeriesModel;
use candle_tcn::series::{Missing, Series, SeriesSet, TaskKind};
use candle_tcn::{Error, Result};

/// Answers of all series.
pub enum Answers {
    /// For each series (rows, numbers); of a classification one row.
    Rows(Vec<Vec<f64>>),
    /// Forecasts of what comes after the last row.
    Future(Future),
}

/// Forecasts of what comes after the last row of each series.
pub struct Future {
    /// For each series (steps, targets, levels).
    pub values: Vec<Vec<f64>>,
    /// For each series the number of its last row.
    pub last: Vec<usize>,
}

impl Answers {
    /// Answers of every row, or of whole series.
    pub fn of_rows(model: &SeriesModel, set: &SeriesSet) -> Result<Self> {
        expect_known(model, set)?;
        set.series.iter().map(|series| model.answers(series)).collect::<Result<_>>().map(Self::Rows)
    }
}

/// Refuses missing values that training refused.
fn expect_known(model: &SeriesModel, set: &SeriesSet) -> Result<()> {
    match model.task.missing {
        Missing::Refuse => model.task.sequences(set).map(drop),
        _ => Ok(()),
    }
}

impl Future {
    /// The forecasts after the last row that has a value of a target; rows behind it say what is known ahead.
    pub fn of(model: &SeriesModel, set: &SeriesSet) -> Result<Self> {
        let columns = model.task.target_columns();
        let (mut values, mut last) = (Vec::new(), Vec::new());
        let width = model.task.out_channels();
        for (number, series) in (1..).zip(&set.series) {
            let known =
                |step: &usize| columns.iter().any(|&column| !series.frame(*step)[column].is_nan());
            let end = (0..series.len()).rev().find(known);
            let end = end.ok_or_else(|| {
                Error::invalid(format!("series {number}"), "a value of a target", "none")
            })?;
            let until =
                |series: &Series| SeriesSet { series: vec![cut(series, end + 1)], ..set.clone() };
            expect_known(model, &until(series))?;
            let known_ahead = !model.task.known.is_empty();
            let ahead = series.len() - end - 1;
            if known_ahead && ahead < model.task.lead() {
                let expected = format!(
                    "{} rows after the last value, for what is known ahead",
                    model.task.lead()
                );
                return Err(Error::invalid(format!("series {number}"), expected, ahead));
            }
            let answers = model.answers(series)?;
            values.push(answers[end * width..][..width].to_vec());
            last.push(end);
        }
        Ok(Self { values, last })
    }
}

/// The first steps of a series.
fn cut(series: &Series, steps: usize) -> Series {
    let mut part = series.clone();
    part.frames.truncate(steps * part.channels);
    part
}

/// Names of the numbers of an answer: of a row, or of a step of a forecast.
pub fn names(model: &SeriesModel, of_row: bool) -> Vec<String> {
    let task = &model.task;
    let levels = task.levels();
    let quantiles = |name: &str| -> Vec<String> {
        let middle = candle_tcn::train::middle_of(levels);
        let name_of = |(place, level): (usize, &f64)| match place == middle {
            true => name.to_string(),
            false => format!("{name} {}%", (level * 1e4).round() / 1e2),
        };
        levels.iter().enumerate().map(name_of).collect()
    };
    match &task.task {
        TaskKind::Classify { .. } => {
            let probability = |class: &String| format!("p({class})");
            ["class".into()].into_iter().chain(task.classes().iter().map(probability)).collect()
        }
        TaskKind::Label { .. } => vec![task.targets[0].clone(), "probability".into()],
        TaskKind::Multilabel { .. } | TaskKind::Regress { .. } => task.targets.clone(),
        TaskKind::Forecast { .. } if !of_row => {
            task.targets.iter().flat_map(|name| quantiles(name)).collect()
        }
        TaskKind::Forecast { horizon, .. } => {
            let steps = 1..=*horizon;
            let step = |ahead: usize| {
                task.targets.iter().flat_map(move |name| quantiles(&format!("{name}+{ahead}")))
            };
            steps.flat_map(step).collect()
        }
    }
}
