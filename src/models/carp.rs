//! CARP, ByteNet as a masked language model of proteins, with the names of the Hub's multimolecule/carp-*.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config_keys::activation;
use crate::geometry::Stack;
use crate::nn::{
    Activation, ByteNetStack, ByteNetStackConfig, Conv1d, Conv1dConfig, MAX_CHANNELS,
    MAX_STACK_LAYERS, Norm, Pass, StepDtype, dropout_probability, in_range, linear, norm_eps,
};
use crate::ops::{self, Epilogue};
use crate::{Error, Result};

/// The options of a [`Carp`]: the keys and defaults of multimolecule's `CarpConfig`.
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
    /// Whether the softmax uses the embedding's matrix; `embedding_size` is then `hidden_size`.
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

impl CarpConfig {
    pub(super) fn validate(&self) -> Result<()> {
        in_range("embedding_size", self.embedding_size, MAX_CHANNELS)?;
        in_range("hidden_size", self.hidden_size, MAX_CHANNELS)?;
        in_range("intermediate_size", self.inner(), MAX_CHANNELS)?;
        dropout_probability("hidden_dropout", self.hidden_dropout)?;
        norm_eps("layer_norm_eps", self.layer_norm_eps)?;
        if self.tie_word_embeddings && self.embedding_size != self.hidden_size {
            let expected =
                format!("{}, as hidden_size, since tie_word_embeddings is set", self.hidden_size);
            return Err(Error::invalid("embedding_size", expected, self.embedding_size));
        }
        self.stack()?.validate()
    }

    fn inner(&self) -> usize {
        let half = self.hidden_size / if self.slim { 2 } else { 1 };
        self.intermediate_size.unwrap_or(half)
    }

    fn stack(&self) -> Result<ByteNetStackConfig> {
        let layers = in_range("num_hidden_layers", self.num_hidden_layers, MAX_STACK_LAYERS)?;
        let most = in_range("max_dilation", self.max_dilation, 1 << 31)?;
        let powers = (0..usize::BITS).map(|power| 1usize << power);
        let powers = powers.take_while(|&dilation| dilation < most);
        let cycle: Vec<usize> = powers.chain([most]).collect();
        Ok(ByteNetStackConfig {
            dilations: cycle.into_iter().cycle().take(layers).collect(),
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout,
            names: [
                "layer_norm1",
                "intermediate",
                "layer_norm2",
                "convolution",
                "layer_norm3",
                "output",
            ],
            ..ByteNetStackConfig::new(self.hidden_size, self.inner(), self.kernel_size)
        })
    }

    pub(super) fn geometry(&self) -> Result<Stack> {
        self.stack()?.geometry("model.encoder.layer.")
    }
}

/// CARP as `CarpForMaskedLM` or `CarpForPreTraining`, which have the same tensors: embedding, 1×1
/// convolution, [`ByteNetStack`], layer norm, softmax.
///
/// Without a [mask](Pass::with_mask) the steps of `pad_token_id` are hidden, as multimolecule does it.
///
/// # Shapes
/// Tensors: `model.embeddings.word_embeddings.weight` (vocab, embedding),
/// `model.embeddings.projection.*`, `model.encoder.layer.{i}.*` (see [`ByteNetStack`]),
/// `lm_head.layer_norm.*`, `lm_head.decoder.bias` (vocab), untied also `lm_head.decoder.weight` (vocab,
/// hidden).
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let config = ModelConfig::from_json(r#"{"model_type": "carp"}"#, "config.json")?;
/// assert_eq!(config.parameters()?, 608_589); // CARP-600k
/// assert_eq!(config.geometry()?.receptive_field()?.total, 2041);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Yang, Fusi & Lu 2022, "Convolutions are competitive with transformers for protein sequence pretraining".
#[derive(Debug, Clone)]
pub struct Carp {
    embeddings: Tensor,
    projection: Conv1d,
    encoder: ByteNetStack,
    norm: Norm,
    decoder: Conv1d,
    pad: Option<u32>,
    mask: Option<u32>,
}

impl Carp {
    pub(super) fn new(cfg: &CarpConfig, vb: VarBuilder) -> Result<Self> {
        let (model, head) = (vb.pp("model"), vb.pp("lm_head"));
        let embeddings = super::embedding(
            cfg.vocab_size,
            cfg.embedding_size,
            model.pp("embeddings.word_embeddings"),
        )?;
        let projection = Conv1d::new(
            cfg.embedding_size,
            cfg.hidden_size,
            1,
            Conv1dConfig::causal(),
            model.pp("embeddings.projection"),
        )?;
        let decoder = head.pp("decoder");
        Ok(Self {
            projection,
            encoder: ByteNetStack::new(&cfg.stack()?, model.pp("encoder.layer"))?,
            norm: Norm::layer(cfg.hidden_size, cfg.layer_norm_eps, head.pp("layer_norm"))?,
            decoder: match cfg.tie_word_embeddings {
                false => linear(cfg.hidden_size, cfg.vocab_size, decoder)?,
                true => {
                    let bias = decoder.get_with_hints(cfg.vocab_size, "bias", Init::Const(0.0))?;
                    Conv1d::from_matrix(embeddings.clone(), Some(bias))
                }
            },
            pad: cfg.pad_token_id,
            mask: cfg.mask_token_id,
            embeddings,
        })
    }

    pub(super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        Ok(Self {
            projection: self.projection.freeze_as(dtype)?,
            encoder: self.encoder.freeze_as(dtype)?,
            decoder: self.decoder.freeze_as(dtype)?,
            ..self.clone()
        })
    }

    /// 0 where `ids` are padding and 1 elsewhere; none where no id is padding.
    pub(super) fn attention_mask(&self, ids: &Tensor) -> Result<Option<Tensor>> {
        let Some(pad) = self.pad else { return Ok(None) };
        let mask = ids.ne(pad)?;
        let counted = mask.to_dtype(DType::U32)?.min_all()?.to_scalar::<u32>()?;
        Ok((counted == 0).then_some(mask))
    }

    pub(super) fn forward(&self, ids: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if !pass.has_mask()
            && let Some(mask) = self.attention_mask(ids)?
        {
            pass.set_mask(&mask)?;
        }
        let dtype = pass.dtype(&self.embeddings);
        let xs = ops::embed_with_padding(&self.embeddings, ids, self.mask, dtype)?;
        let xs = self.projection.forward(&xs, pass)?;
        let hs = self.encoder.forward(&xs, pass)?;
        let hs = self.norm.forward(&hs, pass)?;
        self.decoder.forward_then(&hs, pass, Epilogue::to_f32())
    }

    pub(super) fn device(&self) -> &Device {
        self.embeddings.device()
    }
}
