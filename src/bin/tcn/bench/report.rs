//! The report of `tcn bench`.

use std::fmt::Write;
use std::time::Duration;

use candle_tcn::models::ModelConfig;
use candle_tcn::ops::profile::Part;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::BenchArgs;
use crate::{kernel, memory, print_line};

/// The result of a measurement: its figures, and the text about them.
pub struct Report {
    facts: Value,
    text: String,
}

impl Report {
    /// A report of the setting, to which the measured figures come.
    pub fn new(args: &BenchArgs, model: &ModelConfig, dtype: &str) -> anyhow::Result<Self> {
        let what = args.what.to_possible_value();
        let what = what.as_ref().map_or("", |what| what.get_name());
        let (kernel, threads) = (kernel::chosen().name(), rayon::current_num_threads());
        let parameters = model.graph()?.parameter_count()?;
        let (batch_size, seq_len) = args.sizes();
        let vocab_size = model.vocab_size();
        let facts = json!({
            "what": what,
            "kernel": kernel,
            "dtype": dtype,
            "parameters": parameters,
            "threads": threads,
            "batch_size": batch_size,
            "seq_len": seq_len,
            "vocab_size": vocab_size,
            "runs": args.runs,
        });
        let mut report = Self { facts, text: String::new() };
        let batch = format!("batch {batch_size} x {seq_len} tokens");
        report.line(what, format!("{parameters} parameters, {batch}, vocabulary {vocab_size}"));
        report.line("kernel", format!("{kernel}, {dtype}, threads: {threads}"));
        Ok(report)
    }

    /// The setting in a few words.
    pub fn title(&self) -> String {
        let [kernel, dtype] =
            ["kernel", "dtype"].map(|name| self.facts[name].as_str().unwrap_or_default());
        let (parameters, threads) = (&self.facts["parameters"], &self.facts["threads"]);
        format!("{parameters} parameters, {kernel}, {dtype}, threads: {threads}")
    }

    /// Keeps a figure.
    pub fn set(&mut self, name: &str, figure: impl Into<Value>) {
        self.facts[name] = figure.into();
    }

    /// Adds a line of text.
    pub fn line(&mut self, name: &str, text: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{name:<12}{text}");
    }

    /// Tells the median speed.
    pub fn speed(&mut self, tokens_per_s: f64) {
        self.set("tokens_per_s", tokens_per_s);
        let runs = &self.facts["runs"];
        self.line("speed", format!("{tokens_per_s:.0} tokens/s (median of {runs} runs)"));
    }

    /// Tells the memory of the whole measurement, if the system knows.
    pub fn memory(&mut self) {
        let bytes = memory::peak_bytes();
        self.set("peak_memory_bytes", bytes);
        if let Some(bytes) = bytes {
            let mib = bytes as f64 / f64::from(1 << 20);
            self.line("memory", format!("{mib:.0} MiB at the most"));
        }
    }

    /// Tells the mean seconds of a run by the part of the work they went to, from the times of all `runs`, which took
    /// `total` seconds together; the rest is `other`.
    pub fn profile(&mut self, times: &[(Part, Duration)], total: f64, runs: usize) {
        let times = times.iter().map(|(part, time)| (part.name(), time.as_secs_f64()));
        let known: f64 = times.clone().map(|(_, seconds)| seconds).sum();
        let rest = ("other", (total - known).max(0.0));
        let _ = writeln!(self.text, "\n{:<12}{:>10} {:>7}", "part", "ms", "%");
        for (name, seconds) in times.chain([rest]) {
            let (mean, share) = (seconds / runs as f64, seconds / known.max(total).max(1e-9));
            self.facts["profile"][name] = mean.into();
            self.line(name, format!("{:>10.2} {:>7.1}", 1e3 * mean, 100.0 * share));
        }
    }

    /// Prints the figures as one JSON object, or the text.
    pub fn print(&self, as_json: bool) -> anyhow::Result<()> {
        match as_json {
            true => print_line(&self.facts),
            false => print_line(self.text.trim_end()),
        }
    }
}

/// The value below which this share of `values` lies; between two of them on a straight line.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() - 1) as f64 * share;
    let (low, high) = (values[place as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}
