//! `tcn embed`: vectors of sequences.

mod output;
mod sequences;

pub use sequences::{Sequence, Sequences};

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use candle_core::Tensor;
use candle_tcn::LoadedModel;
use candle_tcn::encode::Encoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::flags::{Dtype, count};
use crate::progress::on_signals;
use crate::{Interrupted, model, print_line, usage_error};
use output::{Format, Partial, Row, Settings};

/// Sequences that are sorted into batches together, and after which progress is kept.
const TOGETHER: usize = 1024;

#[derive(clap::Args)]
pub struct Args {
    /// A model directory, or org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Sequences, one a line or FASTA; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where to write: .safetensors, .npy or .jsonl. An interrupted run goes on where it was
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Of which layer, 0 for what the first one gets (default: the last)
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// A vector for each position, instead of their mean
    #[arg(long)]
    per_position: bool,
    /// Tokens that are computed at once, which bounds the memory
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true, default_value = "16384")]
    batch_tokens: usize,
    /// What it is computed in
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Begin anew, even if an interrupted run could go on or the output exists
    #[arg(long)]
    force: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let format = Format::of(&args.output, args.per_position)?;
    if args.output.exists() && !args.force {
        return Err(usage_error(format!(
            "--output: {} exists; choose another, or replace it with --force",
            args.output.display()
        )));
    }
    let interrupted = on_signals("finishing these sequences, then saving")?;
    let dir = model::resolve(&args.model)?;
    let loaded = LoadedModel::load(&dir)?;
    let tokenizer = loaded.tokenizer()?;
    let dtype = args.dtype.precision()?.dtype();
    let encoder = Encoder::new(&loaded.config, &loaded.model, args.batch_tokens, dtype)?;
    let layer = encoder.layer(args.layer)?;
    let settings = Settings {
        model: std::fs::canonicalize(&dir)?.display().to_string(),
        input: args.input.display().to_string(),
        layer: layer.clone(),
        per_position: args.per_position,
        dtype: dtype.as_str().into(),
    };
    let mut partial = Partial::open(&args.output, &settings, args.force)?;
    let mut sequences = Sequences::open(&args.input)?;
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "embedding {spinner} {human_pos} sequences {per_sec} {elapsed}",
    )?);
    for _ in 0..partial.rows() {
        if sequences.next().transpose()?.is_none() {
            anyhow::bail!(
                "{}: has fewer sequences than when this run was interrupted; begin anew with --force",
                args.input.display()
            );
        }
    }
    if partial.rows() > 0 {
        say!("going on after {} sequences", partial.rows());
        bar.set_position(partial.rows());
    }
    loop {
        let some = sequences
            .by_ref()
            .take(TOGETHER)
            .collect::<anyhow::Result<Vec<_>>>()?;
        if some.is_empty() {
            break;
        }
        partial.append(&embed(
            &encoder,
            tokenizer,
            &layer,
            some,
            args.per_position,
            &bar,
        )?)?;
        if interrupted.load(Ordering::SeqCst) {
            bar.finish_and_clear();
            say!(
                "{} sequences are kept; the same command goes on",
                partial.rows()
            );
            return Err(Interrupted.into());
        }
    }
    bar.finish_and_clear();
    let (rows, width) = (partial.rows(), partial.width());
    partial.finish(format, &args.output)?;
    match args.json {
        true => print_line(
            json!({"sequences": rows, "width": width, "layer": layer, "out": args.output}),
        ),
        false => print_line(format_args!(
            "{rows} sequences, {width} numbers {}, {layer}, in {}",
            if args.per_position {
                "a position"
            } else {
                "each"
            },
            args.output.display()
        )),
    }
}

/// The rows of some sequences, in their order.
fn embed(
    encoder: &Encoder,
    tokenizer: &candle_tcn::text::Tokenizer,
    layer: &str,
    sequences: Vec<Sequence>,
    per_position: bool,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let encode = |sequence: &Sequence| match tokenizer.encode(&sequence.text)? {
        ids if ids.is_empty() => Err(candle_tcn::Error::Text(format!(
            "{}: expected a sequence, found no token",
            sequence.name()
        ))),
        ids => Ok(ids),
    };
    let ids = sequences
        .iter()
        .map(encode)
        .collect::<Result<Vec<_>, _>>()?;
    let mut numbers = vec![Vec::new(); ids.len()];
    encoder.run(&ids, layer, |i, hidden: &Tensor| {
        let hidden = match per_position {
            true => hidden.clone(),
            false => hidden.mean_keepdim(0)?,
        };
        numbers[i] = hidden.flatten_all()?.to_vec1::<f32>()?;
        bar.inc(1);
        Ok(())
    })?;
    let rows = sequences.into_iter().zip(&ids).zip(numbers);
    Ok(rows
        .map(|((sequence, ids), numbers)| Row {
            id: sequence.id,
            positions: if per_position { ids.len() } else { 1 },
            numbers,
        })
        .collect())
}
