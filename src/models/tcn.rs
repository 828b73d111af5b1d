//! The language model of Bai, Kolter & Koltun 2018 (arXiv:1803.01271, section 5): embedding, temporal
//! convolutional network, softmax.

use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::graph::{EmbedConfig, Graph, MAX_CHANNELS, TokensConfig, dropout_probability, in_range};
use crate::nn::{DropoutKind, TcnConfig};
use crate::{Error, Result};

/// Options of the language model.
///
/// Tensors: `encoder.weight` (vocab, embedding), `tcn.network.*` (see
/// [`temporal_conv_net`](crate::nn::temporal_conv_net)), `decoder.bias` (vocab), untied also `decoder.weight` (vocab,
/// width), pre-norm also `norm.*`, the normalisation before the softmax.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcnLmConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default)]
    pub vocab_size: usize,
    /// Token that ends a document, and begins the next: what follows it sees nothing of what came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
    /// Width of the embedding.
    pub embedding_dim: usize,
    /// `true` if the softmax uses the embedding's matrix; its width is then the last block's.
    #[serde(default)]
    pub tie_weights: bool,
    /// Probability of dropping a number of the embedding in training.
    #[serde(default)]
    pub embedding_dropout: f64,
    /// The network between embedding and softmax.
    pub network: TcnConfig,
}

impl TcnLmConfig {
    fn validate(&self) -> Result<()> {
        self.network.validate()?;
        in_range("embedding_dim", self.embedding_dim, MAX_CHANNELS)?;
        dropout_probability("embedding_dropout", self.embedding_dropout)?;
        let expected = "true: a language model must not see the tokens that it predicts";
        Error::require(self.network.causal, "causal", expected, false)?;
        let width = self.network.num_channels.last().copied().unwrap_or(0);
        let allowed = !self.tie_weights || self.embedding_dim == width;
        let expected = format!("{width}, the width of the last block, as tie_weights is set");
        Error::require(allowed, "embedding_dim", &expected, self.embedding_dim)
    }
}

impl Architecture for TcnLmConfig {
    fn graph(&self) -> Result<Graph> {
        self.validate()?;
        let mut g = Graph::new();
        let cfg = TokensConfig { restart: self.eos_token_id, ..TokensConfig::default() };
        let ids = g.tokens_with(self.vocab_size, cfg)?;
        let xs = g.embed("encoder", ids, self.embedding_dim, EmbedConfig::default())?;
        let xs = g.dropout(xs, self.embedding_dropout, DropoutKind::Element)?;
        let mut hs = g.scope("tcn", |g| self.network.append(g, xs))?;
        if self.network.pre_norm {
            hs = g.norm("norm", hs, self.network.norm)?;
        }
        let logits = match self.tie_weights {
            true => g.tied_linear("decoder", hs, true)?,
            false => g.linear("decoder", hs, self.vocab_size)?,
        };
        g.output_logits(logits)?;
        Ok(g)
    }

    fn vocab_size(&mut self) -> Option<&mut usize> {
        Some(&mut self.vocab_size)
    }

    fn end_token(&mut self) -> Option<&mut Option<u32>> {
        Some(&mut self.eos_token_id)
    }

    fn set_dropout(&mut self, dropout: f64) {
        (self.embedding_dropout, self.network.dropout) = (dropout, dropout);
    }

    fn fold_weight_norm(&mut self) {
        self.network.norm = self.network.norm.folded();
    }
}
