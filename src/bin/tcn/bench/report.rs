//! The report of `tcn bench`.

use std::time::Duration;

use candle_tcn::models::ModelConfig;
use candle_tcn::ops::profile::Part;
use serde::Serialize;

use super::BenchArgs;
use crate::{kernel, print_line};

/// The setting of a measurement.
#[derive(Serialize)]
pub struct Setting {
    pub what: &'static str,
    pub kernel: &'static str,
    pub dtype: &'static str,
    pub parameters: usize,
    pub threads: usize,
    pub batch_size: usize,
    pub seq_len: usize,
    pub vocab_size: usize,
    pub runs: usize,
    /// Of the whole measurement, if the system tells.
    pub peak_memory_bytes: Option<u64>,
}

impl Setting {
    pub fn new(args: &BenchArgs, model: &ModelConfig, dtype: &'static str) -> anyhow::Result<Self> {
        Ok(Self {
            what: args.what.name(),
            kernel: kernel::chosen().name(),
            dtype,
            parameters: model.graph()?.parameter_count()?,
            threads: rayon::current_num_threads(),
            batch_size: args.batch_size(),
            seq_len: args.seq_len(),
            vocab_size: model.vocab_size(),
            runs: args.runs,
            peak_memory_bytes: None,
        })
    }

    /// The first lines of a report.
    pub fn print(&self, tokens_per_s: f64) -> anyhow::Result<()> {
        line(
            self.what,
            format!(
                "{} parameters, batch {} x {} tokens, vocabulary {}",
                self.parameters, self.batch_size, self.seq_len, self.vocab_size
            ),
        )?;
        line("kernel", format!("{}, {}, threads: {}", self.kernel, self.dtype, self.threads))?;
        line("speed", format!("{tokens_per_s:.0} tokens/s (median of {} runs)", self.runs))
    }

    pub fn print_memory(&self) -> anyhow::Result<()> {
        let Some(bytes) = self.peak_memory_bytes else {
            return Ok(());
        };
        let mib = bytes as f64 / f64::from(1 << 20);
        line("memory", format!("{mib:.0} MiB at the most"))
    }
}

/// One line of a report.
pub fn line(name: &str, text: String) -> anyhow::Result<()> {
    print_line(format_args!("{name:<12}{text}"))
}

/// The result for whole sequences; with `--json` as it is.
#[derive(Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub setting: Setting,
    /// Median.
    pub tokens_per_s: f64,
    /// 10⁹ operations in a second, of [`Cost::flops`](candle_tcn::graph::Cost::flops).
    pub gflops: f64,
    /// Rate of the same instructions on the same threads, with nothing to load.
    pub ceiling_gflops: Option<f64>,
    /// Seconds of a run by part; with `--profile` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// Mean seconds of a run, by the part of the work they went to.
pub struct Profile(Vec<(&'static str, f64)>);

impl Profile {
    /// From the times of all `runs`, which took `total` together; the rest is `other`.
    pub fn new(times: &[(Part, Duration)], total: Duration, runs: usize) -> Self {
        let known: Duration = times.iter().map(|(_, time)| *time).sum();
        let rest = ("other", total.saturating_sub(known));
        let parts = times.iter().map(|&(part, time)| (part.name(), time));
        let mean = |time: Duration| time.as_secs_f64() / runs as f64;
        Self(parts.chain([rest]).map(|(name, time)| (name, mean(time))).collect())
    }
}

impl Serialize for Profile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl Report {
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return print_line(serde_json::to_string(self)?);
        }
        self.setting.print(self.tokens_per_s)?;
        let share = self.ceiling_gflops.map_or(String::new(), |ceiling| {
            let percent = 100.0 * self.gflops / ceiling;
            format!(", {percent:.0} % of the {ceiling:.0} that multiply-adds alone reach")
        });
        line("arithmetic", format!("{:.1} GFLOP/s{share}", self.gflops))?;
        self.setting.print_memory()?;
        let Some(Profile(parts)) = &self.profile else {
            return Ok(());
        };
        let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        print_line(format_args!("\n{:<12}{:>10} {:>7}", "part", "ms", "%"))?;
        for (name, seconds) in parts {
            let (ms, percent) = (1e3 * seconds, 100.0 * seconds / total.max(1e-9));
            print_line(format_args!("{name:<12}{ms:>10.2} {percent:>7.1}"))?;
        }
        Ok(())
    }
}
