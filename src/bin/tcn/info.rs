//! `tcn info`: facts of a model, without loading its weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_tcn::files::names;
use candle_tcn::files::weights::{self, TensorInfo};
use candle_tcn::graph::{Graph, Input};
use candle_tcn::models::ModelConfig;
use candle_tcn::models::directory::{self, read_config, read_tokenizer};
use candle_tcn::train::read_metrics;
use serde_json::{Value, json};

use crate::flags::counted;
use crate::{model, print_line, print_result};

#[derive(clap::Args)]
pub struct InfoArgs {
    /// A model directory, a checkpoint of a run, a file of weights, or org/name[@revision] on the Hub, whose
    /// weights are not downloaded
    model: String,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: InfoArgs) -> anyhow::Result<()> {
    let path = Path::new(&args.model);
    let facts = match (path.is_dir(), path.exists()) {
        (true, _) => of_model(path, of_weights(path)?)?,
        (false, true) => return print_tensors(path, args.json),
        (false, false) => on_hub(&args.model)?,
    };
    match args.json {
        true => print_line(facts),
        false => print_text(&facts),
    }
}

/// Facts of a model directory, together with those of its weights.
fn of_model(dir: &Path, weights: Value) -> anyhow::Result<Value> {
    let described = directory::described_in(dir);
    let config = read_config(described.join(names::CONFIG))?;
    let graph = config.graph()?;
    let field = graph.stack()?.receptive_field()?;
    let mut facts = json!({
        "model_type": config.model_type(),
        "causal": graph.is_causal(),
        "parameters": graph.parameter_count()?,
        "receptive_field": field.total,
        "layers": graph.hidden_layers(),
        "input": input(&config, &graph),
        "state_bytes": graph.state_bytes(1)?,
        "tokenizer": tokenizer(&described)?,
        "training": training(&described)?,
    });
    for (name, value) in weights.as_object().into_iter().flatten() {
        facts[name] = value.clone();
    }
    Ok(facts)
}

/// File and types of the weights in a directory.
fn of_weights(dir: &Path) -> anyhow::Result<Value> {
    let file = weights::find(dir)?;
    let stored = weights::open(&file)?;
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in stored.tensors() {
        *types.entry(stored_as(tensor)).or_default() += tensor.shape.iter().product::<usize>();
    }
    Ok(json!({
        "weights": file.file_name().map(|name| name.to_string_lossy()),
        "stored_numbers": types,
    }))
}

fn stored_as(tensor: &TensorInfo) -> &'static str {
    match tensor.int8 {
        true => "int8",
        false => tensor.dtype.as_str(),
    }
}

/// The same of a model on the Hub, from its small files and the list of the others.
#[cfg(feature = "hub")]
fn on_hub(id: &str) -> anyhow::Result<Value> {
    use anyhow::Context;
    model::expect_hub_name("MODEL", id)?;
    let found = crate::hub::inspect(id)
        .with_context(|| format!("{id} is no folder or file, and the Hub does not help"))?;
    let sizes: BTreeMap<_, _> = found.weights.into_iter().collect();
    of_model(&found.dir, json!({ "weights_bytes": sizes }))
}

#[cfg(not(feature = "hub"))]
fn on_hub(id: &str) -> anyhow::Result<Value> {
    of_model(&model::resolve("MODEL", id)?, Value::Null)
}

/// Names, shapes and types of the tensors in a file.
fn print_tensors(file: &Path, json: bool) -> anyhow::Result<()> {
    let stored = weights::open(file)?;
    let one = |tensor: &TensorInfo| json!({"name": tensor.name, "shape": tensor.shape, "type": stored_as(tensor)});
    let tensors: Vec<_> = stored.tensors().iter().map(one).collect();
    let shown = |tensor: &TensorInfo| {
        let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
        format!("{}: {} ({})\n", tensor.name, stored_as(tensor), shape.join(", "))
    };
    let lines: String = stored.tensors().iter().map(shown).collect();
    let numbers = stored.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>());
    let (count, numbers) =
        (counted(tensors.len(), "tensor"), counted(numbers.sum::<usize>(), "number"));
    let facts = json!({"file": file, "tensors": tensors});
    print_result(json, facts, format_args!("{lines}{count}, {numbers}"))
}

fn input(config: &ModelConfig, graph: &Graph) -> Value {
    match graph.inputs().next() {
        Some(Input::Tokens { vocab_size, .. }) => json!({"tokens": vocab_size}),
        Some(Input::Frames { channels }) => {
            json!({"channels": channels, "layout": config.architecture().layout()})
        }
        _ => Value::Null,
    }
}

fn tokenizer(dir: &Path) -> anyhow::Result<Value> {
    let facts = read_tokenizer(dir)?.map(|tokenizer| {
        json!({
            "vocab_size": tokenizer.vocab_size(),
            "any_text": tokenizer.accepts_any_bytes(),
            "mask": tokenizer.mask_id().and_then(|id| tokenizer.token_text(id)),
        })
    });
    Ok(facts.into())
}

/// Facts from the log of a training run.
fn training(dir: &Path) -> anyhow::Result<Value> {
    let log = dir.join(names::METRICS);
    let records = if log.exists() { read_metrics(log)? } else { Vec::new() };
    let validated = records.iter().filter_map(|record| Some((record.valid_loss?, record)));
    let best = validated.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, record)| record);
    let facts = records.last().map(|last| {
        json!({
            "steps": last.step,
            "tokens": last.tokens,
            "seconds": last.elapsed_s,
            "train_loss": last.train_loss,
            "best_valid_loss": best.and_then(|record| record.valid_loss),
            "best_valid_bpc": best.and_then(|record| record.valid_bpc),
            "best_step": best.map(|record| record.step),
        })
    });
    Ok(facts.into())
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
