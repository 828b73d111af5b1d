//! Questions to the thread that owns a model's states, and its answers.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::Error;
use crate::generate::{Context, FinishReason, GenerateConfig, TokenLogprob};

/// One prompt, and what is wanted after it.
#[derive(Debug)]
pub(super) struct TextRequest {
    /// Whoever asks: requests of different clients take turns.
    pub client: String,
    /// The state that the prompt follows; none for the beginning of a text.
    pub start: Option<Arc<Context>>,
    pub prompt: Vec<u32>,
    pub config: GenerateConfig,
    pub wanted: TextWanted,
    pub replies: mpsc::Sender<Reply>,
    /// Places among the texts that are written or wait, given back when this is dropped.
    pub places: OwnedSemaphorePermit,
    pub received: Instant,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum TextWanted {
    /// Texts.
    Texts {
        /// Number of texts.
        count: u64,
        /// The number of the first among all choices of the answer.
        first: u64,
        /// `true` if they are sent while they are written.
        streamed: bool,
        /// Log-probabilities of the prompt's tokens, with this many of the likeliest.
        scored: Option<usize>,
    },
    /// The state after the prompt.
    State,
}

impl TextRequest {
    /// Rows that it takes in the running batch.
    pub fn rows(&self) -> usize {
        match self.wanted {
            TextWanted::Texts { count, .. } => count as usize,
            TextWanted::State => 1,
        }
    }

    /// `true` if nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.replies.is_closed()
    }
}

/// A part of an answer.
#[derive(Debug)]
pub(super) enum Reply {
    Part(TextPart),
    State(Arc<Context>),
    Failed(Error),
    /// The server stops before the text has ended.
    Stopped,
}

/// The next part of a text.
#[derive(Debug, Default)]
pub(super) struct TextPart {
    /// The number of the choice.
    pub choice: u64,
    pub text: String,
    /// In the first part, where they were asked for: the prompt's tokens, but for the first of a text, whose probability
    /// nothing tells.
    pub prompt: Option<Arc<[TokenLogprob]>>,
    /// Tokens drawn for it.
    pub tokens: usize,
    pub logprobs: Vec<TokenLogprob>,
    pub ended: Option<FinishReason>,
}

/// Sends the last reply of a text, or the only one, without waiting; where the client is slow, it waits by itself.
pub(super) fn send(runtime: &Handle, replies: &mpsc::Sender<Reply>, reply: Reply) {
    if let Err(mpsc::error::TrySendError::Full(reply)) = replies.try_send(reply) {
        let replies = replies.clone();
        // ends when the client has taken what came before, or has gone
        runtime.spawn(async move { replies.send(reply).await });
    }
}
