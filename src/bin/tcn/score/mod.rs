//! `tcn score`: log-probabilities of sequences, and of changes in them.

mod changes;
mod variants;

use std::path::PathBuf;

use candle_tcn::models::Scorer;
use candle_tcn::text::Tokenizer;
use candle_tcn::{Error, LoadedModel};
use serde_json::json;

use crate::flags::{WholeDtype, count, counted, expect_together};
use crate::model::{self, Unknown};
use crate::print_line;
use crate::progress::{Pace, bar};
use crate::sequences::{Sequence, Sequences, encode};

/// Sequences that are scored together.
const TOGETHER: usize = 256;

#[derive(clap::Args)]
pub struct ScoreArgs {
    /// A model directory, or org/name[@revision] on the Hub (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Sequences to score, or to change by --variants
    sequences: Vec<String>,
    /// A file of them, one a line or FASTA; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "sequences")]
    input: Option<PathBuf>,
    /// Score changes of the sequences instead: a table with a header (sequence, position, reference, alternative, by
    /// commas or tabs; or sequence, mutant), lines such as A123G or NAME A123G:T45C, or VCF; positions count from 1
    #[arg(long, value_name = "FILE")]
    variants: Option<PathBuf>,
    /// Characters around a change that the model gets (default: 512 for VCF, else the whole sequence)
    #[arg(long, value_name = "N", value_parser = count, requires = "variants")]
    window: Option<usize>,
    /// Read DNA forward alone, instead of the mean of both strands (default: both for VCF)
    #[arg(long, requires = "variants", conflicts_with = "both_strands")]
    one_strand: bool,
    /// Take the mean of both strands of DNA
    #[arg(long, requires = "variants")]
    both_strands: bool,
    /// Each token with its own log-probability
    #[arg(long, conflicts_with = "variants")]
    per_token: bool,
    /// Tokens that are computed at once, which bounds the memory
    #[arg(long, value_name = "N", value_parser = count, default_value = "16384")]
    batch_tokens: usize,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = WholeDtype::F32)]
    dtype: WholeDtype,
    /// Print one JSON object a sequence or change
    #[arg(long)]
    json: bool,
}

impl ScoreArgs {
    fn sequences(&self) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Sequence>> + '_>> {
        Ok(match &self.input {
            Some(file) => Box::new(Sequences::open(file)?),
            None => Box::new(self.sequences.iter().map(|text| Ok(Sequence::new(text)))),
        })
    }
}

pub fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let is_given = !args.sequences.is_empty() || args.input.is_some();
    if !is_given && args.variants.is_none() {
        bail_usage!("expected sequences as arguments, or a file of them with --input");
    }
    // not `requires`: clap waives it beside a flag that excludes the other
    let alone = args.variants.is_none();
    expect_together(&[
        ("--window", args.window.is_some() && alone, "--variants FILE"),
        ("--one-strand", args.one_strand && alone, "--variants FILE"),
        ("--both-strands", args.both_strands && alone, "--variants FILE"),
    ])?;
    let loaded = model::load(args.model.as_deref())?;
    loaded.config.expect_tokens()?;
    let scorer = Scorer::new(&loaded, args.batch_tokens, args.dtype.precision().dtype())?;
    match &args.variants {
        Some(file) => changes::score(&args, &scorer, loaded.tokenizer()?, file),
        None => score(&args, &scorer, &loaded),
    }
}

fn score(args: &ScoreArgs, scorer: &Scorer, loaded: &LoadedModel) -> anyhow::Result<()> {
    let tokenizer = loaded.tokenizer()?;
    let mut sequences = args.sequences()?;
    let mut unknown = Unknown::default();
    let bar = bar(None, "scoring {spinner} {human_pos} sequences {per_sec} {elapsed}")?;
    let mut pace = Pace::new();
    loop {
        let some = sequences.by_ref().take(TOGETHER).collect::<anyhow::Result<Vec<_>>>()?;
        if some.is_empty() {
            bar.finish_and_clear();
            unknown.warn();
            return match (bar.position(), &args.input) {
                (0, Some(file)) => Err(Error::file(file, "expected sequences, found none").into()),
                _ => Ok(()),
            };
        }
        let ids = encode(tokenizer, &some, &mut unknown, |tokens| {
            tokens.is_empty().then(|| "expected a sequence, found no token".into())
        })?;
        let scores = scorer.sequences(&ids)?;
        for ((sequence, ids), scores) in some.into_iter().zip(&ids).zip(scores) {
            bar.suspend(|| print(args, sequence, ids, &scores, tokenizer))?;
            bar.inc(1);
        }
        if bar.is_hidden() && pace.is_due(0.0) {
            say!("{} scored", counted(bar.position(), "sequence"));
        }
    }
}

/// Prints the sum of a sequence, and the parts where they are asked for.
fn print(
    args: &ScoreArgs,
    sequence: Sequence,
    ids: &[u32],
    scores: &[Option<f64>],
    tokenizer: &Tokenizer,
) -> anyhow::Result<()> {
    let known: Vec<f64> = scores.iter().flatten().copied().collect();
    if known.is_empty() {
        let message =
            format!("{}: expected a token that can be predicted, found none", sequence.name());
        return Err(Error::Text(message).into());
    }
    let sum: f64 = known.iter().sum();
    let perplexity = (-sum / known.len() as f64).exp();
    let name = |id: u32| tokenizer.token_text(id).unwrap_or_else(|| format!("(token {id})"));
    let tokens = ids.iter().zip(scores);
    if args.json {
        let mut line = json!({
            "id": sequence.id,
            "sequence": sequence.text,
            "score": sum,
            "tokens": known.len(),
            "perplexity": perplexity,
        });
        if args.per_token {
            let one = |(&id, &score): (&u32, &Option<f64>)| json!({"token": name(id), "id": id, "logprob": score});
            line["per_token"] = tokens.map(one).collect();
        }
        return print_line(line);
    }
    let predicted = counted(known.len(), "token");
    print_line(format_args!(
        "{}\n  {sum:.4} nats, {predicted}, perplexity {perplexity:.3}",
        sequence.id.unwrap_or(sequence.text)
    ))?;
    if args.per_token {
        for (id, score) in tokens {
            let score = score.map_or("-".into(), |score| format!("{score:.4}"));
            print_line(format_args!("  {} {score}", name(*id)))?;
        }
    }
    Ok(())
}
