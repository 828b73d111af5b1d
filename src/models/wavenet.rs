//! WaveNet as a language model of tokens.

use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::Result;
use crate::graph::{EmbedConfig, Graph, TokensConfig};
use crate::nn::WaveNetStackConfig;

/// Options of the language model: an embedding of `residual_channels` numbers a token, then a
/// [`wavenet_stack`](crate::nn::wavenet_stack) to logits.
///
/// Tensors: `encoder.weight` (vocab, residual_channels) and those of the stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveNetConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default)]
    pub vocab_size: usize,
    /// Token that ends a document, and begins the next: what follows it sees nothing of what came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
    /// The gated layers and the output layers.
    pub network: WaveNetStackConfig,
}

impl Architecture for WaveNetConfig {
    fn graph(&self) -> Result<Graph> {
        self.network.validate()?;
        let mut g = Graph::new();
        let cfg = TokensConfig { restart: self.eos_token_id, ..TokensConfig::default() };
        let ids = g.tokens_with(self.vocab_size, cfg)?;
        let width = self.network.residual_channels;
        let xs = g.embed("encoder", ids, width, EmbedConfig::default())?;
        let logits = self.network.append(&mut g, xs, self.vocab_size)?;
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
        self.network.dropout = dropout;
    }
}
