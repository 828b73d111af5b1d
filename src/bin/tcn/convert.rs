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

use crate::flags::counted;
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

/// A network that was read.
struct Source {
    /// Folder or file.
    path: PathBuf,
    /// Files to copy, and their names.
    files: Vec<(PathBuf, &'static str)>,
    network: Converted,
}

pub fn run(args: ConvertArgs) -> anyhow::Result<()> {
    if std::fs::read_dir(&args.dst).map_or(args.dst.exists(), |mut dir| dir.next().is_some()) {
        bail_usage!(
            "{}: exists already; name a folder that does not, or remove it first",
            args.dst.display()
        );
    }
    let path = model::resolve("SRC", &args.src)?;
    let mut source = match path.is_dir() {
        true => read_dir(&path, &args)?,
        false => read_file(&path, &args)?,
    };
    let network = &mut source.network;
    weights::check_finite(&network.tensors).with_context(|| args.src.clone())?;
    complete(network, &args)?;
    if args.fold_weight_norm || args.dtype == StoredDtype::Int8 {
        fold_weight_norm(&mut network.tensors)?;
        network.config = network.config.clone().without_weight_norm();
    }
    check_weights(&network.config, &network.tensors)?;
    write(&source, &args)?;
    report(&source.network, &args)
}

fn read_dir(dir: &Path, args: &ConvertArgs) -> anyhow::Result<Source> {
    let of_files = [
        ("--arguments", args.arguments.is_some()),
        ("--key", args.key.is_some()),
        ("--prefix", args.prefix.is_some()),
    ];
    if let Some((flag, _)) = of_files.into_iter().find(|(_, given)| *given) {
        bail_usage!(
            "{flag}: goes with a file of weights; {} is a folder, with a config.json of its own",
            dir.display()
        );
    }
    let described = directory::described_in(dir);
    let config = read_config(described.join(names::CONFIG))?;
    let mut tensors = weights::read(weights::find(dir)?)?.tensors;
    let graph = config.graph()?;
    graph.drop_copies(&mut tensors)?;
    let beside = [names::TOKENIZER, names::CARD];
    let mut files: Vec<_> = beside.map(|name| (described.join(name), name)).into();
    files.retain(|(file, _)| file.exists());
    let expected: BTreeSet<_> = graph.parameters().iter().map(|p| p.name.clone()).collect();
    let found: BTreeSet<_> = tensors.keys().cloned().collect();
    let [left_over, missing] = [(&found, &expected), (&expected, &found)]
        .map(|(some, others)| some.difference(others).cloned().collect::<Vec<_>>());
    tensors.retain(|name, _| expected.contains(name));
    let network = Converted { config, tensors, left_over, missing };
    Ok(Source { path: dir.into(), files, network })
}

fn read_file(path: &Path, args: &ConvertArgs) -> anyhow::Result<Source> {
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
    Ok(Source { path: path.into(), files: Vec::new(), network })
}

fn read_json(path: &Path) -> anyhow::Result<serde_json::Value> {
    let json = read_small(path, "the arguments of a network", names::MAX_CONFIG_BYTES)?;
    let wrong = |error| candle_tcn::Error::file(path, format!("expected JSON: {error}"));
    Ok(serde_json::from_slice(&json).map_err(wrong)?)
}

/// Refuses what is left over or missing, or makes up for it.
fn complete(network: &mut Converted, args: &ConvertArgs) -> anyhow::Result<()> {
    let list =
        |names: &[String]| names.iter().map(|name| format!("\n  {name}")).collect::<String>();
    if !network.left_over.is_empty() && !args.allow_left_over {
        anyhow::bail!(
            "{}: a {} network has no use for {}, which --allow-left-over leaves out:{}",
            args.src,
            network.config.model_type(),
            counted(network.left_over.len(), "tensor"),
            list(&network.left_over)
        );
    }
    if network.missing.is_empty() {
        return Ok(());
    }
    if !args.allow_missing {
        anyhow::bail!(
            "{}: a {} network needs {} more, which --allow-missing sets to what training starts from:{}",
            args.src,
            network.config.model_type(),
            counted(network.missing.len(), "tensor"),
            list(&network.missing)
        );
    }
    if network.missing.len() >= network.tensors.len() {
        anyhow::bail!(
            "{}: only {} of the {} tensors of a {} network are there: it is not in this file, or --prefix tells where",
            args.src,
            network.tensors.len(),
            network.tensors.len() + network.missing.len(),
            network.config.model_type()
        );
    }
    say!("{}: these tensors start anew:{}", args.src, list(&network.missing));
    let params = Params::new(0, DType::F32, &Device::Cpu);
    network.config.build(params.builder())?;
    let initial = params.snapshot()?.into_iter();
    network.tensors.extend(initial.filter(|(name, _)| network.missing.contains(name)));
    Ok(())
}

fn write(Source { path, files, network }: &Source, args: &ConvertArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dst)?;
    for (file, name) in files {
        std::fs::copy(file, args.dst.join(name))?;
    }
    let to = args.dst.join(names::TOKENIZER);
    if let Some(file) = &args.tokenizer {
        candle_tcn::text::Tokenizer::from_file(file)?;
        std::fs::copy(file, to)?;
    } else if !to.exists()
        && path.is_dir()
        && let Some(tokenizer) = read_tokenizer(path)?
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
