//! `tcn info`: what a model is, without loading its weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_tcn::model_dir::{self, read_config, read_tokenizer};
use candle_tcn::models::{Input, ModelConfig};
use candle_tcn::train::{RunDir, read_metrics};
use candle_tcn::weights;
use serde_json::{Value, json};

use crate::{model, print_line};

#[derive(clap::Args)]
pub struct Args {
    /// A model directory, or org/name[@revision] on the Hub
    model: String,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let dir = model::resolve(&args.model)?;
    let config = read_config(dir.join(model_dir::CONFIG))?;
    let file = weights::find(&dir)?;
    let stored = weights::open(&file)?;
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in stored.tensors() {
        let name = match tensor.int8 {
            true => "int8",
            false => tensor.dtype.as_str(),
        };
        *types.entry(name.into()).or_default() += tensor.shape.iter().product::<usize>();
    }
    let field = config.geometry()?.receptive_field()?;
    let facts = json!({
        "model_type": config.model_type(),
        "causal": config.is_causal(),
        "parameters": config.parameters()?,
        "receptive_field": field.total,
        "layers": config.hidden_layers(),
        "input": input(&config),
        "state_bytes": config.state_bytes(1)?,
        "weights": file.file_name().map(|name| name.to_string_lossy()),
        "stored_numbers": types,
        "tokenizer": tokenizer(&dir)?,
        "training": training(&dir)?,
    });
    if args.json {
        return print_line(facts);
    }
    print_text(&facts)
}

fn input(config: &ModelConfig) -> Value {
    match config.input() {
        Input::Tokens { vocab_size } => json!({"tokens": vocab_size}),
        Input::Frames { channels, layout } => json!({"channels": channels, "layout": layout}),
    }
}

fn tokenizer(dir: &Path) -> anyhow::Result<Value> {
    let tokenizer = read_tokenizer(dir)?;
    Ok(tokenizer.map_or(Value::Null, |tokenizer| {
        json!({
            "vocab_size": tokenizer.vocab_size(),
            "any_text": tokenizer.accepts_any_bytes(),
            "mask": tokenizer.mask_id().and_then(|id| tokenizer.token_text(id)),
        })
    }))
}

/// What the log of a training run says.
fn training(dir: &Path) -> anyhow::Result<Value> {
    let log = dir.join(RunDir::METRICS);
    if !log.exists() {
        return Ok(Value::Null);
    }
    let records = read_metrics(log)?;
    let Some(last) = records.last() else {
        return Ok(Value::Null);
    };
    let best = records.iter().filter(|record| record.valid_loss.is_some());
    let best = best.min_by(|a, b| {
        a.valid_loss
            .partial_cmp(&b.valid_loss)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Ok(json!({
        "steps": last.step,
        "tokens": last.tokens,
        "seconds": last.elapsed_s,
        "train_loss": last.train_loss,
        "best_valid_loss": best.and_then(|record| record.valid_loss),
        "best_valid_bpc": best.and_then(|record| record.valid_bpc),
        "best_step": best.map(|record| record.step),
    }))
}

/// One line for each fact that there is, nested ones in one line.
fn print_text(facts: &Value) -> anyhow::Result<()> {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (name, value) in facts.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::Object(parts) => {
                let parts = parts.iter().filter(|(_, value)| !value.is_null());
                let parts = parts
                    .map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)));
                parts.collect::<Vec<_>>().join(", ")
            }
            other => plain(other),
        };
        print_line(format_args!("{}: {text}", name.replace('_', " ")))?;
    }
    Ok(())
}
