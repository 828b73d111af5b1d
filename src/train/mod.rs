//! Training: the loop, batches, losses, optimizers, schedules, exact evaluation, metrics and checkpoints.

mod batch;
mod card;
mod checkpoint;
mod config;
mod dynamic;
mod effective;
mod evaluate;
mod freeze;
mod layout;
pub mod loss;
mod masked;
mod measures;
mod metrics;
pub mod optim;
mod progress;
mod run_dir;
pub mod schedule;
mod sequence_batches;
mod series_scores;
mod trainer;
mod valid_set;

pub use batch::{Batch, BatchSource, DataId, InitialState};
pub use card::{CardInfo, DataFile, SeriesCard, model_card};
pub use config::{Budget, Observer, Outcome, Precision, TrainConfig};
pub use dynamic::{DynamicConfig, DynamicEvaluator};
pub use effective::EffectiveField;
pub use evaluate::{Evaluation, Evaluator, evaluate};
pub use masked::{MaskTokens, MaskedBatches, MaskingConfig};
pub use measures::{Confusion, ForecastErrors};
pub use metrics::{MetricsLog, Record, read as read_metrics};
pub use run_dir::RunDir;
pub use sequence_batches::{SequenceBatches, SequenceSizes};
pub use series_scores::{NumberScores, SeriesScores, fit_bands, likeliest_of, middle_of, start_of};
pub use trainer::Trainer;
pub use valid_set::ValidSet;
