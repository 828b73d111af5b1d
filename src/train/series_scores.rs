//! Measures of a network of series, beside those of a naive answer.

use super::measures::{Confusion, ForecastErrors};
use crate::models::SeriesModel;
use crate::series::{SequenceTargets, SeriesSet, TaskKind};
use crate::{Error, Result};

/// Measures of a network of series on data, each beside that of a naive answer.
#[derive(Debug, Clone)]
pub enum SeriesScores {
    /// Of classes, of series or of steps.
    Classes {
        /// Counts of the answers for each.
        confusion: Confusion,
        /// Mean negative log-probability of the right class.
        nll: f64,
        /// The share that is right of saying the most frequent class of training always.
        naive: f64,
    },
    /// Of several labels that may hold at once.
    Labels {
        /// Negative log-likelihood of a frame.
        nll: f64,
        /// The same of the shares of training.
        naive: f64,
        /// Number of frames.
        frames: u64,
    },
    /// Of numbers.
    Numbers(Vec<NumberScores>),
}

/// Measures of one target.
#[derive(Debug, Clone)]
pub struct NumberScores {
    /// Its name.
    pub target: String,
    /// Errors of the network; of quantiles of the middle one.
    pub errors: ForecastErrors,
    /// Errors of the naive answer at the same places: the value of a season before, or the last one; of a regression the
    /// mean of training.
    pub naive: ForecastErrors,
    /// Mean absolute error of the seasonal naive forecast in training, by which errors are scaled; of forecasts.
    pub scale: Option<f64>,
    /// Values that lay between the outer quantiles, of how many.
    pub covered: Option<(u64, u64)>,
}

impl NumberScores {
    /// Mean absolute scaled error of the network and of the naive forecast.
    ///
    /// # References
    /// As [`ForecastErrors::mase`].
    pub fn mase(&self) -> Option<(f64, f64)> {
        self.scale.map(|scale| (self.errors.mae() / scale, self.naive.mae() / scale))
    }
}

impl SeriesScores {
    /// Measures a network on the last `fraction` of each series (all of it: 1), every forecast whose steps all lie in it
    /// and are known.
    ///
    /// # Errors
    /// [`Error::Invalid`] where nothing can be measured; those of the network.
    pub fn measure(model: &SeriesModel, set: &SeriesSet, fraction: f64) -> Result<Self> {
        let scores = match &model.task.task {
            TaskKind::Classify { .. } | TaskKind::Label { .. } => classes(model, set, fraction)?,
            TaskKind::Multilabel { .. } => labels(model, set, fraction)?,
            TaskKind::Forecast { .. } => forecasts(model, set, fraction)?,
            TaskKind::Regress { .. } => numbers(model, set, fraction)?,
        };
        let found = match &scores {
            Self::Classes { confusion, .. } => confusion.total(),
            Self::Labels { frames, .. } => *frames,
            Self::Numbers(targets) => targets.iter().map(|target| target.errors.count()).sum(),
        };
        let expected = match model.task.lead() {
            0 => "targets to compare with".to_string(),
            lead => format!("series with targets in more than {lead} steps"),
        };
        Error::require(found > 0, "series", &expected, "none")?;
        Ok(scores)
    }
}

/// The first step of the last part of a series.
pub fn start_of(steps: usize, fraction: f64) -> usize {
    steps - ((steps as f64 * fraction).round() as usize).min(steps)
}

fn classes(model: &SeriesModel, set: &SeriesSet, fraction: f64) -> Result<SeriesScores> {
    let count = model.task.classes().len();
    let (mut confusion, mut nats) = (Confusion::new(count), 0.0);
    let likeliest = likeliest_of(&model.task.naive);
    let mut naive = 0u64;
    let sequences = model.task.sequences(set)?;
    for (series, sequence) in set.series.iter().zip(sequences) {
        let answers = model.answers(series)?;
        let (targets, start) = match &sequence.targets {
            SequenceTargets::Class(class) => (std::slice::from_ref(class), 0),
            SequenceTargets::Classes(classes) => (&classes[..], start_of(series.len(), fraction)),
            SequenceTargets::Numbers { .. } => continue,
        };
        let steps = targets.iter().zip(answers.chunks_exact(count)).skip(start);
        for (&class, answer) in steps.filter(|(class, _)| **class != SequenceTargets::UNKNOWN) {
            confusion.add(class as usize, likeliest_of(answer))?;
            nats -= answer[class as usize].max(f64::MIN_POSITIVE).ln();
            naive += u64::from(class as usize == likeliest);
        }
    }
    let total = confusion.total().max(1) as f64;
    Ok(SeriesScores::Classes { confusion, nll: nats / total, naive: naive as f64 / total })
}

/// The place of the greatest probability, the first of equal ones.
pub fn likeliest_of(values: &[f64]) -> usize {
    let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(0, |(i, _)| i)
}

fn labels(model: &SeriesModel, set: &SeriesSet, fraction: f64) -> Result<SeriesScores> {
    let (mut nll, mut naive, mut frames) = (0.0, 0.0, 0u64);
    let nats = |p: f64, on: bool| -(if on { p } else { 1.0 - p }).max(f64::MIN_POSITIVE).ln();
    // a label that training never has is not impossible
    let shares: Vec<f64> = model.task.naive.iter().map(|p| p.clamp(1e-4, 1.0 - 1e-4)).collect();
    let sequences = model.task.sequences(set)?;
    for (series, sequence) in set.series.iter().zip(sequences) {
        let SequenceTargets::Numbers { values, width } = &sequence.targets else { continue };
        let logits = model.outputs(&sequence)?;
        let steps = values.chunks_exact(*width).zip(logits.chunks_exact(*width));
        for (targets, logits) in steps.skip(start_of(series.len(), fraction)) {
            if targets.iter().any(|x| x.is_nan()) {
                continue;
            }
            frames += 1;
            for ((&on, &logit), &share) in targets.iter().zip(logits).zip(&shares) {
                let logit = f64::from(if on == 1.0 { logit } else { -logit });
                nll += (-logit).max(0.0) + (-logit.abs()).exp().ln_1p();
                naive += nats(share, on == 1.0);
            }
        }
    }
    let count = frames.max(1) as f64;
    Ok(SeriesScores::Labels { nll: nll / count, naive: naive / count, frames })
}

fn empty_scores(model: &SeriesModel) -> Vec<NumberScores> {
    let is_forecast = matches!(model.task.task, TaskKind::Forecast { .. });
    let bands = is_forecast && model.task.levels().len() > 1;
    let scores = |(i, target): (usize, &String)| NumberScores {
        target: target.clone(),
        errors: ForecastErrors::default(),
        naive: ForecastErrors::default(),
        scale: is_forecast.then(|| model.task.naive.get(i).copied().unwrap_or(1.0)),
        covered: bands.then_some((0, 0)),
    };
    model.task.targets.iter().enumerate().map(scores).collect()
}

fn numbers(model: &SeriesModel, set: &SeriesSet, fraction: f64) -> Result<SeriesScores> {
    let mut scores = empty_scores(model);
    let (columns, shift) = (model.task.target_columns(), model.task.lead());
    for series in &set.series {
        let answers = model.answers(series)?;
        let start = start_of(series.len(), fraction).max(shift);
        for step in start..series.len() {
            for (target, (score, &column)) in scores.iter_mut().zip(&columns).enumerate() {
                let value = f64::from(series.frame(step)[column]);
                score.errors.add(&[answers[(step - shift) * columns.len() + target]], &[value]);
                score.naive.add(&[model.task.scaling.mean(column)], &[value]);
            }
        }
    }
    Ok(SeriesScores::Numbers(scores))
}

fn forecasts(model: &SeriesModel, set: &SeriesSet, fraction: f64) -> Result<SeriesScores> {
    let mut scores = empty_scores(model);
    let (columns, horizon) = (model.task.target_columns(), model.task.lead());
    let levels = model.task.levels();
    let middle = middle_of(levels);
    for series in &set.series {
        let answers = model.answers(series)?;
        // of the first forecast all steps lie in the part
        let start = start_of(series.len(), fraction).max(1) - 1;
        let origins = start..(series.len() + 1).saturating_sub(horizon + 1);
        let width = horizon * columns.len() * levels.len();
        model.task.walk(series, &mut Vec::new(), |framer, step, _| {
            if !origins.contains(&step) {
                return;
            }
            let answer = &answers[step * width..][..width];
            for ahead in 1..=horizon {
                for (target, (score, &column)) in scores.iter_mut().zip(&columns).enumerate() {
                    let value = f64::from(series.frame(step + ahead)[column]);
                    let quantiles = ((ahead - 1) * columns.len() + target) * levels.len();
                    let quantiles = &answer[quantiles..][..levels.len()];
                    score.add(quantiles, middle, framer.naive(target, ahead), value);
                }
            }
        });
    }
    Ok(SeriesScores::Numbers(scores))
}

/// The place of the level that is nearest to a half.
pub fn middle_of(levels: &[f64]) -> usize {
    let nearest =
        levels.iter().enumerate().min_by(|a, b| (a.1 - 0.5).abs().total_cmp(&(b.1 - 0.5).abs()));
    nearest.map_or(0, |(place, _)| place)
}

impl NumberScores {
    fn add(&mut self, quantiles: &[f64], middle: usize, naive: f64, value: f64) {
        if value.is_nan() || naive.is_nan() || quantiles.iter().any(|x| x.is_nan()) {
            return;
        }
        self.errors.add(&[quantiles[middle]], &[value]);
        self.naive.add(&[naive], &[value]);
        if let Some((inside, all)) = &mut self.covered {
            let outer = quantiles[0]..=quantiles[quantiles.len() - 1];
            *inside += u64::from(outer.contains(&value));
            *all += 1;
        }
    }
}

/// Corrects the quantiles of a forecast on sequences that training has not seen, whose targets are in units of the spread:
/// each level then holds there.
///
/// # Errors
/// Those of the network.
pub fn fit_bands(
    model: &mut SeriesModel,
    sequences: &[crate::series::FrameSequence],
) -> Result<()> {
    let levels = model.task.levels().to_vec();
    if levels.len() < 2 {
        return Ok(());
    }
    let mut misses: Vec<Vec<f64>> = vec![Vec::new(); levels.len()];
    for sequence in sequences {
        let SequenceTargets::Numbers { values, .. } = &sequence.targets else { continue };
        let outputs = model.outputs(sequence)?;
        for (target, outputs) in values.iter().zip(outputs.chunks_exact(levels.len())) {
            for (misses, output) in misses.iter_mut().zip(outputs).filter(|_| !target.is_nan()) {
                misses.push(f64::from(target - output));
            }
        }
    }
    if misses[0].is_empty() {
        return Ok(());
    }
    let bands = misses.iter_mut().zip(&levels).map(|(misses, level)| {
        misses.sort_unstable_by(f64::total_cmp);
        let place = (level * misses.len() as f64) as usize;
        misses.get(place.min(misses.len().saturating_sub(1))).copied().unwrap_or(0.0)
    });
    model.task.bands = crate::series::Bands(bands.collect());
    Ok(())
}
