//! Whole models: a serde configuration tagged by `model_type`, and what it builds.

mod bytenet;
mod carp;
mod config;
mod config_keys;
mod convert;
mod convnet;
mod facts;
mod frames;
mod presets;
mod pytorch_tcn;
mod run;
mod stepper;
mod tcn;
mod temporal_conv_net;
mod temporal_layers;
mod wavenet;

pub use bytenet::{ByteNet, ByteNetConfig};
pub use carp::{Carp, CarpConfig};
pub use config::ModelConfig;
pub use convert::{Converted, ORIGINAL_CARP_VOCABULARY, convert, convert_under};
pub use convnet::{ConvNet, ConvNetConfig};
pub use frames::{FrameLayout, FrameNetwork, Input};
pub use presets::PRESETS;
pub use pytorch_tcn::{
    EmbeddingMode, KernelInitializer, PytorchActivation, PytorchNorm, PytorchTcn, PytorchTcnConfig,
};
pub use run::{RunOptions, run};
pub use stepper::Stepper;
pub use tcn::{Tcn, TcnLmConfig};
pub use temporal_conv_net::{TemporalConvNetConfig, TemporalConvNetModel};
pub use temporal_layers::{TemporalConv1dConfig, TemporalConvTranspose1dConfig};
pub use wavenet::{WaveNet, WaveNetConfig};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::nn::{Pass, RingShape, Slot, State, StepBuilder, StepDtype};
use crate::{Error, Result};

/// What a function that reads or writes tokens says to a network on frames.
fn no_tokens(found: &str) -> Error {
    Error::invalid(
        "model_type",
        "a language model (tcn, wavenet); what takes frames instead of tokens runs on tensors alone",
        found,
    )
}

/// A language model: token ids in, logits of the next token out; or a network on frames.
///
/// Weights are shared and immutable; the [`State`] of a sequence goes in and out.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::{Model, ModelConfig};
/// use candle_tcn::nn::{Params, Pass};
///
/// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = Model::new(&config, params.builder())?.freeze()?;
/// let ids = Tensor::new(&[[3u32, 1, 4, 1, 5]], &Device::Cpu)?;
/// let whole = model.forward(&ids, &mut Pass::eval())?; // (1, 5, 20)
///
/// let mut state = model.init_state(1)?;
/// model.prefill(&ids.narrow(1, 0, 4)?, &mut state)?;
/// let last = model.prefill(&ids.narrow(1, 4, 1)?, &mut state)?; // (1, 1, 20)
/// let difference = (whole.narrow(1, 4, 1)? - last)?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 1e-5);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum Model {
    /// See [`Tcn`].
    Tcn(Tcn),
    /// See [`WaveNet`].
    WaveNet(WaveNet),
    /// A network on frames: [`PytorchTcn`], [`TemporalConvNetModel`], or a layer alone.
    Frames(FrameNetwork),
    /// See [`ByteNet`].
    ByteNet(ByteNet),
    /// See [`Carp`].
    Carp(Carp),
    /// See [`ConvNet`].
    ConvNet(ConvNet),
}

impl Model {
    /// The model that `config` describes, with the tensors of `vb`.
    ///
    /// # Errors
    /// Those of [`ModelConfig::validate`] and of `vb`.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        use frames::Network;
        config.validate()?;
        let frames = |channels, network| Self::Frames(FrameNetwork::new(channels, network));
        Ok(match config {
            ModelConfig::Tcn(cfg) => Self::Tcn(Tcn::new(cfg, vb)?),
            ModelConfig::WaveNet(cfg) => Self::WaveNet(WaveNet::new(cfg, vb)?),
            ModelConfig::TemporalConvNet(cfg) => {
                let network = TemporalConvNetModel::new(cfg, vb)?;
                frames(cfg.num_inputs, Network::TemporalConvNet(network))
            }
            ModelConfig::PytorchTcn(cfg) => {
                frames(cfg.num_inputs, Network::PytorchTcn(PytorchTcn::new(cfg, vb)?))
            }
            ModelConfig::TemporalConv1d(cfg) => {
                frames(cfg.in_channels, Network::Conv(cfg.build(vb)?))
            }
            ModelConfig::TemporalConvTranspose1d(cfg) => {
                frames(cfg.in_channels, Network::Transposed(cfg.build(vb)?))
            }
            ModelConfig::ByteNet(cfg) => Self::ByteNet(ByteNet::new(cfg, vb)?),
            ModelConfig::Carp(cfg) => Self::Carp(Carp::new(cfg, vb)?),
            ModelConfig::ConvNet(cfg) => Self::ConvNet(ConvNet::new(cfg, vb)?),
        })
    }

    /// The same model for inference: weight norm folded.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        self.freeze_as(StepDtype::F32)
    }

    /// As [`freeze`](Self::freeze), with the weights that steps of this type compute with.
    pub(crate) fn freeze_as(&self, dtype: StepDtype) -> Result<Self> {
        Ok(match self {
            Self::Tcn(model) => Self::Tcn(model.freeze(dtype)?),
            Self::WaveNet(model) => Self::WaveNet(model.freeze(dtype)?),
            Self::Frames(network) => Self::Frames(network.freeze()?),
            Self::ByteNet(model) => Self::ByteNet(model.freeze(dtype)?),
            Self::Carp(model) => Self::Carp(model.freeze(dtype)?),
            Self::ConvNet(model) => Self::ConvNet(model.freeze(dtype)?),
        })
    }

    /// Whether the model takes tokens.
    pub(crate) fn expect_tokens(&self) -> Result<()> {
        match self {
            Self::Frames(_) => Err(no_tokens("a network on frames")),
            _ => Ok(()),
        }
    }

    /// The model for generation, one token at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network on frames or a masked language model; [`Error::TooLarge`] for a sum
    /// too deep for int8; those of candle.
    pub fn stepper(&self, dtype: StepDtype) -> Result<Stepper> {
        Stepper::new(self, dtype)
    }

    /// Logits of the token after each one, in a masked language model of each token itself; of a network on
    /// frames its outputs.
    ///
    /// # Shapes
    /// `xs` token ids (batch, time) of `u32`, result (batch, time, vocab); or `xs` frames (batch, time,
    /// channels), result (batch, out_time, out_channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary, or for an input of another kind or shape;
    /// those of candle.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if !matches!(self, Self::Frames(_)) && (xs.dtype() != DType::U32 || xs.rank() != 2) {
            let found = format!("{:?} of {}", xs.dims(), xs.dtype().as_str());
            let expected = "token ids (batch, time) of u32";
            return Err(Error::invalid("input", expected, found));
        }
        let logits = match self {
            Self::Tcn(model) => model.forward(xs, pass),
            Self::WaveNet(model) => model.forward(xs, pass),
            Self::ByteNet(model) => model.forward(xs, pass),
            Self::Carp(model) => model.forward(xs, pass),
            Self::ConvNet(model) => model.forward(xs, pass),
            Self::Frames(network) => return network.forward(xs, pass),
        }?;
        pass.note(|| "logits".into(), &logits);
        Ok(logits)
    }

    /// The mask that the model works with where [`Pass`] brings none: 0 where `ids` (batch, time) are padding,
    /// 1 elsewhere. None where nothing is hidden.
    ///
    /// # Errors
    /// Those of candle.
    pub fn attention_mask(&self, ids: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Carp(model) => model.attention_mask(ids),
            _ => Ok(None),
        }
    }

    /// The model as one that generates.
    fn generative(&self) -> Result<&dyn Generative> {
        match self {
            Self::Tcn(model) => Ok(model),
            Self::WaveNet(model) => Ok(model),
            Self::ByteNet(model) if model.causal => Ok(model),
            Self::ByteNet(_) => Err(facts::masked("bytenet")),
            Self::Carp(_) => Err(facts::masked("carp")),
            Self::ConvNet(_) => Err(facts::masked("ConvNet")),
            Self::Frames(_) => Err(no_tokens("a network on frames")),
        }
    }

    /// What its convolutions remember, in the order in which they run.
    fn rings(&self) -> Result<Vec<RingShape>> {
        match self {
            Self::Frames(network) => network.rings(),
            model => model.generative()?.rings(),
        }
    }

    /// The state before the first token of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the model is not causal; [`Error::TooLarge`] where there is not so much
    /// memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.rings()?)
    }

    /// As [`forward`](Self::forward), for an input that follows what `state` has seen.
    ///
    /// # Errors
    /// As [`Model::forward`]; [`Error::Invalid`] for a state of another batch or model.
    pub fn prefill(&self, xs: &Tensor, state: &mut State) -> Result<Tensor> {
        self.forward(xs, &mut Pass::eval().with_state(state))
    }

    /// Where the model computes.
    pub fn device(&self) -> &Device {
        match self {
            Self::Tcn(model) => model.device(),
            Self::WaveNet(model) => model.device(),
            Self::Frames(network) => network.device(),
            Self::ByteNet(model) => model.device(),
            Self::Carp(model) => model.device(),
            Self::ConvNet(model) => model.device(),
        }
    }
}

/// What a causal language model is made of, for single steps.
trait Generative {
    /// (vocab, width)
    fn embedding(&self) -> &Tensor;

    /// What its convolutions remember, in the order in which they run.
    fn rings(&self) -> Result<Vec<RingShape>>;

    /// Adds the steps from embedding to logits.
    fn build_step(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot>;
}

/// A token embedding, `U(−0.1, 0.1)` at the start as in the reference code.
fn embedding(vocab_size: usize, width: usize, vb: VarBuilder) -> Result<Tensor> {
    Ok(vb.get_with_hints((vocab_size, width), "weight", Init::Uniform { lo: -0.1, up: 0.1 })?)
}

#[cfg(test)]
mod bf16_tests;
#[cfg(test)]
mod tape_tests;
