//! The likeliest answers to many prompts, by beam search.

use super::FinishReason;
use crate::graph::{State, Stepper};
use crate::models::{likeliest, log_probability};
use crate::text::Tokenizer;
use crate::{Error, Result};

/// Texts that go through the network together.
const ROWS: usize = 64;

/// Options of [`answers`].
#[derive(Debug, Clone, PartialEq)]
pub struct BeamConfig {
    /// Beginnings of each answer that are kept; with 1 the likeliest token comes every time.
    pub beams: usize,
    /// The most tokens of an answer.
    pub max_tokens: usize,
    /// Power of its number of tokens by which an answer's log-probability is divided: with 0 short answers win.
    pub length_penalty: f64,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self { beams: 1, max_tokens: 200, length_penalty: 1.0 }
    }
}

/// The likeliest answer that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamAnswer {
    /// Its text.
    pub text: String,
    /// Its tokens, the end of the document among them.
    pub tokens: usize,
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// [`FinishReason::Eos`], or [`FinishReason::Length`] where it did not end.
    pub reason: FinishReason,
}

/// A beginning of an answer.
#[derive(Debug, Clone)]
struct Hypothesis {
    ids: Vec<u32>,
    logprob: f64,
    /// Its row in state and logits.
    row: usize,
}

/// The search for the answer to one prompt.
struct Search {
    live: Vec<Hypothesis>,
    ended: Vec<Hypothesis>,
}

/// Answers prompts as documents that begin with them: those of a model that was trained on pairs.
///
/// A token that generation must not draw is none of an answer's. An answer is the same whatever others it is searched
/// for with (on AMX up to the order of sums).
///
/// # Errors
/// [`Error::Invalid`] for options out of range, an empty prompt, or an id that is not in the vocabulary.
///
/// # Example
///
/// ```
/// use candle_tcn::LoadedModel;
/// use candle_tcn::generate::{BeamConfig, answers};
/// use candle_tcn::nn::StepDtype;
///
/// let loaded = LoadedModel::load("models/kjv-tiny")?;
/// let stepper = loaded.model.stepper(StepDtype::F32)?;
/// let tokenizer = loaded.tokenizer()?;
/// let prompts = [tokenizer.encode("And God said")?, tokenizer.encode("In the ")?];
/// let config = BeamConfig { max_tokens: 8, ..Default::default() };
/// let greedy = answers(&stepper, tokenizer, &prompts, &config)?;
/// let beams = answers(&stepper, tokenizer, &prompts, &BeamConfig { beams: 4, ..config })?;
/// assert!(greedy.len() == 2 && beams[0].logprob >= greedy[0].logprob);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Beam search with length normalisation as in Hugging Face's `generate` with `num_beams` and `length_penalty`.
pub fn answers(
    stepper: &Stepper,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
    config: &BeamConfig,
) -> Result<Vec<BeamAnswer>> {
    Error::require(
        (1..=ROWS).contains(&config.beams),
        "beams",
        "a number from 1 to 64",
        config.beams,
    )?;
    let penalty = config.length_penalty;
    Error::require(penalty.is_finite(), "length_penalty", "a finite number", penalty)?;
    let mut allowed = vec![true; stepper.vocab_size()];
    let end = stepper.end_token();
    for id in tokenizer.banned_ids().into_iter().filter(|id| end != Some(*id)) {
        allowed[id as usize] = false;
    }
    allowed.iter_mut().skip(tokenizer.vocab_size()).for_each(|allowed| *allowed = false);
    let beam = Beam { stepper, tokenizer, allowed, end, config };
    let mut found = Vec::with_capacity(prompts.len());
    for prompts in prompts.chunks(ROWS / config.beams) {
        found.extend(beam.search(prompts)?);
    }
    Ok(found)
}

struct Beam<'a> {
    stepper: &'a Stepper,
    tokenizer: &'a Tokenizer,
    allowed: Vec<bool>,
    end: Option<u32>,
    config: &'a BeamConfig,
}

impl Beam<'_> {
    fn search(&self, prompts: &[Vec<u32>]) -> Result<Vec<BeamAnswer>> {
        let (mut state, mut logits) = self.read(prompts)?;
        let begin = |row| Search {
            live: vec![Hypothesis { ids: Vec::new(), logprob: 0.0, row }],
            ended: Vec::new(),
        };
        let mut searches: Vec<Search> = (0..prompts.len()).map(begin).collect();
        for _ in 0..self.config.max_tokens {
            let mut rows = Vec::new();
            for search in &mut searches {
                self.extend(search, &logits, &mut rows)?;
            }
            if rows.is_empty() {
                break;
            }
            let (from, ids): (Vec<usize>, Vec<u32>) = rows.into_iter().unzip();
            state = state.select(&from)?;
            logits = self.stepper.step(&ids, &mut state)?.to_vec();
        }
        searches.into_iter().map(|search| self.best(search)).collect()
    }

    /// The state after each prompt, and the logits of what follows.
    fn read(&self, prompts: &[Vec<u32>]) -> Result<(State, Vec<f32>)> {
        let mut states: Option<State> = None;
        let mut logits = Vec::new();
        for prompt in prompts {
            Error::require(!prompt.is_empty(), "prompt", "at least one token", "none")?;
            let mut state = self.stepper.init_state(1)?;
            let begun = self.end.into_iter().chain(prompt.iter().copied());
            logits.extend(self.stepper.prefill(&begun.collect::<Vec<_>>(), &mut state)?);
            states = Some(match states {
                None => state,
                Some(states) => states.join(&state)?,
            });
        }
        let none = || Error::invalid("prompts", "at least one", "none");
        Ok((states.ok_or_else(none)?, logits))
    }

    /// One token more: the likeliest that continue, as rows from which they go on and ids, and those that end.
    fn extend(
        &self,
        search: &mut Search,
        logits: &[f32],
        rows: &mut Vec<(usize, u32)>,
    ) -> Result<()> {
        let (vocab, beams) = (self.allowed.len(), self.config.beams);
        let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
        for (parent, hypothesis) in search.live.iter().enumerate() {
            let row = &logits[hypothesis.row * vocab..][..vocab];
            let permitted = |id: &u32| self.allowed[*id as usize];
            // one of them may be the end
            let most = (beams + 1)
                .saturating_add(self.allowed.iter().filter(|allowed| !**allowed).count());
            for id in likeliest(row, most).into_iter().filter(permitted).take(beams + 1) {
                candidates.push((hypothesis.logprob + log_probability(row, id)?, parent, id));
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let mut live = Vec::new();
        for (rank, (logprob, parent, id)) in candidates.into_iter().enumerate() {
            let mut ids = search.live[parent].ids.clone();
            ids.push(id);
            if self.end == Some(id) {
                if rank < beams {
                    search.ended.push(Hypothesis { ids, logprob, row: 0 });
                }
                continue;
            }
            if live.len() < beams {
                live.push((search.live[parent].row, id, Hypothesis { ids, logprob, row: 0 }));
            }
        }
        let is_over = search.ended.len() >= beams;
        search.live.clear();
        if !is_over {
            for (from, id, hypothesis) in live {
                search.live.push(Hypothesis { row: rows.len(), ..hypothesis });
                rows.push((from, id));
            }
        }
        Ok(())
    }

    fn best(&self, search: Search) -> Result<BeamAnswer> {
        let has_ended = !search.ended.is_empty();
        let all = if has_ended { search.ended } else { search.live };
        let score = |one: &Hypothesis| {
            one.logprob / (one.ids.len().max(1) as f64).powf(self.config.length_penalty)
        };
        let best = all.into_iter().max_by(|a, b| score(a).total_cmp(&score(b)));
        let none = || Error::invalid("tokens", "that at least one token may be drawn", "none");
        let best = best.ok_or_else(none)?;
        Ok(BeamAnswer {
            text: self.tokenizer.decode(&best.ids)?,
            tokens: best.ids.len(),
            logprob: best.logprob,
            reason: if has_ended { FinishReason::Eos } else { FinishReason::Length },
        })
    }
}
