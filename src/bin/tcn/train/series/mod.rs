//! `tcn train` on series: classes, forecasts, values and labels of steps.

mod data;
mod finish;
pub mod flags;

use candle_tcn::files::names;
use candle_tcn::models::directory::read_config;
use candle_tcn::models::{ModelConfig, SeriesModel};
use candle_tcn::series::{SeriesTask, TaskKind};
use candle_tcn::train::loss::Loss;
use candle_tcn::train::{BatchSource, Budget, RunDir, TrainConfig, Trainer, ValidSet, fit_bands};

use self::data::{SeriesData, batches, check_missing, fractions, history, model_of};
use super::claim::Claim;
use super::masked::Task;
use super::options::{SeriesUsual, TrainArgs};
use super::start::Start;
use super::watch::Watch;
use super::{computed_in, refuse_to_remove_inputs, run_dir, write_loss};
use crate::flags::counted;
use crate::{Interrupted, kernel, memory, signals};

/// Steps that a run has at the least, and passes over the data, where no flag says how long it is.
const LEAST_STEPS: usize = 600;
const PASSES: usize = 42;
const MOST_STEPS: usize = 5_000;

/// A run that begins or goes on.
struct SeriesRun {
    trainer: Trainer,
    run: RunDir,
    data: SeriesData,
    valid: ValidSet,
    task: SeriesTask,
    start: Start,
    _claim: Claim,
}

pub fn run(args: &TrainArgs, task: Option<Task>) -> anyhow::Result<()> {
    let SeriesRun { mut trainer, run, data, valid, mut task, start, _claim } = match task {
        Some(task) => begin(args, task)?,
        None => resume(args)?,
    };
    let parameters = trainer.params().count();
    if !args.loudness.quiet {
        let field = trainer.network().graph().stack()?.receptive_field()?.total;
        say!(
            "{parameters} parameters in {}, receptive field {field} steps; {}; in {}",
            computed_in(trainer.config().dtype),
            data.describe(),
            run.path().display(),
        );
    }
    let mut watch = Watch::new(None, &run, args.loudness)?.counting("answers");
    let outcome = trainer.run(&valid, &mut watch)?;
    watch.finish();
    write_loss(&run)?;
    if outcome.interrupted {
        say!("saved; continue with: tcn train --resume --out {}", run.path().display());
        return Err(Interrupted.into());
    }
    let mut model = SeriesModel::load(run.path(), kernel::chosen())?;
    let config = read_config(run.join(names::CONFIG))?;
    if task.levels().len() > 1 {
        let [_, held_out] = data.sequences(&task, history(&config, trainer.config().seq_len)?)?;
        fit_bands(&mut model, &held_out)?;
        task = model.task.clone();
        write_task(&run, &task)?;
    }
    finish::finish(args, (&run, &start, &data), &model, (parameters, &outcome))
}

fn begin(args: &TrainArgs, task: Task) -> anyhow::Result<SeriesRun> {
    let mut start = Start::new(args.source()?, args.base.public_name());
    start.series = Some(args.series.clone());
    start.task = Some(task);
    let claim = args.out.as_ref().filter(|out| out.is_dir());
    let claim = claim.map(|out| Claim::take(out)).transpose()?;
    match &args.out {
        Some(out) if args.force => refuse_to_remove_inputs(out, &start.source, None)?,
        Some(out) => RunDir::check_free(out)?,
        None => {}
    }
    let by_time = (task == Task::Forecast).then_some(true);
    let data = SeriesData::read(&start.source, &args.series, by_time, None)?;
    let mut made = args.series.task(task, data.set(), data.lacks_rows_alone())?;
    made.csv.time.clone_from(&data.time);
    check_missing(data.set(), &made)?;
    let parts = fractions(&made.task, start.source.valid_fraction, &args.series);
    let data = data.split(parts)?;
    let made = made.refit(&data.train_set())?;
    let usual = args.usual_pool(data.set(), &made);
    let model = model_of(args.series.with_pool(args.frames_config(&made)?, usual)?, &made)?;
    let mut config = config_of(args, &data, &made, &model)?;
    config.validate()?;
    config.check_freeze(&model.graph()?)?;
    memory::check_training(&model.graph()?, config.batch_size, config.seq_len, config.dtype)?;
    let sequences = data.sequences(&made, history(&model, config.seq_len)?)?;
    let stretch = args.series.stretch(&made);
    let (batches, valid) = batches(sequences, &model, &config, stretch)?;
    if !args.has_budget() {
        let steps = PASSES.saturating_mul(batches.steps_per_epoch());
        config.budget = Budget::Steps(steps.clamp(LEAST_STEPS, MOST_STEPS));
    }
    let loss = args.series.loss(&made)?;
    signals::expect_none()?;
    data.tell(&made);
    let name = format!("{}-{}", start.source.stem(), args.model_name_for(&made));
    let (claim, run) = run_dir(args, claim, &name)?;
    start.write(&run)?;
    write_task(&run, &made)?;
    let graph = model.graph()?;
    let trainer = Trainer::of_graph(config, graph, &model.to_json()?, batches, loss, run.clone())?;
    let trainer = trainer.with_kernel(kernel::chosen())?;
    Ok(SeriesRun { trainer, run, data, valid, task: made, start, _claim: claim })
}

/// The configuration of a run, but for its length where no flag says it.
fn config_of(
    args: &TrainArgs,
    data: &SeriesData,
    task: &SeriesTask,
    model: &ModelConfig,
) -> anyhow::Result<TrainConfig> {
    let longest = data.set().series.iter().map(|series| series.len()).max().unwrap_or(1);
    let is_whole = matches!(task.task, TaskKind::Classify { .. });
    let field = model.geometry()?.receptive_field()?.total;
    let window = if is_whole { longest } else { longest.min((2 * field).clamp(256, 4096)) };
    let usual = SeriesUsual { window, lr: if is_whole { 0.001 } else { 0.002 } };
    args.series_config(usual)
}

fn write_task(run: &RunDir, task: &SeriesTask) -> anyhow::Result<()> {
    Ok(run.write(names::TASK, &serde_json::to_string_pretty(task)?)?)
}

/// The run in `--out` as its last checkpoint left it.
fn resume(args: &TrainArgs) -> anyhow::Result<SeriesRun> {
    let super::Resumed { run, start, claim, moved } = super::open_to_resume(args)?;
    let flags = start.series.clone().unwrap_or_default();
    let task = SeriesModel::read_task(run.path())?;
    let by_time = (start.task == Some(Task::Forecast)).then_some(true);
    let data = SeriesData::read(&start.source, &flags, by_time, Some(&task))?;
    let parts = fractions(&task.task, start.source.valid_fraction, &flags);
    let data = data.split(parts)?;
    let model = read_config(run.join(names::CONFIG))?;
    let config = Trainer::config_of(&run)?;
    let sequences = data.sequences(&task, history(&model, config.seq_len)?)?;
    let stretch = flags.stretch(&task);
    let (batches, valid) = batches(sequences, &model, &config, stretch)?;
    let loss: Box<dyn Loss> = flags.loss(&task)?;
    let change = |config: &mut TrainConfig| args.change(config);
    let trainer =
        Trainer::resume_graph(run.clone(), model.graph()?, loss, change, |_| Ok(batches))?;
    let trainer = trainer.with_kernel(kernel::chosen())?;
    for (error, kept) in trainer.damaged() {
        say!(
            "{error}; kept as {}; going on from {}",
            kept.display(),
            counted(trainer.steps(), "step")
        );
    }
    if moved {
        start.write(&run)?;
    }
    Ok(SeriesRun { trainer, run, data, valid, task, start, _claim: claim })
}
