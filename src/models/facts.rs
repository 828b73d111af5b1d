//! What can be said of a model from its configuration alone.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::{ModelConfig, PytorchNorm};
use crate::nn::NormKind;
use crate::{Error, Result};

impl ModelConfig {
    /// Whether no output sees a later input: only then sequences can come in pieces, and a language model
    /// generates; one that sees both sides of a token is a masked language model.
    pub fn is_causal(&self) -> bool {
        match self {
            Self::Tcn(_) | Self::WaveNet(_) => true,
            Self::TemporalConvNet(cfg) => cfg.network.causal,
            Self::PytorchTcn(cfg) => cfg.causal,
            Self::TemporalConv1d(cfg) => cfg.causal,
            Self::TemporalConvTranspose1d(cfg) => cfg.causal,
            Self::ByteNet(cfg) => cfg.causal,
            Self::Carp(_) | Self::ConvNet(_) => false,
        }
    }

    /// Whether a [mask](crate::nn::Pass::with_mask) makes a padded sequence give what it gives by itself. For
    /// the others sequences of one batch have to be of one length, or padded behind if
    /// [causal](ModelConfig::is_causal).
    pub fn takes_mask(&self) -> bool {
        matches!(self, Self::ByteNet(_) | Self::Carp(_))
    }

    /// Refuses a masked language model, and a network on frames, where one is needed that predicts the next
    /// token.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says so.
    pub fn require_causal(&self) -> Result<()> {
        self.expect_tokens()?;
        match self.is_causal() {
            true => Ok(()),
            false => Err(masked(self.model_type())),
        }
    }

    /// The same model without weight norm, for weights in which it is [folded](crate::store::fold_weight_norm).
    pub fn without_weight_norm(mut self) -> Self {
        let fold = |norm: &mut NormKind| {
            if *norm == NormKind::Weight {
                *norm = NormKind::None;
            }
        };
        match &mut self {
            Self::Tcn(cfg) => fold(&mut cfg.network.norm),
            Self::TemporalConvNet(cfg) => fold(&mut cfg.network.norm),
            Self::PytorchTcn(cfg) if cfg.use_norm == Some(PytorchNorm::WeightNorm) => {
                cfg.use_norm = None;
            }
            _ => {}
        }
        self
    }

    /// Layers of which [`Pass::recording`](crate::nn::Pass::recording) knows `hidden.1`, `hidden.2` and so on.
    pub fn hidden_layers(&self) -> usize {
        match self {
            Self::Tcn(cfg) => cfg.network.num_channels.len(),
            Self::WaveNet(cfg) => cfg.network.dilations.expand().map_or(0, |list| list.len()),
            Self::ByteNet(cfg) => cfg.n_layers,
            Self::Carp(cfg) => cfg.num_hidden_layers,
            Self::ConvNet(cfg) => cfg.n_layers,
            Self::TemporalConvNet(cfg) => cfg.network.num_channels.len(),
            Self::PytorchTcn(cfg) => cfg.num_channels.len(),
            Self::TemporalConv1d(_) | Self::TemporalConvTranspose1d(_) => 0,
        }
    }

    /// The name of the table that token ids are looked up in, if there is one.
    pub fn embedding_name(&self) -> Option<&'static str> {
        match self {
            Self::Tcn(_) | Self::WaveNet(_) => Some("encoder.weight"),
            Self::ByteNet(_) => Some("embedder.embedder.weight"),
            Self::Carp(_) => Some("model.embeddings.word_embeddings.weight"),
            _ => None,
        }
    }

    /// The name under which other programs save the embedding a second time, where it is the matrix of the
    /// softmax too.
    pub fn tied_name(&self) -> Option<&'static str> {
        match self {
            Self::Tcn(cfg) => cfg.tie_weights.then_some("decoder.weight"),
            Self::ByteNet(cfg) => cfg.tie_weights.then_some("decoder.weight"),
            Self::Carp(cfg) => cfg.tie_word_embeddings.then_some("lm_head.decoder.weight"),
            _ => None,
        }
    }

    /// Takes the second copy of a tied matrix out of `weights`.
    ///
    /// # Errors
    /// [`Error::Tensor`] where it is not a copy.
    pub fn drop_tied_copy(&self, weights: &mut HashMap<String, Tensor>) -> Result<()> {
        let (Some(first), Some(second)) = (self.embedding_name(), self.tied_name()) else {
            return Ok(());
        };
        let (Some(table), Some(copy)) = (weights.get(first), weights.get(second)) else {
            return Ok(());
        };
        let same = || -> candle_core::Result<bool> {
            let copy = copy.reshape(table.shape())?.to_dtype(DType::F32)?;
            let difference = copy.ne(&table.to_dtype(DType::F32)?)?;
            Ok(difference.to_dtype(DType::U32)?.max_all()?.to_scalar::<u32>()? == 0)
        };
        if copy.elem_count() != table.elem_count() || !same()? {
            return Err(Error::Tensor {
                name: second.to_string(),
                expected: format!("a copy of {first}, as the configuration ties them"),
                found: format!("other numbers, {:?}", copy.dims()),
            });
        }
        weights.remove(second);
        Ok(())
    }
}

/// The error for a masked language model in the place of a causal one.
pub(super) fn masked(model_type: &str) -> Error {
    Error::invalid(
        "model",
        "a causal language model, which predicts the next token",
        format!(
            "{model_type}, a masked language model, which does not generate; use tcn fill-mask"
        ),
    )
}
