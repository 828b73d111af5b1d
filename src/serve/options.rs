//! The options of texts that completions and chats share.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::api_error::ApiError;
use crate::generate::{ConstraintConfig, GenerateConfig, SamplerConfig};

/// Most texts for one prompt.
const MAX_CHOICES: u64 = 128;

/// Most of the likeliest tokens that are told.
pub(super) const MAX_ALTERNATIVES: u64 = 20;

/// Most stop strings, and bytes of one.
const MAX_STOPS: (usize, usize) = (16, 1024);

/// Strings before which a text ends.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum StopInput {
    One(String),
    Several(Vec<String>),
}

/// Options of a streamed answer.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    /// One more event tells the tokens of prompt and answer.
    #[serde(default)]
    pub include_usage: bool,
    /// Accepted, without effect: nothing here needs to be made unreadable.
    #[serde(default)]
    #[allow(dead_code)]
    include_obfuscation: Option<bool>,
}

/// The options as they are, and how a request of them is checked.
#[derive(Debug, Clone, Default)]
pub(super) struct TextOptions {
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<usize>,
    pub min_p: Option<f64>,
    pub typical_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub logit_bias: BTreeMap<String, f64>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub n: u64,
    pub alternatives: Option<u64>,
}

/// A request with fields of its own and those that all texts have.
macro_rules! text_request {
    ($(#[$meta:meta])* $name:ident { $($(#[$attr:meta])* $field:ident : $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$attr])* pub $field: $type,)*
            /// The model's name; the server's first one if absent.
            #[serde(default)]
            pub model: Option<String>,
            /// An id of `/v1/states`: the text goes on from there.
            #[serde(default)]
            pub state: Option<String>,
            /// Most tokens of a text.
            #[serde(default)]
            pub max_tokens: Option<u64>,
            /// The same, as chats call it now.
            #[serde(default)]
            pub max_completion_tokens: Option<u64>,
            /// 0 takes the likeliest token, 1 (if absent) the model's own distribution.
            #[serde(default)]
            #[schema(minimum = 0)]
            pub temperature: Option<f64>,
            /// Draws from the likeliest tokens that together have this probability.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub top_p: Option<f64>,
            /// Draws from so many of the likeliest tokens.
            #[serde(default)]
            #[schema(minimum = 1)]
            pub top_k: Option<usize>,
            /// Draws from tokens at least this fraction as likely as the likeliest.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub min_p: Option<f64>,
            /// Draws from tokens about as likely as is to be expected, which together have this probability.
            #[serde(default)]
            #[schema(exclusive_minimum = 0, maximum = 1)]
            pub typical_p: Option<f64>,
            /// Above 1, tokens that came recently are less likely.
            #[serde(default)]
            #[schema(exclusive_minimum = 0)]
            pub repetition_penalty: Option<f64>,
            /// Subtracted from the logit of a token that came recently.
            #[serde(default)]
            pub presence_penalty: Option<f64>,
            /// Subtracted from the logit of a token for each time that it came recently.
            #[serde(default)]
            pub frequency_penalty: Option<f64>,
            /// Added to the logits of tokens, by their ids.
            #[serde(default)]
            pub logit_bias: Option<std::collections::BTreeMap<String, f64>>,
            /// Strings before which a text ends.
            #[serde(default)]
            pub stop: Option<crate::serve::options::StopInput>,
            /// The same seed gives the same text.
            #[serde(default)]
            pub seed: Option<i64>,
            /// Texts for each prompt; 1 if absent.
            #[serde(default)]
            #[schema(minimum = 1, maximum = 128)]
            pub n: Option<u64>,
            /// The text is sent while it is written, as server-sent events.
            #[serde(default)]
            pub stream: Option<bool>,
            /// Options of that.
            #[serde(default)]
            #[schema(value_type = Option<crate::serve::options::StreamOptions>)]
            pub stream_options: Option<crate::serve::object::Object<crate::serve::options::StreamOptions>>,
            /// Whoever it is for: users of one client take turns.
            #[serde(default)]
            pub user: Option<String>,
        }

        impl $name {
            /// `true` if one more event tells of tokens.
            fn include_usage(&self) -> bool {
                self.stream_options.is_some_and(|options| options.0.include_usage)
            }

            /// The options that all texts have, with `alternatives` of the likeliest tokens.
            fn options(&self, alternatives: Option<u64>) -> crate::serve::options::TextOptions {
                use crate::serve::options::StopInput;
                crate::serve::options::TextOptions {
                    // both name one thing; none of them may be beyond what is allowed
                    max_tokens: self.max_tokens.max(self.max_completion_tokens),
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    typical_p: self.typical_p,
                    repetition_penalty: self.repetition_penalty,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    logit_bias: self.logit_bias.clone().unwrap_or_default(),
                    stop: match &self.stop {
                        None => Vec::new(),
                        Some(StopInput::One(stop)) => vec![stop.clone()],
                        Some(StopInput::Several(stops)) => stops.clone(),
                    },
                    seed: self.seed,
                    n: self.n.unwrap_or(1),
                    alternatives,
                }
            }
        }
    };
}
pub(super) use text_request;

impl TextOptions {
    /// The configuration of texts of at most `max_tokens` tokens, `usual` if the request says nothing; `seed` where it
    /// names none.
    pub fn config(
        &self,
        (usual, max_tokens): (u64, u64),
        vocab_size: usize,
        seed: u64,
    ) -> Result<GenerateConfig, ApiError> {
        let tokens = self.max_tokens.unwrap_or(usual.min(max_tokens));
        if tokens > max_tokens {
            let message = format!("expected at most {max_tokens} tokens, found {tokens}");
            return Err(ApiError::field("max_tokens", message));
        }
        if !(1..=MAX_CHOICES).contains(&self.n) {
            let message = format!("expected 1 to {MAX_CHOICES} texts, found {}", self.n);
            return Err(ApiError::field("n", message));
        }
        if self.alternatives.is_some_and(|count| count > MAX_ALTERNATIVES) {
            let message = format!("expected at most {MAX_ALTERNATIVES} alternatives");
            return Err(ApiError::field("logprobs", message));
        }
        let (count, bytes) = MAX_STOPS;
        if self.stop.len() > count || self.stop.iter().any(|stop| stop.len() > bytes) {
            let message = format!("expected at most {count} strings of at most {bytes} bytes");
            return Err(ApiError::field("stop", message));
        }
        let sampler = self.sampler(vocab_size, seed)?;
        sampler.validate()?;
        Ok(GenerateConfig {
            max_tokens: tokens as usize,
            sampler,
            stop: self.stop.clone(),
            stop_tokens: Vec::new(),
            ignore_end: false,
            constraints: ConstraintConfig::default(),
            logprobs: self.alternatives.map(|count| (count as usize).min(vocab_size)),
        })
    }

    fn sampler(&self, vocab_size: usize, seed: u64) -> Result<SamplerConfig, ApiError> {
        let bias = |(id, bias): (&String, &f64)| {
            let id = id.parse::<u32>().ok().filter(|&id| (id as usize) < vocab_size);
            let message = format!("expected ids of tokens, below {vocab_size}");
            let id = id.ok_or_else(|| ApiError::field("logit_bias", message))?;
            Ok((id, *bias))
        };
        Ok(SamplerConfig {
            logit_bias: self.logit_bias.iter().map(bias).collect::<Result<_, ApiError>>()?,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            seed: self.seed.map_or(seed, |seed| seed as u64),
            ..SamplerConfig::default()
        })
    }
}
