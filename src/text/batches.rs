//! Token ids to training batches.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::TokenStore;
use crate::{Error, Result};

/// The layout of windows of `seq_len` tokens over the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchMode {
    /// `batch_size` streams, each a contiguous part of the text, read in order: row `b` of a batch
    /// continues row `b` of the batch before, so that a model's state can be carried over.
    ///
    /// ```text
    /// text      ..aaaabbbbccccddddeeeeffff..     batch_size 2, seq_len 4
    /// batch 0     aaaa        dddd
    /// batch 1         bbbb        eeee
    /// batch 2             cccc        ffff
    /// ```
    Carry,
    /// Windows in shuffled order that overlap by `history` tokens; the targets of those first
    /// `history` inputs are not scored. Each token is scored at most once per epoch.
    ///
    /// ```text
    /// text      ..abcdefghij..                   seq_len 4, history 2
    /// windows     abcd                           scored: the successors of c, d
    ///               cdef                         of e, f
    ///                 efgh                       of g, h
    /// ```
    Overlap {
        /// Inputs at the start of a window that only give context; less than `seq_len`.
        history: usize,
    },
}

/// Windows over a text that are trained on together; all values row-major, one row per window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWindows {
    /// Token ids `(batch_size, seq_len)`.
    pub inputs: Vec<u32>,
    /// The token after each input, `(batch_size, seq_len)`.
    pub targets: Vec<u32>,
    /// Number of rows.
    pub batch_size: usize,
    /// Tokens in a row.
    pub seq_len: usize,
    /// The first column whose targets count in the loss.
    pub scored_from: usize,
    /// `true` for each target that counts in the loss, if it is from that column on; empty where all do.
    pub scored: Vec<bool>,
    /// The rows do not continue those of the batch before: reset the carried state.
    pub starts_fresh: bool,
    /// Passes over the text completed before this batch.
    pub epoch: usize,
    /// Batches of the same epoch before this one.
    pub index: usize,
}

impl TokenWindows {
    /// The factor of each target in the loss, (batch_size, seq_len); `None` where all count.
    pub fn weights(&self) -> Option<Vec<f32>> {
        if self.scored_from == 0 && self.scored.is_empty() {
            return None;
        }
        let weight = |i: usize| {
            let counts = i % self.seq_len >= self.scored_from;
            f32::from(u8::from(counts && self.scored.get(i).is_none_or(|&scored| scored)))
        };
        Some((0..self.batch_size * self.seq_len).map(weight).collect())
    }
}

/// A position in a sequence of batches, as a checkpoint stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPosition {
    /// Passes over the text completed.
    pub epoch: usize,
    /// Batches of this epoch already taken.
    pub index: usize,
}

/// An endless sequence of training batches of equal shape, the same for the same text and seed.
///
/// A window is `seq_len` inputs and the same tokens shifted by one as targets. Windows start every
/// `seq_len` tokens ([`BatchMode::Carry`]) or every `seq_len − history`
/// ([`BatchMode::Overlap`]). In each epoch they are laid from another random token on, so that
/// they fall differently; what is left over at either end changes with it, and over the epochs
/// every token is scored, except the first token (the first `history + 1` with
/// [`BatchMode::Overlap`]), which has nothing, or too little, before it. Each epoch has the same
/// number of batches; it leaves out fewer than two batches of tokens.
///
/// # Example
///
/// ```
/// use candle_tcn::text::{BatchMode, Batches};
///
/// // 7 tokens = 2 · 3 + 1: exactly one batch
/// let mut batches = Batches::new((0..7).collect::<Vec<_>>(), 2, 3, BatchMode::Carry, 0)?;
/// let batch = batches.next_windows()?;
/// assert_eq!(batch.inputs, [0, 1, 2, 3, 4, 5]);
/// assert_eq!(batch.targets, [1, 2, 3, 4, 5, 6]);
/// assert!(batch.starts_fresh);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Batches {
    tokens: TokenStore,
    /// Tokens that count as targets; empty where all do.
    scored: Vec<bool>,
    batch_size: usize,
    seq_len: usize,
    history: usize,
    carry: bool,
    seed: u64,
    steps_per_epoch: usize,
    /// Tokens left over in an epoch: the random start lies in `0..=slack`.
    slack: usize,
    position: BatchPosition,
    /// The random start of this epoch.
    start: usize,
    /// The order of this epoch's windows; empty if they come in order.
    order: Vec<u32>,
}

impl Batches {
    /// Lays windows over `tokens`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a size is zero, if `history` is not less than `seq_len`, or if the
    /// text is too short for one batch; [`Error::TooLarge`] if sizes overflow.
    pub fn new(
        tokens: impl Into<TokenStore>,
        batch_size: usize,
        seq_len: usize,
        mode: BatchMode,
        seed: u64,
    ) -> Result<Self> {
        let tokens = tokens.into();
        let history = match mode {
            BatchMode::Carry => 0,
            BatchMode::Overlap { history } => history,
        };
        for (field, value) in [("batch_size", batch_size), ("seq_len", seq_len)] {
            Error::require(value > 0, field, "a whole number of at least 1", value)?;
        }
        let expected = format!("less than seq_len ({seq_len}), to leave some tokens to score");
        Error::require(history < seq_len, "history", &expected, history)?;
        let (steps_per_epoch, slack) = plan(tokens.len(), batch_size, seq_len, seq_len - history)?;
        let windows = steps_per_epoch * batch_size;
        if mode != BatchMode::Carry && u32::try_from(windows).is_err() {
            return Err(Error::too_large(
                "number of windows",
                format!("{windows}, at most {}; lower the history", u32::MAX),
            ));
        }
        let mut batches = Self {
            tokens,
            scored: Vec::new(),
            batch_size,
            seq_len,
            history,
            carry: mode == BatchMode::Carry,
            seed,
            steps_per_epoch,
            slack,
            position: BatchPosition::default(),
            start: 0,
            order: Vec::new(),
        };
        batches.lay_out();
        Ok(batches)
    }

    /// The same batches, in whose losses only the tokens count that are `scored`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] unless there is one of `scored` for each token, and some count.
    pub fn scoring(self, scored: Vec<bool>) -> Result<Self> {
        let expected = format!("{}, one for each token", self.tokens.len());
        Error::require(scored.len() == self.tokens.len(), "scored", &expected, scored.len())?;
        Error::require(scored.contains(&true), "scored", "at least one token that counts", "none")?;
        Ok(Self { scored, ..self })
    }

    /// Tokens of the text.
    pub fn tokens(&self) -> &TokenStore {
        &self.tokens
    }

    /// The layout of the windows.
    pub fn mode(&self) -> BatchMode {
        match self.carry {
            true => BatchMode::Carry,
            false => BatchMode::Overlap { history: self.history },
        }
    }

    /// Batches in an epoch; the same in each.
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The position of the next batch.
    pub fn position(&self) -> BatchPosition {
        self.position
    }

    /// Continues at `position`, exactly as if the batches before it had been taken: the text,
    /// sizes, mode and seed must be those of the sequence that the position is of.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if an epoch has not that many batches.
    pub fn seek(&mut self, position: BatchPosition) -> Result<()> {
        let expected = format!("an index below the {} batches of an epoch", self.steps_per_epoch);
        let allowed = position.index < self.steps_per_epoch;
        Error::require(allowed, "data position", &expected, position.index)?;
        self.position = position;
        self.lay_out();
        Ok(())
    }

    /// The windows of the next batch.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where tokens in a file cannot be read.
    pub fn next_windows(&mut self) -> Result<TokenWindows> {
        let BatchPosition { epoch, index } = self.position;
        let size = self.batch_size * self.seq_len;
        let mut inputs = Vec::with_capacity(size);
        let mut targets = Vec::with_capacity(size);
        let mut scored = Vec::new();
        for row in 0..self.batch_size {
            let at = self.window_start(row, index);
            let tokens = self.tokens.read(at, self.seq_len + 1)?;
            if !self.scored.is_empty() {
                scored.extend_from_slice(&self.scored[at + 1..at + self.seq_len + 1]);
            }
            inputs.extend_from_slice(&tokens[..self.seq_len]);
            targets.extend_from_slice(&tokens[1..]);
        }
        self.position.index += 1;
        if self.position.index == self.steps_per_epoch {
            self.position = BatchPosition { epoch: epoch + 1, index: 0 };
            self.lay_out();
        }
        Ok(TokenWindows {
            inputs,
            targets,
            batch_size: self.batch_size,
            seq_len: self.seq_len,
            scored_from: self.history,
            scored,
            starts_fresh: !self.carry || index == 0,
            epoch,
            index,
        })
    }

    /// The first input token of a row of the batch `index`.
    fn window_start(&self, row: usize, index: usize) -> usize {
        let window = match self.carry {
            true => row * self.steps_per_epoch + index,
            false => self.order[index * self.batch_size + row] as usize,
        };
        self.start + window * (self.seq_len - self.history)
    }

    /// Draws the start, and the order, of the epoch: a function of seed and epoch alone, so that
    /// no random state needs to be saved.
    fn lay_out(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.position.epoch as u64);
        self.start = rng.random_range(0..=self.slack);
        if !self.carry {
            self.order.clear();
            self.order.extend(0..(self.steps_per_epoch * self.batch_size) as u32);
            self.order.shuffle(&mut rng);
        }
    }
}

/// Batches per epoch, and the tokens left over.
///
/// `s` batches of windows that start every `stride` tokens span
/// `(s · batch_size − 1) · stride + seq_len + 1` tokens. A stride less one is kept free for the
/// random start, unless the text is too short for even one batch then.
fn plan(tokens: usize, batch_size: usize, seq_len: usize, stride: usize) -> Result<(usize, usize)> {
    let sizes = || format!("batch_size {batch_size}, seq_len {seq_len}");
    let overflow = || Error::too_large("batch", format!("{}; lower either", sizes()));
    let per_batch = batch_size.checked_mul(stride).ok_or_else(overflow)?;
    let first_batch = (per_batch - stride)
        .checked_add(seq_len)
        .and_then(|n| n.checked_add(1))
        .filter(|_| batch_size.checked_mul(seq_len).is_some())
        .ok_or_else(overflow)?;
    let expected = format!("at least {first_batch} tokens for one batch ({})", sizes());
    Error::require(tokens >= first_batch, "text", &expected, tokens)?;
    let beyond_first = tokens - first_batch;
    let steps = 1 + beyond_first.saturating_sub(stride - 1) / per_batch;
    Ok((steps, beyond_first - (steps - 1) * per_batch))
}
