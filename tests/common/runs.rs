//! Small training runs, and what they leave on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{UnderTest, has_kernels};
use candle_tcn::Result;
use candle_tcn::models::{ModelConfig, Network, TcnLmConfig};
use candle_tcn::nn::TcnConfig;
use candle_tcn::text::BatchMode;
use candle_tcn::train::optim::{
    AdamWConfig, MuonConfig, OptimizerConfig, RmsPropConfig, SgdConfig,
};
use candle_tcn::train::schedule::ScheduleConfig;
use candle_tcn::train::{
    Budget, Observer, Precision, Record, RunDir, TrainConfig, Trainer, ValidSet, read_metrics,
};
use rand::RngExt;

pub const VOCAB: u32 = 20;

/// Tokens with something to learn: most follow from the one before.
pub fn text(len: usize) -> Vec<u32> {
    let mut rng = super::rng(8);
    let mut token = 0;
    let next = |_| {
        token = match rng.random_bool(0.7) {
            true => (7 * token + 3) % VOCAB,
            false => rng.random_range(0..VOCAB),
        };
        token
    };
    (0..len).map(next).collect()
}

pub fn valid() -> ValidSet {
    let tokens = text(500);
    let characters = tokens.len() as u64 - 1;
    ValidSet::text(tokens, characters)
}

pub fn tcn(width: usize, network: TcnConfig) -> ModelConfig {
    ModelConfig::Tcn(TcnLmConfig {
        eos_token_id: None,
        vocab_size: VOCAB as usize,
        embedding_dim: width,
        tie_weights: true,
        embedding_dropout: 0.1,
        network: TcnConfig { dropout: 0.2, ..network },
    })
}

pub fn config(optimizer: OptimizerConfig, lr: f64, batches: BatchMode) -> TrainConfig {
    TrainConfig {
        batch_size: 3,
        seq_len: 20,
        batches,
        accumulate: 1,
        optimizer,
        lr,
        schedule: ScheduleConfig::Constant,
        clip: Some(1.0),
        budget: Budget::Steps(12),
        valid_every: Some(4),
        patience: None,
        seed: 5,
        dtype: Precision::F32,
        freeze: Vec::new(),
    }
}

pub fn momentum() -> OptimizerConfig {
    OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, ..Default::default() })
}

pub fn adamw() -> OptimizerConfig {
    OptimizerConfig::AdamW(AdamWConfig { weight_decay: 0.01, ..Default::default() })
}

pub fn muon() -> OptimizerConfig {
    OptimizerConfig::Muon(MuonConfig::default())
}

pub fn rmsprop() -> OptimizerConfig {
    OptimizerConfig::RmsProp(RmsPropConfig::default())
}

/// Says stop after one step, or never.
pub struct StopAfter {
    step: Option<usize>,
    done: usize,
}

impl StopAfter {
    pub fn new(step: impl Into<Option<usize>>) -> Self {
        let step = step.into();
        Self { step, done: 0 }
    }
}

impl Observer for StopAfter {
    fn step(&mut self, record: &Record, _: f64) {
        self.done = record.step;
    }

    fn validating(&mut self, _: u64, _: u64) {}

    fn validated(&mut self, _: &Record, _: &Network, _: bool) -> Result<()> {
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.step == Some(self.done)
    }
}

/// Everything that a run leaves and that has nothing to do with the clock.
pub struct Left {
    files: BTreeMap<PathBuf, Vec<u8>>,
    progress: serde_json::Value,
    pub metrics: Vec<Record>,
}

impl Left {
    pub fn read(run: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        read_below(run, run, &mut files);
        let mut progress = serde_json::Value::Null;
        for (path, bytes) in &files {
            if path.ends_with("trainer.json") {
                progress = serde_json::from_slice(bytes).expect("JSON");
                for time in ["elapsed_s", "training_s"] {
                    progress[time].take();
                }
            }
        }
        files.retain(|path, _| path.extension().is_some_and(|e| e == "safetensors"));
        let mut metrics = read_metrics(run.join("metrics.jsonl"))?;
        for record in &mut metrics {
            (record.tokens_per_s, record.elapsed_s) = (0.0, 0.0);
        }
        Ok(Self { files, progress, metrics })
    }

    pub fn assert_equal(&self, other: &Self, what: &str) {
        if !has_kernels(
            "the same bits in two runs of one training, which candle's gradients do not have",
        ) {
            return;
        }
        assert_eq!(self.metrics, other.metrics, "{what}");
        assert_eq!(self.progress, other.progress, "{what}");
        let names: Vec<_> = self.files.keys().collect();
        // the best weights; weights, optimizer and carried context of the last checkpoint
        assert_eq!(names.len(), 4, "{what}: {names:?}");
        assert_eq!(names, other.files.keys().collect::<Vec<_>>(), "{what}");
        for (name, bytes) in &self.files {
            assert!(bytes == &other.files[name], "{what}: {name:?} differs");
        }
    }
}

fn read_below(dir: &Path, root: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_below(&path, root, files);
        } else {
            let name = path.strip_prefix(root).expect("below").to_path_buf();
            files.insert(name, fs::read(&path).expect("a file"));
        }
    }
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

pub fn start(config: &TrainConfig, model: &ModelConfig, dir: &Path) -> Result<Trainer> {
    let batches = config.lay_out(text(text_len(config)))?;
    let run = RunDir::create(dir, 1)?;
    Ok(Trainer::new(config.clone(), model, batches, run)?.under_test())
}

pub fn resume(config: &TrainConfig, dir: &Path) -> Result<Trainer> {
    Ok(Trainer::resume(text(text_len(config)), RunDir::open(dir, 1)?, |_| {})?.under_test())
}

/// Some five batches an epoch, so that a run of twelve steps sees several.
pub fn text_len(config: &TrainConfig) -> usize {
    config.batch_size * config.seq_len * 5 + 7
}

pub fn uninterrupted(config: &TrainConfig, model: &ModelConfig) -> Result<Left> {
    let dir = folder();
    start(config, model, dir.path())?.run(&valid(), &mut StopAfter::new(None))?;
    Left::read(dir.path())
}
