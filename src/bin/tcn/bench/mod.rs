//! `tcn bench`: how fast this machine trains or runs a network.

mod generate;
mod report;
pub mod work;

use std::path::PathBuf;
use std::time::Instant;

use candle_tcn::kernels;
use candle_tcn::models::ModelConfig;
use candle_tcn::ops::profile;
use candle_tcn::train::Precision;
use candle_tcn::train::optim::OptimizerConfig;
use clap::ValueEnum;

use crate::flags::{Dtype, count};
use crate::optimizer::{OptimizerFlags, OptimizerName};
use crate::{kernel, memory, model, usage_error};
use report::{Report, quantile};

#[derive(clap::Args)]
pub struct BenchArgs {
    /// The work to measure
    #[arg(value_enum, value_name = "train|forward|generate")]
    what: What,
    /// The network, by name; the default is what PyTorch is compared with
    #[arg(long, value_name = "NAME", default_value = "char-ptb", conflicts_with_all = ["config", "model"])]
    preset: String,
    /// The network, as a config.json
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// The network of a model, a directory or org/name[@revision] on the Hub; its weights do not matter
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Rows of a batch, or sequences that are generated at once (default: 32, generate: 1)
    #[arg(long, value_name = "N", value_parser = count)]
    batch_size: Option<usize>,
    /// Tokens of a row, or of a prompt (default: 400, generate: 12800)
    #[arg(long, value_name = "N", value_parser = count)]
    seq_len: Option<usize>,
    /// Size of the vocabulary (default: the network's own; 50 if it leaves that to a tokenizer)
    #[arg(long, value_name = "N", value_parser = count)]
    vocab_size: Option<usize>,
    /// Number format
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,
    /// Timed runs; the median counts
    #[arg(long, value_name = "N", value_parser = count, default_value = "7")]
    runs: usize,
    /// Untimed runs before them
    #[arg(long, value_name = "N", default_value_t = 3)]
    warmup: usize,
    /// The optimizer of training (default: sgd)
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// Break down the time of training or of a forward pass
    #[arg(long)]
    profile: bool,
    /// Measure generation with 1, 2, 4 … 128 sequences at once too, and draw the rates into FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A training step: forward, loss, backward, clipping, and a step of --optimizer
    Train,
    /// A forward pass without gradients
    Forward,
    /// Prompts, and one token after the other
    Generate,
}

/// Multiply-adds alone on these threads, 10⁹ operations a second.
fn ceiling_gflops(precision: Precision) -> Option<f64> {
    let (bf16, threads) = (precision == Precision::Bf16, rayon::current_num_threads());
    kernels::ceiling(kernel::chosen(), bf16, threads).map(|flops| flops / 1e9)
}

pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    let model = args.network()?;
    match args.what {
        What::Generate if args.profile => {
            Err(usage_error("--profile: tells the parts of train and forward, not of generate"))
        }
        What::Forward | What::Generate if args.optimizer.is_some() => {
            Err(usage_error("--optimizer: belongs to train, not to forward and generate"))
        }
        What::Train | What::Forward if args.svg.is_some() => {
            Err(usage_error("--svg: draws the rates of generate, not of train and forward"))
        }
        What::Train | What::Forward => whole_sequences(&args, model),
        What::Generate => generate::run(&args, &model),
    }
}

/// Training or a forward pass.
fn whole_sequences(args: &BenchArgs, model: ModelConfig) -> anyhow::Result<()> {
    let precision = args.dtype.precision()?;
    let (batch_size, seq_len) = args.sizes();
    // as far as it fits a tensor at all
    model.graph()?.training_bytes(batch_size, seq_len, precision.dtype())?;
    let mut report = Report::new(args, &model, precision.dtype().as_str())?;
    let flops = model.graph()?.cost()?.flops;
    let (flops, mut work) = match args.what {
        What::Train => {
            memory::check_training(&model.graph()?, batch_size, seq_len, precision)?;
            let optimizer = args.optimizer();
            let sizes = (batch_size, seq_len);
            (3.0 * flops, work::training(model, sizes, precision, optimizer)?)
        }
        What::Forward | What::Generate => {
            memory::check_forward(&model.graph()?, batch_size, seq_len)?;
            (flops, work::forward(model, batch_size, seq_len, precision)?)
        }
    };

    // before and after: whichever moment the processor was freer in
    let ceiling = ceiling_gflops(precision);
    for _ in 0..args.warmup {
        work()?;
    }
    let mut times = Vec::new();
    let mut runs = || -> candle_tcn::Result<()> {
        for _ in 0..args.runs {
            let start = Instant::now();
            work()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(())
    };
    let parts = match args.profile {
        true => {
            let (done, parts) = profile::record(runs);
            done.map(|()| Some(parts))
        }
        false => runs().map(|()| None),
    }?;
    let ceiling = ceiling.zip(ceiling_gflops(precision)).map(|(a, b)| a.max(b));

    let tokens = batch_size as f64 * seq_len as f64;
    let tokens_per_s = tokens / quantile(&mut times, 0.5).max(1e-9);
    report.speed(tokens_per_s);
    let gflops = tokens_per_s * flops / 1e9;
    let share = ceiling.map_or(String::new(), |ceiling| {
        let percent = 100.0 * gflops / ceiling;
        format!(", {percent:.0} % of the {ceiling:.0} that multiply-adds alone reach")
    });
    report.set("gflops", gflops);
    report.set("ceiling_gflops", ceiling);
    report.line("arithmetic", format!("{gflops:.1} GFLOP/s{share}"));
    report.memory();
    if let Some(parts) = parts {
        report.profile(&parts, times.iter().sum(), args.runs);
    }
    report.print(args.json)
}

impl BenchArgs {
    /// Rows of a batch and tokens of a row.
    fn sizes(&self) -> (usize, usize) {
        let (batch_size, seq_len) = match self.what {
            What::Train | What::Forward => (32, 400),
            What::Generate => (1, 12_800),
        };
        (self.batch_size.unwrap_or(batch_size), self.seq_len.unwrap_or(seq_len))
    }

    fn optimizer(&self) -> OptimizerConfig {
        let name = self.optimizer.unwrap_or(OptimizerName::Sgd);
        name.config(OptimizerFlags::default(), None).0
    }

    fn network(&self) -> anyhow::Result<ModelConfig> {
        const VOCAB_SIZE: usize = 50;
        let config = model::network(&self.preset, &self.config, &self.model)?;
        config.expect_tokens()?;
        let own = Some(config.vocab_size()).filter(|&size| size > 0);
        let vocab_size = self.vocab_size.or(own).unwrap_or(VOCAB_SIZE);
        let config = config.with_vocab_size(vocab_size);
        config.graph()?;
        Ok(config)
    }
}
