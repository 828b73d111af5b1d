//! Parts of texts that are being generated, and their ends.

use super::{FinishReason, Sampler};
use crate::Result;

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
    /// The natural logarithm of its probability, see [`Sampler::logprob`].
    pub logprob: f64,
    /// The likeliest tokens in its place with theirs, the likeliest first.
    pub top: Vec<(u32, f64)>,
}

impl TokenLogprob {
    /// That of token `id` under `logits`, with `count` of the likeliest.
    pub(super) fn of(logits: &[f32], id: u32, count: usize) -> Result<Self> {
        let logprob = Sampler::logprob(logits, id)?;
        // the same sum is subtracted of every logit
        let total = f64::from(logits[id as usize]) - logprob;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]);
        let count = count.min(order.len());
        if count < order.len() {
            order.select_nth_unstable_by(count, likelier);
        }
        order.truncate(count);
        order.sort_by(|a, b| likelier(a, b).then(a.cmp(b)));
        let top = order.into_iter().map(|id| (id, f64::from(logits[id as usize]) - total));
        Ok(Self { id, logprob, top: top.collect() })
    }
}
