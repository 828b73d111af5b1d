//! One text in the running batch.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::request::{Reply, TextPart, TextRequest, TextWanted, send};
use crate::Error;
use crate::generate::{FinishReason, TextWriter, TokenLogprob};

/// Things that the texts of one request share; they end with the last of them.
#[derive(Debug)]
pub(super) struct RowShared {
    pub replies: mpsc::Sender<Reply>,
    pub first: u64,
    pub streamed: bool,
    pub received: Instant,
    _places: OwnedSemaphorePermit,
}

impl RowShared {
    /// Of the texts that a request wants.
    pub fn of(request: TextRequest) -> Arc<Self> {
        let (first, streamed) = match request.wanted {
            TextWanted::Texts { first, streamed, .. } => (first, streamed),
            TextWanted::State => (0, false),
        };
        let TextRequest { replies, places, received, .. } = request;
        Arc::new(Self { replies, first, streamed, received, _places: places })
    }
}

/// A text and what of it has not been sent.
#[derive(Debug)]
pub(super) struct TextRow {
    shared: Arc<RowShared>,
    writer: TextWriter,
    part: TextPart,
    failed: Option<Error>,
}

impl TextRow {
    pub fn new(
        shared: Arc<RowShared>,
        number: u64,
        writer: TextWriter,
        prompt: Option<Arc<[TokenLogprob]>>,
    ) -> Self {
        let part = TextPart { choice: shared.first + number, prompt, ..TextPart::default() };
        Self { shared, writer, part, failed: None }
    }

    /// Draws the next token.
    pub fn draw(&mut self, logits: &[f32]) {
        if let Err(error) = self.try_draw(logits) {
            self.failed = Some(error);
        }
    }

    fn try_draw(&mut self, logits: &[f32]) -> crate::Result<()> {
        let ended = match self.writer.is_full() {
            true => Some(FinishReason::Length),
            false => {
                let drawn = self.writer.draw(logits)?;
                self.part.tokens += 1;
                self.part.text += &drawn.text;
                drawn.ended
            }
        };
        if let Some(reason) = ended {
            let (text, finished) = self.writer.finish(reason)?;
            self.part.text += &text;
            self.part.logprobs.extend(finished.logprobs);
            self.part.ended = Some(finished.reason);
        }
        Ok(())
    }

    pub fn fail(&mut self, message: &str) {
        self.failed = Some(Error::Text(message.to_string()));
    }

    /// The last token drawn.
    pub fn last(&self) -> u32 {
        self.writer.last().unwrap_or_default()
    }

    /// Tokens drawn.
    pub fn tokens(&self) -> usize {
        self.writer.tokens()
    }

    pub fn has_ended(&self) -> bool {
        self.part.ended.is_some() || self.failed.is_some()
    }

    /// `true` if nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.shared.replies.is_closed()
    }

    pub fn replies(self) -> mpsc::Sender<Reply> {
        self.shared.replies.clone()
    }

    /// Sends what there is of a text that is sent while it is written. A client that has not taken what came before
    /// gets it with what comes after.
    pub fn send_streamed(&mut self) {
        let shared = self.shared.clone();
        if shared.streamed
            && self.part.tokens > 0
            && let Ok(room) = shared.replies.try_reserve()
        {
            room.send(self.reply());
        }
    }

    /// Sends the rest of a text that has ended. Its place is free before the answer is there.
    pub fn end(mut self, runtime: &Handle) {
        let (reply, replies) = (self.reply(), self.shared.replies.clone());
        drop(self);
        send(runtime, &replies, reply);
    }

    fn reply(&mut self) -> Reply {
        if let Some(error) = self.failed.take() {
            return Reply::Failed(error);
        }
        self.part.logprobs.extend(self.writer.take_logprobs());
        let next = TextPart { choice: self.part.choice, ..TextPart::default() };
        Reply::Part(std::mem::replace(&mut self.part, next))
    }
}
