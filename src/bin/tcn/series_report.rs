//! Measures of a network of series, as text, JSON and a picture.

use candle_tcn::Result;
use candle_tcn::files::names;
use candle_tcn::models::SeriesModel;
use candle_tcn::plot::{ForecastPath, confusion_svg, forecast_svg};
use candle_tcn::series::{SeriesSet, TaskKind};
use candle_tcn::train::{NumberScores, SeriesScores, middle_of, start_of};
use serde_json::{Value, json};

/// Forecasts that a picture shows one after the other, and steps before the first.
const PATHS: usize = 6;
const BEFORE: usize = 3;

/// The measures, name and value, each beside that of a naive answer.
pub fn rows(scores: &SeriesScores) -> Vec<[String; 3]> {
    let share = |x: f64| format!("{x:.4}");
    let row = |name: &str, ours: String, naive: String| [name.to_string(), ours, naive];
    match scores {
        SeriesScores::Classes { confusion, nll, naive } => vec![
            row("accuracy", share(confusion.accuracy()), share(*naive)),
            row("balanced accuracy", share(confusion.balanced_accuracy()), String::new()),
            row("macro F1", share(confusion.macro_f1()), String::new()),
            row("nats per answer", share(*nll), String::new()),
        ],
        SeriesScores::Labels { nll, naive, .. } => {
            vec![row("nats per frame", share(*nll), share(*naive))]
        }
        SeriesScores::Numbers(targets) => {
            let mut rows = Vec::new();
            for scores in targets {
                let name = |measure: &str| match targets.len() {
                    1 => measure.to_string(),
                    _ => format!("{}: {measure}", scores.target),
                };
                let number = |x: f64| {
                    format!("{x:.4e}").parse::<f64>().map_or(x.to_string(), |x| x.to_string())
                };
                let pairs = [
                    ("MAE", scores.errors.mae(), scores.naive.mae()),
                    ("RMSE", scores.errors.rmse(), scores.naive.rmse()),
                    ("MSE", scores.errors.rmse().powi(2), scores.naive.rmse().powi(2)),
                ];
                rows.extend(pairs.map(|(measure, ours, naive)| {
                    row(&name(measure), number(ours), number(naive))
                }));
                if let Some((ours, naive)) = scores.mase() {
                    rows.push(row(&name("MASE"), share(ours), share(naive)));
                }
                if let Some((inside, all)) = scores.covered {
                    let covered = format!("{:.1}%", 100.0 * inside as f64 / all.max(1) as f64);
                    rows.push(row(&name("inside the band"), covered, String::new()));
                }
            }
            rows
        }
    }
}

/// The naive answer, in words.
pub fn naive_name(model: &SeriesModel) -> &'static str {
    match model.task.task {
        TaskKind::Classify { .. } | TaskKind::Label { .. } => "most frequent class",
        TaskKind::Multilabel { .. } => "shares in training",
        TaskKind::Regress { .. } => "mean in training",
        TaskKind::Forecast { season: Some(_), .. } => "a season before",
        TaskKind::Forecast { .. } => "last value",
    }
}

/// The measures as lines.
pub fn text(model: &SeriesModel, scores: &SeriesScores) -> String {
    let rows = rows(scores);
    let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    let lines = rows.iter().map(|[name, ours, naive]| {
        let naive = if naive.is_empty() {
            String::new()
        } else {
            format!("   ({}: {naive})", naive_name(model))
        };
        format!("{name:width$}  {ours}{naive}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The measures as JSON.
pub fn json(scores: &SeriesScores) -> Value {
    match scores {
        SeriesScores::Classes { confusion, nll, naive } => {
            let classes = 0..confusion.classes();
            let counts: Vec<Vec<u64>> = classes
                .clone()
                .map(|class| classes.clone().map(|said| confusion.count(class, said)).collect())
                .collect();
            json!({
                "count": confusion.total(),
                "accuracy": confusion.accuracy(),
                "balanced_accuracy": confusion.balanced_accuracy(),
                "macro_f1": confusion.macro_f1(),
                "nll": nll,
                "naive_accuracy": naive,
                "confusion": counts,
            })
        }
        SeriesScores::Labels { nll, naive, frames } => {
            json!({"count": frames, "nll": nll, "naive_nll": naive})
        }
        SeriesScores::Numbers(targets) => {
            let one = |scores: &NumberScores| {
                let mut value = json!({
                    "target": scores.target,
                    "count": scores.errors.count(),
                    "mae": scores.errors.mae(),
                    "rmse": scores.errors.rmse(),
                    "naive_mae": scores.naive.mae(),
                    "naive_rmse": scores.naive.rmse(),
                });
                if let Some((ours, naive)) = scores.mase() {
                    (value["mase"], value["naive_mase"]) = (ours.into(), naive.into());
                }
                if let Some((inside, all)) = scores.covered {
                    value["covered"] = (inside as f64 / all.max(1) as f64).into();
                }
                value
            };
            json!({"targets": targets.iter().map(one).collect::<Vec<_>>()})
        }
    }
}

/// The picture of an evaluation, and the file that it goes to in a run.
pub fn picture(
    model: &SeriesModel,
    scores: &SeriesScores,
    set: &SeriesSet,
    fraction: f64,
) -> Result<Option<(&'static str, String)>> {
    Ok(match scores {
        SeriesScores::Classes { confusion, .. } => {
            let about = format!(
                "{} answers, {:.1}% right",
                confusion.total(),
                100.0 * confusion.accuracy()
            );
            let count = |class, said| confusion.count(class, said);
            Some((names::CONFUSION, confusion_svg(&about, model.task.classes(), &count)?))
        }
        SeriesScores::Numbers(_) if matches!(model.task.task, TaskKind::Forecast { .. }) => {
            Some((names::FORECAST, forecast_picture(model, set, fraction)?))
        }
        _ => None,
    })
}

/// The first target of the first series that is long enough: forecasts one after the other, up to the end.
fn forecast_picture(model: &SeriesModel, set: &SeriesSet, fraction: f64) -> Result<String> {
    let (task, horizon) = (&model.task, model.task.lead());
    let long = |series: &&candle_tcn::series::Series| series.len() > horizon;
    let Some(series) = set.series.iter().find(long) else {
        return forecast_svg("", "no series is longer than the horizon", (&[], 0), &[], &|_| {
            String::new()
        });
    };
    let column = task.target_columns()[0];
    let answers = model.answers(series)?;
    let (levels, targets) = (task.levels(), task.targets.len());
    let (middle, width) = (middle_of(levels), horizon * targets * levels.len());
    let start = start_of(series.len(), fraction).max(1);
    let last = series.len() - horizon;
    let starts = (0..PATHS.max(200 / horizon.max(1)))
        .map_while(|i| last.checked_sub(i * horizon))
        .filter(|&at| at >= start);
    let mut starts: Vec<usize> = starts.collect();
    if starts.is_empty() {
        starts.push(last.max(1));
    }
    starts.reverse();
    let paths = starts.iter().map(|&start| {
        let answer = &answers[(start - 1) * width..][..width];
        let steps = answer.chunks_exact(targets * levels.len());
        let values = steps.map(|step| [step[0], step[middle], step[levels.len() - 1]]).collect();
        ForecastPath { start, values }
    });
    let paths: Vec<ForecastPath> = paths.collect();
    let first =
        starts[0].saturating_sub(BEFORE * horizon.max(task.season()).min(200)).min(starts[0]);
    let truth: Vec<f64> =
        (first..series.len()).map(|step| f64::from(series.frame(step)[column])).collect();
    let steps = if horizon == 1 { "one step".to_string() } else { format!("{horizon} steps") };
    let band = match levels {
        [low, .., high] => {
            format!(", with the band from {:.0}% to {:.0}%", low * 100.0, high * 100.0)
        }
        _ => String::new(),
    };
    let label = |step: usize| match &series.times {
        Some(times) => times.text(step.min(times.len().saturating_sub(1))).unwrap_or_default(),
        None => step.to_string(),
    };
    let about = format!("held out (line), and forecasts {steps} ahead{band}");
    forecast_svg(&task.targets[0], &about, (&truth, first), &paths, &label)
}
