//! `tcn bench generate`: prompt and steps, each by itself.

use std::time::Instant;

use candle_tcn::generate::{Sampler, SamplerConfig};
use candle_tcn::kernels::step::read_bandwidth;
use candle_tcn::models::{ModelConfig, Stepper};
use serde::Serialize;

use super::BenchArgs;
use super::report::{Setting, line};
use super::work::{self, SEED, random_ids};
use crate::{kernel, memory, print_line};

/// Tokens of each sequence that are drawn in a run.
const TOKENS: usize = 2000;

/// The result; with `--json` as it is.
#[derive(Serialize)]
struct GenerateReport {
    #[serde(flatten)]
    setting: Setting,
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
    /// Bytes that one thread reads in a second from a buffer of that size again and again, measured in this run.
    read_bytes_per_s: f64,
    /// The time that reading the weights would take, in times of a step.
    bandwidth_share: f64,
}

pub fn run(args: &BenchArgs, config: &ModelConfig) -> anyhow::Result<()> {
    let (batch_size, dtype) = (args.batch_size(), args.dtype.step());
    memory::check_generation(&config.graph()?, batch_size, args.seq_len())?;
    let mut setting = Setting::new(args, config, dtype.name())?;
    let stepper = work::model(config)?.stepper(dtype)?;

    let weight_bytes = stepper.net().weight_bytes();
    let kernel = kernel::chosen();
    let mut bandwidth = read_bandwidth(kernel, weight_bytes);
    let (mut prefills, mut rates, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let run = || {
        anyhow::Ok((
            prefill(&stepper, batch_size, args.seq_len())?,
            generate(&stepper, batch_size)?,
        ))
    };
    for _ in 0..args.warmup {
        run()?;
    }
    for _ in 0..args.runs {
        let (prefill, times) = run()?;
        prefills.push(prefill);
        rates.push((times.len() * batch_size) as f64 / times.iter().sum::<f64>());
        steps.extend(times);
        bandwidth = bandwidth.max(read_bandwidth(kernel, weight_bytes));
    }
    for list in [&mut prefills, &mut rates, &mut steps] {
        list.sort_by(f64::total_cmp);
    }
    let at = |list: &[f64], share: f64| list[((list.len() - 1) as f64 * share) as usize];
    setting.peak_memory_bytes = memory::peak_bytes();
    let report = GenerateReport {
        setting,
        tokens_per_s: at(&rates, 0.5),
        prefill_tokens_per_s: at(&prefills, 0.5),
        step_p50_us: 1e6 * at(&steps, 0.5),
        step_p99_us: 1e6 * at(&steps, 0.99),
        step_worst_us: 1e6 * at(&steps, 1.0),
        weight_bytes,
        read_bytes_per_s: bandwidth,
        bandwidth_share: weight_bytes as f64 / bandwidth / at(&steps, 0.5),
    };
    report.print(args.json)
}

/// Tokens in a second of prompts for all sequences, which go in piece by piece.
fn prefill(stepper: &Stepper, batch_size: usize, seq_len: usize) -> anyhow::Result<f64> {
    let piece = seq_len.min(Stepper::prefill_len(batch_size));
    let ids = random_ids(stepper.vocab_size(), batch_size * piece);
    let mut state = stepper.init_state(batch_size)?;
    let start = Instant::now();
    let mut left = seq_len;
    while left > 0 {
        let now = left.min(piece);
        stepper.prefill(&ids[..batch_size * now], &mut state)?;
        left -= now;
    }
    Ok(batch_size as f64 * seq_len as f64 / start.elapsed().as_secs_f64())
}

/// Seconds of each step.
fn generate(stepper: &Stepper, batch_size: usize) -> anyhow::Result<Vec<f64>> {
    let vocab_size = stepper.vocab_size();
    let config = SamplerConfig { seed: SEED, ..SamplerConfig::default() };
    let sampler = Sampler::new(config, &[], vocab_size)?;
    let mut samplers: Vec<_> = (0..batch_size as u64).map(|i| sampler.clone().stream(i)).collect();
    let mut ids = vec![0; batch_size];
    let mut state = stepper.init_state(batch_size)?;
    let mut times = Vec::with_capacity(TOKENS);
    for _ in 0..TOKENS {
        let start = Instant::now();
        let logits = stepper.step(&ids, &mut state)?;
        let rows = logits.chunks_exact(vocab_size).zip(&mut samplers);
        for (id, (logits, sampler)) in ids.iter_mut().zip(rows) {
            *id = sampler.sample(logits, &[])?;
        }
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

impl GenerateReport {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return print_line(serde_json::to_string(self)?);
        }
        self.setting.print(self.tokens_per_s)?;
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
        line("prompt", format!("{:.0} tokens/s", self.prefill_tokens_per_s))?;
        self.setting.print_memory()
    }
}
