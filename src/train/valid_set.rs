//! The data that a run is validated on.

use candle_core::DType;
use sha2::{Digest, Sha256};

use super::batch::{Batch, DataId};
use super::evaluate::Evaluation;
use crate::Result;
use crate::files::hex;

/// The data that a run is validated on: a text, or batches with the loss of the run.
#[derive(Debug, Clone, Default)]
pub struct ValidSet {
    /// The tokens of a text, for a language model.
    pub tokens: Vec<u32>,
    /// The characters of the text that are predicted: all but those of the first token.
    pub characters: u64,
    /// Batches, instead of a text.
    pub batches: Vec<Batch>,
}

impl ValidSet {
    /// A text of these tokens; its first token is not predicted, and `characters` are those of the others.
    pub fn text(tokens: Vec<u32>, characters: u64) -> Self {
        Self { tokens, characters, batches: Vec::new() }
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

    /// Units of text that an evaluation is counted by: characters, or targets where there are none.
    pub(super) fn units(&self, evaluation: &Evaluation) -> u64 {
        match self.batches.is_empty() {
            true => self.characters.max(1),
            false => evaluation.tokens,
        }
    }

    /// Identity of the data: a run resumes with the same.
    pub(super) fn sha256(&self) -> Result<String> {
        let text = DataId::of_tokens(&self.tokens).sha256;
        if self.batches.is_empty() {
            return Ok(text);
        }
        let mut hash = Sha256::new();
        for batch in &self.batches {
            for tensor in batch.inputs.iter().chain([&batch.targets]) {
                let numbers = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
                numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
            }
        }
        Ok(hex(&hash.finalize()))
    }
}
