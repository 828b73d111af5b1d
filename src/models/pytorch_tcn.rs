//! The network of pytorch-tcn 1.2.3, with every option under its own name.

mod network;

pub use network::PytorchTcn;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::frames::FrameLayout;
use crate::geometry::{Dilations, Growth, Stack};
use crate::nn::{Activation, MAX_CHANNELS, NormKind, TcnConfig, in_range};
use crate::ops;
use crate::{Error, Result};

/// The arguments of pytorch-tcn's `TCN`, with its names and defaults.
///
/// What is unusual there is so here: see [`PytorchTcn`].
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dilations: Option<Vec<usize>>,
    /// The largest power of two: after it they begin at 1 again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dilation_reset: Option<usize>,
    /// Probability of dropping in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Whether an output sees no later input; otherwise the field is centred, an odd step more on the right.
    #[serde(default = "yes")]
    pub causal: bool,
    /// Normalisation; `null` for none.
    #[serde(default = "weight_norm")]
    pub use_norm: Option<PytorchNorm>,
    /// After each convolution (but the first where `use_gate`), the residual sum and the skip sum.
    #[serde(default)]
    pub activation: PytorchActivation,
    /// How the weights were drawn there: a record. Weights that are drawn here are drawn as PyTorch's
    /// layers draw theirs, which is also what pytorch-tcn's weight-normed convolutions really start from.
    #[serde(default)]
    pub kernel_initializer: KernelInitializer,
    /// Whether the inner branches of all blocks but the last are added to the last block's output.
    #[serde(default)]
    pub use_skip_connections: bool,
    /// The layout of the files that hold inputs and outputs; see [`run`](super::run).
    #[serde(default)]
    pub input_shape: FrameLayout,
    /// Of each conditioning input `[channels]` or `[channels, time]`; the time is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_shapes: Option<Vec<Vec<Option<usize>>>>,
    /// How the conditioning enters, after the first convolution and its norm.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_projection: Option<usize>,
    /// Applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_activation: Option<PytorchActivation>,
}

fn four() -> usize {
    4
}

fn tenth() -> f64 {
    0.1
}

fn yes() -> bool {
    true
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

/// How conditioning enters a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingMode {
    /// A projection of it is added.
    #[default]
    Add,
    /// A projection of it and the channels, side by side, go through a second one.
    Concat,
}

/// How pytorch-tcn draws its first weights.
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
    /// Applies it to (batch, time, channels).
    ///
    /// # Errors
    /// Those of candle.
    pub fn apply(self, xs: &Tensor) -> Result<Tensor> {
        ops::activate(
            xs,
            match self {
                Self::Softmax => return Ok(candle_nn::ops::softmax(xs, 0)?),
                Self::LogSoftmax => return Ok(candle_nn::ops::log_softmax(xs, 0)?),
                Self::Relu => Activation::Relu,
                Self::Tanh => Activation::Tanh,
                Self::LeakyRelu => Activation::LeakyRelu,
                Self::Sigmoid => Activation::Sigmoid,
                Self::Elu => Activation::Elu,
                Self::Gelu => Activation::Gelu,
                Self::Selu => Activation::Selu,
            },
        )
    }

    /// Applies it to a sum.
    fn apply_sum(self, xs: &Tensor, ys: &Tensor) -> Result<Tensor> {
        match self {
            Self::Relu => ops::add_relu(xs, ys),
            other => other.apply(&ops::add(xs, ys)?),
        }
    }
}

impl PytorchTcnConfig {
    /// Its convolutions as those of a [`TcnConfig`], whose checks and geometry are the same.
    fn convolutions(&self) -> Result<TcnConfig> {
        let dilations = match (&self.dilations, self.dilation_reset) {
            (Some(list), _) => Dilations::List(list.clone()),
            (None, Some(0)) => {
                return Err(Error::invalid("dilation_reset", "a whole number of at least 1", 0));
            }
            (None, reset) => Dilations::Growth(Growth {
                reset_every: reset.map(|largest| largest.ilog2() as usize + 1),
                ..Growth::new(2, self.num_channels.len())
            }),
        };
        Ok(TcnConfig {
            dilations: Some(dilations),
            dropout: self.dropout,
            causal: self.causal,
            norm: self.norm(),
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
    pub(super) fn embedding_channels(&self) -> Result<Vec<usize>> {
        let shapes = self.embedding_shapes.iter().flatten().enumerate();
        let channels = shapes.map(|(i, shape)| {
            let field = format!("embedding_shapes[{i}]");
            match shape[..] {
                [Some(channels)] | [Some(channels), _] => in_range(field, channels, MAX_CHANNELS),
                _ => {
                    let expected = "[channels] or [channels, time]";
                    Err(Error::invalid(field, expected, format!("{shape:?}")))
                }
            }
        });
        channels.collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        in_range("num_inputs", self.num_inputs, MAX_CHANNELS)?;
        // an empty list has no block, no dilation and no reset
        if self.num_channels.is_empty() {
            return Err(Error::invalid("num_channels", "at least one block", "none"));
        }
        self.convolutions()?.validate()?;
        if self.embedding_shapes.as_ref().is_some_and(Vec::is_empty) {
            let expected = "at least one shape, or null for no conditioning";
            return Err(Error::invalid("embedding_shapes", expected, "an empty list"));
        }
        let channels = self.embedding_channels()?;
        let total = channels.into_iter().fold(0usize, usize::saturating_add);
        if total > MAX_CHANNELS {
            let expected = format!("at most {MAX_CHANNELS} channels together");
            return Err(Error::invalid("embedding_shapes", expected, total));
        }
        if let Some(channels) = self.output_projection {
            in_range("output_projection", channels, MAX_CHANNELS)?;
        }
        no_lookahead(self.lookahead)
    }

    pub(super) fn geometry(&self) -> Result<Stack> {
        self.validate()?;
        self.convolutions()?.geometry()
    }
}

/// pytorch-tcn keeps the argument and refuses every value but 0.
pub(super) fn no_lookahead(lookahead: usize) -> Result<()> {
    match lookahead {
        0 => Ok(()),
        other => Err(Error::invalid(
            "lookahead",
            "0, as pytorch-tcn 1.2.3 supports no other value",
            other,
        )),
    }
}
