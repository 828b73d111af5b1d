//! The training loop.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::checkpoint::{RunDir, TensorFiles};
use super::evaluate::{Evaluation, Evaluator};
use super::metrics::{MetricsLog, Record};
use super::optim::{Gradients, Optimizer, OptimizerConfig};
use super::schedule::{Schedule, ScheduleConfig, ScheduleState};
use crate::model_dir::write_tensors;
use crate::models::{Model, ModelConfig};
use crate::nn::{Params, Pass, State};
use crate::text::{Batch, BatchMode, BatchPosition, Batches};
use crate::{Error, Result, model_dir, ops};

/// How long to train.
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

/// Everything about a run but the model, the data and where it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tokens of a row.
    pub seq_len: usize,
    /// How windows lie over the text.
    pub batches: BatchMode,
    /// Batches whose gradients are averaged for one optimizer step.
    pub accumulate: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The base learning rate.
    pub lr: f64,
    /// How it changes.
    pub schedule: ScheduleConfig,
    /// The largest gradient norm; without it gradients are not clipped.
    pub clip: Option<f64>,
    /// How long to train.
    pub budget: Budget,
    /// Optimizer steps between validations; without it there are five over the run.
    pub valid_every: Option<usize>,
    /// Stop after this many validations in a row without a new best.
    pub patience: Option<usize>,
    /// Decides initial weights, the order of the data and dropout.
    pub seed: u64,
}

/// Validations of a run where `valid_every` does not say.
const VALIDATIONS: f64 = 5.0;

/// Optimizer steps between two records of the metrics.
const RECORD_EVERY: usize = 10;

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the flag.
    pub fn validate(&self) -> Result<()> {
        for (flag, value) in [
            ("--batch-size", self.batch_size),
            ("--seq-len", self.seq_len),
            ("--accumulate", self.accumulate),
            ("--valid-every", self.valid_every.unwrap_or(1)),
            ("--patience", self.patience.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::invalid(flag, "a whole number of at least 1", value));
            }
        }
        let (flag, amount) = match self.budget {
            Budget::Steps(n) => ("--steps", n as f64),
            Budget::Epochs(n) => ("--epochs", n),
            Budget::Minutes(n) => ("--minutes", n),
        };
        for (flag, value) in [
            (flag, amount),
            ("--lr", self.lr),
            ("--clip", self.clip.unwrap_or(1.0)),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(flag, "a finite number above 0", value));
            }
        }
        self.optimizer.validate()?;
        self.schedule.validate()
    }

    /// The batches of a text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text too short for one, [`Error::TooLarge`] for sizes that overflow.
    pub fn lay_out(&self, tokens: Vec<u32>) -> Result<Batches> {
        Batches::new(
            tokens,
            self.batch_size,
            self.seq_len,
            self.batches,
            self.seed,
        )
    }
}

/// The text that a run is validated on.
#[derive(Debug, Clone, Default)]
pub struct ValidSet {
    /// Its tokens; fewer than two mean no validation.
    pub tokens: Vec<u32>,
    /// The characters that are predicted: all but those of the first token.
    pub characters: u64,
}

/// What a run tells whoever watches it, and asks.
pub trait Observer {
    /// An optimizer step is done; `progress` is the fraction of the run, 0 to 1.
    fn step(&mut self, record: &Record, progress: f64);
    /// `done` of `total` validation tokens are evaluated.
    fn validating(&mut self, done: u64, total: u64);
    /// A validation is done; `model` is frozen, `best` says whether its loss is the lowest so far.
    ///
    /// # Errors
    /// An error ends the run.
    fn validated(&mut self, record: &Record, model: &Model, best: bool) -> Result<()>;
    /// Whether to save and stop after this step.
    fn interrupted(&self) -> bool;
}

/// How a run ended.
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
    /// Whether [`Observer::interrupted`] ended it.
    pub interrupted: bool,
}

/// What a checkpoint remembers beside tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Progress {
    config: TrainConfig,
    step: usize,
    tokens: u64,
    /// Of the training text: resuming needs the same.
    text_tokens: usize,
    elapsed_s: f64,
    training_s: f64,
    position: BatchPosition,
    schedule: ScheduleState,
    best: Option<(f64, f64)>,
    since_best: usize,
    validations: usize,
}

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
            validations: 0,
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
        let mut meter = Meter::default();
        let mut interrupted = false;
        while self.fraction(&clock) < 1.0 && !self.out_of_patience() {
            let lr = self
                .schedule
                .lr(self.config.lr, self.fraction_after(1, &clock).min(1.0));
            let (loss, grad_norm) = meter.time(|| self.step(lr))?;
            meter.add(loss, self.progress.tokens);
            self.progress.training_s += meter.last_s;
            self.progress.elapsed_s = clock.elapsed();
            let mut record = self.record(&meter, lr, grad_norm);
            let fraction = self.fraction(&clock).min(1.0);
            observer.step(&record, fraction);
            let valid_due = self.validation_due(fraction) && valid.tokens.len() > 1;
            let validated = match valid_due {
                true => Some(self.validate(valid, &mut record, observer)?),
                false => None,
            };
            if valid_due || self.progress.step.is_multiple_of(RECORD_EVERY) {
                self.log.append(&record)?;
                meter.clear();
            }
            if let Some((model, best)) = validated {
                observer.validated(&record, &model, best)?;
            }
            self.progress.elapsed_s = clock.elapsed();
            interrupted = observer.interrupted();
            if valid_due || interrupted {
                self.save()?;
            }
            if interrupted {
                break;
            }
        }
        self.progress.elapsed_s = clock.elapsed();
        if self.progress.best.is_none() {
            write_tensors(self.run.join(model_dir::WEIGHTS), &self.params.snapshot()?)?;
        }
        self.save()?;
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

    fn validation_due(&self, fraction: f64) -> bool {
        match self.config.valid_every {
            Some(every) => self.progress.step.is_multiple_of(every) || fraction >= 1.0,
            None => {
                fraction >= 1.0
                    || (fraction * VALIDATIONS).floor() > self.progress.validations as f64
            }
        }
    }

    /// One optimizer step: the mean loss of its batches and the gradient norm before clipping.
    ///
    /// # Errors
    /// [`Error::NotFinite`], before anything changes.
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

    fn record(&self, meter: &Meter, lr: f64, grad_norm: f64) -> Record {
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
        self.progress.validations += 1;
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
            (WEIGHTS, self.params.snapshot()?),
            (OPTIMIZER, self.optimizer.state()?.into_iter().collect()),
            (STATE, state.collect()),
        ];
        self.run.save(self.progress.step, &files, &self.progress)
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

struct Clock {
    start: Instant,
    before: f64,
}

impl Clock {
    fn elapsed(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }
}

/// Loss and speed since the last record.
#[derive(Default)]
struct Meter {
    losses: f64,
    steps: usize,
    seconds: f64,
    tokens: u64,
    tokens_before: u64,
    last_s: f64,
}

impl Meter {
    fn time<R>(&mut self, run: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = run();
        self.last_s = start.elapsed().as_secs_f64();
        self.seconds += self.last_s;
        result
    }

    fn add(&mut self, loss: f64, tokens: u64) {
        if self.steps == 0 && self.tokens_before == 0 {
            // of a resumed run: only the tokens of this step are new
            self.tokens_before = self.tokens;
        }
        self.losses += loss;
        self.steps += 1;
        self.tokens = tokens;
    }

    fn loss(&self) -> f64 {
        self.losses / self.steps as f64
    }

    fn rate(&self) -> f64 {
        (self.tokens - self.tokens_before) as f64 / self.seconds
    }

    fn clear(&mut self) {
        *self = Self {
            tokens: self.tokens,
            tokens_before: self.tokens,
            ..Self::default()
        };
    }
}
