//! Answers as they come together, whatever their shape.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::api_error::ApiError;
use super::logprobs::TokenTeller;
use super::request::{Reply, TextPart};
use super::served::ServedModel;
use crate::generate::{FinishReason, TokenLogprob};

/// Tokens that were read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
}

/// Beginning of every part of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct AnswerHead {
    pub id: String,
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// The model's weights.
    pub system_fingerprint: Option<String>,
}

/// The next part of one of several texts, with the tokens that begin in it and the characters before each.
#[derive(Debug)]
pub(super) struct ChoicePart {
    pub choice: usize,
    pub text: String,
    pub tokens: Vec<(usize, TokenLogprob)>,
    pub finish_reason: Option<&'static str>,
    /// `true` for the first part of its text.
    pub begins: bool,
}

/// The texts of an answer, as their parts come.
#[derive(Debug)]
pub(super) struct Choices {
    pub model: Arc<ServedModel>,
    tellers: Vec<TokenTeller>,
    begun: Vec<bool>,
    ended: usize,
    prompt_tokens: usize,
    tokens: usize,
}

impl Choices {
    /// Texts that begin after so many characters each; all prompts together have `prompt_tokens` tokens.
    pub fn new(model: Arc<ServedModel>, offsets: Vec<usize>, prompt_tokens: usize) -> Self {
        let begun = vec![false; offsets.len()];
        let tellers = offsets.into_iter().map(TokenTeller::new).collect();
        Self { model, tellers, begun, ended: 0, prompt_tokens, tokens: 0 }
    }

    pub fn push(&mut self, part: TextPart) -> ChoicePart {
        let choice = part.choice as usize;
        self.tokens += part.tokens;
        self.ended += usize::from(part.ended.is_some());
        let tokens = match &self.model.token_bytes {
            Some(bytes) => self.tellers[choice].push(&part.text, part.logprobs, bytes),
            None => Vec::new(),
        };
        let begins = !std::mem::replace(&mut self.begun[choice], true);
        let finish_reason = part.ended.map(reason);
        ChoicePart { choice, text: part.text, tokens, finish_reason, begins }
    }

    pub fn are_complete(&self) -> bool {
        self.ended == self.tellers.len()
    }

    pub fn usage(&self) -> Usage {
        let (prompt_tokens, completion_tokens) = (self.prompt_tokens, self.tokens);
        let total_tokens = prompt_tokens + completion_tokens;
        Usage { prompt_tokens, completion_tokens, total_tokens }
    }
}

/// The part of a text, or the error that the reply means; none comes where the model's thread has gone.
pub(super) fn expect_part(reply: Option<Reply>) -> Result<TextPart, ApiError> {
    match reply {
        Some(Reply::Part(part)) => Ok(part),
        None | Some(Reply::Stopped) => Err(ApiError::stopping()),
        Some(Reply::Failed(error)) => Err(error.into()),
        Some(Reply::State(_)) => Err(ApiError::internal("expected a text, found a state")),
    }
}

/// The reason in OpenAI's words.
fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length | FinishReason::Interrupted => "length",
        FinishReason::Stop | FinishReason::Eos => "stop",
    }
}
