//! Checkpoints of a [`Trainer`], and how one goes on from them.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::super::checkpoint::{RunDir, TensorFiles};
use super::super::config::TrainConfig;
use super::super::metrics::MetricsLog;
use super::super::optim::Optimizer;
use super::super::progress::{Clock, Progress};
use super::super::schedule::Schedule;
use super::Trainer;
use crate::models::Model;
use crate::nn::{Params, State};
use crate::{Error, Result, model_dir};

const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.safetensors";

impl Trainer {
    /// Continues the run in `run` from its newest checkpoint; `change` may alter its configuration, such
    /// as a longer budget or a lower learning rate.
    ///
    /// # Errors
    /// [`Error::File`] naming the file of the checkpoint that does not fit.
    pub fn resume(
        tokens: Vec<u32>,
        run: RunDir,
        change: impl FnOnce(&mut TrainConfig),
    ) -> Result<Self> {
        let model_config = model_dir::read_config(run.join(model_dir::CONFIG))?;
        let (checkpoint, progress): (_, Progress) = run.newest()?;
        if progress.text_tokens != tokens.len() {
            return Err(Error::invalid(
                "--data",
                format!(
                    "the {} training tokens that the run began with",
                    progress.text_tokens
                ),
                tokens.len(),
            ));
        }
        let mut config = progress.config.clone();
        change(&mut config);
        config.validate()?;
        model_config.require_causal()?;
        let in_file =
            |name: &str, error: Error| Error::file(checkpoint.file(name), error.to_string());

        let params = Params::new(config.seed, DType::F32, &Device::Cpu);
        let model = Model::new(&model_config, params.builder())?;
        params
            .load(&checkpoint.tensors(WEIGHTS)?)
            .map_err(|e| in_file(WEIGHTS, e))?;
        let mut optimizer = Optimizer::new(config.optimizer.clone(), params.trainable())?;
        optimizer
            .load_state(&checkpoint.tensors(OPTIMIZER)?)
            .map_err(|e| in_file(OPTIMIZER, e))?;
        let schedule = Schedule::resume(config.schedule.clone(), progress.schedule.clone())?;
        let mut batches = config.lay_out(tokens)?;
        batches.seek(progress.position)?;
        let state = restore_state(config.batch_size, checkpoint.tensors(STATE)?)
            .map_err(|e| in_file(STATE, e))?;
        let log = MetricsLog::resume(run.join(RunDir::METRICS), progress.step)?;
        Ok(Self {
            config,
            model,
            model_config,
            params,
            optimizer,
            schedule,
            batches,
            state,
            progress,
            run,
            log,
        })
    }

    /// Writes a checkpoint of the run as it is.
    pub(super) fn checkpoint(&mut self, clock: &Clock) -> Result<()> {
        self.progress.elapsed_s = clock.elapsed();
        let weights = self.params.snapshot()?;
        self.check_finite(&weights)?;
        self.progress.config = self.config.clone();
        self.progress.position = self.batches.position();
        self.progress.schedule = self.schedule.state().clone();
        let state = self
            .state
            .tensors()?
            .into_iter()
            .enumerate()
            .map(|(i, t)| (format!("{i}"), t));
        let files: TensorFiles = vec![
            (WEIGHTS, weights),
            (OPTIMIZER, self.optimizer.state()?.into_iter().collect()),
            (STATE, state.collect()),
        ];
        self.run.save(self.progress.step, &files, &self.progress)
    }

    /// An update may overflow the weights although loss and gradient were finite.
    fn check_finite(&self, weights: &HashMap<String, Tensor>) -> Result<()> {
        let (step, lr) = (self.progress.step, self.config.lr);
        for tensor in weights.values() {
            let value = f64::from(tensor.abs()?.sum_all()?.to_scalar::<f32>()?);
            if !value.is_finite() {
                return Err(Error::NotFinite {
                    step,
                    what: "sum of the weights",
                    value,
                    lr,
                });
            }
        }
        Ok(())
    }
}

fn restore_state(batch: usize, mut tensors: HashMap<String, Tensor>) -> Result<State> {
    let mut rings = Vec::with_capacity(tensors.len());
    while let Some(ring) = tensors.remove(&rings.len().to_string()) {
        rings.push(ring);
    }
    match tensors.keys().next() {
        None => State::from_tensors(&vec![0; batch], &rings),
        Some(name) => Err(Error::invalid(
            "state",
            format!("tensors 0 to {}", rings.len()),
            name,
        )),
    }
}
