//! The view of a run: a progress bar, figures and a sample of text at each validation.

use std::time::Duration;

use candle_tcn::Result;
use candle_tcn::graph::Network;
use candle_tcn::text::Tokenizer;
use candle_tcn::train::{Observer, Record, RunDir};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::flags::count;
use crate::progress::Pace;
use crate::signals;

/// Tokens of the sample at each validation.
const SAMPLE_TOKENS: usize = 160;

/// Positions of the bar, which counts the run's parts and not steps: a budget may be minutes.
const PARTS: u64 = 10_000;

pub struct Watch<'a> {
    /// Of a model that writes samples.
    tokenizer: Option<&'a Tokenizer>,
    run: &'a RunDir,
    bar: ProgressBar,
    last: String,
    pace: Pace,
    loudness: Loudness,
    /// Things that the rate counts.
    unit: &'static str,
}

/// The amount of output while a run trains.
#[derive(Clone, Copy, clap::Args)]
pub struct Loudness {
    /// Say nothing while it trains: no progress, no validations, no samples
    #[arg(long, conflicts_with = "log_every")]
    pub quiet: bool,
    /// Write a line of progress every N steps (default: a bar on a terminal, elsewhere a line every 10 s)
    #[arg(long, value_name = "N", value_parser = count)]
    pub log_every: Option<usize>,
}

impl<'a> Watch<'a> {
    pub fn new(
        tokenizer: Option<&'a Tokenizer>,
        run: &'a RunDir,
        loudness: Loudness,
    ) -> anyhow::Result<Self> {
        let bar = match loudness.quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(PARTS),
        };
        let bar = bar.with_style(ProgressStyle::with_template("{wide_bar} {percent:>3}% {msg}")?);
        let (last, pace) = (String::new(), Pace::new());
        let unit = "tokens";
        Ok(Self { tokenizer, run, bar, last, pace, loudness, unit })
    }

    /// The same for a rate in other units.
    pub fn counting(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Writes above the bar, or plainly where there is no terminal for one.
    fn say(&self, text: &str) {
        match self.bar.is_hidden() {
            _ if self.loudness.quiet => {}
            true => say!("{text}"),
            false => self.bar.println(crate::terminal::escaped(text)),
        }
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, record: &Record, progress: f64) {
        let left = record.elapsed_s * (1.0 - progress) / progress.max(1e-6);
        self.last = format!(
            "step {} loss {:.3} {:.0} {}/s ETA {}",
            record.step,
            record.train_loss,
            record.tokens_per_s,
            self.unit,
            HumanDuration(Duration::from_secs_f64(left.clamp(0.0, 1e9)))
        );
        self.bar.set_position((progress * PARTS as f64) as u64);
        self.bar.set_message(self.last.clone());
        let due = match self.loudness.log_every {
            Some(every) => record.step.is_multiple_of(every),
            None => self.bar.is_hidden() && self.pace.is_due(progress),
        };
        if due {
            self.say(&format!("{:.0}% {}", 100.0 * progress, self.last));
        }
    }

    fn validating(&mut self, done: u64, total: u64) {
        self.bar.set_message(format!("{}; validating {}%", self.last, 100 * done / total.max(1)));
    }

    fn validated(&mut self, record: &Record, model: &Network, best: bool) -> Result<()> {
        let loss = record.valid_loss.unwrap_or(f64::NAN);
        let bpc = record.valid_bpc.map(|bpc| format!(" ({bpc:.4} bits per character)"));
        self.say(&format!(
            "step {}, {:.0} s: training loss {:.4}, validation loss {loss:.4}{}{}",
            record.step,
            record.elapsed_s,
            record.train_loss,
            bpc.unwrap_or_default(),
            if best { ", the best so far" } else { "" }
        ));
        if let (Some(tokenizer), false) = (self.tokenizer, self.loudness.quiet) {
            let sample = super::finish::sample(model, tokenizer, SAMPLE_TOKENS)?;
            self.say(&format!("  | {}", sample.trim().replace('\n', "\n  | ")));
        }
        super::write_loss(self.run)
    }

    fn interrupted(&self) -> bool {
        signals::has_come()
    }
}
