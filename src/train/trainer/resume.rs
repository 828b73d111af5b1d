//! Checkpoints of a [`Trainer`], and how one goes on from them.

use std::collections::HashMap;
use std::io::ErrorKind;

use candle_core::{DType, Device, Tensor};

use super::super::batch::{BatchSource, DataId};
use super::super::checkpoint::{Checkpoint, TensorFiles};
use super::super::config::TrainConfig;
use super::super::freeze::Frozen;
use super::super::loss::{CrossEntropy, Loss};
use super::super::metrics::MetricsLog;
use super::super::optim::NamedOptimizer;
use super::super::progress::{Clock, RunProgress};
use super::super::run_dir::RunDir;
use super::super::schedule::Schedule;
use super::Trainer;
use crate::files::names::{CONFIG, METRICS, OPTIMIZER, STATE, WEIGHTS};
use crate::graph::{Graph, Network, State};
use crate::models::directory::read_config;
use crate::nn::Params;
use crate::text::TokenStore;
use crate::{Error, Result};

/// Contents of a checkpoint.
struct Restored {
    progress: RunProgress,
    params: Params,
    frozen: Frozen,
    model: Network,
    optimizer: NamedOptimizer,
    state: State,
}

impl Trainer {
    /// Continues the run in `run` from its newest whole checkpoint; `change` may alter its configuration, such
    /// as a longer budget or a lower learning rate. Damaged checkpoints are renamed, see
    /// [`damaged`](Self::damaged).
    ///
    /// # Errors
    /// [`Error::File`] naming the file of the newest checkpoint that does not fit, where none does;
    /// [`Error::Invalid`] for another text than the run began with.
    pub fn resume(
        tokens: impl Into<TokenStore>,
        run: RunDir,
        change: impl FnOnce(&mut TrainConfig),
    ) -> Result<Self> {
        let model = read_config(run.join(CONFIG))?;
        model.require_causal()?;
        let loss = CrossEntropy::default();
        Self::resume_graph(run, model.graph()?, loss, change, |config| config.lay_out(tokens))
    }

    /// The configuration with which a run was begun or last resumed.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn config_of(run: &RunDir) -> Result<TrainConfig> {
        let model = read_config(run.join(CONFIG))?;
        let (restored, _) = newest_whole(run, &model.graph()?)?;
        Ok(restored.progress.config)
    }

    /// As [`resume`](Self::resume), of a network of one's own; `batches` makes its batches of the changed configuration.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_graph<B: BatchSource + 'static>(
        run: RunDir,
        graph: Graph,
        loss: impl Loss + 'static,
        change: impl FnOnce(&mut TrainConfig),
        batches: impl FnOnce(&TrainConfig) -> Result<B>,
    ) -> Result<Self> {
        let (restored, broken) = newest_whole(&run, &graph)?;
        let Restored { progress, params, frozen, model, optimizer, state } = restored;
        let mut config = progress.config.clone();
        change(&mut config);
        config.validate()?;
        let schedule = Schedule::resume(config.schedule.clone(), progress.schedule.clone())?;
        let mut batches = batches(&config)?;
        batches.check(model.graph())?;
        check_data(&progress, &batches.data())?;
        batches.seek(progress.position)?;
        let log = MetricsLog::resume(run.join(METRICS), progress.step)?;
        let aside = |(checkpoint, error): (Checkpoint, Error)| Ok((error, checkpoint.set_aside()?));
        let damaged = broken.into_iter().map(aside).collect::<Result<_>>()?;
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
            damaged,
            validation_s: None,
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
        let state = self.state.tensors()?.into_iter().enumerate().map(|(i, t)| (format!("{i}"), t));
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
                return Err(Error::NotFinite { step, what: "sum of the weights", value, lr });
            }
        }
        Ok(())
    }
}

/// The newest checkpoint that can be read, and those before it that cannot.
fn newest_whole(run: &RunDir, graph: &Graph) -> Result<(Restored, Vec<(Checkpoint, Error)>)> {
    let mut broken = Vec::new();
    for checkpoint in run.checkpoints().newest_first()? {
        match restore(&checkpoint, graph) {
            Ok(restored) => return Ok((restored, broken)),
            // not damaged: closed to this user
            Err(Error::Io { path, source }) if source.kind() == ErrorKind::PermissionDenied => {
                return Err(Error::io(path, source));
            }
            Err(error) => broken.push((checkpoint, error)),
        }
    }
    Err(match broken.into_iter().next() {
        Some((_, error)) => error,
        None => Error::NoCheckpoint { path: run.checkpoints().path().into() },
    })
}

fn restore(checkpoint: &Checkpoint, graph: &Graph) -> Result<Restored> {
    let in_file = |name: &str, error: Error| Error::file(checkpoint.file(name), error.to_string());
    checkpoint.verify()?;
    let progress: RunProgress = checkpoint.trainer()?;
    let params = Params::new(progress.config.seed, DType::F32, &Device::Cpu);
    let model = Network::new(graph.clone(), params.builder())?;
    let weights = checkpoint.tensors(WEIGHTS)?;
    params.load(&weights).map_err(|e| in_file(WEIGHTS, e))?;
    let frozen = Frozen::new(&params, &progress.config.freeze)?;
    let optimizer = progress.config.optimizer.clone();
    let optimizer = NamedOptimizer::of_graph(optimizer, frozen.trained.clone(), graph)?;
    let mut optimizer = optimizer.with_products(progress.config.dtype.dtype());
    let moments = checkpoint.tensors(OPTIMIZER)?;
    optimizer.load_state(&moments).map_err(|e| in_file(OPTIMIZER, e))?;
    let state = restore_state(checkpoint.tensors(STATE)?).map_err(|e| in_file(STATE, e))?;
    Ok(Restored { progress, params, frozen, model, optimizer, state })
}

fn check_data(progress: &RunProgress, data: &DataId) -> Result<()> {
    let began = progress.text_tokens;
    let found = match &progress.text_sha256 {
        _ if began != data.len => data.len.to_string(),
        Some(hash) if *hash != data.sha256 => "as many others".to_string(),
        _ => return Ok(()),
    };
    let expected = format!("the {began} training tokens that the run began with");
    Err(Error::invalid("data", expected, found))
}

fn restore_state(mut tensors: HashMap<String, Tensor>) -> Result<State> {
    let mut rings = Vec::with_capacity(tensors.len());
    while let Some(ring) = tensors.remove(&rings.len().to_string()) {
        rings.push(ring);
    }
    match tensors.keys().next() {
        None => {
            let batch = rings.first().map_or(Ok(0), |ring| ring.dim(0))?;
            State::from_tensors(&vec![0; batch], &rings)
        }
        Some(name) => Err(Error::invalid("state", format!("tensors 0 to {}", rings.len()), name)),
    }
}
