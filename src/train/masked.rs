//! Batches for masked language models.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, BatchSource, DataId};
use super::layout::BatchLayout;
use crate::graph::Graph;
use crate::text::{BatchPosition, Tokenizer};
use crate::{Error, Result};

/// Shares of masked training.
///
/// # References
/// Devlin et al. 2019, BERT (arXiv:1810.04805), section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaskingConfig {
    /// Part of a sequence's tokens that is to be found, at least one token.
    pub share: f64,
    /// Part of those for which a mask stands.
    pub masked: f64,
    /// Part of those for which any token stands; the rest stays as it is.
    pub random: f64,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        Self { share: 0.15, masked: 0.8, random: 0.1 }
    }
}

impl MaskingConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let is_part = |part: f64| (0.0..=1.0).contains(&part);
        let share = self.share > 0.0 && is_part(self.share);
        Error::require(share, "mask_share", "a number above 0, at most 1", self.share)?;
        for (field, part) in [("mask_replace", self.masked), ("mask_random", self.random)] {
            Error::require(is_part(part), field, "a number from 0 to 1", part)?;
        }
        let sum = self.masked + self.random;
        let expected = "at most 1 together with mask_replace";
        Error::require(sum <= 1.0 + 1e-9, "mask_random", expected, self.random)
    }
}

/// The tokens that masking needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskTokens {
    /// Stands for what is to be found.
    pub mask: u32,
    /// Fills up shorter sequences.
    pub pad: u32,
    /// Tokens of texts: what may stand in a place at random, and be looked for.
    pub letters: Vec<u32>,
}

impl MaskTokens {
    /// Those of a tokenizer. Without a token that fills up, the mask does.
    ///
    /// # Errors
    /// [`Error::Text`] for a tokenizer without a mask or without any token of text.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        let mask = tokenizer.expect_mask()?;
        let banned = tokenizer.banned_ids();
        let letters = 0..tokenizer.vocab_size() as u32;
        let letters: Vec<u32> = letters.filter(|id| banned.binary_search(id).is_err()).collect();
        if letters.is_empty() {
            return Err(Error::Text("the tokenizer has no token of text".into()));
        }
        Ok(Self { mask, pad: tokenizer.pad_id().unwrap_or(mask), letters })
    }
}

/// An endless sequence of batches of masked sequences, which a masked language model is to find: the same for the same
/// sequences and seed.
///
/// Sequences of similar lengths make a batch, filled up to the longest and hidden there by a mask; for a network that
/// knows no mask, sequences of one length do. In each epoch the batches come in another order, of other neighbours, and
/// other tokens are looked for.
///
/// # Example
///
/// ```
/// use candle_tcn::text::Tokenizer;
/// use candle_tcn::train::{BatchSource, MaskTokens, MaskedBatches, MaskingConfig};
///
/// let tokenizer = Tokenizer::from_vocab("<pad>\n<mask>\n<unk>\nA\nC\nG\nT\n")?;
/// let sequences = ["ACGTACGTAC", "ACG", "GATTACA"].map(|text| tokenizer.encode(text));
/// let sequences = sequences.into_iter().collect::<candle_tcn::Result<Vec<_>>>()?;
/// let tokens = MaskTokens::of(&tokenizer)?;
/// let mut batches = MaskedBatches::new(sequences, tokens, MaskingConfig::default(), 32, true, 1)?;
/// let batch = batches.next_batch()?;
/// assert_eq!(batch.targets.dims(), [3, 10]);
/// // 15 % of each: 2, 1 and 1 tokens
/// let looked_for = batch.weights.unwrap().sum_all()?;
/// assert_eq!(looked_for.to_scalar::<f32>()?, 4.0);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MaskedBatches {
    sequences: Vec<Vec<u32>>,
    tokens: MaskTokens,
    config: MaskingConfig,
    fills_up: bool,
    seed: u64,
    layout: BatchLayout,
}

impl MaskedBatches {
    /// Batches of `batch_tokens` tokens at the most, filled ones included (a longer sequence is a batch by itself), of
    /// one length each unless the network `fills_up`: [takes a mask](Graph::takes_mask).
    ///
    /// # Errors
    /// [`Error::Invalid`] for options out of range, and where there is no sequence with a token to look for;
    /// [`Error::TooLarge`] for more than 2³² sequences.
    pub fn new(
        mut sequences: Vec<Vec<u32>>,
        tokens: MaskTokens,
        config: MaskingConfig,
        batch_tokens: usize,
        fills_up: bool,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        sequences.retain(|ids| ids.iter().any(|id| tokens.letters.binary_search(id).is_ok()));
        let expected = "at least one with a token to look for";
        Error::require(!sequences.is_empty(), "sequences", expected, "none")?;
        let ranks: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let mut lengths = ranks.clone();
        lengths.sort_unstable_by_key(|&len| std::cmp::Reverse(len));
        let mut sizes: Vec<usize> = Vec::new();
        let mut longest = 0;
        for len in lengths {
            let fits =
                |size: &usize| (fills_up || len == longest) && longest * (size + 1) <= batch_tokens;
            match sizes.last_mut().filter(|size| fits(size)) {
                Some(size) => *size += 1,
                None => {
                    sizes.push(1);
                    longest = len;
                }
            }
        }
        let layout = BatchLayout::new(ranks, sizes, seed)?;
        Ok(Self { sequences, tokens, config, fills_up, seed, layout })
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// All batches of the first epoch: fixed ones to validate on.
    ///
    /// # Errors
    /// Those of candle.
    pub fn first_epoch(mut self) -> Result<Vec<Batch>> {
        self.layout.seek(BatchPosition::default())?;
        (0..self.layout.len()).map(|_| self.next_batch()).collect()
    }

    /// The sequence as the model sees it, and the places that it is to find.
    fn masked(&self, i: usize, epoch: usize) -> (Vec<u32>, Vec<usize>) {
        let MaskTokens { mask, letters, .. } = &self.tokens;
        let mut ids = self.sequences[i].clone();
        // of its own, whatever batch it is in
        let mut rng = ChaCha8Rng::seed_from_u64(
            self.seed ^ (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        rng.set_stream(epoch as u64);
        let is_letter = |&place: &usize| letters.binary_search(&ids[place]).is_ok();
        let mut places: Vec<usize> = (0..ids.len()).filter(is_letter).collect();
        let count = ((places.len() as f64 * self.config.share).round() as usize).max(1);
        let (chosen, _) = places.partial_shuffle(&mut rng, count);
        let chosen = chosen.to_vec();
        for &place in &chosen {
            let draw: f64 = rng.random();
            if draw < self.config.masked {
                ids[place] = *mask;
            } else if draw < self.config.masked + self.config.random {
                ids[place] = letters[rng.random_range(0..letters.len())];
            }
        }
        (ids, chosen)
    }
}

impl BatchSource for MaskedBatches {
    fn next_batch(&mut self) -> Result<Batch> {
        let epoch = self.layout.position().epoch;
        let batch = self.layout.next_batch();
        let time = batch.iter().map(|&i| self.sequences[i as usize].len()).max().unwrap_or(0);
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        let (mut mask, mut weights) = (Vec::new(), Vec::new());
        for (row, &i) in (1..).zip(&batch) {
            let (ids, places) = self.masked(i as usize, epoch);
            let start = weights.len();
            inputs.extend(ids);
            targets.extend_from_slice(&self.sequences[i as usize]);
            mask.resize(inputs.len(), 1u8);
            for numbers in [&mut inputs, &mut targets] {
                numbers.resize(row * time, self.tokens.pad);
            }
            mask.resize(row * time, 0);
            weights.resize(row * time, 0f32);
            places.iter().for_each(|place| weights[start + place] = 1.0);
        }
        let shape = (batch.len(), time);
        let inputs = Tensor::from_vec(inputs, shape, &Device::Cpu)?;
        let targets = Tensor::from_vec(targets, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        Ok(Batch {
            mask: self.fills_up.then_some(mask),
            weights: Some(Tensor::from_vec(weights, shape, &Device::Cpu)?),
            ..Batch::new(vec![inputs], targets)
        })
    }

    fn steps_per_epoch(&self) -> usize {
        self.layout.len()
    }

    fn position(&self) -> BatchPosition {
        self.layout.position()
    }

    fn seek(&mut self, position: BatchPosition) -> Result<()> {
        self.layout.seek(position)
    }

    fn data(&self) -> DataId {
        // where a sequence ends counts too
        let ends = self.sequences.iter().map(|ids| ids.len() as u32);
        let tokens = self.sequences.iter().flatten().copied();
        let id = DataId::of_tokens(&ends.chain(tokens).collect::<Vec<_>>());
        DataId { len: self.sequences.iter().map(Vec::len).sum(), ..id }
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        graph.expect_tokens()?;
        let expected = "a masked language model, which sees both sides";
        Error::require(!graph.is_causal(), "model", expected, "one that predicts the next token")
    }
}
