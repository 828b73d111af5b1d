//! The training loop.

mod milestones;
mod resume;
mod step;
mod validate;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::batch::BatchSource;
use super::config::{Observer, Outcome, TrainConfig};
use super::freeze::Frozen;
use super::loss::{CrossEntropy, Loss};
use super::metrics::{MetricsLog, Record};
use super::optim::NamedOptimizer;
use super::progress::{Clock, Meter, RunProgress};
use super::run_dir::RunDir;
use super::schedule::Schedule;
use super::valid_set::ValidSet;
use crate::files::{names, write_tensors};
use crate::graph::{Graph, Network, State};
use crate::kernels::Kernel;
use crate::models::ModelConfig;
use crate::nn::Params;
use crate::text::Batches;
use crate::{Error, Result};

/// Seconds after which a checkpoint is written even where no validation is due.
const CHECKPOINT_SECONDS: f64 = 300.0;

/// Optimizer steps between two records of the metrics.
const RECORD_EVERY: usize = 10;

/// A model in training.
///
/// The same seed, data and configuration give bit-identical weights under one
/// [`Kernel`](crate::kernels::Kernel), whatever the number of threads, and whether or not the run was
/// interrupted and resumed (a budget in minutes follows the clock and is the exception). Another kernel,
/// and so another kind of processor unless [`with_kernel`](Trainer::with_kernel) takes one that both have, adds in another order.
///
/// A program that trains should first call [`keep_freed_memory`](crate::kernels::memory::keep_freed_memory): it makes a
/// step 1.4 times as fast.
pub struct Trainer {
    config: TrainConfig,
    model: Network,
    params: Params,
    frozen: Frozen,
    optimizer: NamedOptimizer,
    schedule: Schedule,
    batches: Box<dyn BatchSource>,
    loss: Box<dyn Loss>,
    /// Of windows that carry the left context over.
    state: State,
    progress: RunProgress,
    run: RunDir,
    log: MetricsLog,
    damaged: Vec<(Error, PathBuf)>,
    /// Seconds that the last validation took.
    validation_s: Option<f64>,
}

impl Trainer {
    /// A run of a causal language model that begins; writes `config.json` into `run`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field; [`Error::Io`] where `run` cannot be written.
    pub fn new(
        config: TrainConfig,
        model: &ModelConfig,
        batches: Batches,
        run: RunDir,
    ) -> Result<Self> {
        model.require_causal()?;
        let loss = CrossEntropy::default();
        Self::of_graph(config, model.graph()?, &model.to_json()?, batches, loss, run)
    }

    /// A run of a network of one's own, on batches and with a [loss](super::loss) that fit it: a text's batches with
    /// [`CrossEntropy`] for a language model; `json` is what describes it in the
    /// run's `config.json`, which nothing here reads: the weights of the run are loaded by
    /// [`weights::read`](crate::files::weights::read) and [`Network::new`] with the same graph. A tokenizer is saved into
    /// the run by whoever has one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Example
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::VarBuilder;
    /// use candle_tcn::files::weights;
    /// use candle_tcn::graph::{Conv1dConfig, EmbedConfig, Graph, Network};
    /// use candle_tcn::train::{Budget, RunDir, TrainConfig, Trainer, ValidSet, loss::CrossEntropy};
    ///
    /// fn graph() -> candle_tcn::Result<Graph> {
    ///     let mut g = Graph::new();
    ///     let ids = g.tokens(10)?;
    ///     let xs = g.embed("embedding", ids, 8, EmbedConfig::default())?;
    ///     let hs = g.conv1d("conv", xs, 8, 3, Conv1dConfig::causal())?;
    ///     let logits = g.linear("head", hs, 10)?;
    ///     g.output_logits(logits)?;
    ///     Ok(g)
    /// }
    ///
    /// let folder = tempfile::tempdir()?;
    /// let run = RunDir::create(folder.path().join("run"), 1)?;
    /// let sizes = TrainConfig { batch_size: 2, seq_len: 16, ..TrainConfig::default() };
    /// let config = TrainConfig { budget: Budget::Steps(5), ..sizes };
    /// let batches = config.lay_out((0..200).map(|i| i % 10).collect::<Vec<_>>())?;
    /// let loss = CrossEntropy::default();
    /// let mut trainer = Trainer::of_graph(config, graph()?, "{}", batches, loss, run.clone())?;
    /// trainer.run(&ValidSet::default(), &mut ())?;
    ///
    /// let tensors = weights::read(run.join("model.safetensors"))?.tensors;
    /// let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    /// let net = Network::new(graph()?, vb)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_graph(
        config: TrainConfig,
        graph: Graph,
        json: &str,
        batches: impl BatchSource + 'static,
        loss: impl Loss + 'static,
        run: RunDir,
    ) -> Result<Self> {
        config.validate()?;
        batches.check(&graph)?;
        let params = Params::new(config.seed, DType::F32, &Device::Cpu);
        let model = Network::new(graph, params.builder())?;
        let frozen = Frozen::new(&params, &config.freeze)?;
        let optimizer = NamedOptimizer::of_graph(
            config.optimizer.clone(),
            frozen.trained.clone(),
            model.graph(),
        )?
        .with_products(config.dtype.dtype());
        let schedule = Schedule::new(config.schedule.clone())?;
        run.write(names::CONFIG, json)?;
        let log = MetricsLog::create(run.join(names::METRICS))?;
        let data = batches.data();
        let progress = RunProgress {
            config: config.clone(),
            step: 0,
            tokens: 0,
            text_tokens: data.len,
            text_sha256: Some(data.sha256),
            valid_sha256: None,
            elapsed_s: 0.0,
            training_s: 0.0,
            position: batches.position(),
            schedule: schedule.state().clone(),
            best: None,
            since_best: 0,
            meter: Meter::default(),
            pending: None,
        };
        let state = State::new(config.batch_size, Vec::new())?;
        Ok(Self {
            config,
            model,
            params,
            frozen,
            optimizer,
            schedule,
            batches: Box::new(batches),
            loss: Box::new(loss),
            state,
            progress,
            run,
            log,
            damaged: Vec::new(),
            validation_s: None,
        })
    }

    /// The same run, before its first step, from these weights instead of drawn ones.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor that is missing or of another shape.
    pub fn with_weights(self, weights: &HashMap<String, Tensor>) -> Result<Self> {
        self.params.load(weights)?;
        let frozen = Frozen::new(&self.params, &self.config.freeze)?;
        Ok(Self { frozen, ..self })
    }

    /// The same run under another kernel than the [best](Kernel::best).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a kernel that this processor lacks.
    pub fn with_kernel(self, kernel: Kernel) -> Result<Self> {
        Ok(Self { model: self.model.with_kernel(kernel)?, ..self })
    }

    /// The configuration of the training.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The network in training.
    pub fn network(&self) -> &Network {
        &self.model
    }

    /// The parameters in training.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Checkpoints that [`resume`](Self::resume) found damaged: why, and the names that they have now.
    pub fn damaged(&self) -> &[(Error, PathBuf)] {
        &self.damaged
    }

    /// Optimizer steps done.
    pub fn steps(&self) -> usize {
        self.progress.step
    }

    /// The model as it is now, frozen for inference.
    ///
    /// # Errors
    /// Those of candle.
    pub fn frozen(&self) -> Result<Network> {
        self.model.freeze()
    }

    /// Trains until the budget is used, the observer interrupts, or patience ends.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another validation text than the run began with;
    /// [`Error::NotFinite`] where loss or gradient leave the numbers, before the weights change;
    /// [`Error::Io`] where the run cannot be written.
    pub fn run(&mut self, valid: &ValidSet, observer: &mut dyn Observer) -> Result<Outcome> {
        let hash = valid.sha256()?;
        if self.progress.valid_sha256.get_or_insert_with(|| hash.clone()) != &hash {
            return Err(Error::invalid(
                "valid",
                "the validation text that the run began with",
                format!("another one ({} tokens)", valid.len()),
            ));
        }
        let clock = Clock { start: Instant::now(), before: self.progress.elapsed_s };
        let mut interrupted = match self.progress.pending.take() {
            Some(record) => self.milestone(record, valid, observer, &clock)?,
            None => false,
        };
        let mut saved_s = clock.elapsed();
        let mut fraction = self.fraction(&clock);
        while !interrupted && fraction < 1.0 && !self.out_of_patience() {
            let before = fraction;
            let record = self.timed_step(&clock)?;
            fraction = self.fraction(&clock).min(1.0);
            observer.step(&record, fraction);
            if self.is_milestone((before, fraction), valid, &clock) {
                interrupted = self.milestone(record, valid, observer, &clock)?;
                // of a budget in minutes, the validation took its part
                fraction = self.fraction(&clock);
                saved_s = clock.elapsed();
                continue;
            }
            if record.step.is_multiple_of(RECORD_EVERY) {
                self.record(&record)?;
            }
            interrupted = observer.interrupted();
            if interrupted || clock.elapsed() - saved_s > CHECKPOINT_SECONDS {
                self.checkpoint(&clock)?;
                saved_s = clock.elapsed();
            }
        }
        self.progress.elapsed_s = clock.elapsed();
        if self.progress.best.is_none() {
            write_tensors(self.run.join(names::WEIGHTS), &self.params.snapshot()?)?;
        }
        Ok(self.outcome(interrupted))
    }

    /// One step by the schedule, and its figures.
    fn timed_step(&mut self, clock: &Clock) -> Result<Record> {
        // the middle of the step: neither the first nor the last has a rate of zero
        let middle = self.fraction_after(0.5, clock).min(1.0);
        let lr = self.schedule.lr(self.config.lr, middle);
        let (start, tokens) = (Instant::now(), self.progress.tokens);
        let (loss, grad_norm) = self.step(lr)?;
        let seconds = start.elapsed().as_secs_f64();
        let progress = &mut self.progress;
        progress.training_s += seconds;
        progress.meter.add(loss, progress.tokens - tokens, seconds);
        progress.elapsed_s = clock.elapsed();
        Ok(self.figures(lr, grad_norm))
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.log.append(record)?;
        self.progress.meter = Meter::default();
        Ok(())
    }

    fn outcome(&self, interrupted: bool) -> Outcome {
        let p = &self.progress;
        Outcome {
            steps: p.step,
            tokens: p.tokens,
            seconds: p.elapsed_s,
            tokens_per_s: p.tokens as f64 / p.training_s.max(1e-9),
            valid_loss: p.best.map(|(loss, _)| loss),
            valid_bpc: p.best.and_then(|(_, bpc)| bpc),
            interrupted,
        }
    }

    fn out_of_patience(&self) -> bool {
        self.config.patience.is_some_and(|patience| self.progress.since_best >= patience)
    }

    fn figures(&self, lr: f64, grad_norm: f64) -> Record {
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
}
