//! Networks and configurations of tasks on series.

use candle_tcn::models::ModelConfig;
use candle_tcn::models::directory::read_config;
use candle_tcn::series::{Series, SeriesSet, SeriesTask, TaskKind};
use candle_tcn::train::optim::{AdamWConfig, OptimizerConfig};
use candle_tcn::train::{Precision, TrainConfig};

use super::super::series::flags::PoolName;
use super::{ContextMode, Defaults, ScheduleName, TrainArgs};
use crate::flags::WholeDtype;
use crate::optimizer::OptimizerName;

/// Part of a run on series over which a cosine schedule rises.
const SERIES_WARMUP: f64 = 0.05;

/// Usual settings of a task on series.
pub struct SeriesUsual {
    pub window: usize,
    pub lr: f64,
}

impl TrainArgs {
    /// The network of a task on series.
    pub fn frames_config(&self, task: &SeriesTask) -> anyhow::Result<ModelConfig> {
        let flags = [
            ("--tokenizer", self.tokenizer.is_some()),
            ("--init-from", self.base.init_from.is_some()),
            ("--context", matches!(self.context, ContextMode::Overlap)),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
            bail_usage!("{flag}: belongs to language models, not to series");
        }
        let config = match &self.config {
            Some(file) => read_config(file)?,
            None => ModelConfig::preset(&self.model_name_for(task))?,
        };
        self.with_dropout(config)
    }

    /// The pool of the usual network: in series of unequal lengths, what happens once must not drown in a mean.
    pub fn usual_pool(&self, set: &SeriesSet, task: &SeriesTask) -> Option<PoolName> {
        let mut lengths = set.series.iter().map(Series::len);
        let first = lengths.next();
        let is_usual = self.config.is_none() && self.preset.is_none();
        let classify = matches!(task.task, TaskKind::Classify { .. });
        (is_usual && classify && !lengths.all(|len| Some(len) == first))
            .then_some(PoolName::MeanMax)
    }

    /// The name of the network of a task on series.
    pub fn model_name_for(&self, task: &SeriesTask) -> String {
        match (&self.config, &self.preset, &task.task) {
            (None, None, TaskKind::Classify { .. }) => "tcn-classify".into(),
            (None, None, TaskKind::Forecast { .. }) => "tcn-small".into(),
            (None, None, _) => "tcn-modern".into(),
            _ => self.model_name(),
        }
    }

    /// `true` if a flag says how long the run is.
    pub fn has_budget(&self) -> bool {
        self.budget().is_some()
    }

    /// The configuration for series: as for a text, with what is usual for them where no flag says.
    pub fn series_config(&self, usual: SeriesUsual) -> anyhow::Result<TrainConfig> {
        let adamw = self.optimizer.is_none_or(|name| name == OptimizerName::Adamw);
        let (optimizer, schedule) = (OptimizerName::Adamw, ScheduleName::Cosine);
        let defaults = Defaults { optimizer, schedule, warmup: SERIES_WARMUP };
        let config = self.train_config(None, defaults)?;
        let optimizer = match adamw && self.weight_decay.is_none() {
            true => OptimizerConfig::AdamW(AdamWConfig::default()),
            false => config.optimizer,
        };
        let lr = self.lr.unwrap_or(if adamw { usual.lr } else { config.lr });
        let dtype = match self.dtype {
            // networks of series are small, and their numbers are to be exact
            WholeDtype::Auto => Precision::F32,
            other => other.precision(),
        };
        let seq_len = self.seq_len.unwrap_or(usual.window);
        Ok(TrainConfig { seq_len, optimizer, lr, dtype, ..config })
    }
}
