//! `tcn bench generate`: prompt and steps, each by itself.

use std::time::Instant;

use candle_tcn::generate::{Sampler, SamplerConfig};
use candle_tcn::kernels::step::read_bandwidth;
use candle_tcn::models::{ModelConfig, Stepper};

use super::BenchArgs;
use super::report::{Report, quantile};
use super::work::{self, SEED, random_ids};
use crate::{kernel, memory};

/// Tokens of each sequence that are drawn in a run.
const TOKENS: usize = 2000;

pub fn run(args: &BenchArgs, config: &ModelConfig) -> anyhow::Result<()> {
    let ((batch_size, seq_len), dtype) = (args.sizes(), args.dtype.step());
    memory::check_generation(&config.graph()?, batch_size, seq_len)?;
    let mut report = Report::new(args, config, dtype.name())?;
    let stepper = work::model(config)?.stepper(dtype)?;

    let weight_bytes = stepper.net().weight_bytes();
    let kernel = kernel::chosen();
    let mut bandwidth = read_bandwidth(kernel, weight_bytes);
    let (mut prefills, mut rates, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..args.warmup.saturating_add(args.runs) {
        let prefill = prefill(&stepper, batch_size, seq_len)?;
        let times = generate(&stepper, batch_size)?;
        if run >= args.warmup {
            prefills.push(prefill);
            rates.push((times.len() * batch_size) as f64 / times.iter().sum::<f64>());
            steps.extend(times);
            bandwidth = bandwidth.max(read_bandwidth(kernel, weight_bytes));
        }
    }

    report.speed(quantile(&mut rates, 0.5));
    let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| 1e6 * quantile(&mut steps, share));
    report.set("step_p50_us", p50);
    report.set("step_p99_us", p99);
    report.set("step_worst_us", worst);
    report.line("step", format!("{p50:.1} µs (99 %: {p99:.1}, worst {worst:.1})"));
    // of the time of a step, reading the weights would take so much
    let share = 1e6 * weight_bytes as f64 / bandwidth / p50;
    report.set("weight_bytes", weight_bytes);
    report.set("read_bytes_per_s", bandwidth);
    report.set("bandwidth_share", share);
    let (mb, rate, percent) = (weight_bytes as f64 / 1e6, bandwidth / 1e9, 100.0 * share);
    let text = format!("{mb:.1} MB at {rate:.1} GB/s: reading them is {percent:.0} % of a step");
    report.line("weights", text);
    let prefill = quantile(&mut prefills, 0.5);
    report.set("prefill_tokens_per_s", prefill);
    report.line("prompt", format!("{prefill:.0} tokens/s"));
    report.memory();
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
