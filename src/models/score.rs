//! The log-probabilities that a language model gives to sequences, and to changes in them.

use candle_core::{DType, Tensor};

use super::directory::LoadedModel;
use super::encode::{Encoder, log_probability};
use crate::text::Tokenizer;
use crate::{Error, Result};

/// Tokens of the sequences that are prepared together, in batches.
const BATCHES: usize = 16;

/// Scores sequences and changes in them by a language model, many at a time.
///
/// | model | a token's log-probability | a change |
/// |---|---|---|
/// | masked | given all others: a mask is put in its place | the sum over the places, all masked at once, of `ln p(new) − ln p(old)` |
/// | causal | given those before it | `ln p(changed sequence) − ln p(sequence)` |
///
/// # Example
///
/// ```
/// use candle_core::DType;
/// use candle_tcn::LoadedModel;
/// use candle_tcn::models::{Change, Scorer};
///
/// let loaded = LoadedModel::load("models/kjv-tiny")?;
/// let scorer = Scorer::new(&loaded, 4096, DType::F32)?;
/// let ids = loaded.tokenizer()?.encode("And God said")?;
/// let scores = scorer.sequences(&[ids.clone()])?;
/// assert!(scores[0][0].is_none()); // nothing predicts the first token of a causal model
/// assert!(scores[0][1..].iter().all(|score| score.is_some_and(|ln_p| ln_p < 0.0)));
///
/// let id = loaded.tokenizer()?.encode("X")?[0];
/// let change = Change { ids, places: vec![(4, id)] }; // And Xod said
/// assert!(scorer.changes(&[change])?[0] < 0.0);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Pseudo-log-likelihood: Salazar et al. 2020 (arXiv:1910.14659), equation 1. Changes under masks: Meier et al. 2021,
/// "Language models enable zero-shot prediction of the effects of mutations on protein function", masked marginals;
/// for DNA Benegas et al. 2023.
#[derive(Debug)]
pub struct Scorer<'a> {
    encoder: Encoder<'a>,
    tokenizer: &'a Tokenizer,
    /// Of a masked model.
    mask: Option<u32>,
    /// Token before the first of a document, of a causal model that knows of them.
    begin: Option<u32>,
    batch_tokens: usize,
}

/// Other tokens in some places of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The sequence before.
    pub ids: Vec<u32>,
    /// Places, in ascending order, and what stands there after.
    pub places: Vec<(usize, u32)>,
}

/// A sequence for the model, and the places of it whose logits count.
struct Job {
    /// Number of what it belongs to.
    of: usize,
    ids: Vec<u32>,
    places: Vec<usize>,
}

impl<'a> Scorer<'a> {
    /// A scorer whose batches have `batch_tokens` tokens at the most, with activations of `dtype`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network on frames, and batches of no token; [`Error::Text`] for a masked model whose
    /// tokenizer has no mask; those of [`LoadedModel::tokenizer`].
    pub fn new(loaded: &'a LoadedModel, batch_tokens: usize, dtype: DType) -> Result<Self> {
        let tokenizer = loaded.tokenizer()?;
        let mask = match loaded.model.graph().is_causal() {
            true => None,
            false => Some(tokenizer.expect_mask()?),
        };
        let encoder = Encoder::new(&loaded.model, batch_tokens, dtype)?;
        let begin = loaded.model.graph().restart().filter(|_| mask.is_none());
        Ok(Self { encoder, tokenizer, mask, begin, batch_tokens })
    }

    /// The natural logarithm of the probability of each token of each sequence; `None` where nothing predicts it:
    /// special tokens of a masked model, the first token of a causal one that does not know of documents.
    ///
    /// # Errors
    /// [`Error::Invalid`] for ids that are not in the vocabulary, and where a logit is not finite.
    pub fn sequences(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<Option<f64>>>> {
        let mut scores: Vec<Vec<Option<f64>>> =
            sequences.iter().map(|ids| vec![None; ids.len()]).collect();
        let places = |ids: &'_ [u32]| -> Vec<usize> {
            match self.mask {
                Some(_) => (0..ids.len()).filter(|&i| !self.tokenizer.is_special(ids[i])).collect(),
                None => (self.first()..ids.len()).collect(),
            }
        };
        let jobs = sequences.iter().enumerate().flat_map(|(of, ids)| {
            let places = places(ids);
            let groups = match self.mask {
                Some(_) => places.into_iter().map(|place| vec![place]).collect(),
                None => vec![places],
            };
            groups.into_iter().map(move |places| self.job(of, ids, places))
        });
        self.run(jobs, |of, place, logits| {
            scores[of][place] = Some(log_probability(logits, sequences[of][place])?);
            Ok(())
        })?;
        Ok(scores)
    }

    /// The change of the log-probability that each change makes: above 0 where the model prefers what stands there
    /// after.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a change without a place or with one beyond the end, for the first token of a causal
    /// model, and as [`sequences`](Self::sequences).
    pub fn changes(&self, changes: &[Change]) -> Result<Vec<f64>> {
        for Change { ids, places } in changes {
            let is_inside = |(place, _): &(usize, u32)| *place < ids.len();
            let fits = !places.is_empty() && places.iter().all(is_inside);
            let expected = format!("at least one, below {}", ids.len());
            Error::require(fits, "places of a change", &expected, format!("{places:?}"))?;
            let first = self.first();
            let starts = self.mask.is_none() && places.iter().any(|(place, _)| *place < first);
            let expected = "one behind the first token, which a causal model does not predict";
            Error::require(!starts, "place of a change", expected, "the first")?;
        }
        let mut scores = vec![0.0; changes.len()];
        match self.mask {
            Some(_) => self.under_masks(changes, &mut scores)?,
            None => self.as_wholes(changes, &mut scores)?,
        }
        Ok(scores)
    }

    fn under_masks(&self, changes: &[Change], scores: &mut [f64]) -> Result<()> {
        let jobs = changes.iter().enumerate().map(|(of, change)| {
            self.job(of, &change.ids, change.places.iter().map(|(place, _)| *place).collect())
        });
        self.run(jobs, |of, place, logits| {
            let Change { ids, places } = &changes[of];
            for (_, new) in places.iter().filter(|(at, _)| *at == place) {
                scores[of] += log_probability(logits, *new)? - log_probability(logits, ids[place])?;
            }
            Ok(())
        })
    }

    fn as_wholes(&self, changes: &[Change], scores: &mut [f64]) -> Result<()> {
        // before and after; what precedes the first place is the same in both
        let ids: Vec<[Vec<u32>; 2]> = changes
            .iter()
            .map(|Change { ids, places }| {
                let mut after = ids.clone();
                places.iter().for_each(|&(place, id)| after[place] = id);
                [ids.clone(), after]
            })
            .collect();
        let jobs = changes.iter().zip(&ids).enumerate().flat_map(|(i, (change, ids))| {
            let first = change.places.iter().map(|(place, _)| *place).min().unwrap_or(1);
            [0, 1]
                .map(|side| self.job(2 * i + side, &ids[side], (first..ids[side].len()).collect()))
        });
        self.run(jobs, |of, place, logits| {
            let sign = if of % 2 == 0 { -1.0 } else { 1.0 };
            scores[of / 2] += sign * log_probability(logits, ids[of / 2][of % 2][place])?;
            Ok(())
        })
    }

    /// The first place that a causal model predicts.
    fn first(&self) -> usize {
        usize::from(self.begin.is_none())
    }

    /// The sequence as the model gets it: with masks in its places, or as it is.
    fn job(&self, of: usize, ids: &[u32], places: Vec<usize>) -> Job {
        let mut ids = ids.to_vec();
        if let Some(mask) = self.mask {
            places.iter().for_each(|&place| ids[place] = mask);
        }
        if let Some(begin) = self.begin {
            ids.insert(0, begin);
        }
        Job { of, ids, places }
    }

    /// Gives `f` the logits of each place of each job.
    fn run(
        &self,
        jobs: impl Iterator<Item = Job>,
        mut f: impl FnMut(usize, usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let most = self.batch_tokens.saturating_mul(BATCHES);
        let mut jobs = jobs.filter(|job| !job.places.is_empty()).peekable();
        while jobs.peek().is_some() {
            let mut tokens = 0;
            let mut group = Vec::new();
            while let Some(job) =
                jobs.next_if(|job| group.is_empty() || tokens + job.ids.len() <= most)
            {
                tokens += job.ids.len();
                group.push(job);
            }
            let (ids, told): (Vec<_>, Vec<_>) =
                group.into_iter().map(|job| (job.ids, (job.of, job.places))).unzip();
            self.encoder.run(&ids, "logits", |i, logits: &Tensor| {
                let (of, places) = &told[i];
                for &place in places {
                    // a causal model predicts a token at the place before it
                    let before = usize::from(self.mask.is_none() && self.begin.is_none());
                    let row = logits.get(place - before)?;
                    f(*of, place, &row.to_vec1::<f32>()?)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
