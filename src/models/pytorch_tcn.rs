//! The network of pytorch-tcn 1.2.3, with every option under its own name.

use serde::{Deserialize, Serialize};

use super::config_keys::{fixed, yes};
use super::{Architecture, FrameLayout};
use crate::geometry::{Dilations, Growth};
use crate::graph::{Conv1dConfig, Graph, MAX_CHANNELS, NormKind, Value, in_range};
use crate::nn::{Activation, Gate, TcnConfig};
use crate::{Error, Result};

/// The arguments of pytorch-tcn's `TCN`, with its names and defaults.
///
///
/// A block is `act(dropout(act(norm2(conv2(dropout(inner(condition(norm1(conv1 x)))))))) + residual(x))`,
/// where `inner` is the activation or a gated linear unit, and the rest as the options say. As there:
///
/// - the skip sum leaves out the last block's inner branch and holds its final output instead;
/// - `softmax` and `log_softmax`, also as activations of the blocks, are over the batch;
/// - conditioning inputs may be left out altogether, and the blocks then go without;
/// - with `add`, `embedding_projection_2` is not used: it is not among the tensors here.
///
/// Unlike there, a batch of any size streams, and so does a kernel of one tap.
///
/// # Shapes
/// Frames (batch, time, num_inputs); conditioning inputs (batch, channels) or (batch, time, channels) by
/// further inputs; result (batch, time, output_projection or the last of num_channels).
///
/// Tensors: `network.{i}.conv{1,2}.*` (weight norm as `weight_g` and `weight_v`),
/// `network.{i}.norm{1,2}.*`, `network.{i}.downsample.*`, `network.{i}.embedding_projection_{1,2}.*`,
/// `downsample_skip_connection.{i}.*`, `projection_out.*`.
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let json = r#"{"model_type": "pytorch_tcn", "num_inputs": 3, "num_channels": [8, 8, 8, 8], "dilation_reset": 2}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// // kernel 4, dilations 1, 2, 1, 2, two convolutions each: 1 + 2·3·6
/// assert_eq!(config.geometry()?.receptive_field()?.total, 37);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// pytorch-tcn 1.2.3, PyPI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PytorchTcnConfig {
    /// Channels of a frame.
    pub num_inputs: usize,
    /// Channels of each block's output.
    pub num_channels: Vec<usize>,
    /// Taps of each dilated convolution; 4 if absent.
    #[serde(default = "four")]
    pub kernel_size: usize,
    /// One dilation for each block; without it powers of two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dilations: Option<Vec<usize>>,
    /// The largest power of two: after it they begin at 1 again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dilation_reset: Option<usize>,
    /// Probability of dropping in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// `true` if an output sees no later input; otherwise the field is centred, an odd step more on the right.
    #[serde(default = "yes")]
    pub causal: bool,
    /// Normalisation; `null` for none.
    #[serde(default = "weight_norm")]
    pub use_norm: Option<PytorchNorm>,
    /// After each convolution (but the first where `use_gate`), the residual sum and the skip sum.
    #[serde(default)]
    pub activation: PytorchActivation,
    /// Record of how the weights were drawn there. Weights that are drawn here are drawn as PyTorch's
    /// layers draw theirs, which is also what pytorch-tcn's weight-normed convolutions really start from.
    #[serde(default)]
    pub kernel_initializer: KernelInitializer,
    /// `true` if the inner branches of all blocks but the last are added to the last block's output.
    #[serde(default)]
    pub use_skip_connections: bool,
    /// The layout of the files that hold inputs and outputs; see [`run`](super::run).
    #[serde(default)]
    pub input_shape: FrameLayout,
    /// Of each conditioning input `[channels]` or `[channels, time]`; the time is not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_shapes: Option<Vec<Vec<Option<usize>>>>,
    /// Way in which the conditioning enters, after the first convolution and its norm.
    #[serde(default)]
    pub embedding_mode: EmbeddingMode,
    /// A gated linear unit in place of the first activation: the first convolution then has twice the
    /// channels.
    #[serde(default)]
    pub use_gate: bool,
    /// 0; any other value is refused there too.
    #[serde(default)]
    pub lookahead: usize,
    /// Channels of a last 1×1 convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_projection: Option<usize>,
    /// Applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_activation: Option<PytorchActivation>,
}

fn four() -> usize {
    4
}

fn tenth() -> f64 {
    0.1
}

fn weight_norm() -> Option<PytorchNorm> {
    Some(PytorchNorm::WeightNorm)
}

/// Normalisation, by pytorch-tcn's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PytorchNorm {
    /// On the convolutions' weights.
    WeightNorm,
    /// Over batch and time, with running statistics.
    BatchNorm,
    /// Over the channels of each step.
    LayerNorm,
}

/// Way in which conditioning enters a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingMode {
    /// A projection of it is added.
    #[default]
    Add,
    /// A projection of it and the channels, side by side, go through a second one.
    Concat,
}

/// Distribution from which pytorch-tcn draws its first weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum KernelInitializer {
    #[default]
    XavierUniform,
    XavierNormal,
    KaimingUniform,
    KaimingNormal,
    Normal,
    Uniform,
}

/// An activation, by pytorch-tcn's names: PyTorch's layer with its default arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PytorchActivation {
    /// See [`Activation::Relu`].
    #[default]
    Relu,
    /// See [`Activation::Tanh`].
    Tanh,
    /// See [`Activation::LeakyRelu`].
    LeakyRelu,
    /// See [`Activation::Sigmoid`].
    Sigmoid,
    /// See [`Activation::Elu`].
    Elu,
    /// See [`Activation::Gelu`].
    Gelu,
    /// See [`Activation::Selu`].
    Selu,
    /// Over the batch: PyTorch's layer without an axis takes the first of three.
    Softmax,
    /// The logarithm of that, over the batch too.
    LogSoftmax,
}

impl PytorchActivation {
    /// Applies it to a value of a graph.
    fn append(self, g: &mut Graph, xs: Value) -> Result<Value> {
        let activation = match self {
            Self::Softmax => return g.batch_softmax(xs, false),
            Self::LogSoftmax => return g.batch_softmax(xs, true),
            Self::Relu => Activation::Relu,
            Self::Tanh => Activation::Tanh,
            Self::LeakyRelu => Activation::LeakyRelu,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Elu => Activation::Elu,
            Self::Gelu => Activation::Gelu,
            Self::Selu => Activation::Selu,
        };
        g.activate(xs, activation)
    }
}

impl PytorchTcnConfig {
    /// Its convolutions as those of a [`TcnConfig`], whose checks and geometry are the same.
    fn convolutions(&self) -> Result<TcnConfig> {
        let dilations = match (&self.dilations, self.dilation_reset) {
            (Some(list), _) => Dilations::List(list.clone()),
            (None, reset) => {
                let expected = "a whole number of at least 1";
                Error::require(reset != Some(0), "dilation_reset", expected, 0)?;
                let reset_every = reset.map(|largest| largest.ilog2() as usize + 1);
                Dilations::Growth(Growth { reset_every, ..Growth::new(2, self.num_channels.len()) })
            }
        };
        Ok(TcnConfig {
            dilations: Some(dilations),
            dropout: self.dropout,
            causal: self.causal,
            norm: self.norm(),
            gate: self.use_gate.then_some(Gate::Glu),
            skip_connections: self.use_skip_connections,
            ..TcnConfig::new(self.num_channels.clone(), self.kernel_size)
        })
    }

    /// One dilation for each block.
    pub(super) fn block_dilations(&self) -> Result<Vec<usize>> {
        let dilations = self.convolutions()?.dilations;
        dilations.map_or_else(|| Ok(Vec::new()), |dilations| dilations.expand())
    }

    fn norm(&self) -> NormKind {
        match self.use_norm {
            Some(PytorchNorm::WeightNorm) => NormKind::Weight,
            Some(PytorchNorm::BatchNorm) => NormKind::Batch,
            Some(PytorchNorm::LayerNorm) => NormKind::Layer,
            None => NormKind::None,
        }
    }

    /// Channels of each conditioning input.
    ///
    /// # Errors
    /// [`Error::Invalid`] for shapes that are not `[channels]` or `[channels, time]`.
    fn embedding_channels(&self) -> Result<Vec<usize>> {
        let shapes = self.embedding_shapes.iter().flatten().enumerate();
        let channels = shapes.map(|(i, shape)| {
            let field = format!("embedding_shapes[{i}]");
            let ([Some(channels)] | [Some(channels), _]) = shape[..] else {
                let expected = "[channels] or [channels, time]";
                return Err(Error::invalid(field, expected, format!("{shape:?}")));
            };
            in_range(field, channels, MAX_CHANNELS)
        });
        channels.collect()
    }

    fn validate(&self) -> Result<()> {
        in_range("num_inputs", self.num_inputs, MAX_CHANNELS)?;
        // an empty list has no block, no dilation and no reset
        let blocks = !self.num_channels.is_empty();
        Error::require(blocks, "num_channels", "at least one block", "none")?;
        self.convolutions()?.validate()?;
        let shapes = self.embedding_shapes.as_ref().is_none_or(|shapes| !shapes.is_empty());
        let expected = "at least one shape, or null for no conditioning";
        Error::require(shapes, "embedding_shapes", expected, "an empty list")?;
        let channels = self.embedding_channels()?;
        let total = channels.into_iter().fold(0usize, usize::saturating_add);
        let expected = format!("at most {MAX_CHANNELS} channels together");
        Error::require(total <= MAX_CHANNELS, "embedding_shapes", &expected, total)?;
        if let Some(channels) = self.output_projection {
            in_range("output_projection", channels, MAX_CHANNELS)?;
        }
        fixed("lookahead", self.lookahead, 0)
    }

    /// Adds the conditioning, joined into one value, to the inner value of a block.
    fn condition(&self, g: &mut Graph, hs: Value, embedding: Value) -> Result<Value> {
        let (width, causal) = (g.edge(hs).channels, Conv1dConfig::causal());
        let projected = g.conv1d("embedding_projection_1", embedding, width, 1, causal)?;
        let with = match self.embedding_mode {
            EmbeddingMode::Add => g.add(hs, projected)?,
            EmbeddingMode::Concat => {
                let both = g.concat(&[hs, projected])?;
                g.conv1d("embedding_projection_2", both, width, 1, causal)?
            }
        };
        g.otherwise(with, hs)
    }
}

impl Architecture for PytorchTcnConfig {
    fn graph(&self) -> Result<Graph> {
        self.validate()?;
        let mut g = Graph::new();
        let xs = g.frames(self.num_inputs)?;
        let channels = self.embedding_channels()?.into_iter();
        let embeddings =
            channels.map(|channels| g.condition(channels)).collect::<Result<Vec<_>>>()?;
        let embedding = match embeddings[..] {
            [] => None,
            [only] => Some(only),
            _ => Some(g.concat(&embeddings)?),
        };
        let network = self.convolutions()?;
        let activate = |g: &mut Graph, xs| self.activation.append(g, xs);
        let condition = |g: &mut Graph, hs| match embedding {
            None => Ok(hs),
            Some(embedding) => self.condition(g, hs, embedding),
        };
        let mut ys = network.append_with(&mut g, xs, &activate, &condition)?;
        if let Some(channels) = self.output_projection {
            ys = g.conv1d("projection_out", ys, channels, 1, Conv1dConfig::causal())?;
        }
        if let Some(activation) = self.output_activation {
            ys = activation.append(&mut g, ys)?;
        }
        g.output(ys)?;
        Ok(g)
    }

    fn layout(&self) -> FrameLayout {
        self.input_shape
    }

    fn set_dropout(&mut self, dropout: f64) {
        self.dropout = dropout;
    }

    fn fold_weight_norm(&mut self) {
        if self.use_norm == Some(PytorchNorm::WeightNorm) {
            self.use_norm = None;
        }
    }
}
