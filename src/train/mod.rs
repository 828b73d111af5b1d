//! Training: the loop, optimizers, schedules, exact evaluation, metrics and checkpoints.

mod card;
mod checkpoint;
mod config;
mod evaluate;
mod metrics;
pub mod optim;
mod progress;
mod run_dir;
pub mod schedule;
mod trainer;

pub use card::{CardInfo, DataFile, model_card};
pub use config::{Budget, Observer, Outcome, Precision, TrainConfig, ValidSet};
pub use evaluate::{Evaluation, Evaluator, evaluate};
pub use metrics::{MetricsLog, Record, read as read_metrics};
pub use run_dir::RunDir;
pub use trainer::Trainer;
