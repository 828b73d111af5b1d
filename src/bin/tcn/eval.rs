//! `tcn eval`: a model's loss on a text of any length, in constant memory.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_tcn::files::write_atomic;
use candle_tcn::models::SeriesModel;
use candle_tcn::models::directory::ModelFiles;
use candle_tcn::series::CsvOptions;
use candle_tcn::text::{Documents, Inputs, TokenStream, Tokenizer, split_pair};
use candle_tcn::train::{DynamicConfig, DynamicEvaluator, Evaluation, Evaluator, SeriesScores};
use serde_json::{Value, json};

use crate::documents::{DocumentArgs, predicted_characters};
use crate::flags::{Dtype, expect_together};
use crate::model::{self, IN_LOSSES, unknown_tokens, warn_of_unknown};
use crate::progress::{self, Pace, read_through};
use crate::series_files::{self, Role};
use crate::{kernel, line_ends, memory, print_result, series_report};

#[derive(clap::Args)]
pub struct EvalArgs {
    /// A model directory, or org/name[@revision] on the Hub (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The text: a file, also .gz or .zst, a folder, a pattern, or `-` for standard input; of a network of series .csv,
    /// .ts, .npy, .safetensors
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Number format to compute in; gives the probabilities that `tcn generate` has with the same
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    #[command(flatten)]
    documents: DocumentArgs,
    #[command(flatten)]
    series: SeriesEvalArgs,
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

/// Flags of networks of series.
#[derive(clap::Args)]
struct SeriesEvalArgs {
    /// Of a network of series: measure on the last part of each series alone, as large as this (default: 1, all of it)
    #[arg(long, value_name = "F")]
    test_fraction: Option<f64>,
    /// Of a network of series: draw a picture, forecasts beside what came or classes and what was said of them
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// Measures a network of series.
fn run_series(args: &EvalArgs, dir: &Path) -> anyhow::Result<()> {
    let model = SeriesModel::load(dir, kernel::chosen())?;
    let fraction = args.series.test_fraction.unwrap_or(1.0);
    if !(fraction > 0.0 && fraction <= 1.0) {
        bail_usage!("--test-fraction: expected a number above 0, at most 1, found {fraction}");
    }
    let columns = Some(model.task.columns.clone());
    let options = CsvOptions { columns, ..model.task.csv.clone() };
    let table = series_files::read(&args.data, &options, Role::Test)?;
    table.notes.iter().for_each(|note| say!("{note}"));
    let scores = SeriesScores::measure(&model, &table.set, fraction)?;
    if let Some(path) = &args.series.plot {
        match series_report::picture(&model, &scores, &table.set, fraction)? {
            Some((_, svg)) => write_atomic(path, |file| file.write_all(svg.as_bytes()))?,
            None => bail_usage!("--plot: there is no picture of this task"),
        }
    }
    print_result(args.json, series_report::json(&scores), series_report::text(&model, &scores))
}

/// Measures a network of series; `false` for a language model.
fn run_on_series(args: &EvalArgs) -> anyhow::Result<bool> {
    if let Some(name) = &args.model {
        let dir = model::resolve("--model", name)?;
        if SeriesModel::is_in(&dir) {
            return run_series(args, &dir).map(|()| true);
        }
    }
    let of_series = "a network of series (trained with --task classify, forecast, …)";
    expect_together(&[
        ("--test-fraction", args.series.test_fraction.is_some(), of_series),
        ("--plot", args.series.plot.is_some(), of_series),
    ])?;
    Ok(false)
}

pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    if run_on_series(&args)? {
        return Ok(());
    }
    let files = model::files(args.model.as_deref())?;
    let mut dynamic = args.dynamic.evaluator(&files)?;
    let loaded = files.into_model()?.with_kernel(kernel::chosen())?;
    let tokenizer = loaded.tokenizer()?;
    let mut unknown = 0;
    let stepper = loaded.model.stepper(args.dtype.step_of(&loaded))?;
    let mut evaluator = Evaluator::with_stepper(&stepper, Evaluator::CHUNK)?;
    let read = |tokens: &[u32], is_scored: bool| {
        unknown += unknown_tokens(tokenizer, tokens);
        evaluator.push_scored(tokens, &vec![is_scored; tokens.len()])?;
        if let Some(dynamic) = &mut dynamic {
            dynamic.push(tokens)?;
        }
        Ok(true)
    };
    let [characters, bytes] = read_data(&args, tokenizer, loaded.model.graph().restart(), read)?;
    warn_of_unknown(&args.data.display(), unknown, IN_LOSSES);

    let result = evaluator.finish()?;
    if result.tokens == 0 {
        let message = "expected at least two tokens, found fewer";
        return Err(candle_tcn::Error::file(&args.data, message).into());
    }
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

/// Gives the tokens of the text to `read`, and `true` with those that are scored; gives the characters and bytes that are
/// predicted. `end` is the token that ends a document, of a model that knows of them.
fn read_data(
    args: &EvalArgs,
    tokenizer: &Tokenizer,
    end: Option<u32>,
    mut read: impl FnMut(&[u32], bool) -> anyhow::Result<bool>,
) -> anyhow::Result<[u64; 2]> {
    args.documents.check()?;
    let separator = args.documents.target_after.as_deref();
    let is_parted = args.dynamic.dynamic && separator.is_some();
    expect_together(&[("--dynamic", is_parted, "all of a text scored")])?;
    match (end, args.documents.by()) {
        (None, Some(_)) => bail_usage!(
            "--documents, --field: expected a model of documents (tcn train --documents), found one of running text"
        ),
        (None, None) => read_text(&args.data, tokenizer, |tokens| read(tokens, true)),
        (Some(end), by) => {
            let by = by.unwrap_or(Documents::Files);
            read_documents(&args.data, by, separator, (tokenizer, end), read)
        }
    }
}

/// Gives the tokens of a running text to `read`; gives the characters and bytes that are predicted.
fn read_text(
    data: &Path,
    tokenizer: &Tokenizer,
    read: impl FnMut(&[u32]) -> anyhow::Result<bool>,
) -> anyhow::Result<[u64; 2]> {
    let mut stream = TokenStream::open(data, tokenizer)?;
    let total = stream.total_bytes();
    read_through(&mut stream, "evaluating", total, read)?;
    line_ends::compare_with_model(&data.display(), stream.start(), tokenizer);
    let (first_characters, first_bytes) = stream.first_token();
    let characters = stream.characters().saturating_sub(first_characters);
    Ok([characters, stream.bytes().saturating_sub(first_bytes)].map(|parts| parts.max(1)))
}

/// The same of documents, each of which the token `end` ends; it counts as no character.
fn read_documents(
    data: &Path,
    by: Documents,
    separator: Option<&str>,
    (tokenizer, end): (&Tokenizer, u32),
    mut read: impl FnMut(&[u32], bool) -> anyhow::Result<bool>,
) -> anyhow::Result<[u64; 2]> {
    let inputs = Inputs::find(&[data.to_path_buf()])?;
    let style = "evaluating {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let bar = progress::bar(Some(inputs.bytes()), style)?;
    let (mut pace, mut sums) = (Pace::new(), [0, 0, 0]);
    read(&[end], false)?;
    for document in by.of(&inputs, tokenizer.accepts_any_bytes()) {
        let document = document?;
        let target = match separator {
            None => &document[..],
            Some(separator) => {
                let [source, target] = split_pair(sums[2] as usize, &document, separator)?;
                read(&tokenizer.encode_bytes(source)?, false)?;
                target
            }
        };
        read(&tokenizer.encode_bytes(target)?, true)?;
        read(&[end], true)?;
        let characters = predicted_characters(target, None);
        sums = [sums[0] + characters, sums[1] + target.len() as u64, sums[2] + 1];
        bar.inc(document.len() as u64 + 1);
        pace.tell_bytes("evaluating", &bar);
    }
    bar.finish_and_clear();
    Ok([sums[0].max(1), sums[1].max(1)])
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
