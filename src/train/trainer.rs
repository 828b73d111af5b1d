//! The training loop.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::checkpoint::{RunDir, TensorFiles};
use super::config::{Budget, Observer, Outcome, TrainConfig, ValidSet};
use super::evaluate::{Evaluation, Evaluator};
use super::metrics::{MetricsLog, Record};
use super::optim::{Gradients, Optimizer};
use super::progress::{Clock, Meter, Progress};
use super::schedule::Schedule;
use crate::model_dir::write_tensors;
use crate::models::{Model, ModelConfig};
use crate::nn::{Params, Pass, State};
use crate::text::{Batch, BatchMode, Batches};
use crate::{Error, Result, model_dir, ops};

/// Validations and checkpoints of a run where `valid_every` does not say.
const MILESTONES: f64 = 5.0;

/// Seconds after which a checkpoint is written even where no validation is due.
const CHECKPOINT_SECONDS: f64 = 300.0;

/// Optimizer steps between two records of the metrics.
const RECORD_EVERY: usize = 10;

/// A model in training.
///
/// The same seed, data and configuration give bit-identical weights, whatever the number of threads,
/// and whether or not the run was interrupted and resumed (a budget in minutes follows the clock and is
/// the exception).
pub struct Trainer {
    config: TrainConfig,
    model: Model,
    model_config: ModelConfig,
    params: Params,
    optimizer: Optimizer,
    schedule: Schedule,
    batches: Batches,
    /// Of windows that carry the left context over.
    state: State,
    progress: Progress,
    run: RunDir,
    log: MetricsLog,
}

const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.safetensors";
const METRICS: &str = "metrics.jsonl";

impl Trainer {
    /// A run that begins; writes `config.json` into `run`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the flag or field; [`Error::Io`] where `run` cannot be written.
    pub fn new(
        config: TrainConfig,
        model_config: ModelConfig,
        batches: Batches,
        run: RunDir,
    ) -> Result<Self> {
        config.validate()?;
        let params = Params::new(config.seed, DType::F32, &Device::Cpu);
        let model = Model::new(&model_config, params.builder())?;
        let optimizer = Optimizer::new(config.optimizer.clone(), params.trainable())?;
        let schedule = Schedule::new(config.schedule.clone())?;
        run.write(model_dir::CONFIG, &model_config.to_json()?)?;
        let log = MetricsLog::create(run.join(METRICS))?;
        let progress = Progress {
            config: config.clone(),
            step: 0,
            tokens: 0,
            text_tokens: batches.tokens(),
            elapsed_s: 0.0,
            training_s: 0.0,
            position: batches.position(),
            schedule: schedule.state().clone(),
            best: None,
            since_best: 0,
            meter: Meter::default(),
        };
        let state = State::new(config.batch_size);
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
        let log = MetricsLog::resume(run.join(METRICS), progress.step)?;
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

    /// What is trained.
    pub fn model_config(&self) -> &ModelConfig {
        &self.model_config
    }

    /// The parameters in training.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Optimizer steps done.
    pub fn steps(&self) -> usize {
        self.progress.step
    }

    /// The model as it is now, frozen for inference.
    ///
    /// # Errors
    /// Those of candle.
    pub fn frozen(&self) -> Result<Model> {
        let vb =
            candle_nn::VarBuilder::from_tensors(self.params.snapshot()?, DType::F32, &Device::Cpu);
        Model::new(&self.model_config, vb)?.freeze()
    }

    /// Trains until the budget is used, the observer interrupts, or patience ends.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where loss or gradient leave the numbers, before the weights change;
    /// [`Error::Io`] where the run cannot be written.
    pub fn run(&mut self, valid: &ValidSet, observer: &mut dyn Observer) -> Result<Outcome> {
        let clock = Clock {
            start: Instant::now(),
            before: self.progress.elapsed_s,
        };
        let mut interrupted = false;
        let mut fraction = self.fraction(&clock);
        let mut saved_s = clock.elapsed();
        while fraction < 1.0 && !self.out_of_patience() {
            let before = fraction;
            let lr = self
                .schedule
                .lr(self.config.lr, self.fraction_after(1, &clock).min(1.0));
            let (start, tokens) = (Instant::now(), self.progress.tokens);
            let (loss, grad_norm) = self.step(lr)?;
            let seconds = start.elapsed().as_secs_f64();
            self.progress.training_s += seconds;
            let tokens = self.progress.tokens - tokens;
            self.progress.meter.add(loss, tokens, seconds);
            self.progress.elapsed_s = clock.elapsed();
            let mut record = self.record(lr, grad_norm);
            fraction = self.fraction(&clock).min(1.0);
            observer.step(&record, fraction);
            let due = self.milestone(before, fraction);
            let validated = match due && valid.tokens.len() > 1 {
                true => Some(self.validate(valid, &mut record, observer)?),
                false => None,
            };
            if due || self.progress.step.is_multiple_of(RECORD_EVERY) {
                self.log.append(&record)?;
                self.progress.meter = Meter::default();
            }
            interrupted = observer.interrupted();
            if due || interrupted || clock.elapsed() - saved_s > CHECKPOINT_SECONDS {
                self.progress.elapsed_s = clock.elapsed();
                self.save()?;
                saved_s = clock.elapsed();
            }
            if let Some((model, best)) = validated {
                observer.validated(&record, &model, best)?;
                // of a budget in minutes, the validation took its part
                fraction = self.fraction(&clock);
            }
            if interrupted {
                break;
            }
        }
        self.progress.elapsed_s = clock.elapsed();
        if self.progress.best.is_none() {
            write_tensors(self.run.join(model_dir::WEIGHTS), &self.params.snapshot()?)?;
        }
        Ok(self.outcome(interrupted))
    }

    fn outcome(&self, interrupted: bool) -> Outcome {
        let p = &self.progress;
        Outcome {
            steps: p.step,
            tokens: p.tokens,
            seconds: p.elapsed_s,
            tokens_per_s: p.tokens as f64 / p.training_s.max(1e-9),
            valid_loss: p.best.map(|(loss, _)| loss),
            valid_bpc: p.best.map(|(_, bpc)| bpc),
            interrupted,
        }
    }

    fn out_of_patience(&self) -> bool {
        self.config
            .patience
            .is_some_and(|patience| self.progress.since_best >= patience)
    }

    /// The fraction of the budget that is used.
    fn fraction(&self, clock: &Clock) -> f64 {
        self.fraction_after(0, clock)
    }

    /// The same after `more` steps; time is taken as it is.
    fn fraction_after(&self, more: usize, clock: &Clock) -> f64 {
        let step = (self.progress.step + more) as f64;
        match self.config.budget {
            Budget::Steps(steps) => step / steps as f64,
            Budget::Epochs(epochs) => {
                step * self.config.accumulate as f64
                    / (epochs * self.batches.steps_per_epoch() as f64)
            }
            Budget::Minutes(minutes) => clock.elapsed() / (minutes * 60.0),
        }
    }

    /// Whether a step that took the run from one fraction to another makes it due for a validation and
    /// a checkpoint.
    fn milestone(&self, before: f64, after: f64) -> bool {
        after >= 1.0
            || match self.config.valid_every {
                Some(every) => self.progress.step.is_multiple_of(every),
                None => (before * MILESTONES).floor() < (after * MILESTONES).floor(),
            }
    }

    /// One optimizer step: the mean loss of its batches and the gradient norm before clipping.
    ///
    /// # Errors
    /// [`Error::NotFinite`], before the parameters change.
    pub fn step(&mut self, lr: f64) -> Result<(f64, f64)> {
        let mut total: Option<Gradients> = None;
        let mut loss = 0.0;
        let parts = self.config.accumulate;
        for part in 0..parts {
            let batch = self.batches.next_batch();
            let micro = (self.progress.step * parts + part) as u64;
            let (part_loss, grads) = self.gradients(&batch, micro)?;
            loss += part_loss / parts as f64;
            self.progress.tokens += batch.scored() as u64;
            match &mut total {
                None => total = Some(grads),
                Some(total) => total.accumulate(&grads)?,
            }
        }
        let mut grads = total.unwrap_or_else(|| Gradients::new(Vec::new()));
        if parts > 1 {
            grads.scale(1.0 / parts as f64)?;
        }
        let norm = match self.config.clip {
            Some(clip) => grads.clip(clip)?,
            None => grads.norm()?,
        };
        let step = self.progress.step + 1;
        for (what, value) in [("loss", loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Err(Error::NotFinite {
                    step,
                    what,
                    value,
                    lr,
                });
            }
        }
        self.optimizer.step(&grads, lr)?;
        self.progress.step = step;
        Ok((loss, norm))
    }

    fn gradients(&mut self, batch: &Batch, micro: u64) -> Result<(f64, Gradients)> {
        let ids = Tensor::from_slice(
            &batch.inputs,
            (batch.batch_size, batch.seq_len),
            &Device::Cpu,
        )?;
        let mut pass = Pass::train(self.config.seed, micro);
        if self.config.batches == BatchMode::Carry {
            if batch.starts_fresh {
                self.state = State::new(batch.batch_size);
            }
            pass = pass.with_state(&mut self.state);
        }
        let logits = self.model.forward(&ids, &mut pass)?;
        let loss = if batch.scored_from == 0 {
            ops::cross_entropy(&logits, &batch.targets)?
        } else {
            let logits = logits.narrow(1, batch.scored_from, batch.seq_len - batch.scored_from)?;
            let scored = |row: &[u32]| row[batch.scored_from..].to_vec();
            let targets: Vec<u32> = batch
                .targets
                .chunks_exact(batch.seq_len)
                .flat_map(scored)
                .collect();
            ops::cross_entropy(&logits, &targets)?
        };
        let store = loss.backward()?;
        Ok((
            f64::from(loss.to_scalar::<f32>()?),
            Gradients::from_store(&store, self.optimizer.params()),
        ))
    }

    fn record(&self, lr: f64, grad_norm: f64) -> Record {
        let meter = &self.progress.meter;
        let position = self.batches.position();
        Record {
            step: self.progress.step,
            epoch: position.epoch as f64
                + position.index as f64 / self.batches.steps_per_epoch() as f64,
            tokens: self.progress.tokens,
            train_loss: meter.loss(),
            lr,
            grad_norm,
            tokens_per_s: meter.rate(),
            elapsed_s: self.progress.elapsed_s,
            valid_loss: None,
            valid_bpc: None,
        }
    }

    fn validate(
        &mut self,
        valid: &ValidSet,
        record: &mut Record,
        observer: &mut dyn Observer,
    ) -> Result<(Model, bool)> {
        let model = self.frozen()?;
        let evaluation = evaluate_watched(&model, valid, observer)?;
        let (loss, bpc) = (
            evaluation.loss(),
            evaluation.bits_per(valid.characters.max(1)),
        );
        if !loss.is_finite() {
            let (step, lr) = (self.progress.step, record.lr);
            return Err(Error::NotFinite {
                step,
                what: "validation loss",
                value: loss,
                lr,
            });
        }
        (record.valid_loss, record.valid_bpc) = (Some(loss), Some(bpc));
        self.schedule.observe_validation(loss);
        let best = self.progress.best.is_none_or(|(lowest, _)| loss < lowest);
        if best {
            self.progress.best = Some((loss, bpc));
            self.progress.since_best = 0;
            write_tensors(self.run.join(model_dir::WEIGHTS), &self.params.snapshot()?)?;
        } else {
            self.progress.since_best += 1;
        }
        Ok((model, best))
    }

    fn save(&mut self) -> Result<()> {
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
        None => State::from_tensors(batch, rings),
        Some(name) => Err(Error::invalid(
            "state",
            format!("tensors 0 to {}", rings.len()),
            name,
        )),
    }
}

fn evaluate_watched(
    model: &Model,
    valid: &ValidSet,
    observer: &mut dyn Observer,
) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(model, Evaluator::CHUNK);
    for piece in valid.tokens.chunks(Evaluator::CHUNK) {
        evaluator.push(piece)?;
        observer.validating(evaluator.so_far().tokens, valid.tokens.len() as u64 - 1);
    }
    evaluator.finish()
}
