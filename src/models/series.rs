//! Networks of series: outputs of whole sequences, and answers in the data's own units.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::directory::{ModelFiles, described_in};
use crate::files::names::{MAX_CONFIG_BYTES, TASK};
use crate::files::read_small;
use crate::graph::{Network, Run};
use crate::kernels::Kernel;
use crate::ops::length_mask;
use crate::series::{FrameSequence, Framer, Series, SeriesScale, SeriesTask, TaskKind};
use crate::{Error, Result};

/// Steps that a network is given at once.
const PIECE: usize = 1 << 12;

/// A network of series with its task.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::models::{ModelConfig, SeriesModel};
/// use candle_tcn::nn::Params;
/// use candle_tcn::series::{Column, Series, SeriesSet, SeriesTask, TaskKind};
///
/// let set = SeriesSet {
///     columns: vec![Column::of_numbers("level")],
///     series: vec![Series::new((0..50).map(|t| (t % 5) as f32).collect(), 1)],
///     ..SeriesSet::default()
/// };
/// let task = SeriesTask::fit(&set, TaskKind::Forecast { horizon: 2, season: None, levels: vec![] })?;
/// let config = ModelConfig::preset("tcn-small")?.with_frames(task.in_channels(), task.out_channels())?;
/// let network = config.build(Params::new(1, DType::F32, &Device::Cpu).builder())?;
/// let model = SeriesModel::new(task, network)?;
/// // two steps ahead of each step
/// assert_eq!(model.answers(&set.series[0])?.len(), 50 * 2);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SeriesModel {
    /// The task.
    pub task: SeriesTask,
    /// The network.
    pub network: Network,
}

impl SeriesModel {
    /// A network with the task that it was trained for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a task that does not hold together, or a network of other channels.
    pub fn new(task: SeriesTask, network: Network) -> Result<Self> {
        task.validate()?;
        let sizes = task.scale != SeriesScale::Series || task.sizes.len() == task.columns.len();
        Error::require(sizes, "sizes", "a size of each column", task.sizes.len())?;
        let model = Self { task, network };
        let (inputs, outputs) = model.channels()?;
        let expected = (model.task.in_channels(), model.task.out_channels());
        let fits = (inputs, outputs) == expected;
        let expected = format!("{} inputs and {} outputs, as {TASK} says", expected.0, expected.1);
        Error::require(fits, "model", &expected, format!("{inputs} and {outputs}"))?;
        let is_whole = matches!(model.task.task, TaskKind::Classify { .. });
        let expected =
            if is_whole { "one answer for a series (pool)" } else { "an answer at every step" };
        Error::require(model.pools() == is_whole, "model", expected, "another")?;
        Ok(model)
    }

    /// Reads a model directory with a `task.json`, under a kernel.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file.
    pub fn load(dir: impl AsRef<Path>, kernel: Kernel) -> Result<Self> {
        let dir = dir.as_ref();
        let task = Self::read_task(dir)?;
        let model = ModelFiles::read(dir)?.into_model()?.with_kernel(kernel)?;
        let path = described_in(dir).join(TASK);
        Self::new(task, model.model).map_err(|error| Error::file(path, error.to_string()))
    }

    /// `true` for a directory of a model with a task.
    pub fn is_in(dir: impl AsRef<Path>) -> bool {
        described_in(dir).join(TASK).exists()
    }

    /// Reads the task of a model directory.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file.
    pub fn read_task(dir: impl AsRef<Path>) -> Result<SeriesTask> {
        let path = described_in(dir).join(TASK);
        let json = read_small(&path, "the task of a model", MAX_CONFIG_BYTES)?;
        let wrong = |message: String| Error::file(&path, message);
        let task: SeriesTask = serde_json::from_slice(&json)
            .map_err(|error| wrong(format!("not the task of a model: {error}")))?;
        task.validate().map_err(|error| wrong(error.to_string()))?;
        Ok(task)
    }

    fn channels(&self) -> Result<(usize, usize)> {
        let graph = self.network.graph();
        match (graph.inputs().next(), &graph.outputs[..]) {
            (Some(crate::graph::Input::Frames { channels, .. }), [output]) => {
                Ok((*channels, graph.edge(*output).channels))
            }
            _ => Err(Error::invalid("model", "a network on frames", "another")),
        }
    }

    fn pools(&self) -> bool {
        let graph = self.network.graph();
        graph.outputs.iter().any(|&output| graph.edge(output).single)
    }

    /// Outputs of the network for a sequence: (time, out_channels), or (out_channels) of a whole.
    ///
    /// # Errors
    /// Those of the network.
    pub fn outputs(&self, sequence: &FrameSequence) -> Result<Vec<f32>> {
        let graph = self.network.graph();
        if self.pools() || sequence.len() <= PIECE {
            return self.piece(sequence);
        }
        if graph.is_causal() {
            let mut state = self.network.init_state(1)?;
            let mut outputs = Vec::new();
            for start in (0..sequence.len()).step_by(PIECE) {
                let part = sequence.part(start..(start + PIECE).min(sequence.len()));
                let frames = self.frames(&part)?;
                outputs.extend(numbers(&self.network.prefill(&frames, &mut state)?)?);
            }
            return Ok(outputs);
        }
        let (left, right) = graph.outputs.iter().fold((0, 0), |(left, right), &output| {
            let edge = graph.edge(output);
            (left.max(edge.left()), right.max(edge.right()))
        });
        let mut outputs = Vec::new();
        for start in (0..sequence.len()).step_by(PIECE) {
            let end = (start + PIECE).min(sequence.len());
            let first = start.saturating_sub(left);
            let part = sequence.part(first..(end + right).min(sequence.len()));
            let width = self.task.out_channels();
            outputs.extend_from_slice(
                &self.piece(&part)?[(start - first) * width..(end - first) * width],
            );
        }
        Ok(outputs)
    }

    fn frames(&self, sequence: &FrameSequence) -> Result<Tensor> {
        let shape = (1, sequence.len(), sequence.channels);
        Ok(Tensor::from_slice(&sequence.inputs, shape, &Device::Cpu)?)
    }

    fn piece(&self, sequence: &FrameSequence) -> Result<Vec<f32>> {
        let mut run = Run::eval();
        if self.network.graph().takes_mask() {
            run = run.with_mask(&length_mask(&[sequence.len()], sequence.len())?)?;
        }
        numbers(&self.network.run(&[&self.frames(sequence)?], run)?.into_first()?)
    }

    /// Answers of a series, in the data's own units: of each step (horizon, targets, levels) of a forecast, the targets of a
    /// regression, probabilities of classes and of labels; of a classification those of the whole.
    ///
    /// # Errors
    /// As [`outputs`](Self::outputs).
    pub fn answers(&self, series: &Series) -> Result<Vec<f64>> {
        let mut inputs = Vec::with_capacity(series.len() * self.task.in_channels());
        let mut framers = Vec::new();
        self.task.walk(series, &mut inputs, |framer, _, _| {
            if matches!(self.task.task, TaskKind::Forecast { .. }) {
                framers.push(self.anchors(framer));
            }
        });
        let channels = self.task.in_channels();
        let targets = crate::series::SequenceTargets::Class(0);
        let outputs = self.outputs(&FrameSequence { inputs, channels, targets })?;
        let mut answers = Vec::with_capacity(outputs.len());
        for (step, outputs) in outputs.chunks_exact(self.task.out_channels()).enumerate() {
            self.answer(framers.get(step).map(Vec::as_slice), outputs, &mut answers);
        }
        Ok(answers)
    }

    /// The base of each target and step of a forecast, and the size of its outputs' unit, as (base, spread).
    pub fn anchors(&self, framer: &Framer) -> Vec<(f64, f64)> {
        let horizon = self.task.lead();
        let targets = 0..self.task.targets.len();
        let all = targets.flat_map(|target| (1..=horizon).map(move |ahead| (target, ahead)));
        all.map(|(target, ahead)| (framer.base(target, ahead), framer.spread(target))).collect()
    }

    /// Appends the answer of one step to `to`; `anchors` are those of the step, of a forecast.
    pub fn answer(&self, anchors: Option<&[(f64, f64)]>, outputs: &[f32], to: &mut Vec<f64>) {
        let task = &self.task;
        match task.task {
            TaskKind::Forecast { horizon, .. } => {
                let levels = task.levels().len();
                let bands = &task.bands.0;
                for ahead in 0..horizon {
                    for target in 0..task.targets.len() {
                        let place = target * horizon + ahead;
                        let (base, spread) = anchors.map_or((0.0, 1.0), |anchors| anchors[place]);
                        let start = to.len();
                        let outputs = &outputs[place * levels..][..levels];
                        let band = |level: usize| bands.get(level).copied().unwrap_or(0.0);
                        to.extend(
                            outputs
                                .iter()
                                .enumerate()
                                .map(|(level, &x)| base + spread * (f64::from(x) + band(level))),
                        );
                        // levels are learned one by one and may cross
                        to[start..].sort_unstable_by(f64::total_cmp);
                    }
                }
            }
            TaskKind::Regress { .. } => {
                let columns = task.target_columns();
                let values = columns.iter().zip(outputs);
                to.extend(values.map(|(&column, &x)| task.scaling.undo(column, f64::from(x))));
            }
            TaskKind::Multilabel { .. } => {
                to.extend(outputs.iter().map(|&x| 1.0 / (1.0 + (-f64::from(x)).exp())));
            }
            TaskKind::Classify { .. } | TaskKind::Label { .. } => {
                let most = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let powers = outputs.iter().map(|&x| f64::from(x - most).exp());
                let sum: f64 = powers.clone().sum();
                to.extend(powers.map(|power| power / sum));
            }
        }
    }

    /// `true` if answers can be given row by row, as rows come.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says what looks ahead.
    pub fn expect_streaming(&self) -> Result<()> {
        let causal = self.network.graph().is_causal() && !self.pools();
        Error::require(
            causal,
            "model",
            "one that answers at every step and sees no later one",
            "another",
        )?;
        let known = self.task.known.is_empty() && self.task.scale != SeriesScale::Series;
        Error::require(
            known,
            "known",
            "no column that must be known ahead of its row",
            self.task.known.join(", "),
        )
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
