//! `tcn fill-mask`: what a masked language model would put in the place of a mask.

use std::path::PathBuf;

use candle_tcn::models::{Candidate, Encoder, candidates};
use candle_tcn::text::Tokenizer;
use candle_tcn::{Error, LoadedModel};
use serde_json::{Value, json};

use crate::flags::{WholeDtype, count};
use crate::model::Unknown;
use crate::sequences::{Sequence, Sequences, encode};
use crate::{model, print_line};

/// Sequences that are given to the model together.
const TOGETHER: usize = 1024;

#[derive(clap::Args)]
pub struct FillMaskArgs {
    /// A masked language model: a directory, or org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Sequences with one or more masks, such as "MANLG<mask>G"
    sequences: Vec<String>,
    /// A file of them, one a line or FASTA; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Candidates for each mask
    #[arg(long, value_name = "K", value_parser = count, default_value = "5")]
    top_k: usize,
    /// Tokens that are computed at once, which bounds the memory
    #[arg(long, value_name = "N", value_parser = count, default_value = "16384")]
    batch_tokens: usize,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = WholeDtype::F32)]
    dtype: WholeDtype,
    /// Print one JSON object a sequence
    #[arg(long)]
    json: bool,
}

pub fn run(args: FillMaskArgs) -> anyhow::Result<()> {
    if args.sequences.is_empty() == args.input.is_none() {
        bail_usage!("expected sequences as arguments, or a file of them with --input");
    }
    let loaded = model::load(Some(&args.model))?;
    let tokenizer = loaded.tokenizer()?;
    let mask = masked(&loaded, tokenizer)?;
    let dtype = args.dtype.precision().dtype();
    let encoder = Encoder::new(&loaded.model, args.batch_tokens, dtype)?;
    let mut sequences: Box<dyn Iterator<Item = anyhow::Result<Sequence>>> = match &args.input {
        Some(file) => Box::new(Sequences::open(file)?),
        None => Box::new(args.sequences.iter().map(|text| Ok(Sequence::new(text)))),
    };
    let (mut unknown, mut is_first) = (Unknown::default(), true);
    loop {
        let some = sequences.by_ref().take(TOGETHER).collect::<anyhow::Result<Vec<_>>>()?;
        if some.is_empty() {
            unknown.warn();
            return match (is_first, &args.input) {
                (true, Some(file)) => {
                    Err(Error::file(file, "expected sequences, found none").into())
                }
                _ => Ok(()),
            };
        }
        is_first = false;
        let filled = fill(&encoder, tokenizer, mask, &some, (args.top_k, &mut unknown))?;
        for (sequence, masks) in some.into_iter().zip(filled) {
            match args.json {
                true => print_line(
                    json!({"id": sequence.id, "sequence": sequence.text, "masks": masks}),
                )?,
                false => print_text(sequence, &masks)?,
            }
        }
    }
}

/// The token that stands for what is to be found.
fn masked(loaded: &LoadedModel, tokenizer: &Tokenizer) -> anyhow::Result<u32> {
    if loaded.model.graph().is_causal() {
        bail_usage!(
            "--model: expected a masked language model (bytenet, carp, ConvNet), found {}, which predicts the next token; use tcn generate",
            loaded.config.model_type()
        );
    }
    Ok(tokenizer.expect_mask()?)
}

/// The masks of each sequence: where they are, and what may stand there.
fn fill(
    encoder: &Encoder,
    tokenizer: &Tokenizer,
    mask: u32,
    sequences: &[Sequence],
    (top_k, unknown): (usize, &mut Unknown),
) -> anyhow::Result<Vec<Vec<Value>>> {
    let ids = encode(tokenizer, sequences, unknown, |tokens| {
        let name = || tokenizer.token_text(mask).unwrap_or_default();
        (!tokens.contains(&mask)).then(|| format!("expected at least one {}, found none", name()))
    })?;
    let mut filled = vec![Vec::new(); ids.len()];
    encoder.run(&ids, "logits", |i, logits| {
        for (position, _) in ids[i].iter().enumerate().filter(|(_, id)| **id == mask) {
            let row: Vec<f32> = logits.get(position)?.to_vec1()?;
            let named =
                candidates(&row, top_k)?.into_iter().map(|Candidate { id, probability }| {
                    let name = tokenizer.token_text(id).unwrap_or_else(|| format!("(token {id})"));
                    json!({"token": name, "id": id, "probability": probability})
                });
            let named: Vec<Value> = named.collect();
            filled[i].push(json!({"position": position, "candidates": named}));
        }
        Ok(())
    })?;
    Ok(filled)
}

fn print_text(sequence: Sequence, masks: &[Value]) -> anyhow::Result<()> {
    print_line(sequence.id.unwrap_or(sequence.text))?;
    for mask in masks {
        let best = mask["candidates"].as_array().into_iter().flatten().map(|candidate| {
            let token = candidate["token"].as_str().unwrap_or_default();
            format!("{token} {:.4}", candidate["probability"].as_f64().unwrap_or_default())
        });
        let best = best.collect::<Vec<_>>().join(", ");
        print_line(format_args!("  token {}: {best}", mask["position"]))?;
    }
    Ok(())
}
