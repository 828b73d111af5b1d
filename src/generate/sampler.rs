//! From the logits of one position to the next token id.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Largest vocabulary, far beyond that of any tokenizer in use.
const MAX_VOCAB: usize = 1 << 24;

/// How the next token is drawn from the logits.
///
/// The steps and their order are those of Hugging Face `generate`: repetition penalty,
/// temperature, top-k, top-p, min-p, then one draw from the softmax of what is left.
///
/// # Example
///
/// ```
/// use candle_tcn::generate::SamplerConfig;
/// let config = SamplerConfig { temperature: -1.0, ..Default::default() };
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "--temperature: expected a finite number of at least 0 (0 takes the likeliest token), found -1"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerConfig {
    /// Divides the logits: below 1 sharpens, above 1 flattens, 0 always takes the likeliest token.
    pub temperature: f64,
    /// Keep only the `top_k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Keep the fewest likeliest tokens whose probabilities sum to at least `top_p` (nucleus).
    pub top_p: Option<f64>,
    /// Keep the tokens at least `min_p` times as likely as the likeliest.
    pub min_p: Option<f64>,
    /// Divides positive logits, and multiplies negative ones, of every token already in the
    /// history; 1 changes nothing, above 1 discourages repetition.
    pub repetition_penalty: f64,
    /// Seed of the draws: the same seed and logits give the same tokens.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the flag, what is allowed and what was found.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::invalid(
                "--temperature",
                "a finite number of at least 0 (0 takes the likeliest token)",
                self.temperature,
            ));
        }
        if self.top_k == Some(0) {
            return Err(Error::invalid(
                "--top-k",
                "a whole number of at least 1 (leave it out to keep all tokens)",
                0,
            ));
        }
        for (flag, value) in [("--top-p", self.top_p), ("--min-p", self.min_p)] {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                return Err(Error::invalid(flag, "a number from 0 to 1", value));
            }
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return Err(Error::invalid(
                "--repetition-penalty",
                "a finite number above 0 (1 changes nothing)",
                self.repetition_penalty,
            ));
        }
        Ok(())
    }
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f64,
    /// Its probability times a constant: 1 for the likeliest. Different logits may have the same
    /// weight (both round to 1, or to 0), so the order is always taken from the logits.
    weight: f64,
}

impl Candidate {
    /// Larger logits first; equal ones in order of id, so that every cut is deterministic.
    fn best_first(&self, other: &Self) -> std::cmp::Ordering {
        other
            .logit
            .total_cmp(&self.logit)
            .then(self.id.cmp(&other.id))
    }
}

/// Draws token ids from logits.
///
/// With logits `z`, penalty `r`, temperature `t`:
///
/// 1. banned ids are removed;
/// 2. `z[i] = z[i] / r` if `z[i] ≥ 0`, else `z[i] · r`, once for every id of the history;
/// 3. `w[i] = exp((z[i] − max z) / t)`; at `t = 0` the lowest id of the largest `z` is taken and
///    nothing is drawn;
/// 4. top-k, top-p (token `i` stays if the tokens before it, likeliest first, sum to less than
///    `top_p`; the first always stays), min-p (`w[i] ≥ min_p · max w`);
/// 5. the smallest id whose cumulative weight exceeds `u · Σw` is taken, `u` uniform on [0, 1).
///
/// # Numerics
///
/// All arithmetic is `f64`. Among equal logits lower ids come first, so `top_k` keeps exactly k
/// tokens (Hugging Face keeps all that equal the k-th). Ids are drawn in increasing order: a
/// filter that removes nothing does not change what a seed produces.
///
/// # Example
///
/// ```
/// use candle_tcn::generate::{Sampler, SamplerConfig};
/// # fn main() -> candle_tcn::Result<()> {
/// let config = SamplerConfig { temperature: 0.0, repetition_penalty: 2.0, ..Default::default() };
/// let mut sampler = Sampler::new(config, &[0], 4)?;
/// // id 0 is banned; id 1 is in the history: 3.0 / 2.0 = 1.5 is less than 2.0
/// assert_eq!(sampler.sample(&[9.0, 3.0, 2.0, 1.0], &[1])?, 2);
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// Holtzman et al. 2020, arXiv:1904.09751 (top-p); Nguyen et al. 2024, arXiv:2407.01082 (min-p);
/// Keskar et al. 2019, arXiv:1909.05858, section 4.1 (repetition penalty).
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    rng: ChaCha8Rng,
    /// One flag per id: may it be drawn?
    allowed: Vec<bool>,
    /// One flag per id: was it penalised in this call? All false between calls.
    penalised: Vec<bool>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler over `vocab_size` ids that never returns one of `banned_ids`: the sampler of
    /// sample 0.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the config is invalid, a banned id is not below `vocab_size`, or no
    /// id is left to draw; [`Error::TooLarge`] if there are more than 2^24 tokens.
    pub fn new(config: SamplerConfig, banned_ids: &[u32], vocab_size: usize) -> Result<Self> {
        Self::for_sample(config, banned_ids, vocab_size, 0)
    }

    /// As [`Sampler::new`], for one of several samples: every `index` has its own ChaCha stream,
    /// independent of the others and of how many there are.
    ///
    /// # Errors
    ///
    /// As [`Sampler::new`].
    pub fn for_sample(
        config: SamplerConfig,
        banned_ids: &[u32],
        vocab_size: usize,
        index: u64,
    ) -> Result<Self> {
        config.validate()?;
        if vocab_size > MAX_VOCAB {
            return Err(Error::too_large(
                "vocabulary",
                format!("{vocab_size} tokens, at most {MAX_VOCAB} are supported"),
            ));
        }
        let mut allowed = vec![true; vocab_size];
        for &id in banned_ids {
            match allowed.get_mut(id as usize) {
                Some(flag) => *flag = false,
                None => return Err(not_an_id("banned id", id, vocab_size)),
            }
        }
        if !allowed.contains(&true) {
            return Err(Error::invalid(
                "vocabulary",
                "at least one token that is not banned",
                format!("{vocab_size} tokens, none of them allowed"),
            ));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(index);
        Ok(Self {
            config,
            rng,
            allowed,
            penalised: vec![false; vocab_size],
            candidates: Vec::with_capacity(vocab_size),
        })
    }

    /// The next token id, given the `logits` of one position and the `history` of ids so far.
    ///
    /// `history` is read only if the repetition penalty is not 1; pass the ids whose repetition
    /// counts, all or the last few. Allocates nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `logits` does not hold one finite number per id, or the history holds
    /// an id outside the vocabulary.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32> {
        self.load(logits)?;
        self.penalise(history)?;
        let best = self.best();
        if self.config.temperature == 0.0 {
            return Ok(best.id);
        }
        // Subtracting first makes the likeliest token's weight exactly 1 at any temperature.
        for candidate in &mut self.candidates {
            candidate.weight = ((candidate.logit - best.logit) / self.config.temperature).exp();
        }
        self.filter();
        Ok(self.draw().unwrap_or(best.id))
    }

    /// Takes the allowed logits into `candidates`, in order of id.
    fn load(&mut self, logits: &[f32]) -> Result<()> {
        if logits.len() != self.allowed.len() {
            return Err(Error::invalid(
                "logits",
                format!("{} numbers, one per token", self.allowed.len()),
                logits.len(),
            ));
        }
        self.candidates.clear();
        for (id, (&logit, &allowed)) in logits.iter().zip(&self.allowed).enumerate() {
            if !logit.is_finite() {
                return Err(Error::invalid(
                    "logits",
                    "finite numbers (are the weights damaged?)",
                    format!("{logit} for token {id}"),
                ));
            }
            if allowed {
                self.candidates.push(Candidate {
                    id: id as u32,
                    logit: f64::from(logit),
                    weight: 1.0,
                });
            }
        }
        Ok(())
    }

    fn penalise(&mut self, history: &[u32]) -> Result<()> {
        let penalty = self.config.repetition_penalty;
        if penalty == 1.0 {
            return Ok(());
        }
        if let Some(&id) = history
            .iter()
            .find(|&&id| id as usize >= self.allowed.len())
        {
            return Err(not_an_id("history", id, self.allowed.len()));
        }
        for &id in history {
            self.penalised[id as usize] = true;
        }
        for candidate in &mut self.candidates {
            if self.penalised[candidate.id as usize] {
                let z = candidate.logit;
                let z = if z < 0.0 { z * penalty } else { z / penalty };
                // an extreme penalty must not make two infinities whose difference is NaN
                candidate.logit = z.clamp(f64::MIN, f64::MAX);
            }
        }
        for &id in history {
            self.penalised[id as usize] = false;
        }
        Ok(())
    }

    /// The largest logit; the lowest id among equals. `new` made sure that there is one.
    fn best(&self) -> Candidate {
        let mut best = Candidate {
            id: 0,
            logit: f64::NEG_INFINITY,
            weight: 0.0,
        };
        for &candidate in &self.candidates {
            if candidate.logit > best.logit {
                best = candidate;
            }
        }
        best
    }

    /// Top-k, top-p and min-p on the weights; the survivors are in order of id again.
    fn filter(&mut self) {
        if let Some(k) = self.config.top_k.filter(|&k| k < self.candidates.len()) {
            self.candidates
                .select_nth_unstable_by(k, Candidate::best_first);
            self.candidates.truncate(k);
        }
        if let Some(top_p) = self.config.top_p.filter(|&p| p < 1.0) {
            self.candidates.sort_unstable_by(Candidate::best_first);
            let nucleus = top_p * self.candidates.iter().map(|c| c.weight).sum::<f64>();
            let mut before = 0.0;
            let mut keep = 0;
            for candidate in &self.candidates {
                if keep > 0 && before >= nucleus {
                    break;
                }
                before += candidate.weight;
                keep += 1;
            }
            self.candidates.truncate(keep);
        }
        if let Some(min_p) = self.config.min_p {
            // the largest weight is 1, and no earlier filter removes it
            self.candidates
                .retain(|candidate| candidate.weight >= min_p);
        }
        if self.config.top_k.is_some() || self.config.top_p.is_some() {
            self.candidates
                .sort_unstable_by_key(|candidate| candidate.id);
        }
    }

    /// Inverse of the cumulative distribution at a uniform number of 53 bits.
    fn draw(&mut self) -> Option<u32> {
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let target = uniform * self.candidates.iter().map(|c| c.weight).sum::<f64>();
        let mut cumulative = 0.0;
        self.candidates
            .iter()
            .find(|candidate| {
                cumulative += candidate.weight;
                cumulative > target
            })
            .map(|candidate| candidate.id)
    }
}

fn not_an_id(field: &str, id: u32, vocab_size: usize) -> Error {
    Error::invalid(
        field,
        format!("token ids below {vocab_size}, the size of the vocabulary"),
        id,
    )
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
