//! The end of a run on series: measures, picture, card, and what is printed.

use candle_tcn::files::names;
use candle_tcn::models::SeriesModel;
use candle_tcn::models::directory::read_config;
use candle_tcn::series::TaskKind;
use candle_tcn::train::{CardInfo, Outcome, RunDir, SeriesCard, SeriesScores, model_card};
use serde_json::json;

use super::super::finish::flatten;
use super::super::options::TrainArgs;
use super::super::start::Start;
use super::data::{Held, SeriesData};
use crate::flags::counted;
use crate::{print_result, series_report};

pub fn finish(
    args: &TrainArgs,
    (run, start, data): (&RunDir, &Start, &SeriesData),
    model: &SeriesModel,
    (parameters, outcome): (usize, &Outcome),
) -> anyhow::Result<()> {
    let held = data.held();
    let scores = held
        .as_ref()
        .map(|held| SeriesScores::measure(model, &held.set, held.fraction))
        .transpose()?;
    let mut drawn = None;
    if let (Some(held), Some(scores)) = (&held, &scores)
        && let Some((name, svg)) = series_report::picture(model, scores, &held.set, held.fraction)?
    {
        run.write(name, &svg)?;
        drawn = Some(name);
    }
    let part = held.as_ref().map_or("", |held| held.name);
    match run.owns_card() {
        true => write_card((run, start, data), model, scores.as_ref(), (part, outcome))?,
        false => say!("{} was edited and stays as it is", run.join(names::CARD).display()),
    }
    let dir = run.path().display();
    let measured = match (&held, &scores) {
        (Some(Held { name, .. }), Some(scores)) => {
            format!("on the {name} part:\n{}", series_report::text(model, scores))
        }
        _ => "nothing was held out: tcn eval measures it on other data".to_string(),
    };
    let picture = drawn.map_or(String::new(), |name| format!("; see {name} there"));
    let next = match (&held, model.task.task.clone()) {
        (None, _) | (_, TaskKind::Classify { .. }) => "eval --data FILE",
        _ => "predict --input FILE",
    };
    print_result(
        args.json,
        json!({
            "steps": outcome.steps,
            "answers": outcome.tokens,
            "parameters": parameters,
            "seconds": outcome.seconds,
            "valid_loss": outcome.valid_loss,
            "part": held.as_ref().map(|held| held.name),
            "scores": scores.as_ref().map(series_report::json),
            "out": run.path(),
        }),
        format_args!(
            "{} in {:.0} s; {measured}\nthe model is in {dir}{picture}; next: tcn {} --model {dir}{}",
            counted(outcome.steps, "step"),
            outcome.seconds,
            next.split(' ').next().unwrap_or_default(),
            &next[next.find(' ').unwrap_or(next.len())..],
        ),
    )
}

fn write_card(
    (run, start, data): (&RunDir, &Start, &SeriesData),
    model: &SeriesModel,
    scores: Option<&SeriesScores>,
    (part, outcome): (&str, &Outcome),
) -> anyhow::Result<()> {
    let config = read_config(run.join(names::CONFIG))?;
    let task = &model.task;
    let about = match &task.task {
        TaskKind::Classify { classes } => {
            format!("tells {} classes of series apart", classes.len())
        }
        TaskKind::Forecast { horizon, .. } => {
            format!("forecasts {} for {}", task.targets.join(", "), counted(horizon, "step"))
        }
        TaskKind::Regress { .. } => format!("gives {} at every step", task.targets.join(", ")),
        TaskKind::Label { .. } => {
            format!("gives one of {} labels at every step", task.classes().len())
        }
        TaskKind::Multilabel { .. } => {
            format!("says at every step which of {} labels hold", task.targets.len())
        }
    };
    let usage = match task.task {
        TaskKind::Classify { .. } => {
            "tcn eval --model DIR --data FILE\ntcn predict --model DIR --input FILE"
        }
        _ => "tcn predict --model DIR --input FILE\ntcn eval --model DIR --data FILE",
    };
    let summary = serde_json::to_value(&config)?;
    let card = model_card(&CardInfo {
        name: run.path().file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned()),
        model_type: config.model_type().to_string(),
        config: flatten(&summary),
        parameters: config.graph()?.parameter_count()?,
        receptive_field: config.geometry()?.receptive_field()?.total,
        data: data.files(),
        valid_loss: outcome.valid_loss,
        steps: outcome.steps,
        tokens: outcome.tokens,
        seconds: outcome.seconds,
        command: start.public_command(),
        usage: usage.into(),
        series: Some(SeriesCard {
            about,
            part: part.into(),
            naive: series_report::naive_name(model).into(),
            scores: scores.map(series_report::rows).unwrap_or_default(),
            columns: task.columns.iter().map(|column| column.name.clone()).collect(),
        }),
        ..CardInfo::default()
    });
    Ok(run.write(names::CARD, &card)?)
}
