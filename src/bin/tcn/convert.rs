//! `tcn convert`: another project's network, or a model in another form, as a model directory.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::{DType, Device};
use candle_tcn::files::{
    fold_weight_norm, names, read_small, weights, write_atomic, write_weights,
};
use candle_tcn::models::directory::{self, check_weights, read_config, read_tokenizer};
use candle_tcn::models::{Converted, ModelConfig, convert, convert_under};
use candle_tcn::nn::{Params, StepDtype};
use clap::ValueEnum;
use serde_json::json;

use crate::flags::{counted, expect_together};
use crate::{model, print_result};

#[derive(clap::Args)]
pub struct ConvertArgs {
    /// A model directory, a model on the Hub, or a file of weights (.pt, .pth, .bin, .safetensors) of
    /// locuslab/TCN, pytorch-tcn, protein-sequence-models (ByteNet) or CARP
    src: String,
    /// The model directory to make
    dst: PathBuf,
    /// A JSON file of the arguments that made the network in Python, for a file of weights
    #[arg(long, value_name = "FILE")]
    arguments: Option<PathBuf>,
    /// The dict of tensors to take of a PyTorch file that holds several, such as ema.model
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Prefix of the names of the network's tensors, such as model.tcn (default: where a known network
    /// leaves the fewest tensors over)
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
    /// A tokenizer.json to put beside a language model that was a file of weights
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Replace direction and length of weight-normed weights by their product
    #[arg(long)]
    fold_weight_norm: bool,
    /// Number format of stored matrices and kernels (int8 folds weight norm)
    #[arg(long, value_enum, default_value_t = StoredDtype::F32)]
    dtype: StoredDtype,
    /// Leave tensors out that the network has no use for
    #[arg(long)]
    allow_left_over: bool,
    /// Give tensors that are missing the values that training starts from, where most of the network is there
    #[arg(long)]
    allow_missing: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoredDtype {
    /// 32 bits
    F32,
    /// 16 bits
    Bf16,
    /// 8 bits with a scale for each output channel
    Int8,
}

impl StoredDtype {
    fn step(self) -> StepDtype {
        match self {
            Self::F32 => StepDtype::F32,
            Self::Bf16 => StepDtype::Bf16,
            Self::Int8 => StepDtype::Int8,
        }
    }
}

pub fn run(args: ConvertArgs) -> anyhow::Result<()> {
    if std::fs::read_dir(&args.dst).map_or(args.dst.exists(), |mut dir| dir.next().is_some()) {
        bail_usage!(
            "{}: exists already; name a folder that does not, or remove it first",
            args.dst.display()
        );
    }
    let path = model::resolve("SRC", &args.src)?;
    let mut network = match path.is_dir() {
        true => read_dir(&path, &args)?,
        false => read_file(&path, &args)?,
    };
    weights::check_finite(&network.tensors).with_context(|| args.src.clone())?;
    complete(&mut network, &args)?;
    if args.fold_weight_norm || args.dtype == StoredDtype::Int8 {
        fold_weight_norm(&mut network.tensors)?;
        network.config = network.config.without_weight_norm();
    }
    check_weights(&network.config, &network.tensors)?;
    write(&network, &path, &args)?;
    report(&network, &args)
}

fn read_dir(dir: &Path, args: &ConvertArgs) -> anyhow::Result<Converted> {
    let file =
        format!("a file of weights; {} is a folder, with a config.json of its own", dir.display());
    expect_together(&[
        ("--arguments", args.arguments.is_some(), &file),
        ("--key", args.key.is_some(), &file),
        ("--prefix", args.prefix.is_some(), &file),
    ])?;
    let config = read_config(directory::described_in(dir).join(names::CONFIG))?;
    let mut tensors = weights::read(weights::find(dir)?)?.tensors;
    let graph = config.graph()?;
    graph.drop_copies(&mut tensors)?;
    let expected: BTreeSet<_> = graph.parameters().iter().map(|p| p.name.clone()).collect();
    let found: BTreeSet<_> = tensors.keys().cloned().collect();
    let [left_over, missing] = [(&found, &expected), (&expected, &found)]
        .map(|(some, others)| some.difference(others).cloned().collect::<Vec<_>>());
    tensors.retain(|name, _| expected.contains(name));
    Ok(Converted { config, tensors, left_over, missing })
}

fn read_file(path: &Path, args: &ConvertArgs) -> anyhow::Result<Converted> {
    let arguments = args.arguments.as_deref().map(read_json).transpose()?;
    let file = match &args.key {
        Some(key) => weights::open_key(path, key),
        None => weights::open(path),
    }?;
    let tensors = file.read()?.tensors;
    let network = match &args.prefix {
        Some(prefix) => convert_under(tensors, prefix, arguments.as_ref()),
        None => convert(tensors, arguments.as_ref()),
    }?;
    if let ModelConfig::TemporalConvNet(cfg) = &network.config
        && cfg.num_outputs.is_some()
        && cfg.output_activation.is_none()
    {
        say!(
            "{}: a state dict does not tell what follows the linear layer: here nothing does, and it applies to \
             every step; output_activation in --arguments sets a sigmoid, others (log-softmax, the last step \
             alone) are for whoever reads the output",
            args.src
        );
    }
    Ok(network)
}

fn read_json(path: &Path) -> anyhow::Result<serde_json::Value> {
    let json = read_small(path, "the arguments of a network", names::MAX_CONFIG_BYTES)?;
    let wrong = |error| candle_tcn::Error::file(path, format!("expected JSON: {error}"));
    Ok(serde_json::from_slice(&json).map_err(wrong)?)
}

/// Refuses what is left over or missing, or makes up for it.
fn complete(network: &mut Converted, args: &ConvertArgs) -> anyhow::Result<()> {
    let (src, model_type) = (&args.src, network.config.model_type());
    let count = |names: &[String]| counted(names.len(), "tensor");
    let list =
        |names: &[String]| names.iter().fold(String::new(), |list, name| list + "\n  " + name);
    let Converted { tensors, left_over, missing, .. } = &*network;
    if !left_over.is_empty() && !args.allow_left_over {
        let (count, list) = (count(left_over), list(left_over));
        anyhow::bail!(
            "{src}: a {model_type} network has no use for {count}, which --allow-left-over leaves out:{list}"
        );
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list = list(missing);
    if !args.allow_missing {
        let count = count(missing);
        anyhow::bail!(
            "{src}: a {model_type} network needs {count} more, which --allow-missing sets to what training starts from:{list}"
        );
    }
    if missing.len() >= tensors.len() {
        let (found, all) = (tensors.len(), tensors.len() + missing.len());
        anyhow::bail!(
            "{src}: only {found} of the {all} tensors of a {model_type} network are there: it is not in this file, or --prefix tells where"
        );
    }
    say!("{src}: these tensors start anew:{list}");
    let params = Params::new(0, DType::F32, &Device::Cpu);
    network.config.build(params.builder())?;
    let initial = params.snapshot()?.into_iter();
    network.tensors.extend(initial.filter(|(name, _)| network.missing.contains(name)));
    Ok(())
}

fn write(network: &Converted, src: &Path, args: &ConvertArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dst)?;
    if src.is_dir() {
        let described = directory::described_in(src);
        for name in
            [names::TOKENIZER, names::CARD].iter().filter(|name| described.join(name).exists())
        {
            std::fs::copy(described.join(name), args.dst.join(name))?;
        }
    }
    let to = args.dst.join(names::TOKENIZER);
    if let Some(file) = &args.tokenizer {
        candle_tcn::text::Tokenizer::from_file(file)?;
        std::fs::copy(file, to)?;
    } else if !to.exists()
        && src.is_dir()
        && let Some(tokenizer) = read_tokenizer(src)?
    {
        // of a vocab.txt
        tokenizer.save(to)?;
    }
    let graph = network.config.graph()?;
    let is_embedding = |name: &str| graph.embedding().is_some_and(|table| table.name == name);
    let to = args.dst.join(names::WEIGHTS);
    write_weights(to, &network.tensors, args.dtype.step(), is_embedding)?;
    // last: a directory without it is no model yet
    let json = network.config.to_json()?;
    let config = args.dst.join(names::CONFIG);
    Ok(write_atomic(&config, |file| file.write_all(json.as_bytes()))?)
}

fn report(network: &Converted, args: &ConvertArgs) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(args.dst.join(names::WEIGHTS))?.len();
    let model_type = network.config.model_type();
    let parameters = network.config.graph()?.parameter_count()?;
    print_result(
        args.json,
        json!({
            "model_type": model_type,
            "parameters": parameters,
            "bytes": bytes,
            "left_over": network.left_over,
            "missing": network.missing,
            "out": args.dst,
        }),
        format_args!(
            "{model_type}: {parameters} parameters, {bytes} bytes of weights, in {}",
            args.dst.display()
        ),
    )
}
