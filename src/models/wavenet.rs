//! WaveNet as a language model of tokens.

use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::Result;
use crate::graph::{EmbedConfig, Graph};
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
    /// The gated layers and the output layers.
    pub network: WaveNetStackConfig,
}

impl Architecture for WaveNetConfig {
    fn graph(&self) -> Result<Graph> {
        self.network.validate()?;
        let mut g = Graph::new();
        let ids = g.tokens(self.vocab_size)?;
        let width = self.network.residual_channels;
        let xs = g.embed("encoder", ids, width, EmbedConfig::default())?;
        let logits = self.network.append(&mut g, xs, self.vocab_size)?;
        g.output_logits(logits)?;
        Ok(g)
    }

    fn vocab_size(&mut self) -> Option<&mut usize> {
        Some(&mut self.vocab_size)
    }

    fn set_dropout(&mut self, dropout: f64) {
        self.network.dropout = dropout;
    }
}
