//! ByteNet as a language model of tokens, causal or masked, as in Microsoft's protein-sequence-models.

use serde::{Deserialize, Serialize};

use super::Architecture;
use super::config_keys::yes;
use crate::graph::{
    Conv1dConfig, EmbedConfig, Graph, MAX_CHANNELS, MAX_STACK_LAYERS, TokensConfig, in_range,
};
use crate::nn::{Activation, ByteNetStackConfig};
use crate::{Error, Result};

/// Of the layer norms; the original has no field for it.
const EPS: f64 = 1e-5;

/// Options of the language model: the arguments of the original's `ByteNetLM`, with its names and defaults. Embedding,
/// 1×1 convolution, [`bytenet_stack`](crate::nn::bytenet_stack), layer norm, softmax.
///
/// Tensors: `embedder.embedder.weight` (vocab, embedding), `embedder.up_embedder.conv.*`, `embedder.layers.{i}.*`,
/// `last_norm.*`, untied also `decoder.conv.weight` (vocab, width, 1) and `decoder.conv.bias` (vocab).
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::models::ModelConfig;
/// use candle_tcn::nn::Params;
/// let json = r#"{"model_type": "bytenet", "n_tokens": 30, "d_embedding": 8, "d_model": 16,
///                "n_layers": 5, "kernel_size": 3, "r": 4, "causal": true}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// assert_eq!(config.geometry()?.receptive_field()?.total, 1 + 2 * (1 + 2 + 4 + 1 + 2));
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = config.build(params.builder())?;
/// let logits = model.forward(&Tensor::new(&[[3u32, 1, 4]], &Device::Cpu)?)?;
/// assert_eq!(logits.dims(), [1, 3, 30]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Kalchbrenner et al. 2016, arXiv:1610.10099; `ByteNetLM` of github.com/microsoft/protein-sequence-models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByteNetConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default, alias = "vocab_size")]
    pub n_tokens: usize,
    /// Token that ends a document, and begins the next: what follows it sees nothing of what came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding_idx: Option<u32>,
    /// `true` if the model predicts the next token from those before, and generates; else it sees both sides
    /// and fills masks.
    #[serde(default)]
    pub causal: bool,
    /// Probability of dropping a number of a layer's output in training.
    #[serde(default)]
    pub dropout: f64,
    /// `true` if a layer norm stands before the softmax.
    #[serde(default)]
    pub final_ln: bool,
    /// `true` if the layers are half as wide inside.
    #[serde(default = "yes")]
    pub slim: bool,
    /// The activation function, `relu` or `gelu` in the original.
    #[serde(default)]
    pub activation: Activation,
    /// `true` if the softmax uses the embedding's matrix, without a bias; its width is then `d_model`.
    #[serde(default)]
    pub tie_weights: bool,
    /// `true` if a 1×1 convolution leads from the embedding to the residual path.
    #[serde(default = "yes")]
    pub down_embed: bool,
    /// Rank of factorised matrices, which are not supported: null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Tokens with an embedding in a second table, which is not supported: null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_frozen_embs: Option<usize>,
}

impl ByteNetConfig {
    fn validate(&self) -> Result<()> {
        in_range("d_embedding", self.d_embedding, MAX_CHANNELS)?;
        in_range("d_model", self.d_model, MAX_CHANNELS)?;
        in_range("n_layers", self.n_layers, MAX_STACK_LAYERS)?;
        in_range("r", self.r, 1 << 31)?;
        let wide = !self.slim || self.d_model > 1;
        Error::require(wide, "d_model", "at least 2, as slim is set", self.d_model)?;
        if let Some(id) = self.padding_idx {
            let expected = format!("an id below n_tokens {}", self.n_tokens);
            Error::require((id as usize) < self.n_tokens, "padding_idx", &expected, id)?;
        }
        for (field, value) in [("rank", self.rank), ("n_frozen_embs", self.n_frozen_embs)] {
            let expected = "null: factorised matrices and frozen embeddings are not supported";
            Error::require(value.is_none(), field, expected, value.unwrap_or(0))?;
        }
        for (field, set) in
            [("tie_weights is set", self.tie_weights), ("down_embed is not set", !self.down_embed)]
        {
            let allowed = !set || self.d_embedding == self.d_model;
            let expected = format!("{}, as d_model, since {field}", self.d_model);
            Error::require(allowed, "d_embedding", &expected, self.d_embedding)?;
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
}

impl Architecture for ByteNetConfig {
    fn graph(&self) -> Result<Graph> {
        self.validate()?;
        let mut g = Graph::new();
        let cfg = TokensConfig { restart: self.eos_token_id, ..TokensConfig::default() };
        let ids = g.tokens_with(self.n_tokens, cfg)?;
        let causal = Conv1dConfig::causal();
        // the variance of PyTorch's normal distribution; less where it is a matrix of the softmax too
        let bound = if self.tie_weights { 0.1 } else { 3f64.sqrt() };
        let table = EmbedConfig { padding_idx: self.padding_idx, bound };
        let hs = g.scope("embedder", |g| {
            let mut xs = g.embed("embedder", ids, self.d_embedding, table)?;
            if self.down_embed {
                xs = g.conv1d("up_embedder.conv", xs, self.d_model, 1, causal)?;
            }
            g.scope("layers", |g| self.stack()?.append(g, xs))
        })?;
        let hs = if self.final_ln { g.layer_norm("last_norm", hs, EPS)? } else { hs };
        let logits = match self.tie_weights {
            true => g.tied_linear("decoder", hs, false)?,
            false => g.conv1d("decoder.conv", hs, self.n_tokens, 1, causal)?,
        };
        g.output_logits(logits)?;
        Ok(g)
    }

    fn vocab_size(&mut self) -> Option<&mut usize> {
        Some(&mut self.n_tokens)
    }

    fn end_token(&mut self) -> Option<&mut Option<u32>> {
        Some(&mut self.eos_token_id)
    }

    fn set_mask_tokens(&mut self, pad: u32, _mask: u32) {
        self.padding_idx = Some(pad);
    }

    fn set_dropout(&mut self, dropout: f64) {
        self.dropout = dropout;
    }
}
