//! Training: the loop, optimizers, schedules, exact evaluation, metrics and checkpoints.

mod card;
mod checkpoint;
mod evaluate;
mod metrics;
pub mod optim;
pub mod schedule;
mod trainer;

pub use card::{CardInfo, DataFile, model_card};
pub use checkpoint::RunDir;
pub use evaluate::{Evaluation, Evaluator, evaluate};
pub use metrics::{MetricsLog, Record, read as read_metrics};
pub use trainer::{Budget, Observer, Outcome, TrainConfig, Trainer, ValidSet};
