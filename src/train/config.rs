//! Configuration, observer and outcome of a training run.

use candle_core::DType;
use serde::{Deserialize, Serialize};

use super::freeze;
use super::metrics::Record;
use super::optim::OptimizerConfig;
use super::schedule::ScheduleConfig;
use crate::graph::{Graph, Network};
use crate::kernels::Kernel;
use crate::text::{BatchMode, Batches, TokenStore};
use crate::{Error, Result};

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Optimizer steps.
    Steps(usize),
    /// Passes over the training text.
    Epochs(f64),
    /// Minutes of wall-clock time, validations included; the schedule follows the clock.
    Minutes(f64),
}

/// The type of the numbers between the layers, and of those that are multiplied. Weights, sums,
/// gradients of weights and the loss are `f32` always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of mantissa.
    #[default]
    F32,
    /// 8 bits of mantissa: half the memory, and fast where the processor multiplies it as such.
    Bf16,
}

impl Precision {
    /// The one that is fastest under `kernel`: `bf16` where it multiplies it as such.
    pub fn auto(kernel: Kernel) -> Self {
        match kernel.has_bf16_products() {
            true => Self::Bf16,
            false => Self::F32,
        }
    }

    /// candle's name for it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Everything about a run but the model, the data and where it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// The layout of windows over the text.
    pub batches: BatchMode,
    /// Batches whose gradients are averaged for one optimizer step.
    pub accumulate: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The base learning rate.
    pub lr: f64,
    /// Its schedule.
    pub schedule: ScheduleConfig,
    /// The largest gradient norm; without it gradients are not clipped.
    pub clip: Option<f64>,
    /// The length of a run.
    pub budget: Budget,
    /// Optimizer steps between validations; without it there are five over the run, or twenty and more where
    /// patience or a plateau waits for them.
    pub valid_every: Option<usize>,
    /// Stop after this many validations in a row without a new best.
    pub patience: Option<usize>,
    /// Decides initial weights, the order of the data and dropout.
    pub seed: u64,
    /// The type of the activations. Runs of before there was a choice are of `f32`.
    #[serde(default)]
    pub dtype: Precision,
    /// Parameters that stay as they are: patterns of their names, in which `*` is any text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
}

impl Default for TrainConfig {
    /// A thousand steps of 16 × 128 tokens by AdamW, along a cosine, in the type that is fastest here.
    fn default() -> Self {
        Self {
            batch_size: 16,
            seq_len: 128,
            batches: BatchMode::Carry,
            accumulate: 1,
            optimizer: OptimizerConfig::default(),
            lr: 4e-3,
            schedule: ScheduleConfig::Cosine { warmup: 0.05, final_fraction: 0.0 },
            clip: Some(1.0),
            budget: Budget::Steps(1000),
            valid_every: None,
            patience: None,
            seed: 1,
            dtype: Precision::auto(Kernel::best()),
            freeze: Vec::new(),
        }
    }
}

/// The most batches of one step: Ctrl-C waits for all of them.
const MAX_ACCUMULATE: usize = 65_536;

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let most = format!("at most {MAX_ACCUMULATE}");
        Error::require(self.accumulate <= MAX_ACCUMULATE, "accumulate", &most, self.accumulate)?;
        for (field, value) in [
            ("batch_size", self.batch_size),
            ("seq_len", self.seq_len),
            ("accumulate", self.accumulate),
            ("valid_every", self.valid_every.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1)),
        ] {
            Error::require(value > 0, field, "a whole number of at least 1", value)?;
        }
        let (budget, amount) = match self.budget {
            Budget::Steps(n) => ("steps", n as f64),
            Budget::Epochs(n) => ("epochs", n),
            Budget::Minutes(n) => ("minutes", n),
        };
        let clip = self.clip.unwrap_or(1.0);
        for (field, value) in [("clip", clip), (budget, amount), ("lr", self.lr)] {
            let allowed = value.is_finite() && value > 0.0;
            Error::require(allowed, field, "a finite number above 0", value)?;
        }
        self.freeze.iter().try_for_each(|text| freeze::pattern(text).map(drop))?;
        self.optimizer.validate()?;
        self.schedule.validate()
    }

    /// Checks that each pattern of `freeze` names parameters of `graph`, and that some are left to train.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the pattern.
    pub fn check_freeze(&self, graph: &Graph) -> Result<()> {
        let names: Vec<&str> = graph.parameters().iter().map(|p| p.name.as_str()).collect();
        freeze::frozen(&names, &self.freeze).map(drop)
    }

    /// Validations that pass before the patience or the schedule can act; none where neither waits for any.
    pub fn validations_waited_for(&self) -> Option<usize> {
        let schedule = match self.schedule {
            ScheduleConfig::Plateau { after, .. } => Some(after + 1),
            _ => None,
        };
        self.patience.map(|patience| patience + 1).max(schedule)
    }

    /// Validations over a run where `valid_every` does not say: five, or enough for what waits for them.
    pub(super) fn default_validations(&self) -> usize {
        match self.validations_waited_for() {
            None => 5,
            Some(waited) => waited.saturating_mul(4).max(20),
        }
    }

    /// The batches of a text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text too short for one, [`Error::TooLarge`] for sizes that overflow.
    pub fn lay_out(&self, tokens: impl Into<TokenStore>) -> Result<Batches> {
        Batches::new(tokens, self.batch_size, self.seq_len, self.batches, self.seed)
    }
}

/// A watcher of a run: it is told of steps and validations, and asked for interruptions.
pub trait Observer {
    /// An optimizer step is done; `progress` is the fraction of the run, 0 to 1.
    fn step(&mut self, record: &Record, progress: f64);
    /// `done` of `total` validation tokens are evaluated.
    fn validating(&mut self, done: u64, total: u64);
    /// A validation is done; `model` is frozen, `best` says whether its loss is the lowest so far.
    ///
    /// # Errors
    /// An error ends the run.
    fn validated(&mut self, record: &Record, model: &Network, best: bool) -> Result<()>;
    /// `true` to save and stop after this step or in the middle of a validation, which is then made
    /// when the run goes on.
    fn interrupted(&self) -> bool;
}

/// Watches nothing.
impl Observer for () {
    fn step(&mut self, _: &Record, _: f64) {}

    fn validating(&mut self, _: u64, _: u64) {}

    fn validated(&mut self, _: &Record, _: &Network, _: bool) -> Result<()> {
        Ok(())
    }

    fn interrupted(&self) -> bool {
        false
    }
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Optimizer steps done.
    pub steps: usize,
    /// Training tokens predicted.
    pub tokens: u64,
    /// Seconds, validations included.
    pub seconds: f64,
    /// Training tokens per second of training itself.
    pub tokens_per_s: f64,
    /// The lowest validation loss, nats per token: that of the weights kept.
    pub valid_loss: Option<f64>,
    /// The same in bits per character.
    pub valid_bpc: Option<f64>,
    /// `true` if [`Observer::interrupted`] ended it.
    pub interrupted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_named_and_may_be_absent() {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            dtype: Precision,
        }
        let read = |json: &str| serde_json::from_str::<Config>(json).unwrap().dtype;
        assert_eq!(read("{}"), Precision::F32);
        for precision in [Precision::F32, Precision::Bf16] {
            let name = precision.dtype().as_str();
            assert_eq!(read(&format!(r#"{{"dtype": "{name}"}}"#)), precision);
        }
    }
}
