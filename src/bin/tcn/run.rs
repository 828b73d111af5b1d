//! `tcn run`: any model on tensors of a file.

use std::path::PathBuf;

use candle_tcn::files::{weights, write_tensors};
use candle_tcn::models::{RunOptions, run as apply};
use candle_tcn::train::Precision;
use serde_json::json;

use crate::flags::{WholeDtype, refuse_existing};
use crate::{model, print_line};

#[derive(clap::Args)]
pub struct RunArgs {
    /// A model directory, or org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Safetensors with `input` or `input_ids`: token ids (batch, time), or frames in the layout that the
    /// model's input_shape names; perhaps `mask`, `embedding.0`, …
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Safetensors to write: `output`, and what is recorded
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
    /// Stream: N steps at a time, each continuing the ones before
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Keep this intermediate too: hidden.0 (what the first layer gets), hidden.1, …, logits, or all; may be
    /// given several times
    #[arg(long, value_name = "NAME")]
    record: Vec<String>,
    /// Ignore a mask in the input
    #[arg(long)]
    no_mask: bool,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = WholeDtype::F32)]
    dtype: WholeDtype,
    /// Print the result's shapes as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: RunArgs) -> anyhow::Result<()> {
    refuse_existing("--output", &args.output, args.force)?;
    let loaded = model::load(Some(&args.model))?;
    let inputs = weights::read(&args.input)?.tensors;
    let options = RunOptions {
        chunk: args.chunk,
        record: args.record,
        no_mask: args.no_mask,
        bf16: args.dtype.precision() == Precision::Bf16,
    };
    let results = apply(&loaded.model, &loaded.config, &inputs, &options)?;
    write_tensors(&args.output, &results)?;
    let mut shapes: Vec<_> =
        results.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    shapes.sort();
    if args.json {
        let shapes: serde_json::Map<_, _> =
            shapes.into_iter().map(|(name, dims)| (name, json!(dims))).collect();
        return print_line(json!({"out": args.output, "shapes": shapes}));
    }
    shapes.into_iter().try_for_each(|(name, dims)| print_line(format_args!("{name} {dims:?}")))
}
