//! `tcn eval`: a model's loss on a text of any length, in constant memory.

use std::path::PathBuf;

use candle_tcn::models::directory::ModelFiles;
use candle_tcn::text::TokenStream;
use candle_tcn::train::{DynamicConfig, DynamicEvaluator, Evaluation, Evaluator};
use serde_json::{Value, json};

use crate::flags::Dtype;
use crate::model::{self, IN_LOSSES, unknown_tokens, warn_of_unknown};
use crate::progress::read_through;
use crate::{kernel, line_ends, memory, print_result};

#[derive(clap::Args)]
pub struct EvalArgs {
    /// A model directory, or org/name[@revision] on the Hub (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The text: a file, also .gz or .zst, a folder, a pattern, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Number format to compute in; gives the probabilities that `tcn generate` has with the same
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    #[command(flatten)]
    dynamic: DynamicArgs,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct DynamicArgs {
    /// Evaluate a second time with weights that follow the text: each segment is predicted by what was learned from
    /// those before it, in f32 (Krause et al. 2018)
    #[arg(long)]
    dynamic: bool,
    /// Tokens of a segment
    #[arg(long, value_name = "N", requires = "dynamic", default_value_t = DynamicConfig::default().segment)]
    segment: usize,
    /// Learning rate
    #[arg(long, value_name = "X", requires = "dynamic", default_value_t = DynamicConfig::default().lr)]
    lr: f64,
    /// Part of the way back to the trained weights after each segment
    #[arg(long, value_name = "F", requires = "dynamic", default_value_t = DynamicConfig::default().decay)]
    decay: f64,
}

impl DynamicArgs {
    fn evaluator(&self, files: &ModelFiles) -> anyhow::Result<Option<DynamicEvaluator>> {
        if !self.dynamic {
            return Ok(None);
        }
        let Self { segment, lr, decay, .. } = *self;
        memory::check_dynamic(&files.config.graph()?, segment)?;
        let evaluator = DynamicEvaluator::new(files, DynamicConfig { segment, lr, decay })?;
        Ok(Some(evaluator.with_kernel(kernel::chosen())?))
    }
}

pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    let files = model::files(args.model.as_deref())?;
    let mut dynamic = args.dynamic.evaluator(&files)?;
    let loaded = files.into_model()?.with_kernel(kernel::chosen())?;
    let tokenizer = loaded.tokenizer()?;
    let mut stream = TokenStream::open(&args.data, tokenizer)?;
    let total = stream.total_bytes();
    let mut unknown = 0;
    let stepper = loaded.model.stepper(args.dtype.step_of(&loaded))?;
    let mut evaluator = Evaluator::with_stepper(&stepper, Evaluator::CHUNK)?;
    read_through(&mut stream, "evaluating", total, |tokens| {
        unknown += unknown_tokens(tokenizer, tokens);
        evaluator.push(tokens)?;
        if let Some(dynamic) = &mut dynamic {
            dynamic.push(tokens)?;
        }
        Ok(true)
    })?;
    warn_of_unknown(&args.data.display(), unknown, IN_LOSSES);
    line_ends::compare_with_model(&args.data.display(), stream.start(), tokenizer);

    let result = evaluator.finish()?;
    if result.tokens == 0 {
        let message = "expected at least two tokens, found fewer";
        return Err(candle_tcn::Error::file(&args.data, message).into());
    }
    let (first_characters, first_bytes) = stream.first_token();
    let characters = stream.characters().saturating_sub(first_characters).max(1);
    let bytes = stream.bytes().saturating_sub(first_bytes).max(1);
    let [per_token, per_character, per_byte] =
        [result.tokens, characters, bytes].map(|parts| result.bits_per(parts));
    let dynamic = dynamic.map(DynamicEvaluator::finish).transpose()?;
    let (followed, dynamic) = dynamic_figures(dynamic, characters, bytes);
    print_result(
        args.json,
        json!({
            "tokens": result.tokens,
            "loss": result.loss(),
            "bits_per_token": per_token,
            "bits_per_character": per_character,
            "bits_per_byte": per_byte,
            "perplexity": result.perplexity(),
            "unknown_tokens": unknown,
            "dynamic": dynamic,
        }),
        format_args!(
            "tokens predicted    {}\nnats per token      {:.4}\nbits per token      {per_token:.4}\n\
             bits per character  {per_character:.4}\nbits per byte       {per_byte:.4}\n\
             perplexity          {:.3}{followed}",
            result.tokens,
            result.loss(),
            result.perplexity()
        ),
    )
}

/// The figures of a dynamic evaluation, as a line and as JSON.
fn dynamic_figures(found: Option<Evaluation>, characters: u64, bytes: u64) -> (String, Value) {
    let Some(found) = found else {
        return (String::new(), Value::Null);
    };
    let [per_token, per_character, per_byte] =
        [found.tokens, characters, bytes].map(|parts| found.bits_per(parts));
    let (loss, perplexity) = (found.loss(), found.perplexity());
    let line = format!(
        "\ndynamic             {loss:.4} nats per token, {per_character:.4} bits per character, perplexity {perplexity:.3}"
    );
    let json = json!({
        "loss": loss,
        "bits_per_token": per_token,
        "bits_per_character": per_character,
        "bits_per_byte": per_byte,
        "perplexity": perplexity,
    });
    (line, json)
}
