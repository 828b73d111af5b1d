//! Whole language models: a serde configuration tagged by `model_type`, and what it builds.

mod presets;
mod stepper;
mod tcn;
mod wavenet;

pub use presets::PRESETS;
pub use stepper::Stepper;
pub use tcn::{Tcn, TcnLmConfig};
pub use wavenet::{WaveNet, WaveNetConfig};

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use crate::geometry::Stack;
use crate::nn::{MAX_CHANNELS, NormKind, Params, Pass, State, StepDtype, in_range};
use crate::{Error, Result};

/// A model's `config.json`: everything but its weights.
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let config = ModelConfig::preset("char-ptb")?.with_vocab_size(50);
/// assert_eq!(config.parameters()?, 2_222_100);
/// assert_eq!(config.geometry()?.receptive_field()?.total, 29);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum ModelConfig {
    /// Residual blocks of two dilated convolutions (Bai, Kolter & Koltun 2018, arXiv:1803.01271).
    Tcn(TcnLmConfig),
    /// Gated residual layers with a skip sum (van den Oord et al. 2016, arXiv:1609.03499).
    WaveNet(WaveNetConfig),
}

impl ModelConfig {
    /// Reads a configuration; `source` is named in errors.
    ///
    /// # Errors
    /// [`Error::File`] where the text is not a configuration, with line and column.
    pub fn from_json(json: &str, source: impl AsRef<std::path::Path>) -> Result<Self> {
        serde_json::from_str(json)
            .map_err(|e| Error::file(source, format!("not a model configuration: {e}")))
    }

    /// The configuration as it stands in `config.json`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a number cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::invalid("config", "finite numbers", e))
    }

    /// The `model_type` of the file.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Tcn(_) => "tcn",
            Self::WaveNet(_) => "wavenet",
        }
    }

    /// Token ids that the model knows; 0 in a preset, which takes it from the tokenizer.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Tcn(cfg) => cfg.vocab_size,
            Self::WaveNet(cfg) => cfg.vocab_size,
        }
    }

    /// The same model for another vocabulary.
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        match &mut self {
            Self::Tcn(cfg) => cfg.vocab_size = vocab_size,
            Self::WaveNet(cfg) => cfg.vocab_size = vocab_size,
        }
        self
    }

    /// Replaces every dropout probability of the network.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        match &mut self {
            Self::Tcn(cfg) => {
                cfg.embedding_dropout = dropout;
                cfg.network.dropout = dropout;
            }
            Self::WaveNet(cfg) => cfg.network.dropout = dropout,
        }
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<()> {
        in_range("vocab_size", self.vocab_size(), MAX_CHANNELS)?;
        match self {
            Self::Tcn(cfg) => cfg.validate(),
            Self::WaveNet(cfg) => cfg.network.validate().map(|_| ()),
        }
    }

    /// The convolutions that see time.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn geometry(&self) -> Result<Stack> {
        match self {
            Self::Tcn(cfg) => cfg.network.geometry(),
            Self::WaveNet(cfg) => cfg.network.geometry(),
        }
    }

    /// Name and shape of every tensor of the model, in the order of construction; nothing is allocated.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn tensors(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let list = Arc::new(Mutex::new(Vec::new()));
        let vb = VarBuilder::from_backend(Box::new(Lister(list.clone())), DType::F32, Device::Cpu);
        Model::new(self, vb)?;
        let tensors = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tensors)
    }

    /// The number of trainable parameters.
    ///
    /// # Errors
    /// [`Error::TooLarge`] on overflow, and as [`ModelConfig::validate`].
    pub fn parameters(&self) -> Result<usize> {
        let size = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        self.tensors()?
            .iter()
            .filter(|(name, _)| Params::is_trained(name))
            .try_fold(0usize, |sum, (_, dims)| sum.checked_add(size(dims)?))
            .ok_or_else(|| {
                Error::too_large(
                    "the model",
                    "its number of parameters overflows; lower its channels",
                )
            })
    }

    /// Bytes of the streaming state of `batch` sequences: for each dilated convolution its last
    /// `(kernel_size − 1)·dilation` inputs.
    ///
    /// # Errors
    /// [`Error::TooLarge`] on overflow, and as [`ModelConfig::validate`].
    pub fn state_bytes(&self, batch: usize) -> Result<usize> {
        let stack = self.geometry()?;
        let tensors = self.tensors()?;
        // both in the order in which the convolutions run; pointwise ones keep nothing
        let convolutions = tensors
            .iter()
            .filter(|(_, dims)| dims.len() == 3 && dims[2] > 1);
        let layers = stack.layers().filter(|layer| layer.kernel_size() > 1);
        layers
            .zip(convolutions)
            .try_fold(0usize, |sum, (layer, (_, dims))| {
                let span = (layer.kernel_size() - 1).checked_mul(layer.dilation())?;
                sum.checked_add(span.checked_mul(dims[1])?)
            })
            .and_then(|floats| floats.checked_mul(batch)?.checked_mul(size_of::<f32>()))
            .ok_or_else(|| {
                Error::too_large(
                    "the streaming state",
                    "its size overflows; lower the dilations",
                )
            })
    }

    /// An estimate of the bytes that training holds at once, rather too many than too few: weights,
    /// gradients and two moments of each parameter, what each layer keeps for its backward pass in
    /// `dtype`, logits and their gradient, the carried state, and the program itself.
    ///
    /// # Errors
    /// [`Error::TooLarge`] on overflow, and as [`ModelConfig::validate`].
    pub fn training_bytes(&self, batch_size: usize, seq_len: usize, dtype: DType) -> Result<usize> {
        /// The program, its text, and what its threads work with.
        const PROGRAM: usize = 1 << 25;
        /// Logits, their gradient, and what the products with it lay out anew, in `f32`; as measured.
        const LOGITS: usize = 5;
        // the embedding's output is the first layer's input; gains of weight norm are no layers
        let layers = self.tensors()?.into_iter().filter(|(name, dims)| {
            dims.len() >= 2 && !name.starts_with("encoder") && !name.ends_with("weight_g")
        });
        let widths = layers.map(|(_, dims)| dims[0]).sum::<usize>();
        let logits = self.vocab_size().checked_mul(LOGITS * size_of::<f32>());
        let step = || {
            let numbers = widths.checked_mul(self.kept_quarters())?;
            let row = (numbers.checked_mul(dtype.size_in_bytes())? / 4).checked_add(logits?)?;
            row.checked_mul(batch_size)?.checked_mul(seq_len)
        };
        let parameters = self.parameters()?.checked_mul(4 * size_of::<f32>());
        let state = self
            .state_bytes(1)?
            .checked_mul(2)
            .and_then(|n| n.checked_mul(batch_size));
        [step(), parameters, state]
            .into_iter()
            .try_fold(PROGRAM, |sum, bytes| sum.checked_add(bytes?))
            .ok_or_else(|| {
                Error::too_large(
                    "a training step",
                    format!(
                        "batch size {batch_size} x {seq_len} steps overflows; lower --batch-size or --seq-len"
                    ),
                )
            })
    }

    /// Numbers that training holds at once for each output of a convolution, in quarters, as measured
    /// with `tcn bench train`.
    fn kept_quarters(&self) -> usize {
        use NormKind::{Batch, Layer, Rms};
        match self {
            // of its three outputs, those to the residual and to the skip sum are not kept
            Self::WaveNet(_) => 5,
            // beside its output, what a norm or an activation of its own makes of it
            Self::Tcn(TcnLmConfig { network, .. })
                if network.gate.is_none() && matches!(network.norm, Batch | Layer | Rms) =>
            {
                12
            }
            Self::Tcn(_) => 8,
        }
    }
}

type Shapes = Vec<(String, Vec<usize>)>;

/// Hands out tensors of any shape over a single zero, and remembers what was asked for.
struct Lister(Arc<Mutex<Shapes>>);

impl SimpleBackend for Lister {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        dev: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push((name.to_string(), shape.dims().to_vec()));
        Tensor::zeros(vec![1; shape.rank()], dtype, dev)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        Err(candle_core::Error::CannotFindTensor {
            path: name.to_string(),
        }
        .bt())
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// A language model: token ids in, logits of the next token out.
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
}

impl Model {
    /// The model that `config` describes, with the tensors of `vb`.
    ///
    /// # Errors
    /// Those of [`ModelConfig::validate`] and of `vb`.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        Ok(match config {
            ModelConfig::Tcn(cfg) => Self::Tcn(Tcn::new(cfg, vb)?),
            ModelConfig::WaveNet(cfg) => Self::WaveNet(WaveNet::new(cfg, vb)?),
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
        })
    }

    /// The model for generation, one token at a time.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a sum too deep for int8; those of candle.
    pub fn stepper(&self, dtype: StepDtype) -> Result<Stepper> {
        Stepper::new(self, dtype)
    }

    /// (vocab, width)
    fn embedding(&self) -> &Tensor {
        match self {
            Self::Tcn(model) => model.embedding(),
            Self::WaveNet(model) => model.embedding(),
        }
    }

    /// Logits of the token after each one.
    ///
    /// # Shapes
    /// `ids` (batch, time) of `u32`, result (batch, time, vocab).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary; those of candle.
    pub fn forward(&self, ids: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match self {
            Self::Tcn(model) => model.forward(ids, pass),
            Self::WaveNet(model) => model.forward(ids, pass),
        }
    }

    /// The state before the first token of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        let rings = match self {
            Self::Tcn(model) => model.rings()?,
            Self::WaveNet(model) => model.rings()?,
        };
        State::new(batch, rings)
    }

    /// Logits (batch, time, vocab) of `ids` (batch, time), which follow what `state` has seen.
    ///
    /// # Errors
    /// As [`Model::forward`]; [`Error::Invalid`] for a state of another batch or model.
    pub fn prefill(&self, ids: &Tensor, state: &mut State) -> Result<Tensor> {
        self.forward(ids, &mut Pass::eval().with_state(state))
    }

    /// Where the model computes.
    pub fn device(&self) -> &Device {
        match self {
            Self::Tcn(model) => model.device(),
            Self::WaveNet(model) => model.device(),
        }
    }
}

/// A token embedding, `U(−0.1, 0.1)` at the start as in the reference code.
fn embedding(vocab_size: usize, width: usize, vb: VarBuilder) -> Result<Tensor> {
    Ok(vb.get_with_hints(
        (vocab_size, width),
        "weight",
        Init::Uniform { lo: -0.1, up: 0.1 },
    )?)
}

#[cfg(test)]
mod bf16_tests;
#[cfg(test)]
mod tape_tests;
