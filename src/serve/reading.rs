//! A prompt that is being read, piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::request::{TextRequest, TextWanted};
use crate::Result;
use crate::generate::{Generator, TokenLogprob};
use crate::models::Stepper;
use crate::nn::State;
use crate::text::Tokenizer;

/// A prompt, and how far it has been read.
pub(super) struct Reading<'a> {
    /// Its own, in this process.
    pub number: u64,
    pub request: TextRequest,
    pub generator: Generator<'a>,
    stepper: &'a Stepper,
    /// Tokens read, or passed over because the network does not see them.
    at: usize,
    scoring: Option<Scoring>,
    /// Another prompt that begins as this one does, and the number of tokens that both have in common: they are read
    /// once, there.
    leader: Option<(u64, usize)>,
}

/// The log-probabilities of a prompt's tokens, computed beside the reading: a text is the same with them and without.
struct Scoring {
    state: State,
    at: usize,
    /// Logits of the next token.
    next: Vec<f32>,
    alternatives: usize,
    done: Vec<TokenLogprob>,
}

impl<'a> Reading<'a> {
    pub fn new(
        stepper: &'a Stepper,
        tokenizer: &'a Tokenizer,
        request: TextRequest,
    ) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut generator = Generator::new(stepper, tokenizer, request.config.clone())?;
        if let Some(start) = &request.start {
            generator.go_on_after(start)?;
        }
        let scored = match request.wanted {
            TextWanted::Texts { scored, .. } => scored.filter(|_| !request.prompt.is_empty()),
            TextWanted::State => None,
        };
        let scoring = |alternatives| -> Result<Scoring> {
            let (state, next) = match &request.start {
                Some(start) => (start.state().clone(), start.logits().to_vec()),
                None => (stepper.init_state(1)?, Vec::new()),
            };
            Ok(Scoring { state, at: 0, next, alternatives, done: Vec::new() })
        };
        Ok(Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            scoring: scored.map(scoring).transpose()?,
            request,
            generator,
            stepper,
            at: 0,
            leader: None,
        })
    }

    /// Looks for a prompt that is being read and begins as this one does.
    pub fn follow(&mut self, others: &VecDeque<Self>, piece: usize) {
        if self.request.start.is_some() {
            return;
        }
        let prompt = &self.request.prompt;
        let common = |other: &Self| {
            let theirs = &other.request.prompt;
            let same = prompt.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            // the places at which both are cut, if both are read from their first token
            let whole = same == prompt.len() && same == theirs.len();
            let from_start = prompt.len().max(theirs.len()) <= self.generator.field();
            let same = if whole { same } else { same / piece * piece };
            if whole || from_start { same } else { 0 }
        };
        let fresh = others.iter().filter(|other| other.request.start.is_none());
        let shared = fresh.map(|other| (other, common(other)));
        let ahead = shared.filter(|&(other, same)| same > 0 && other.at <= same);
        if let Some((other, same)) = ahead.max_by_key(|&(_, same)| same) {
            self.leader = Some((other.number, same));
            self.catch_up(other);
        }
    }

    pub fn is_following(&self) -> bool {
        self.leader.is_some()
    }

    pub fn stop_following(&mut self) {
        self.leader = None;
    }

    /// Reads by itself where the one that it follows is not among those that are `alive`.
    pub fn follow_only(&mut self, alive: &[u64]) {
        if self.leader.is_some_and(|(number, _)| !alive.contains(&number)) {
            self.leader = None;
        }
    }

    /// Takes over what another prompt has read, as soon as that is all that both have in common.
    pub fn catch_up(&mut self, other: &Self) {
        if self.leader == Some((other.number, other.at))
            && self.generator.go_on_after(other.generator.context()).is_ok()
        {
            self.at = other.at;
            self.leader = None;
        }
    }

    /// Tokens of the next piece.
    pub fn next_piece(&self, piece: usize) -> usize {
        let len = self.request.prompt.len();
        let left = match &self.scoring {
            Some(scoring) if scoring.at < len => len - scoring.at,
            _ => (len - self.at).min(self.generator.field()),
        };
        left.min(piece)
    }

    /// Reads at most `piece` tokens; gives their number.
    pub fn read(&mut self, piece: usize) -> Result<usize> {
        if let Some(scoring) =
            self.scoring.as_mut().filter(|scoring| scoring.at < self.request.prompt.len())
        {
            return scoring.read(self.stepper, &self.request.prompt, piece);
        }
        let left = &self.request.prompt[self.at..];
        let rest = self.generator.read_some(left, piece)?.len();
        let read = (left.len() - rest).min(piece);
        self.at = self.request.prompt.len() - rest;
        Ok(read)
    }

    pub fn is_done(&self) -> bool {
        let scored = self.scoring.as_ref().is_none_or(|s| s.at == self.request.prompt.len());
        self.at == self.request.prompt.len() && scored
    }

    /// Log-probabilities of the prompt's own tokens, where they were asked for.
    pub fn take_scored(&mut self) -> Option<Arc<[TokenLogprob]>> {
        self.scoring.take().map(|scoring| scoring.done.into())
    }
}

impl Scoring {
    fn read(&mut self, stepper: &Stepper, prompt: &[u32], piece: usize) -> Result<usize> {
        let now = &prompt[self.at..(self.at + piece).min(prompt.len())];
        let logits = stepper.logits(now, &mut self.state)?;
        let logits: Vec<f32> =
            logits.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        let vocab = logits.len() / now.len();
        let mut before = std::mem::take(&mut self.next);
        for (i, &id) in now.iter().enumerate() {
            if !before.is_empty() {
                self.done.push(TokenLogprob::of(&before, id, self.alternatives)?);
            }
            before = logits[i * vocab..][..vocab].to_vec();
        }
        self.next = before;
        self.at += now.len();
        Ok(now.len())
    }
}
