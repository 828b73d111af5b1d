//! Text generation: a sampler, stop rules, constraints, and texts as they are made, many at once.

mod allow;
mod beam;
mod constraint;
mod filters;
mod generation;
mod generator;
mod pattern;
mod piece;
mod sampler;
mod sampler_config;
mod sorted_tokens;
mod stop;
mod writer;

pub use beam::{BeamAnswer, BeamConfig, answers};
pub use constraint::{ConstraintConfig, Constraints};
pub use generation::{Context, Generation};
pub use generator::Generator;
pub use piece::{Finished, Piece, TokenLogprob};
pub use sampler::Sampler;
pub use sampler_config::SamplerConfig;
pub use stop::{StopOutcome, StopStrings};
pub use writer::{DrawnToken, TextWriter};

use serde::Serialize;

/// Configuration of a [`Generator`].
#[derive(Debug, Clone, Default)]
pub struct GenerateConfig {
    /// The most tokens of a text.
    pub max_tokens: usize,
    /// The sampler.
    pub sampler: SamplerConfig,
    /// Strings before which the text ends; they may cross token borders.
    pub stop: Vec<String>,
    /// Tokens at which the text ends, beside the model's own end of a document.
    pub stop_tokens: Vec<u32>,
    /// The model's end of a document is never drawn.
    pub ignore_end: bool,
    /// Strings that the text must not contain, or must consist of, and its least length.
    pub constraints: ConstraintConfig,
    /// Keeps the log-probability of each token, and those of the `n` likeliest in its place.
    pub logprobs: Option<usize>,
}

/// The reason for which a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It has as many tokens as were asked for.
    Length,
    /// A stop string came.
    Stop,
    /// The model drew a token that ends the text.
    Eos,
    /// It was told to end: [`Generation::interrupt`].
    Interrupted,
}
