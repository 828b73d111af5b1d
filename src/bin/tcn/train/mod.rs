//! `tcn train`: a language model from text files.

mod data;
mod options;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use candle_tcn::files::Lock;
use candle_tcn::generate::{GenerateConfig, Generator, SamplerConfig};
use candle_tcn::models::{Model, ModelConfig};
use candle_tcn::nn::StepDtype;
use candle_tcn::text::Tokenizer;
use candle_tcn::train::{CardInfo, Outcome, RunDir, Trainer, model_card};
use candle_tcn::{Error, LoadedModel};
use candle_tcn::{model_dir, plot, train};
use serde_json::json;

use crate::progress::on_ctrl_c;
use crate::{Interrupted, memory, print_line, usage_error};
use data::{Data, Source};
pub use options::Args;
use watch::Watch;

/// Checkpoints that stay.
const KEEP: usize = 2;

pub fn run(args: Args) -> anyhow::Result<()> {
    let interrupted = on_ctrl_c("finishing this step, then saving")?;
    let (mut trainer, run, data, command, _lock) = if args.resume {
        resume(&args)?
    } else {
        begin(&args, &interrupted)?
    };
    let parameters = trainer.params().count();
    let field = trainer.model_config().geometry()?.receptive_field()?.total;
    say!(
        "{} parameters, receptive field {field}; {} training and {} validation tokens of {}; in {}",
        parameters,
        data.train_tokens,
        data.valid.tokens.len(),
        data.source.describe(),
        run.path().display(),
    );
    let mut watch = Watch::new(&data.tokenizer, &run, interrupted)?;
    let outcome = trainer.run(&data.valid, &mut watch)?;
    watch.finish();
    write_loss(&run)?;
    write_card(&run, trainer.model_config(), &outcome, &data, &command)?;
    report(&args, &run, parameters, &outcome)?;
    if outcome.interrupted {
        say!(
            "saved; continue with: tcn train --resume --out {}",
            run.path().display()
        );
        return Err(Interrupted.into());
    }
    Ok(())
}

/// The run, its text, the command that began it, and what holds its directory.
type Started = (Trainer, RunDir, Data, String, Option<Lock>);

fn begin(args: &Args, interrupted: &AtomicBool) -> anyhow::Result<Started> {
    let source = args.source()?;
    let config = args.train_config()?;
    config.validate()?;
    let model = args.model_config()?;
    let spec = args.tokenizer.parse()?;
    // refused before any work, and nothing of an old run is touched before all else is known to be right
    if let (Some(out), false) = (&args.out, args.force) {
        RunDir::check_free(out)?;
    }
    let name = format!("{}-{}", source.stem(), args.model_name());
    let (data, tokens) = Data::read(source, data::Tokens::Make(&spec))?;
    let model = model.with_vocab_size(data.tokenizer.vocab_size());
    model.validate()?;
    model.geometry()?.receptive_field()?;
    memory::check_training(&model, config.batch_size, config.seq_len, config.dtype)?;
    let batches = config
        .lay_out(tokens)
        .with_context(|| data.source.describe())?;
    let command = command_line();
    let started =
        serde_json::to_string_pretty(&json!({ "source": data.source, "command": command }))?;
    if interrupted.load(Ordering::SeqCst) {
        return Err(Interrupted.into());
    }
    let (out, lock) = match &args.out {
        Some(out) => (out.clone(), Some(claim(out)?)),
        None => fresh_dir(&name)?,
    };
    if args.force {
        RunDir::clear(&out)?;
    }
    let run = RunDir::create(&out, KEEP)?;
    run.write(RunDir::STARTED, &started)?;
    data.tokenizer.save(run.join(model_dir::TOKENIZER))?;
    let trainer = Trainer::new(config, model, batches, run.clone())?;
    Ok((trainer, run, data, command, lock))
}

/// The command line as it can be typed again.
fn command_line() -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    let quote = |argument: std::ffi::OsString| {
        let text = argument.to_string_lossy().into_owned();
        match !text.is_empty() && text.chars().all(plain) {
            true => text,
            false => format!("'{}'", text.replace('\'', "'\\''")),
        }
    };
    std::env::args_os().map(quote).collect::<Vec<_>>().join(" ")
}

fn resume(args: &Args) -> anyhow::Result<Started> {
    let out = args
        .out
        .as_ref()
        .ok_or_else(|| usage_error("--resume: expected --out DIR, the run to continue"))?;
    // before anything of the run is looked at
    let lock = match out.is_dir() {
        true => Some(claim(out)?),
        false => None,
    };
    let run = RunDir::open(out, KEEP)?;
    let file = run.join(RunDir::STARTED);
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let started: serde_json::Value =
        serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let source: Source = serde_json::from_value(started["source"].clone())
        .with_context(|| format!("{}: no source of the data", file.display()))?;
    let command = started["command"].as_str().unwrap_or_default().to_string();
    let tokenizer = run.join(model_dir::TOKENIZER);
    let (data, tokens) = Data::read(source, data::Tokens::Load(&tokenizer))?;
    let trainer = Trainer::resume(tokens, run.clone(), |config| args.change(config))?;
    Ok((trainer, run, data, command, lock))
}

/// Makes `runs/NAME`, or with a number where that is taken, and claims it.
fn fresh_dir(name: &str) -> anyhow::Result<(PathBuf, Option<Lock>)> {
    let runs = Path::new("runs");
    std::fs::create_dir_all(runs).map_err(|e| Error::io(runs, e))?;
    let mut number = 1;
    loop {
        let path = match number {
            1 => runs.join(name),
            n => runs.join(format!("{name}-{n}")),
        };
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok((path.clone(), Some(claim(&path)?))),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(Error::io(&path, e).into()),
        }
    }
}

/// Makes the directory of a run and holds it for this process.
fn claim(path: &Path) -> anyhow::Result<Lock> {
    std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
    Lock::take(path)?
        .ok_or_else(|| Error::file(path, "in use by another run; choose another --out").into())
}

fn write_loss(run: &RunDir) -> candle_tcn::Result<()> {
    let records = train::read_metrics(run.join(RunDir::METRICS))?;
    run.write(RunDir::PICTURE, &plot::loss_svg(&records)?)
}

/// What a model writes by itself: the same text for the same weights.
fn sample(model: &Model, tokenizer: &Tokenizer, max_tokens: usize) -> candle_tcn::Result<String> {
    let config = GenerateConfig {
        max_tokens,
        sampler: SamplerConfig {
            temperature: 0.8,
            ..Default::default()
        },
        ..Default::default()
    };
    let stepper = model.stepper(StepDtype::F32)?;
    Generator::new(&stepper, tokenizer, config)?.text(0)
}

fn write_card(
    run: &RunDir,
    model: &ModelConfig,
    outcome: &Outcome,
    data: &Data,
    command: &str,
) -> anyhow::Result<()> {
    let loaded = LoadedModel::load(run.path())?;
    let sample = sample(&loaded.model, loaded.tokenizer()?, 400)?;
    let summary = serde_json::to_value(model)?;
    let card = model_card(&CardInfo {
        name: run
            .path()
            .file_name()
            .map_or("model".into(), |n| n.to_string_lossy().into_owned()),
        model_type: model.model_type().to_string(),
        config: flatten(&summary),
        parameters: model.parameters()?,
        receptive_field: model.geometry()?.receptive_field()?.total,
        tokenizer: data.tokenizer_name(),
        vocab_size: data.tokenizer.vocab_size(),
        data: data.files(),
        valid_loss: outcome.valid_loss,
        valid_bpc: outcome.valid_bpc,
        steps: outcome.steps,
        tokens: outcome.tokens,
        seconds: outcome.seconds,
        command: command.to_string(),
        sample,
    });
    Ok(run.write(RunDir::CARD, &card)?)
}

/// The fields of a configuration, nested ones by their own names.
fn flatten(value: &serde_json::Value) -> Vec<(String, String)> {
    let Some(object) = value.as_object() else {
        return Vec::new();
    };
    let mut fields = Vec::new();
    for (name, value) in object {
        match value {
            serde_json::Value::Object(_) if name == "network" => fields.extend(flatten(value)),
            _ => fields.push((name.clone(), value.to_string())),
        }
    }
    fields
}

fn report(args: &Args, run: &RunDir, parameters: usize, outcome: &Outcome) -> anyhow::Result<()> {
    if args.json {
        return print_line(json!({
            "steps": outcome.steps,
            "tokens": outcome.tokens,
            "parameters": parameters,
            "tokens_per_s": outcome.tokens_per_s,
            "seconds": outcome.seconds,
            "valid_loss": outcome.valid_loss,
            "valid_bpc": outcome.valid_bpc,
            "out": run.path(),
        }));
    }
    let valid = match (outcome.valid_loss, outcome.valid_bpc) {
        (Some(loss), Some(bpc)) => {
            format!("validation loss {loss:.4} nats per token, {bpc:.4} bits per character")
        }
        _ => "no validation".to_string(),
    };
    print_line(format_args!(
        "{} steps, {} tokens in {:.0} s ({:.0} tokens/s); {valid}",
        outcome.steps, outcome.tokens, outcome.seconds, outcome.tokens_per_s
    ))?;
    let dir = run.path().display();
    print_line(format_args!(
        "the model is in {dir}; next: tcn generate --model {dir}"
    ))
}
