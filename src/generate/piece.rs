//! Parts of texts that are being generated, and their ends.

use super::{FinishReason, Sampler};
use crate::Result;
use crate::models::likeliest;

/// The next part of one of several texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The number of the text.
    pub sample: u64,
    /// The next part of it; may be empty in the last piece.
    pub text: String,
    /// In the last piece of a text: its end.
    pub finished: Option<Finished>,
}

/// The end of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The reason.
    pub reason: FinishReason,
    /// Tokens that were drawn for it.
    pub tokens: usize,
    /// From its beginning to its end.
    pub seconds: f64,
    /// Each of them, where [`GenerateConfig::logprobs`](super::GenerateConfig::logprobs) asks for it.
    pub logprobs: Vec<TokenLogprob>,
}

/// A token and how likely the model found it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability, that of [`Sampler::logprob`] but for rounding.
    pub logprob: f64,
    /// The likeliest tokens in its place with theirs, the likeliest first.
    pub top: Vec<(u32, f64)>,
}

impl TokenLogprob {
    /// That of token `id` under `logits`, with `count` of the likeliest.
    ///
    /// # Errors
    /// Those of [`Sampler::logprob`].
    pub fn of(logits: &[f32], id: u32, count: usize) -> Result<Self> {
        // the same sum is subtracted of every logit, so that a token has one number wherever it stands
        let total = f64::from(logits[id as usize]) - Sampler::logprob(logits, id)?;
        let logprob = |id: u32| f64::from(logits[id as usize]) - total;
        let top = likeliest(logits, count).into_iter().map(|id| (id, logprob(id))).collect();
        Ok(Self { id, logprob: logprob(id), top })
    }
}
