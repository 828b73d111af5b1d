//! Parts of texts that are being generated, and how each ended.

use super::FinishReason;

/// The next part of one of several texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The number of the text.
    pub sample: u64,
    /// What comes next in it; may be empty in the last piece.
    pub text: String,
    /// In the last piece of a text: how it ended.
    pub finished: Option<Finished>,
}

/// How a text ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Tokens that were drawn for it.
    pub tokens: usize,
    /// From its beginning to its end.
    pub seconds: f64,
    /// Each of them, where [`GenerateConfig::logprobs`] asks for it.
    pub logprobs: Vec<TokenLogprob>,
}

/// A token and how likely the model found it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability, see [`Sampler::logprob`].
    pub logprob: f64,
}
