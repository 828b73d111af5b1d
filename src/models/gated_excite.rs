//! Dilated gated blocks with squeeze-and-excite over the channels of each step, as a language model.

use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::Result;
use crate::graph::{Conv1dConfig, EmbedConfig, Graph};
use crate::nn::{Activation, DropoutKind, Gate, NormKind};

/// Options of the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatedExciteConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default)]
    pub vocab_size: usize,
    /// Channels of a step.
    pub width: usize,
    /// Dilation of each block.
    pub dilations: Vec<usize>,
    /// Dropout of each block.
    #[serde(default)]
    pub dropout: f64,
}

impl Architecture for GatedExciteConfig {
    fn graph(&self) -> Result<Graph> {
        let mut g = Graph::new();
        let ids = g.tokens(self.vocab_size)?;
        let mut xs = g.embed("embedding", ids, self.width, EmbedConfig::default())?;
        for (i, &dilation) in self.dilations.iter().enumerate() {
            xs = g.scope(format!("blocks.{i}"), |g| {
                let hs = g.norm("norm", xs, NormKind::Rms)?;
                let cfg = Conv1dConfig { dilation, ..Conv1dConfig::causal() };
                let hs = g.conv1d("conv", hs, 2 * self.width, 3, cfg)?;
                let hs = g.gate(hs, Gate::TanhSigmoid)?;
                let weights = g.linear("squeeze", hs, (self.width / 4).max(1))?;
                let weights = g.activate(weights, Activation::Relu)?;
                let weights = g.linear("excite", weights, self.width)?;
                let weights = g.activate(weights, Activation::Sigmoid)?;
                let hs = g.multiply(hs, weights)?;
                let hs = g.dropout(hs, self.dropout, DropoutKind::Element)?;
                g.add(xs, hs)
            })?;
        }
        let logits = g.linear("head", xs, self.vocab_size)?;
        g.output_logits(logits)?;
        Ok(g)
    }

    fn vocab_size(&mut self) -> Option<&mut usize> {
        Some(&mut self.vocab_size)
    }

    fn set_dropout(&mut self, dropout: f64) {
        self.dropout = dropout;
    }
}
