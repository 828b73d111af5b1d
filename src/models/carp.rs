//! CARP, ByteNet as a masked language model of proteins, with the names of the Hub's multimolecule/carp-*.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Architecture;
use super::config_keys::activation;
use crate::graph::{
    Conv1dConfig, EmbedConfig, Graph, MAX_CHANNELS, MAX_STACK_LAYERS, TokensConfig,
    dropout_probability, in_range,
};
use crate::nn::{Activation, ByteNetStackConfig, check_eps};
use crate::{Error, Result};

/// Options of the masked language model: the keys and defaults of multimolecule's `CarpConfig`. As `CarpForMaskedLM` or
/// `CarpForPreTraining`, which have the same tensors: embedding, 1×1 convolution,
/// [`bytenet_stack`](crate::nn::bytenet_stack), layer norm, softmax.
///
/// Without a mask the steps of `pad_token_id` are hidden, as multimolecule does it.
///
/// Tensors: `model.embeddings.word_embeddings.weight` (vocab, embedding), `model.embeddings.projection.*`,
/// `model.encoder.layer.{i}.*`, `lm_head.layer_norm.*`, `lm_head.decoder.bias` (vocab), untied also
/// `lm_head.decoder.weight` (vocab, hidden).
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let config = ModelConfig::from_json(r#"{"model_type": "carp"}"#, "config.json")?;
/// assert_eq!(config.graph()?.parameter_count()?, 608_589); // CARP-600k
/// assert_eq!(config.geometry()?.receptive_field()?.total, 2041);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Yang, Fusi & Lu 2022, "Convolutions are competitive with transformers for protein sequence pretraining".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CarpConfig {
    /// Token ids.
    pub vocab_size: usize,
    /// Width of the embedding.
    pub embedding_size: usize,
    /// Channels of the residual path.
    pub hidden_size: usize,
    /// Channels within a layer; null for half of `hidden_size` if `slim`, else as many.
    pub intermediate_size: Option<usize>,
    /// Residual layers.
    pub num_hidden_layers: usize,
    /// Taps of each dilated convolution, an odd number.
    pub kernel_size: usize,
    /// Dilations are the powers of two below it, then itself, over and over.
    pub max_dilation: usize,
    /// The activation function.
    #[serde(deserialize_with = "activation")]
    pub hidden_act: Activation,
    /// Probability of dropping a number of a layer's output in training.
    pub hidden_dropout: f64,
    /// Added to the variance by the layer norms.
    pub layer_norm_eps: f64,
    /// See `intermediate_size`.
    pub slim: bool,
    /// `true` if the softmax uses the embedding's matrix; `embedding_size` is then `hidden_size`.
    pub tie_word_embeddings: bool,
    /// The id that fills up shorter sequences: hidden from the convolutions where no mask is given.
    pub pad_token_id: Option<u32>,
    /// The id that stands for what is to be found; its embedding is not trained.
    pub mask_token_id: Option<u32>,
    /// Everything else of the file: kept, and of no effect.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for CarpConfig {
    fn default() -> Self {
        Self {
            vocab_size: 37,
            embedding_size: 8,
            hidden_size: 128,
            intermediate_size: None,
            num_hidden_layers: 16,
            kernel_size: 5,
            max_dilation: 128,
            hidden_act: Activation::Gelu,
            hidden_dropout: 0.0,
            layer_norm_eps: 1e-5,
            slim: true,
            tie_word_embeddings: false,
            pad_token_id: Some(0),
            mask_token_id: Some(4),
            other: Map::new(),
        }
    }
}

/// Names of the parts of a layer.
const NAMES: [&str; 6] =
    ["layer_norm1", "intermediate", "layer_norm2", "convolution", "layer_norm3", "output"];

impl CarpConfig {
    fn validate(&self) -> Result<()> {
        in_range("embedding_size", self.embedding_size, MAX_CHANNELS)?;
        in_range("hidden_size", self.hidden_size, MAX_CHANNELS)?;
        in_range("intermediate_size", self.inner(), MAX_CHANNELS)?;
        dropout_probability("hidden_dropout", self.hidden_dropout)?;
        check_eps("layer_norm_eps", self.layer_norm_eps)?;
        let allowed = !self.tie_word_embeddings || self.embedding_size == self.hidden_size;
        let expected =
            format!("{}, as hidden_size, since tie_word_embeddings is set", self.hidden_size);
        Error::require(allowed, "embedding_size", &expected, self.embedding_size)?;
        self.stack()?.validate()
    }

    fn inner(&self) -> usize {
        let half = self.hidden_size / if self.slim { 2 } else { 1 };
        self.intermediate_size.unwrap_or(half)
    }

    fn stack(&self) -> Result<ByteNetStackConfig> {
        let layers = in_range("num_hidden_layers", self.num_hidden_layers, MAX_STACK_LAYERS)?;
        let most = in_range("max_dilation", self.max_dilation, 1 << 31)?;
        let powers = (0..).map(|power| 1usize << power).take_while(|&dilation| dilation < most);
        let cycle: Vec<usize> = powers.chain([most]).collect();
        Ok(ByteNetStackConfig {
            dilations: cycle.into_iter().cycle().take(layers).collect(),
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout,
            names: NAMES,
            ..ByteNetStackConfig::new(self.hidden_size, self.inner(), self.kernel_size)
        })
    }
}

impl Architecture for CarpConfig {
    fn graph(&self) -> Result<Graph> {
        self.validate()?;
        let mut g = Graph::new();
        let cfg = TokensConfig { hidden: self.pad_token_id, ..TokensConfig::default() };
        let ids = g.tokens_with(self.vocab_size, cfg)?;
        let hs = g.scope("model", |g| {
            let table = EmbedConfig { padding_idx: self.mask_token_id, ..EmbedConfig::default() };
            let xs = g.embed("embeddings.word_embeddings", ids, self.embedding_size, table)?;
            let cfg = Conv1dConfig::causal();
            let xs = g.conv1d("embeddings.projection", xs, self.hidden_size, 1, cfg)?;
            g.scope("encoder.layer", |g| self.stack()?.append(g, xs))
        })?;
        let logits = g.scope("lm_head", |g| {
            let hs = g.layer_norm("layer_norm", hs, self.layer_norm_eps)?;
            match self.tie_word_embeddings {
                true => g.tied_linear("decoder", hs, true),
                false => g.linear("decoder", hs, self.vocab_size),
            }
        })?;
        g.output_logits(logits)?;
        Ok(g)
    }

    fn vocab_size(&mut self) -> Option<&mut usize> {
        Some(&mut self.vocab_size)
    }

    fn set_mask_tokens(&mut self, pad: u32, mask: u32) {
        (self.pad_token_id, self.mask_token_id) = (Some(pad), Some(mask));
    }

    fn set_dropout(&mut self, dropout: f64) {
        self.hidden_dropout = dropout;
    }
}
