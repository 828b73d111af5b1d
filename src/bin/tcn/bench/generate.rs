//! `tcn bench generate`: prompt and steps, each by itself.

use std::time::Instant;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_tcn::generate::{Sampler, SamplerConfig};
use candle_tcn::kernels::Kernel;
use candle_tcn::kernels::step::read_bandwidth;
use candle_tcn::models::{Model, ModelConfig, Stepper};
use candle_tcn::nn::{Params, StepDtype};
use serde::Serialize;

use super::work::{SEED, random_ids};
use crate::memory;
use crate::print_line;

/// Tokens of each sequence that are drawn in a timed run, and before the first.
const TOKENS: usize = 2000;
const WARMUP: usize = 200;

/// The result; with `--json` as it is.
#[derive(Serialize)]
struct Report {
    what: &'static str,
    /// Of all sequences together, drawing included; the median of the runs.
    tokens_per_s: f64,
    /// Of a prompt of `seq_len` tokens for each sequence; the median of the runs.
    prefill_tokens_per_s: f64,
    /// Microseconds of a step of all sequences, drawing included.
    step_p50_us: f64,
    step_p99_us: f64,
    step_worst_us: f64,
    /// Weights that a step reads.
    weight_bytes: usize,
    /// What one thread reads in a second from so many bytes again and again, measured in this run.
    read_bytes_per_s: f64,
    /// The time that reading the weights would take, in times of a step.
    bandwidth_share: f64,
    kernel: &'static str,
    dtype: &'static str,
    parameters: usize,
    threads: usize,
    batch_size: usize,
    seq_len: usize,
    vocab_size: usize,
    runs: usize,
    peak_memory_bytes: Option<u64>,
}

/// What is measured.
pub struct Options {
    pub dtype: StepDtype,
    pub batch_size: usize,
    pub seq_len: usize,
    pub runs: usize,
    pub json: bool,
}

pub fn run(config: &ModelConfig, options: &Options) -> anyhow::Result<()> {
    memory::check_forward(config, options.batch_size, options.seq_len.min(4096))?;
    let params = Params::new(SEED, DType::F32, &Device::Cpu);
    Model::new(config, params.builder())?;
    let weights = VarBuilder::from_tensors(params.snapshot()?, DType::F32, &Device::Cpu);
    let stepper = Model::new(config, weights)?.stepper(options.dtype)?;

    let weight_bytes = stepper.net().weight_bytes();
    let mut bandwidth = read_bandwidth(weight_bytes);
    let (mut prefills, mut rates, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        prefills.push(prefill(&stepper, options)?);
        let times = generate(&stepper, options)?;
        let tokens = (times.len() * options.batch_size) as f64;
        rates.push(tokens / times.iter().sum::<f64>());
        steps.extend(times);
        bandwidth = bandwidth.max(read_bandwidth(weight_bytes));
    }
    for list in [&mut prefills, &mut rates, &mut steps] {
        list.sort_by(f64::total_cmp);
    }
    let at = |list: &[f64], share: f64| list[((list.len() - 1) as f64 * share) as usize];
    let report = Report {
        what: "generate",
        tokens_per_s: at(&rates, 0.5),
        prefill_tokens_per_s: at(&prefills, 0.5),
        step_p50_us: 1e6 * at(&steps, 0.5),
        step_p99_us: 1e6 * at(&steps, 0.99),
        step_worst_us: 1e6 * at(&steps, 1.0),
        weight_bytes,
        read_bytes_per_s: bandwidth,
        bandwidth_share: weight_bytes as f64 / bandwidth / at(&steps, 0.5),
        kernel: Kernel::current().name(),
        dtype: options.dtype.name(),
        parameters: config.parameters()?,
        threads: rayon::current_num_threads(),
        batch_size: options.batch_size,
        seq_len: options.seq_len,
        vocab_size: config.vocab_size(),
        runs: options.runs,
        peak_memory_bytes: memory::peak_bytes(),
    };
    report.print(options.json)
}

/// Tokens in a second of prompts for all sequences.
fn prefill(stepper: &Stepper, options: &Options) -> anyhow::Result<f64> {
    let ids = random_ids(stepper.vocab_size(), options.batch_size * options.seq_len);
    let mut state = stepper.init_state(options.batch_size)?;
    let start = Instant::now();
    stepper.prefill(&ids, &mut state)?;
    Ok(ids.len() as f64 / start.elapsed().as_secs_f64())
}

/// Seconds of each step.
fn generate(stepper: &Stepper, options: &Options) -> anyhow::Result<Vec<f64>> {
    let (vocab_size, batch_size) = (stepper.vocab_size(), options.batch_size);
    let config = SamplerConfig {
        seed: SEED,
        ..SamplerConfig::default()
    };
    let sampler = |i| Sampler::for_sample(config.clone(), &[], vocab_size, i as u64);
    let mut samplers = (0..batch_size)
        .map(sampler)
        .collect::<Result<Vec<_>, _>>()?;
    let mut ids = vec![0; batch_size];
    let mut state = stepper.init_state(batch_size)?;
    let mut times = Vec::with_capacity(TOKENS);
    for token in 0..WARMUP + TOKENS {
        let start = Instant::now();
        let logits = stepper.step(&ids, &mut state)?;
        let rows = logits.chunks_exact(vocab_size).zip(&mut samplers);
        for (id, (logits, sampler)) in ids.iter_mut().zip(rows) {
            *id = sampler.sample(logits, &[])?;
        }
        if token >= WARMUP {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

impl Report {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return print_line(serde_json::to_string(self)?);
        }
        let line = |name: &str, text: String| print_line(format_args!("{name:<12}{text}"));
        line(
            self.what,
            format!(
                "{} parameters, {} sequences, vocabulary {}",
                self.parameters, self.batch_size, self.vocab_size
            ),
        )?;
        line(
            "kernel",
            format!("{}, {}, threads: {}", self.kernel, self.dtype, self.threads),
        )?;
        line(
            "speed",
            format!(
                "{:.0} tokens/s (median of {} runs)",
                self.tokens_per_s, self.runs
            ),
        )?;
        line(
            "step",
            format!(
                "{:.1} µs (99 %: {:.1}, worst {:.1})",
                self.step_p50_us, self.step_p99_us, self.step_worst_us
            ),
        )?;
        line(
            "weights",
            format!(
                "{:.1} MB at {:.1} GB/s: reading them is {:.0} % of a step",
                self.weight_bytes as f64 / 1e6,
                self.read_bytes_per_s / 1e9,
                100.0 * self.bandwidth_share
            ),
        )?;
        line(
            "prompt",
            format!(
                "{:.0} tokens/s, {} x {} tokens",
                self.prefill_tokens_per_s, self.batch_size, self.seq_len
            ),
        )
    }
}
