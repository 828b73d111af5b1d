//! Progress of a run, as a checkpoint keeps it beside tensors, and the clocks.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::metrics::Record;
use super::schedule::ScheduleState;
use crate::text::BatchPosition;

/// Content of a checkpoint beside tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RunProgress {
    pub config: TrainConfig,
    pub step: usize,
    pub tokens: u64,
    /// Number of tokens of the training text, or of what else the data are counted in.
    pub text_tokens: usize,
    /// SHA-256 of them: resuming needs the same. Older checkpoints have none.
    #[serde(default)]
    pub text_sha256: Option<String>,
    /// The same of the validation text.
    #[serde(default)]
    pub valid_sha256: Option<String>,
    pub elapsed_s: f64,
    pub training_s: f64,
    pub position: BatchPosition,
    pub schedule: ScheduleState,
    pub best: Option<(f64, Option<f64>)>,
    pub since_best: usize,
    /// Kept, so that the first record after a resume is that of an uninterrupted run.
    pub meter: Meter,
    /// The figures of a step whose validation an interruption cut short.
    #[serde(default)]
    pub pending: Option<Record>,
}

/// Seconds of a run, those before a resume included.
pub(super) struct Clock {
    pub start: Instant,
    pub before: f64,
}

impl Clock {
    pub fn elapsed(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }
}

/// Loss and speed since the last record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Meter {
    losses: f64,
    steps: usize,
    tokens: u64,
    seconds: f64,
}

impl Meter {
    pub fn add(&mut self, loss: f64, tokens: u64, seconds: f64) {
        self.losses += loss;
        self.steps += 1;
        self.tokens += tokens;
        self.seconds += seconds;
    }

    pub fn loss(&self) -> f64 {
        self.losses / self.steps as f64
    }

    pub fn rate(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}
