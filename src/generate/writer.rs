//! One text that is being written.

use std::sync::Arc;
use std::time::Instant;

use super::generation::MIN_HISTORY;
use super::piece::{Finished, TokenLogprob};
use super::{FinishReason, GenerateConfig, Sampler, StopStrings};
use crate::Result;
use crate::text::Decoder;

/// One text as it is written, token by token, whatever else goes through the network with it: its sampler, its decoder
/// and its stop strings. Made by [`Generator::writers`](super::Generator::writers).
#[derive(Debug, Clone)]
pub struct TextWriter {
    config: Arc<GenerateConfig>,
    /// Token at which the model ends a document.
    end: Option<u32>,
    sampler: Sampler,
    decoder: Decoder,
    stops: StopStrings,
    history: Vec<u32>,
    tokens: usize,
    /// Bytes of text passed on.
    shown: usize,
    begun: Instant,
    logprobs: Vec<TokenLogprob>,
}

/// A token that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnToken {
    /// The token.
    pub id: u32,
    /// Text that is certain now: often the token's, less where a stop string may begin or a character is not whole.
    pub text: String,
    /// The reason for which the text ends here, if it does.
    pub ended: Option<FinishReason>,
}

impl TextWriter {
    pub(super) fn new(
        config: Arc<GenerateConfig>,
        end: Option<u32>,
        sampler: Sampler,
        decoder: Decoder,
        history: Vec<u32>,
    ) -> Result<Self> {
        Ok(Self {
            stops: StopStrings::new(config.stop.clone())?,
            config,
            end,
            sampler,
            decoder,
            history,
            tokens: 0,
            shown: 0,
            begun: Instant::now(),
            logprobs: Vec::new(),
        })
    }

    /// Draws the next token from its logits.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`].
    pub fn draw(&mut self, logits: &[f32]) -> Result<DrawnToken> {
        let id = self.sampler.sample(logits, &self.history)?;
        if let Some(count) = self.config.logprobs {
            self.logprobs.push(TokenLogprob::of(logits, id, count)?);
        }
        self.remember(id);
        if self.config.stop_tokens.contains(&id) || self.end == Some(id) {
            return Ok(DrawnToken { id, text: String::new(), ended: Some(FinishReason::Eos) });
        }
        let text = self.decoder.push(id)?.unwrap_or_default();
        let outcome = self.stops.push(&text);
        self.shown += outcome.text.len();
        let ended = match outcome.stopped {
            true => Some(FinishReason::Stop),
            false => self.is_full().then_some(FinishReason::Length),
        };
        Ok(DrawnToken { id, text: outcome.text, ended })
    }

    /// Ends the text: what was held back of it, and its end.
    ///
    /// # Errors
    /// [`Error::Text`](crate::Error::Text) where the tokenizer cannot decode.
    pub fn finish(&mut self, mut reason: FinishReason) -> Result<(String, Finished)> {
        let mut text = String::new();
        if reason != FinishReason::Stop {
            let rest = self.decoder.finish()?;
            for outcome in [self.stops.push(&rest), self.stops.finish()] {
                text.push_str(&outcome.text);
                reason = if outcome.stopped { FinishReason::Stop } else { reason };
            }
        }
        self.shown += text.len();
        let finished = Finished {
            reason,
            tokens: self.tokens,
            seconds: self.begun.elapsed().as_secs_f64(),
            logprobs: std::mem::take(&mut self.logprobs),
        };
        Ok((text, finished))
    }

    /// Log-probabilities that were kept and not taken yet, where the configuration asks for them.
    pub fn take_logprobs(&mut self) -> Vec<TokenLogprob> {
        std::mem::take(&mut self.logprobs)
    }

    /// `true` if it has as many tokens as were asked for.
    pub fn is_full(&self) -> bool {
        self.tokens >= self.config.max_tokens
    }

    /// Tokens drawn.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The last token drawn.
    pub fn last(&self) -> Option<u32> {
        (self.tokens > 0).then(|| self.history.last().copied()).flatten()
    }

    /// Bytes of text passed on.
    pub(super) fn shown(&self) -> usize {
        self.shown
    }

    /// The last tokens, of what was read and drawn.
    pub(super) fn history(&self) -> &[u32] {
        &self.history
    }

    /// Appends to the history, of which only the last ones matter.
    fn remember(&mut self, id: u32) {
        let kept = self.config.sampler.penalty_window.max(MIN_HISTORY);
        if self.history.len() >= kept.saturating_mul(2) {
            self.history.drain(..self.history.len() - kept);
        }
        self.history.push(id);
        self.tokens += 1;
    }
}
