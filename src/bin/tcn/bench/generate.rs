//! `tcn bench generate`: prompt and steps, each by itself.

use std::io::Write;
use std::time::Instant;

use candle_tcn::files::write_atomic;
use candle_tcn::generate::{Sampler, SamplerConfig};
use candle_tcn::models::{ModelConfig, Stepper};
use candle_tcn::plot::streams_svg;

use super::BenchArgs;
use super::report::{Report, quantile};
use super::work::{self, SEED, random_ids};
use crate::{flags, memory};

/// Tokens of each sequence that are drawn in a run.
const TOKENS: usize = 2000;

/// Tokens of all sequences together in a run of the curve, at the least.
const CURVE_TOKENS: usize = 4000;

/// Numbers of sequences of the curve.
const STREAMS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

pub fn run(args: &BenchArgs, config: &ModelConfig) -> anyhow::Result<()> {
    let ((batch_size, seq_len), dtype) = (args.sizes(), args.dtype.step());
    memory::check_generation(&config.graph()?, batch_size, seq_len)?;
    if let Some(path) = &args.svg {
        memory::check_generation(&config.graph()?, STREAMS[STREAMS.len() - 1], 1)?;
        flags::expect_folder("--svg", path)?;
    }
    let mut report = Report::new(args, config, dtype.name())?;
    let stepper = work::model(config)?.stepper(dtype)?;

    let (mut prefills, mut rates, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..args.warmup.saturating_add(args.runs) {
        let prefill = prefill(&stepper, batch_size, seq_len)?;
        let times = generate(&stepper, batch_size, TOKENS)?;
        if run >= args.warmup {
            prefills.push(prefill);
            rates.push((times.len() * batch_size) as f64 / times.iter().sum::<f64>());
            steps.extend(times);
        }
    }

    report.speed(quantile(&mut rates, 0.5));
    let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| 1e6 * quantile(&mut steps, share));
    report.set("step_p50_us", p50);
    report.set("step_p99_us", p99);
    report.set("step_worst_us", worst);
    report.line("step", format!("{p50:.1} µs (99 %: {p99:.1}, worst {worst:.1})"));
    let (weight_bytes, bits) = (stepper.net().weight_bytes(), stepper.net().input_bits());
    report.set("weight_bytes", weight_bytes);
    report.set("input_bits", bits);
    let inputs = bits.map_or(String::new(), |bits| format!(", inputs of {bits} bits"));
    report.line("weights", format!("{:.1} MB{inputs}", weight_bytes as f64 / 1e6));
    let prefill = quantile(&mut prefills, 0.5);
    report.set("prefill_tokens_per_s", prefill);
    report.line("prompt", format!("{prefill:.0} tokens/s"));
    if let Some(path) = &args.svg {
        let curve = curve(&stepper, args.runs)?;
        for (streams, rate) in &curve {
            report.line("streams", format!("{streams:>3}: {rate:>8.0} tokens/s"));
        }
        let title = report.title();
        let svg = streams_svg(&title, &curve, prefill)?;
        write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
        say!("drawn: {}", path.display());
        report.set("streams", serde_json::json!(curve));
    }
    report.memory();
    report.print(args.json)
}

/// Tokens in a second by the number of sequences: the median of `runs` rounds, in each of which all take their turn.
fn curve(stepper: &Stepper, runs: usize) -> anyhow::Result<Vec<(usize, f64)>> {
    let mut rates = vec![Vec::new(); STREAMS.len()];
    for _ in 0..runs {
        for (&streams, rates) in STREAMS.iter().zip(&mut rates) {
            let tokens = (CURVE_TOKENS / streams).max(100);
            let seconds: f64 = generate(stepper, streams, tokens)?.iter().sum();
            rates.push((tokens * streams) as f64 / seconds);
        }
    }
    Ok(STREAMS.into_iter().zip(rates.iter_mut().map(|rates| quantile(rates, 0.5))).collect())
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
fn generate(stepper: &Stepper, batch_size: usize, tokens: usize) -> anyhow::Result<Vec<f64>> {
    let vocab_size = stepper.vocab_size();
    let config = SamplerConfig { seed: SEED, ..SamplerConfig::default() };
    let sampler = Sampler::new(config, &[], vocab_size)?;
    let mut samplers: Vec<_> = (0..batch_size as u64).map(|i| sampler.clone().stream(i)).collect();
    let mut ids = vec![0; batch_size];
    let mut state = stepper.init_state(batch_size)?;
    let mut times = Vec::with_capacity(tokens);
    for _ in 0..tokens {
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
