//! The work that `tcn bench` times.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_tcn::graph::Run;
use candle_tcn::models::{ModelConfig, Network};
use candle_tcn::nn::Params;
use candle_tcn::text::BatchMode;
use candle_tcn::train::optim::OptimizerConfig;
use candle_tcn::train::schedule::ScheduleConfig;
use candle_tcn::train::{Budget, Precision, RunDir, TrainConfig, Trainer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kernel;

/// Learning rate and largest gradient norm: those of the reference code's character model would not
/// change the time, but random text at its rate of 4 leaves the numbers.
const LR: f64 = 0.01;
const CLIP: f64 = 0.15;

/// Decides weights, text and dropout.
pub const SEED: u64 = 0;

/// Batches of text, after which it comes again.
const BATCHES: usize = 4;

/// One run of what is measured.
pub type TimedWork = Box<dyn FnMut() -> candle_tcn::Result<()>>;

/// A step of [`Trainer`]: forward, loss, backward, clipping, optimizer. Windows carry no state over and every
/// token is scored.
pub fn training(
    model: ModelConfig,
    (batch_size, seq_len): (usize, usize),
    dtype: Precision,
    optimizer: OptimizerConfig,
) -> anyhow::Result<TimedWork> {
    let config = TrainConfig {
        batch_size,
        seq_len,
        batches: BatchMode::Overlap { history: 0 },
        optimizer,
        lr: LR,
        schedule: ScheduleConfig::Constant,
        clip: Some(CLIP),
        budget: Budget::Steps(1),
        seed: SEED,
        dtype,
        ..TrainConfig::default()
    };
    let text = random_ids(model.vocab_size(), BATCHES * batch_size * seq_len + 1);
    let batches = config.lay_out(text)?;
    // a step writes nothing, so that the folder may go before the first
    let folder = tempfile::tempdir()?;
    let run = RunDir::create(folder.path(), 1)?;
    let mut trainer = Trainer::new(config, &model, batches, run)?.with_kernel(kernel::chosen())?;
    Ok(Box::new(move || trainer.step(LR).map(drop)))
}

/// A model with weights as at the start of training, as it is used after it.
pub fn model(config: &ModelConfig) -> candle_tcn::Result<Network> {
    let params = Params::new(SEED, DType::F32, &Device::Cpu);
    config.build(params.builder())?;
    let weights = VarBuilder::from_tensors(params.snapshot()?, DType::F32, &Device::Cpu);
    config.build(weights)?.with_kernel(kernel::chosen())?.freeze()
}

/// A forward pass of the model as it is used after training, without gradients.
pub fn forward(
    config: ModelConfig,
    batch_size: usize,
    seq_len: usize,
    dtype: Precision,
) -> anyhow::Result<TimedWork> {
    let model = model(&config)?;
    let ids = random_ids(config.vocab_size(), batch_size * seq_len);
    let ids = Tensor::from_vec(ids, (batch_size, seq_len), &Device::Cpu)?;
    Ok(Box::new(move || model.run(&[&ids], Run::eval().with_dtype(dtype.dtype())).map(drop)))
}

/// Token ids of equal probability.
pub fn random_ids(vocab_size: usize, count: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let below = vocab_size as u32;
    (0..count).map(|_| rng.random_range(0..below)).collect()
}
