//! The end of a run: its card, and what is printed.

use candle_tcn::LoadedModel;
use candle_tcn::files::names;
use candle_tcn::generate::{GenerateConfig, Generator, SamplerConfig};
use candle_tcn::models::{ModelConfig, Network};
use candle_tcn::nn::StepDtype;
use candle_tcn::text::Tokenizer;
use candle_tcn::train::{CardInfo, Outcome, RunDir, model_card};
use serde_json::json;

use super::data::Data;
use super::options::TrainArgs;
use super::start::{Start, typed};
use crate::documents::DocumentArgs;
use crate::flags::counted;
use crate::{kernel, print_result};

/// Command lines of a model card.
fn usage(start: &Start) -> String {
    if start.masking.is_some() {
        return "tcn fill-mask --model DIR SEQUENCE\ntcn score --model DIR SEQUENCE\n\
                tcn embed --model DIR --input FILE --output FILE"
            .into();
    }
    let DocumentArgs { documents, field, target_after } = &start.source.documents;
    let flags = [
        ("--documents", documents.as_ref().map(ToString::to_string)),
        ("--field", field.clone()),
        ("--target-after", target_after.clone()),
    ];
    let given = flags.into_iter().filter_map(|(flag, value)| Some([flag.to_string(), value?]));
    let data = ["tcn eval --model DIR --data FILE".to_string()].into_iter();
    let flags = given.map(|given| typed(given.into_iter()));
    let eval = data.chain(flags).collect::<Vec<_>>().join(" ");
    format!("tcn generate --model DIR\n{eval}\ntcn receptive-field --model DIR")
}

/// A text that a model writes by itself: the same for the same weights.
pub fn sample(
    model: &Network,
    tokenizer: &Tokenizer,
    max_tokens: usize,
) -> candle_tcn::Result<String> {
    let config = GenerateConfig {
        max_tokens,
        sampler: SamplerConfig { temperature: 0.8, ..Default::default() },
        ..Default::default()
    };
    let stepper = model.stepper(StepDtype::F32)?;
    Generator::new(&stepper, tokenizer, config)?.text(0)
}

pub fn write_card(
    run: &RunDir,
    model: &ModelConfig,
    outcome: &Outcome,
    data: &Data,
    start: &Start,
) -> anyhow::Result<()> {
    let loaded = LoadedModel::load(run.path())?.with_kernel(kernel::chosen())?;
    let sample = match start.masking {
        None => sample(&loaded.model, loaded.tokenizer()?, 400)?,
        Some(_) => String::new(),
    };
    let summary = serde_json::to_value(model)?;
    let card = model_card(&CardInfo {
        name: run.path().file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned()),
        model_type: model.model_type().to_string(),
        config: flatten(&summary),
        parameters: model.graph()?.parameter_count()?,
        receptive_field: model.geometry()?.receptive_field()?.total,
        base: start.base.clone(),
        tokenizer: data.tokenizer_name.clone(),
        vocab_size: data.tokenizer.vocab_size(),
        data: data.files(&start.source),
        valid_loss: outcome.valid_loss,
        valid_bpc: outcome.valid_bpc,
        steps: outcome.steps,
        tokens: outcome.tokens,
        seconds: outcome.seconds,
        command: start.public_command(),
        usage: usage(start),
        sample,
        series: None,
    });
    Ok(run.write(names::CARD, &card)?)
}

/// The fields of a configuration, nested ones by their own names.
pub fn flatten(value: &serde_json::Value) -> Vec<(String, String)> {
    let fields = value.as_object().into_iter().flatten();
    let one = |(name, value): (&String, &serde_json::Value)| match value {
        serde_json::Value::Object(_) if name == "network" => flatten(value),
        _ => vec![(name.clone(), value.to_string())],
    };
    fields.flat_map(one).collect()
}

pub fn report(
    args: &TrainArgs,
    run: &RunDir,
    (parameters, masked): (usize, bool),
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let valid = match (outcome.valid_loss, outcome.valid_bpc) {
        (Some(loss), Some(bpc)) => {
            format!("validation loss {loss:.4} nats per token, {bpc:.4} bits per character")
        }
        (Some(loss), None) => format!("validation loss {loss:.4} nats per masked token"),
        _ => "no validation".to_string(),
    };
    let dir = run.path().display();
    let next = if masked {
        format!("fill-mask --model {dir} SEQUENCE")
    } else {
        format!("generate --model {dir}")
    };
    print_result(
        args.json,
        json!({
            "steps": outcome.steps,
            "tokens": outcome.tokens,
            "parameters": parameters,
            "tokens_per_s": outcome.tokens_per_s,
            "seconds": outcome.seconds,
            "valid_loss": outcome.valid_loss,
            "valid_bpc": outcome.valid_bpc,
            "out": run.path(),
        }),
        format_args!(
            "{}, {} in {:.0} s ({:.0} tokens/s); {valid}\n\
             the model is in {dir}; next: tcn {next}",
            counted(outcome.steps, "step"),
            counted(outcome.tokens, "token"),
            outcome.seconds,
            outcome.tokens_per_s
        ),
    )
}
