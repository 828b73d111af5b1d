//! `tcn bench`: how fast this machine trains or runs a network.

mod generate;
mod report;
mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_tcn::kernels;
use candle_tcn::models::ModelConfig;
use candle_tcn::ops::profile;
use candle_tcn::train::Precision;
use clap::ValueEnum;

use crate::flags::{Dtype, count};
use crate::{kernel, memory, model, usage_error};
use report::{Profile, Report, Setting};
use work::TimedWork;

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
    /// Break down the time of training or of a forward pass
    #[arg(long)]
    profile: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A training step: forward, loss, backward, clipping, SGD
    Train,
    /// A forward pass without gradients
    Forward,
    /// Prompts, and one token after the other
    Generate,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Forward => "forward",
            Self::Generate => "generate",
        }
    }
}

/// Multiply-adds alone on these threads, 10⁹ operations a second.
fn ceiling_gflops(precision: Precision) -> Option<f64> {
    let (bf16, threads) = (precision == Precision::Bf16, rayon::current_num_threads());
    kernels::ceiling(kernel::chosen(), bf16, threads).map(|flops| flops / 1e9)
}

pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    let model = args.network()?;
    match args.what {
        What::Train | What::Forward => whole_sequences(&args, model),
        What::Generate if args.profile => {
            Err(usage_error("--profile: tells the parts of train and forward, not of generate"))
        }
        What::Generate => generate::run(&args, &model),
    }
}

/// Training or a forward pass.
fn whole_sequences(args: &BenchArgs, model: ModelConfig) -> anyhow::Result<()> {
    let precision = args.dtype.precision()?;
    let (batch_size, seq_len) = (args.batch_size(), args.seq_len());
    // as far as it fits a tensor at all
    model.graph()?.training_bytes(batch_size, seq_len, precision.dtype())?;
    let mut setting = Setting::new(args, &model, precision.dtype().as_str())?;
    let flops = model.graph()?.cost()?.flops;
    let (flops, mut work) = match args.what {
        What::Train => {
            memory::check_training(&model.graph()?, batch_size, seq_len, precision)?;
            let work = work::training(model, batch_size, seq_len, precision)?;
            (3.0 * flops, work)
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
    let (times, profile) = args.timed(&mut work)?;
    let ceiling = ceiling.zip(ceiling_gflops(precision)).map(|(a, b)| a.max(b));

    let tokens = batch_size as f64 * seq_len as f64;
    let tokens_per_s = tokens / median(times).as_secs_f64().max(1e-9);
    setting.peak_memory_bytes = memory::peak_bytes();
    let report = Report {
        setting,
        tokens_per_s,
        gflops: tokens_per_s * flops / 1e9,
        ceiling_gflops: ceiling,
        profile,
    };
    report.print(args.json)
}

impl BenchArgs {
    fn batch_size(&self) -> usize {
        self.batch_size.unwrap_or(match self.what {
            What::Train | What::Forward => 32,
            What::Generate => 1,
        })
    }

    fn seq_len(&self) -> usize {
        self.seq_len.unwrap_or(match self.what {
            What::Train | What::Forward => 400,
            What::Generate => 12_800,
        })
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

    /// The times of all runs, and where they went.
    fn timed(&self, work: &mut TimedWork) -> anyhow::Result<(Vec<Duration>, Option<Profile>)> {
        let mut runs = || -> anyhow::Result<Vec<Duration>> {
            let time = |_| {
                let start = Instant::now();
                work()?;
                Ok(start.elapsed())
            };
            (0..self.runs).map(time).collect()
        };
        if !self.profile {
            return Ok((runs()?, None));
        }
        let (times, parts) = profile::record(runs);
        let times = times?;
        let total = times.iter().sum();
        Ok((times, Some(Profile::new(&parts, total, self.runs))))
    }
}

/// The median of `times`, which is not empty.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let (low, high) = (times[(times.len() - 1) / 2], times[times.len() / 2]);
    (low + high) / 2
}
