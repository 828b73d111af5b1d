//! What a model is: a serde configuration tagged by `model_type`.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use super::{
    ByteNetConfig, CarpConfig, ConvNetConfig, FrameLayout, Input, Model, PytorchTcnConfig,
    TcnLmConfig, TemporalConv1dConfig, TemporalConvNetConfig, TemporalConvTranspose1dConfig,
    WaveNetConfig, no_tokens,
};
use crate::geometry::Stack;
use crate::nn::{MAX_CHANNELS, NormKind, Params, in_range};
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
    /// The network of Bai et al. on frames, with a linear layer or without.
    #[serde(rename = "temporal_conv_net")]
    TemporalConvNet(TemporalConvNetConfig),
    /// pytorch-tcn's network on frames.
    #[serde(rename = "pytorch_tcn")]
    PytorchTcn(PytorchTcnConfig),
    /// pytorch-tcn's convolution, alone.
    #[serde(rename = "temporal_conv1d")]
    TemporalConv1d(TemporalConv1dConfig),
    /// pytorch-tcn's transposed convolution, alone.
    #[serde(rename = "temporal_conv_transpose1d")]
    TemporalConvTranspose1d(TemporalConvTranspose1dConfig),
    /// Residual layers around dilated convolutions (Kalchbrenner et al. 2016, arXiv:1610.10099).
    ByteNet(ByteNetConfig),
    /// The same as a masked language model of proteins.
    Carp(CarpConfig),
    /// A masked language model of DNA.
    #[serde(rename = "ConvNet")]
    ConvNet(ConvNetConfig),
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
            Self::TemporalConvNet(_) => "temporal_conv_net",
            Self::PytorchTcn(_) => "pytorch_tcn",
            Self::TemporalConv1d(_) => "temporal_conv1d",
            Self::TemporalConvTranspose1d(_) => "temporal_conv_transpose1d",
            Self::ByteNet(_) => "bytenet",
            Self::Carp(_) => "carp",
            Self::ConvNet(_) => "ConvNet",
        }
    }

    /// What the model takes.
    pub fn input(&self) -> Input {
        let tokens = |vocab_size| Input::Tokens { vocab_size };
        let frames = |channels, layout| Input::Frames { channels, layout };
        let first = FrameLayout::ChannelsFirst;
        match self {
            Self::Tcn(cfg) => tokens(cfg.vocab_size),
            Self::WaveNet(cfg) => tokens(cfg.vocab_size),
            Self::ByteNet(cfg) => tokens(cfg.n_tokens),
            Self::Carp(cfg) => tokens(cfg.vocab_size),
            Self::ConvNet(cfg) => tokens(cfg.vocab_size),
            Self::TemporalConvNet(cfg) => frames(cfg.num_inputs, cfg.input_shape),
            Self::PytorchTcn(cfg) => frames(cfg.num_inputs, cfg.input_shape),
            Self::TemporalConv1d(cfg) => frames(cfg.in_channels, first),
            Self::TemporalConvTranspose1d(cfg) => frames(cfg.in_channels, first),
        }
    }

    /// Whether the model takes tokens; networks on frames are no language models.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the model type.
    pub fn expect_tokens(&self) -> Result<()> {
        match self.input() {
            Input::Tokens { .. } => Ok(()),
            Input::Frames { .. } => Err(no_tokens(self.model_type())),
        }
    }

    /// Token ids that the model knows; 0 in a preset, which takes it from the tokenizer, and for networks
    /// on frames.
    pub fn vocab_size(&self) -> usize {
        match self.input() {
            Input::Tokens { vocab_size } => vocab_size,
            Input::Frames { .. } => 0,
        }
    }

    /// The same model for another vocabulary; networks on frames have none and stay as they are.
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        match &mut self {
            Self::Tcn(cfg) => cfg.vocab_size = vocab_size,
            Self::WaveNet(cfg) => cfg.vocab_size = vocab_size,
            Self::TemporalConvNet(_)
            | Self::PytorchTcn(_)
            | Self::TemporalConv1d(_)
            | Self::TemporalConvTranspose1d(_) => {}
            Self::ByteNet(cfg) => cfg.n_tokens = vocab_size,
            Self::Carp(cfg) => cfg.vocab_size = vocab_size,
            Self::ConvNet(cfg) => cfg.vocab_size = vocab_size,
        }
        self
    }

    /// Replaces every dropout probability of the network, if it has any.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        match &mut self {
            Self::Tcn(cfg) => {
                cfg.embedding_dropout = dropout;
                cfg.network.dropout = dropout;
            }
            Self::WaveNet(cfg) => cfg.network.dropout = dropout,
            Self::TemporalConvNet(cfg) => cfg.network.dropout = dropout,
            Self::PytorchTcn(cfg) => cfg.dropout = dropout,
            Self::TemporalConv1d(_) | Self::TemporalConvTranspose1d(_) => {}
            Self::ByteNet(cfg) => cfg.dropout = dropout,
            Self::Carp(cfg) => cfg.hidden_dropout = dropout,
            Self::ConvNet(_) => {}
        }
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<()> {
        if let Input::Tokens { vocab_size } = self.input() {
            in_range("vocab_size", vocab_size, MAX_CHANNELS)?;
        }
        match self {
            Self::Tcn(cfg) => cfg.validate(),
            Self::WaveNet(cfg) => cfg.network.validate().map(|_| ()),
            Self::TemporalConvNet(cfg) => cfg.validate(),
            Self::PytorchTcn(cfg) => cfg.validate(),
            Self::TemporalConv1d(cfg) => cfg.validate(),
            Self::TemporalConvTranspose1d(cfg) => cfg.validate(),
            Self::ByteNet(cfg) => cfg.validate(),
            Self::Carp(cfg) => cfg.validate(),
            Self::ConvNet(cfg) => cfg.validate(),
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
            Self::TemporalConvNet(cfg) => cfg.network.geometry(),
            Self::PytorchTcn(cfg) => cfg.geometry(),
            Self::TemporalConv1d(cfg) => cfg.geometry(),
            Self::TemporalConvTranspose1d(cfg) => cfg.geometry(),
            Self::ByteNet(cfg) => cfg.geometry(),
            Self::Carp(cfg) => cfg.geometry(),
            Self::ConvNet(cfg) => cfg.geometry(),
        }
    }

    /// Name and shape of every tensor of the model, in the order of construction; nothing is allocated.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn tensors(&self) -> Result<Vec<(String, Vec<usize>)>> {
        Ok(self.outline()?.1)
    }

    /// The model with tensors that take no memory, and what it asked for.
    pub(super) fn outline(&self) -> Result<(Model, Shapes)> {
        let list = Arc::new(Mutex::new(Vec::new()));
        let vb = VarBuilder::from_backend(Box::new(Lister(list.clone())), DType::F32, Device::Cpu);
        let model = Model::new(self, vb)?;
        let tensors = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((model, tensors))
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
    /// `(kernel_size − 1)·dilation` inputs; 0 where the model is not causal and keeps no state.
    ///
    /// # Errors
    /// [`Error::TooLarge`] on overflow, and as [`ModelConfig::validate`].
    pub fn state_bytes(&self, batch: usize) -> Result<usize> {
        let (model, _) = self.outline()?;
        if !self.is_causal() {
            return Ok(0);
        }
        let rings = model.rings()?;
        let floats = rings
            .iter()
            .try_fold(0usize, |sum, ring| sum.checked_add(ring.span.checked_mul(ring.channels)?));
        floats
            .and_then(|floats| floats.checked_mul(batch)?.checked_mul(size_of::<f32>()))
            .ok_or_else(|| {
                Error::too_large("the streaming state", "its size overflows; lower the dilations")
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
        let embedding = self.embedding_name();
        let layers = self.tensors()?.into_iter().filter(|(name, dims)| {
            dims.len() >= 2 && Some(name.as_str()) != embedding && !name.ends_with("weight_g")
        });
        let widths = layers.map(|(_, dims)| dims[0]).sum::<usize>();
        let logits = self.vocab_size().checked_mul(LOGITS * size_of::<f32>());
        let step = || {
            let numbers = widths.checked_mul(self.kept_quarters())?;
            let row = (numbers.checked_mul(dtype.size_in_bytes())? / 4).checked_add(logits?)?;
            row.checked_mul(batch_size)?.checked_mul(seq_len)
        };
        let parameters = self.parameters()?.checked_mul(4 * size_of::<f32>());
        let state = self.state_bytes(1)?.checked_mul(2).and_then(|n| n.checked_mul(batch_size));
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
            // each layer's input is normed and activated
            Self::ByteNet(_) | Self::Carp(_) | Self::ConvNet(_) => 12,
            // estimates: nothing trains on frames from the command line
            Self::PytorchTcn(_) | Self::TemporalConvNet(_) => 12,
            Self::Tcn(_) | Self::TemporalConv1d(_) | Self::TemporalConvTranspose1d(_) => 8,
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
        Err(candle_core::Error::CannotFindTensor { path: name.to_string() }.bt())
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
