//! From the logits of one position to the next token id.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::filters::{self, Choice};
use super::{Constraints, SamplerConfig};
use crate::models::{expect_finite, log_probability};
use crate::{Error, Result};

/// Largest vocabulary, far beyond that of any tokenizer in use.
const MAX_VOCAB: usize = 1 << 24;

/// Draws token ids from logits.
///
/// With logits `z`, biases `b`, repetition penalty `r`, presence penalty `a`, frequency penalty `f`,
/// temperature `t`, and `n[i]` the number of times that id `i` is among the last `penalty_window`
/// tokens:
///
/// 1. `z[i] = z[i] + b[i]`;
/// 2. where `n[i] > 0`: `z[i] = z[i] / r` if `z[i] ≥ 0`, else `z[i] · r`; then
///    `z[i] = z[i] − a − f · n[i]`;
/// 3. banned ids, and those that the constraints forbid, are removed;
/// 4. `w[i] = exp((z[i] − max z) / t)`; at `t = 0` the lowest id of the largest `z` is taken and
///    nothing is drawn;
/// 5. top-k: `z[i]` not less than the k-th largest;
/// 6. top-p: the sum of the likelier ones is less than `top_p`; the first always stays;
/// 7. min-p: `w[i] ≥ min_p · max w`;
/// 8. typical-p: with `I[i] = −ln(w[i] / Σw)` and the entropy `H = Σ w[i] · I[i] / Σw`, ordered by
///    `|I[i] − H|`: those up to the one at which the sum reaches `typical_p`, and its equals;
/// 9. the smallest id whose cumulative weight exceeds `u · Σw` is taken, `u` uniform on [0, 1).
///
/// This is the order, and these are the comparisons, of `generate` in Hugging Face `transformers`
/// 5.23, which does not have the presence and frequency penalties (they are OpenAI's) and the window
/// (its repetition penalty looks at all tokens).
///
/// # Numerics
///
/// All arithmetic is `f64`; `transformers` rounds to `f32`, so that its decision differs where a
/// probability is within that rounding of a threshold. Where top-p ends among equal logits, lower ids
/// are taken first (`transformers` leaves it to an unstable sort). Ids are drawn in increasing order:
/// a filter that removes nothing does not change what a seed produces.
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
/// Meister et al. 2022, arXiv:2202.00666 (typical-p); Keskar et al. 2019, arXiv:1909.05858, section 4.1
/// (repetition penalty).
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    rng: ChaCha8Rng,
    constraints: Option<Constraints>,
    /// One flag per id: may it be drawn?
    allowed: Vec<bool>,
    /// The same with this step's constraints.
    permitted: Vec<bool>,
    /// Occurrences of each id in the window of this call. All 0 between calls.
    counts: Vec<u32>,
    candidates: Vec<Choice>,
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
        config.validate()?;
        if vocab_size > MAX_VOCAB {
            return Err(Error::too_large(
                "vocabulary",
                format!("{vocab_size} tokens, at most {MAX_VOCAB} are supported"),
            ));
        }
        let mut allowed = vec![true; vocab_size];
        for &id in banned_ids {
            allowed[check_id("banned id", id, vocab_size)?] = false;
        }
        for &(id, _) in &config.logit_bias {
            check_id("logit_bias", id, vocab_size)?;
        }
        let found = format!("{vocab_size} tokens, none of them allowed");
        let expected = "at least one token that is not banned";
        Error::require(allowed.contains(&true), "vocabulary", expected, found)?;
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            constraints: None,
            permitted: allowed.clone(),
            allowed,
            counts: vec![0; vocab_size],
            candidates: Vec::with_capacity(vocab_size),
        })
    }

    /// The sampler of one of several samples: every `index` has its own ChaCha stream, independent of the
    /// others and of how many there are.
    pub fn stream(mut self, index: u64) -> Self {
        self.rng.set_stream(index);
        self
    }

    /// The sampler after `draws` draws.
    pub fn after(mut self, draws: u64) -> Self {
        // a draw takes two words
        self.rng.set_word_pos(2 * u128::from(draws));
        self
    }

    /// The same sampler that draws only what `constraints` permit. From then on every id that
    /// [`Sampler::sample`] returns is taken as the next token of one text.
    pub fn constrained(mut self, constraints: impl Into<Option<Constraints>>) -> Self {
        self.constraints = constraints.into();
        self
    }

    /// The next token id, given the `logits` of one position and the `history` of ids so far.
    ///
    /// `history` is read only if there is a penalty, and only its last `penalty_window` ids. Allocates
    /// nothing, apart from what constraints that come with an allow list need once.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `logits` does not hold one finite number per id, the history holds an id
    /// outside the vocabulary, or the constraints leave nothing to draw. The sampler then stays as it
    /// was.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32> {
        self.filter(logits, history)?;
        let id = match self.config.temperature == 0.0 {
            true => self.candidates[0].id,
            false => self.draw(),
        };
        if let Some(constraints) = &mut self.constraints {
            constraints.push(id);
        }
        Ok(id)
    }

    /// The distribution from which [`Sampler::sample`] would draw: the ids that are left after all
    /// filters, in increasing order, each with its probability. They sum to 1; a probability too small
    /// for an `f64` is 0.
    ///
    /// # Errors
    ///
    /// As [`Sampler::sample`].
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::generate::{Sampler, SamplerConfig};
    /// # fn main() -> candle_tcn::Result<()> {
    /// let config = SamplerConfig { top_k: Some(2), ..Default::default() };
    /// let mut sampler = Sampler::new(config, &[], 3)?;
    /// // probabilities 1/8, 4/8, 3/8; top-k leaves the last two
    /// let logits = [1.0f32, 4.0, 3.0].map(f32::ln);
    /// let left: Vec<(u32, f64)> = sampler.distribution(&logits, &[])?.collect();
    /// assert_eq!(left.len(), 2);
    /// assert!(left[0].0 == 1 && (left[0].1 - 4.0 / 7.0).abs() < 1e-6);
    /// assert!(left[1].0 == 2 && (left[1].1 - 3.0 / 7.0).abs() < 1e-6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn distribution(
        &mut self,
        logits: &[f32],
        history: &[u32],
    ) -> Result<impl ExactSizeIterator<Item = (u32, f64)> + '_> {
        self.filter(logits, history)?;
        let total = filters::sum(&self.candidates);
        Ok(self.candidates.iter().map(move |c| (c.id, c.weight / total)))
    }

    /// The natural log-probability that the model itself gives token `id`: the log-softmax of the
    /// `logits` as they are, before any bias, penalty, ban, temperature or filter.
    ///
    /// `ln p[i] = z[i] − max z − ln Σ exp(z[j] − max z)`, in `f64`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `id` has no logit or a logit is not finite.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::generate::Sampler;
    /// // two equal logits: each has probability 1/2
    /// let logprob = Sampler::logprob(&[3.0, 3.0], 1)?;
    /// assert!((logprob + 2.0f64.ln()).abs() < 1e-12);
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn logprob(logits: &[f32], id: u32) -> Result<f64> {
        log_probability(logits, id)
    }

    /// Leaves in `candidates`, in order of id, what may be drawn, with its weights.
    fn filter(&mut self, logits: &[f32], history: &[u32]) -> Result<()> {
        self.load(logits)?;
        self.adjust(history)?;
        let best = self.best();
        if self.config.temperature == 0.0 {
            self.candidates.clear();
            self.candidates.push(best);
            return Ok(());
        }
        // Subtracting first makes the likeliest token's weight exactly 1 at any temperature.
        for candidate in &mut self.candidates {
            candidate.weight = ((candidate.logit - best.logit) / self.config.temperature).exp();
        }
        filters::apply(&self.config, best.logit, &mut self.candidates);
        Ok(())
    }

    /// Takes the allowed logits into `candidates`, in order of id.
    fn load(&mut self, logits: &[f32]) -> Result<()> {
        let expected = self.allowed.len();
        if logits.len() != expected {
            let expected = format!("{expected} numbers, one per token");
            return Err(Error::invalid("logits", expected, logits.len()));
        }
        let mut allowed = &self.allowed;
        if let Some(constraints) = self.constraints.as_mut().filter(|c| !c.is_idle()) {
            self.permitted.copy_from_slice(&self.allowed);
            constraints.permit(&mut self.permitted)?;
            allowed = &self.permitted;
        }
        expect_finite(logits)?;
        self.candidates.clear();
        let ids = (0..).zip(logits).zip(allowed).filter(|(_, allowed)| **allowed);
        let choice = |((id, &logit), _)| Choice { id, logit: f64::from(logit), weight: 1.0 };
        self.candidates.extend(ids.map(choice));
        Ok(())
    }

    /// Adds the biases and takes the penalties.
    fn adjust(&mut self, history: &[u32]) -> Result<()> {
        let config = &self.config;
        let find = |candidates: &[Choice], id| candidates.binary_search_by_key(&id, |c| c.id);
        for &(id, bias) in &config.logit_bias {
            if let Ok(at) = find(&self.candidates, id) {
                self.candidates[at].logit += bias;
            }
        }
        let (presence, frequency) = (config.presence_penalty, config.frequency_penalty);
        if config.repetition_penalty == 1.0 && presence == 0.0 && frequency == 0.0 {
            return Ok(());
        }
        let recent = &history[history.len().saturating_sub(config.penalty_window)..];
        for &id in recent {
            check_id("history", id, self.counts.len())?;
        }
        for &id in recent {
            self.counts[id as usize] += 1;
        }
        for &id in recent {
            let count = std::mem::take(&mut self.counts[id as usize]);
            if count > 0
                && let Ok(at) = find(&self.candidates, id)
            {
                let z = &mut self.candidates[at].logit;
                let repeated = config.repetition_penalty;
                *z = if *z < 0.0 { *z * repeated } else { *z / repeated };
                // an extreme penalty must not make two infinities whose difference is NaN
                *z = z.clamp(f64::MIN, f64::MAX) - (presence + frequency * f64::from(count));
                *z = z.clamp(f64::MIN, f64::MAX);
            }
        }
        Ok(())
    }

    /// The largest logit; the lowest id among equals. `new` and the constraints leave at least one.
    fn best(&self) -> Choice {
        let none = Choice { id: 0, logit: f64::NEG_INFINITY, weight: 0.0 };
        let better = |best: Choice, &other: &Choice| {
            if other.logit > best.logit { other } else { best }
        };
        self.candidates.iter().fold(none, better)
    }

    /// Inverse of the cumulative distribution at a uniform number of 53 bits.
    fn draw(&mut self) -> u32 {
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let target = uniform * filters::sum(&self.candidates);
        let mut cumulative = 0.0;
        let drawn = self.candidates.iter().find(|candidate| {
            cumulative += candidate.weight;
            cumulative > target
        });
        // only rounding can make the target the whole sum
        drawn.or(self.candidates.last()).map_or(0, |candidate| candidate.id)
    }
}

/// The token's index in a vocabulary of this size.
fn check_id(field: &str, id: u32, vocab_size: usize) -> Result<usize> {
    let expected = || format!("token ids below {vocab_size}, the size of the vocabulary");
    let known = Some(id as usize).filter(|&at| at < vocab_size);
    known.ok_or_else(|| Error::invalid(field, expected(), id))
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
