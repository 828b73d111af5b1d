//! The data that a run is validated on.

use super::batch::{Batch, DataId};
use super::evaluate::Evaluation;
use crate::Result;

/// The data that a run is validated on: a text, batches with the loss of the run, or nothing.
#[derive(Debug, Clone, Default)]
pub struct ValidSet {
    /// The tokens of a text, for a language model.
    pub tokens: Vec<u32>,
    /// The characters of the text that are predicted: all but those of the first token.
    pub characters: u64,
    /// `true` for each token that is predicted; empty where all are.
    pub scored: Vec<bool>,
    /// Batches, instead of a text.
    pub batches: Vec<Batch>,
}

impl ValidSet {
    /// A text of these tokens; its first token is not predicted, and `characters` are those of the others.
    pub fn text(tokens: Vec<u32>, characters: u64) -> Self {
        Self { tokens, characters, ..Self::default() }
    }

    /// Batches; their targets are not counted by characters.
    pub fn batches(batches: Vec<Batch>) -> Self {
        Self { batches, ..Self::default() }
    }

    /// Number of tokens or targets.
    pub(super) fn len(&self) -> usize {
        let targets: usize = self.batches.iter().map(|batch| batch.targets.elem_count()).sum();
        self.tokens.len() + targets
    }

    /// `true` if there is nothing to predict: no validation.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.tokens.len() < 2
    }

    /// An evaluation in bits per character; of a text.
    pub(super) fn bpc(&self, evaluation: &Evaluation) -> Option<f64> {
        self.batches.is_empty().then(|| evaluation.bits_per(self.characters.max(1)))
    }

    /// Identity of the data: a run resumes with the same.
    pub(super) fn sha256(&self) -> Result<String> {
        let text = DataId::of_tokens(&self.tokens).sha256;
        if self.batches.is_empty() {
            return Ok(text);
        }
        let batches = self.batches.iter();
        let tensors = batches.flat_map(|batch| batch.inputs.iter().chain([&batch.targets]));
        Ok(DataId::of_tensors(tensors)?.sha256)
    }
}
