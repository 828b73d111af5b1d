//! The language model of Bai, Kolter & Koltun 2018 (arXiv:1803.01271, section 5): embedding, temporal
//! convolutional network, softmax.

use candle_core::{Device, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use super::{Generative, embedding};
use crate::nn::{
    Conv1d, DropoutKind, MAX_CHANNELS, Norm, Pass, RingShape, Slot, StepBuilder, StepDtype,
    TcnConfig, TemporalConvNet, dropout_probability, in_range, linear,
};
use crate::ops::{self, Epilogue};
use crate::{Error, Result};

/// The options of a [`Tcn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcnLmConfig {
    /// Token ids; 0 in a preset, which takes it from the tokenizer.
    #[serde(default)]
    pub vocab_size: usize,
    /// Width of the embedding.
    pub embedding_dim: usize,
    /// Whether the softmax uses the embedding's matrix; its width is then the last block's.
    #[serde(default)]
    pub tie_weights: bool,
    /// Probability of dropping a number of the embedding in training.
    #[serde(default)]
    pub embedding_dropout: f64,
    /// The network between embedding and softmax.
    pub network: TcnConfig,
}

impl TcnLmConfig {
    /// The width of the last block.
    fn width(&self) -> usize {
        self.network.num_channels.last().copied().unwrap_or(0)
    }

    pub(super) fn validate(&self) -> Result<()> {
        in_range("embedding_dim", self.embedding_dim, MAX_CHANNELS)?;
        dropout_probability("embedding_dropout", self.embedding_dropout)?;
        self.network.validate()?;
        if !self.network.causal {
            let expected = "true: a language model must not see the tokens that it predicts";
            return Err(Error::invalid("causal", expected, false));
        }
        if self.tie_weights && self.embedding_dim != self.width() {
            return Err(Error::invalid(
                "embedding_dim",
                format!("{}, the width of the last block, as tie_weights is set", self.width()),
                self.embedding_dim,
            ));
        }
        Ok(())
    }
}

/// A temporal convolutional network as a language model.
///
/// # Shapes
/// Tensors: `encoder.weight` (vocab, embedding), `tcn.network.*` (see [`TemporalConvNet`]),
/// `decoder.bias` (vocab), untied also `decoder.weight` (vocab, width), pre-norm also `norm.*`, the
/// normalisation before the softmax.
///
/// # Example
/// See [`Model`](super::Model).
#[derive(Debug, Clone)]
pub struct Tcn {
    encoder: Tensor,
    tcn: TemporalConvNet,
    norm: Norm,
    decoder: Conv1d,
    embedding_dropout: f64,
}

impl Tcn {
    pub(super) fn new(cfg: &TcnLmConfig, vb: VarBuilder) -> Result<Self> {
        let encoder = embedding(cfg.vocab_size, cfg.embedding_dim, vb.pp("encoder"))?;
        let tcn = TemporalConvNet::new(cfg.embedding_dim, &cfg.network, vb.pp("tcn"))?;
        let norm = match cfg.network.pre_norm {
            true => Norm::new(cfg.network.norm, cfg.width(), vb.pp("norm"))?,
            false => Norm::Identity,
        };
        let decoder = if cfg.tie_weights {
            let bias = vb.pp("decoder").get_with_hints(cfg.vocab_size, "bias", Init::Const(0.0))?;
            Conv1d::from_matrix(encoder.clone(), Some(bias))
        } else {
            linear(cfg.width(), cfg.vocab_size, vb.pp("decoder"))?
        };
        Ok(Self { encoder, tcn, norm, decoder, embedding_dropout: cfg.embedding_dropout })
    }

    pub(super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        Ok(Self {
            tcn: self.tcn.freeze_as(dtype)?,
            decoder: self.decoder.freeze_as(dtype)?,
            ..self.clone()
        })
    }

    pub(super) fn forward(&self, ids: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let xs = pass.dropout(
            ops::embed(&self.encoder, ids, pass.dtype(&self.encoder))?,
            self.embedding_dropout,
            DropoutKind::Element,
        )?;
        let hs = self.tcn.forward(&xs, pass)?;
        let hs = self.norm.forward(&hs, pass)?;
        let epilogue = Epilogue { f32_output: true, ..Epilogue::default() };
        self.decoder.forward_then(&hs, pass, epilogue)
    }

    pub(super) fn device(&self) -> &Device {
        self.encoder.device()
    }
}

impl Generative for Tcn {
    fn embedding(&self) -> &Tensor {
        &self.encoder
    }

    fn rings(&self) -> Result<Vec<RingShape>> {
        self.tcn.rings()
    }

    fn build_step(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot> {
        let hs = self.tcn.build_step(net, xs)?;
        let hs = net.norm(hs, &self.norm)?;
        net.conv_to_f32(&self.decoder, hs)
    }
}
