//! `tcn embed`: vectors of sequences.

mod output;
mod rows;

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_tcn::files::{is_standard_input, names, sha256, sha256_of, weights};
use candle_tcn::models::Encoder;
use candle_tcn::models::directory;
use candle_tcn::text::{Inputs, Tokenizer};
use candle_tcn::{AtPath, Error, LoadedModel};
use indicatif::ProgressBar;
use serde_json::json;

use crate::flags::{WholeDtype, count, counted, refuse_existing};
use crate::model::Unknown;
use crate::progress::Pace;
use crate::sequences::{Sequence, Sequences, encode};
use crate::{Interrupted, kernel, model, print_result, progress, signals};
use output::{OutputFormat, Partial, Settings};
use rows::Note;

/// Most sequences that are sorted into batches together, after which progress is kept.
const TOGETHER: usize = 1024;

/// Most batches that they make.
const BATCHES: usize = 64;

#[derive(clap::Args)]
pub struct EmbedArgs {
    /// A model directory, or org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Sequences, one a line or FASTA; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// File to write: .safetensors, .npy or .jsonl. An interrupted run goes on from where it was
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Layer whose output is taken; 0 is the input of the first (default: the last)
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// One vector for each position, instead of their mean for each sequence
    #[arg(long)]
    per_position: bool,
    /// Tokens that are computed at once, which bounds the memory
    #[arg(long, value_name = "N", value_parser = count, default_value = "16384")]
    batch_tokens: usize,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = WholeDtype::F32)]
    dtype: WholeDtype,
    /// Start over, even if an interrupted run could go on or the output exists
    #[arg(long)]
    force: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: EmbedArgs) -> anyhow::Result<()> {
    let format = OutputFormat::of(&args.output, args.per_position)?;
    refuse_existing("--output", &args.output, args.force)?;
    signals::keep_signals("finishing these sequences, then saving")?;
    let dir = model::resolve("--model", &args.model)?;
    let loaded = LoadedModel::load(&dir)?.with_kernel(kernel::chosen())?;
    let tokenizer = loaded.tokenizer()?;
    let dtype = args.dtype.precision().dtype();
    let encoder = Encoder::new(&loaded.model, args.batch_tokens, dtype)?;
    let layer = encoder.layer(args.layer)?;
    let settings = Settings {
        version: env!("CARGO_PKG_VERSION").into(),
        model: hashes(&dir)?,
        input: hash_of_input(&args.input)?,
        layer: layer.clone(),
        per_position: args.per_position,
        dtype: dtype.as_str().into(),
        batch_tokens: args.batch_tokens,
    };
    let mut sequences = Sequences::open(&args.input)?;
    let mut partial = Partial::open(&args.output, &settings, args.force)?;
    let bar = progress::bar(None, "embedding {spinner} {human_pos} sequences {per_sec} {elapsed}")?;
    skip(&mut sequences, &partial, &args.input)?;
    bar.set_position(partial.rows);
    let mut unknown = Unknown::default();
    let mut pace = Pace::new();
    loop {
        let some = next_group(&mut sequences, &args)?;
        if some.is_empty() {
            break;
        }
        let seen = (&bar, &mut unknown);
        partial.append(&embed(&encoder, tokenizer, &layer, some, args.per_position, seen)?)?;
        // nobody knows how many come
        if bar.is_hidden() && pace.is_due(0.0) {
            say!("{} embedded", counted(partial.rows, "sequence"));
        }
        if signals::has_come() {
            bar.finish_and_clear();
            // what was read of a pipe is gone
            if settings.input.is_some() {
                say!("{} kept; the same command goes on", counted(partial.rows, "sequence"));
            }
            return Err(Interrupted.into());
        }
    }
    bar.finish_and_clear();
    unknown.warn();
    if partial.rows == 0 {
        let message = "expected at least one sequence, found none";
        return Err(Error::file(&args.input, message).into());
    }
    let (rows, width) = (partial.rows, partial.width);
    partial.finish(format, &args.output)?;
    report(&args, rows, width, &layer)
}

fn report(args: &EmbedArgs, rows: u64, width: usize, layer: &str) -> anyhow::Result<()> {
    print_result(
        args.json,
        json!({"sequences": rows, "width": width, "layer": layer, "out": args.output}),
        format_args!(
            "{}, {width} numbers {}, {layer}, in {}",
            counted(rows, "sequence"),
            if args.per_position { "a position" } else { "each" },
            args.output.display()
        ),
    )
}

/// Passes over the sequences that an interrupted run has embedded.
fn skip(sequences: &mut Sequences, partial: &Partial, input: &Path) -> anyhow::Result<()> {
    for _ in 0..partial.rows {
        if sequences.next().transpose()?.is_none() {
            anyhow::bail!(
                "{}: has fewer sequences than when this run was interrupted; begin anew with --force",
                input.display()
            );
        }
    }
    if partial.rows > 0 {
        say!("going on after {}", counted(partial.rows, "sequence"));
    }
    Ok(())
}

/// SHA-256 of the input; none for a pipe, which cannot be read again.
fn hash_of_input(input: &Path) -> anyhow::Result<Option<String>> {
    let inputs = Inputs::find(&[input.to_path_buf()])?;
    let is_lasting = |path: &PathBuf| path.is_file() && !is_standard_input(path);
    if !inputs.files().iter().all(is_lasting) {
        return Ok(None);
    }
    let hash = sha256(inputs.open()?).at(input)?;
    Ok(Some(hash))
}

/// SHA-256 of the files that a model is made of.
fn hashes(dir: &Path) -> anyhow::Result<Vec<String>> {
    let weights = weights::find(dir)?;
    let mut files: Vec<PathBuf> = weights::open(&weights)?.paths().map(PathBuf::from).collect();
    files.push(weights);
    let described = directory::described_in(dir);
    files.push(described.join(names::CONFIG));
    let tokenizers = [names::TOKENIZER, names::VOCABULARY].map(|name| described.join(name));
    files.extend(tokenizers.into_iter().find(|path| path.exists()));
    Ok(files.iter().map(sha256_of).collect::<Result<_, _>>()?)
}

/// The next sequences that are sorted into batches together. Where they end depends on the file alone, so that a
/// run that goes on makes the same batches.
fn next_group(sequences: &mut Sequences, args: &EmbedArgs) -> anyhow::Result<Vec<Sequence>> {
    // numbers of every position wait in memory, those of the means are few
    let most = match args.per_position {
        true => args.batch_tokens,
        false => args.batch_tokens.saturating_mul(BATCHES),
    };
    let (mut group, mut bytes) = (Vec::new(), 0usize);
    while group.len() < TOGETHER && bytes < most {
        let Some(sequence) = sequences.next().transpose()? else {
            break;
        };
        bytes = bytes.saturating_add(sequence.text.len());
        group.push(sequence);
    }
    Ok(group)
}

/// The rows of some sequences, in their order.
fn embed(
    encoder: &Encoder,
    tokenizer: &Tokenizer,
    layer: &str,
    sequences: Vec<Sequence>,
    per_position: bool,
    (bar, unknown): (&ProgressBar, &mut Unknown),
) -> anyhow::Result<Vec<(Note, Vec<f32>)>> {
    let ids = encode(tokenizer, &sequences, unknown, |tokens| {
        tokens.is_empty().then(|| "expected a sequence, found no token".into())
    })?;
    let mut numbers = vec![Vec::new(); ids.len()];
    encoder.run(&ids, layer, |i, hidden: &Tensor| {
        let hidden = match per_position {
            true => hidden.clone(),
            false => hidden.mean_keepdim(0)?,
        };
        numbers[i] = hidden.flatten_all()?.to_vec1::<f32>()?;
        if let Some(bad) = numbers[i].iter().find(|number| !number.is_finite()) {
            let expected = format!("finite numbers for {}", sequences[i].name());
            return Err(Error::invalid("embedding", expected, bad));
        }
        bar.inc(1);
        Ok(())
    })?;
    let together = ids.len();
    let rows = sequences.into_iter().zip(numbers).enumerate().map(|(i, (sequence, numbers))| {
        let positions = if per_position { ids[i].len() } else { 1 };
        let (width, last) = (numbers.len() / positions, i + 1 == together);
        (Note { id: sequence.id, positions, width, last }, numbers)
    });
    Ok(rows.collect())
}
