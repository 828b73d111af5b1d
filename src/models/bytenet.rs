//! ByteNet as a language model of tokens, causal or masked, as in Microsoft's protein-sequence-models.

use candle_core::{Device, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use super::Generative;
use crate::geometry::Stack;
use crate::nn::{
    Activation, ByteNetStack, ByteNetStackConfig, Conv1d, Conv1dConfig, MAX_CHANNELS,
    MAX_STACK_LAYERS, Norm, Pass, RingShape, Slot, StepBuilder, StepDtype, in_range,
};
use crate::ops::{self, Epilogue};
use crate::{Error, Result};

/// Of the layer norms; the original has no field for it.
const EPS: f64 = 1e-5;

/// The options of a [`ByteNet`]: the arguments of the original's `ByteNetLM`, with its names and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByteNetConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default, alias = "vocab_size")]
    pub n_tokens: usize,
    /// Width of the embedding.
    #[serde(alias = "embedding_dim")]
    pub d_embedding: usize,
    /// Channels of the residual path.
    pub d_model: usize,
    /// Residual layers.
    pub n_layers: usize,
    /// Taps of each dilated convolution; odd unless causal.
    pub kernel_size: usize,
    /// Layer `i` has the dilation `2^(i mod (⌊log2 r⌋ + 1))`.
    pub r: usize,
    /// The id whose embedding is not trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_idx: Option<u32>,
    /// Whether the model predicts the next token from those before, and generates; else it sees both sides
    /// and fills masks.
    #[serde(default)]
    pub causal: bool,
    /// Probability of dropping a number of a layer's output in training.
    #[serde(default)]
    pub dropout: f64,
    /// Whether a layer norm stands before the softmax.
    #[serde(default)]
    pub final_ln: bool,
    /// Whether the layers are half as wide inside.
    #[serde(default = "yes")]
    pub slim: bool,
    /// The activation function, `relu` or `gelu` in the original.
    #[serde(default)]
    pub activation: Activation,
    /// Whether the softmax uses the embedding's matrix, without a bias; its width is then `d_model`.
    #[serde(default)]
    pub tie_weights: bool,
    /// Whether a 1×1 convolution leads from the embedding to the residual path.
    #[serde(default = "yes")]
    pub down_embed: bool,
    /// Rank of factorised matrices, which are not supported: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Tokens with an embedding in a second table, which is not supported: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_frozen_embs: Option<usize>,
}

fn yes() -> bool {
    true
}

impl ByteNetConfig {
    pub(super) fn validate(&self) -> Result<()> {
        in_range("d_embedding", self.d_embedding, MAX_CHANNELS)?;
        in_range("d_model", self.d_model, MAX_CHANNELS)?;
        in_range("n_layers", self.n_layers, MAX_STACK_LAYERS)?;
        in_range("r", self.r, 1 << 31)?;
        if self.slim && self.d_model == 1 {
            return Err(Error::invalid("d_model", "at least 2, as slim is set", 1));
        }
        if let Some(id) = self.padding_idx
            && id as usize >= self.n_tokens
        {
            let expected = format!("an id below n_tokens {}", self.n_tokens);
            return Err(Error::invalid("padding_idx", expected, id));
        }
        for (field, value) in [("rank", self.rank), ("n_frozen_embs", self.n_frozen_embs)] {
            if let Some(value) = value {
                let expected = "null: factorised matrices and frozen embeddings are not supported";
                return Err(Error::invalid(field, expected, value));
            }
        }
        for (field, set) in
            [("tie_weights is set", self.tie_weights), ("down_embed is not set", !self.down_embed)]
        {
            if set && self.d_embedding != self.d_model {
                let expected = format!("{}, as d_model, since {field}", self.d_model);
                return Err(Error::invalid("d_embedding", expected, self.d_embedding));
            }
        }
        self.stack()?.validate()
    }

    fn stack(&self) -> Result<ByteNetStackConfig> {
        let cycle = self.r.checked_ilog2().unwrap_or(0) as usize + 1;
        let layers = in_range("n_layers", self.n_layers, MAX_STACK_LAYERS)?;
        let inner = self.d_model / if self.slim { 2 } else { 1 };
        let mut stack = ByteNetStackConfig::new(self.d_model, inner, self.kernel_size);
        if self.causal {
            // there the convolution is within a module that pads
            stack.names[3] = "conv.conv";
        }
        Ok(ByteNetStackConfig {
            dilations: (0..layers).map(|i| 1 << (i % cycle)).collect(),
            causal: self.causal,
            activation: self.activation,
            eps: EPS,
            dropout: self.dropout,
            ..stack
        })
    }

    pub(super) fn geometry(&self) -> Result<Stack> {
        self.stack()?.geometry("embedder.layers.")
    }
}

/// A ByteNet: embedding, 1×1 convolution, [`ByteNetStack`], layer norm, softmax.
///
/// # Shapes
/// Tensors: `embedder.embedder.weight` (vocab, embedding), `embedder.up_embedder.conv.*`,
/// `embedder.layers.{i}.*` (see [`ByteNetStack`]), `last_norm.*`, untied also `decoder.conv.weight`
/// (vocab, width, 1) and `decoder.conv.bias` (vocab).
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::{Model, ModelConfig};
/// use candle_tcn::nn::{Params, Pass};
/// let json = r#"{"model_type": "bytenet", "n_tokens": 30, "d_embedding": 8, "d_model": 16,
///                "n_layers": 5, "kernel_size": 3, "r": 4, "causal": true}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// assert_eq!(config.geometry()?.receptive_field()?.total, 1 + 2 * (1 + 2 + 4 + 1 + 2));
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = Model::new(&config, params.builder())?;
/// let logits = model.forward(&Tensor::new(&[[3u32, 1, 4]], &Device::Cpu)?, &mut Pass::eval())?;
/// assert_eq!(logits.dims(), [1, 3, 30]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Kalchbrenner et al. 2016, arXiv:1610.10099; `ByteNetLM` of github.com/microsoft/protein-sequence-models.
#[derive(Debug, Clone)]
pub struct ByteNet {
    embedder: Tensor,
    padding: Option<u32>,
    up_embedder: Option<Conv1d>,
    stack: ByteNetStack,
    last_norm: Norm,
    decoder: Conv1d,
    pub(super) causal: bool,
}

impl ByteNet {
    pub(super) fn new(cfg: &ByteNetConfig, vb: VarBuilder) -> Result<Self> {
        let pointwise = |from, to, vb| Conv1d::new(from, to, 1, Conv1dConfig::causal(), vb);
        let inside = vb.pp("embedder");
        // the variance of PyTorch's normal distribution; less where it is a matrix of the softmax too
        let bound = if cfg.tie_weights { 0.1 } else { 3f64.sqrt() };
        let init = Init::Uniform { lo: -bound, up: bound };
        let shape = (cfg.n_tokens, cfg.d_embedding);
        let embedder = inside.pp("embedder").get_with_hints(shape, "weight", init)?;
        let up_embedder = || {
            let vb = inside.pp("up_embedder.conv");
            pointwise(cfg.d_embedding, cfg.d_model, vb)
        };
        Ok(Self {
            up_embedder: cfg.down_embed.then(up_embedder).transpose()?,
            stack: ByteNetStack::new(&cfg.stack()?, inside.pp("layers"))?,
            last_norm: match cfg.final_ln {
                true => Norm::layer(cfg.d_model, EPS, vb.pp("last_norm"))?,
                false => Norm::Identity,
            },
            decoder: match cfg.tie_weights {
                true => Conv1d::from_matrix(embedder.clone(), None),
                false => pointwise(cfg.d_model, cfg.n_tokens, vb.pp("decoder.conv"))?,
            },
            padding: cfg.padding_idx,
            causal: cfg.causal,
            embedder,
        })
    }

    pub(super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let up_embedder = self.up_embedder.as_ref();
        Ok(Self {
            up_embedder: up_embedder.map(|conv| conv.freeze_as(dtype)).transpose()?,
            stack: self.stack.freeze_as(dtype)?,
            decoder: self.decoder.freeze_as(dtype)?,
            ..self.clone()
        })
    }

    pub(super) fn forward(&self, ids: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let dtype = pass.dtype(&self.embedder);
        let mut xs = ops::embed_with_padding(&self.embedder, ids, self.padding, dtype)?;
        if let Some(conv) = &self.up_embedder {
            xs = conv.forward(&xs, pass)?;
        }
        let hs = self.stack.forward(&xs, pass)?;
        let hs = self.last_norm.forward(&hs, pass)?;
        self.decoder.forward_then(&hs, pass, Epilogue::to_f32())
    }

    pub(super) fn device(&self) -> &Device {
        self.embedder.device()
    }
}

impl Generative for ByteNet {
    fn embedding(&self) -> &Tensor {
        &self.embedder
    }

    fn rings(&self) -> Result<Vec<RingShape>> {
        self.stack.rings()
    }

    fn build_step(&self, net: &mut StepBuilder, mut xs: Slot) -> Result<Slot> {
        if let Some(conv) = &self.up_embedder {
            let hs = net.conv(conv, xs, false)?;
            net.release(xs);
            xs = hs;
        }
        let hs = self.stack.build_step(net, xs)?;
        let hs = net.norm(hs, &self.last_norm)?;
        net.conv_to_f32(&self.decoder, hs)
    }
}
