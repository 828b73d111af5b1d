//! WaveNet as a language model of tokens.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::{Generative, embedding};
use crate::Result;
use crate::nn::{Pass, RingShape, Slot, StepBuilder, StepDtype, WaveNetStack, WaveNetStackConfig};
use crate::ops;

/// The options of a [`WaveNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveNetConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default)]
    pub vocab_size: usize,
    /// The gated layers and the output layers.
    pub network: WaveNetStackConfig,
}

/// An embedding of `residual_channels` numbers a token, then a [`WaveNetStack`] to logits.
///
/// # Shapes
/// Tensors: `encoder.weight` (vocab, residual_channels) and those of the stack.
///
/// # Example
/// See [`Model`](super::Model).
#[derive(Debug, Clone)]
pub struct WaveNet {
    encoder: Tensor,
    stack: WaveNetStack,
}

impl WaveNet {
    pub(super) fn new(cfg: &WaveNetConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            encoder: embedding(cfg.vocab_size, cfg.network.residual_channels, vb.pp("encoder"))?,
            stack: WaveNetStack::new(cfg.vocab_size, &cfg.network, vb)?,
        })
    }

    pub(super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        Ok(Self { encoder: self.encoder.clone(), stack: self.stack.freeze_as(dtype)? })
    }

    pub(super) fn forward(&self, ids: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let xs = ops::embed(&self.encoder, ids, pass.dtype(&self.encoder))?;
        self.stack.forward(&xs, pass)
    }

    pub(super) fn device(&self) -> &Device {
        self.encoder.device()
    }
}

impl Generative for WaveNet {
    fn embedding(&self) -> &Tensor {
        &self.encoder
    }

    fn rings(&self) -> Result<Vec<RingShape>> {
        self.stack.rings()
    }

    fn build_step(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot> {
        self.stack.build_step(net, xs)
    }
}
