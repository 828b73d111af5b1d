//! A language model one token at a time.

use candle_core::{DType, Tensor};

use super::Model;
use crate::nn::{Pass, State, StepBuilder, StepDtype, StepNet};
use crate::{Error, Result};

/// A [`Model`] for generation: single steps of any number of sequences by a [`StepNet`], prompts by the
/// model's own forward pass.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::models::{Model, ModelConfig};
/// use candle_tcn::nn::{Params, StepDtype};
///
/// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let stepper = Model::new(&config, params.builder())?.stepper(StepDtype::F32)?;
///
/// let mut state = stepper.init_state(1)?;
/// let prefilled = stepper.prefill(&[3, 1, 4], &mut state)?; // the logits after the last
/// let mut state = stepper.init_state(1)?;
/// for id in [3, 1] {
///     stepper.step(&[id], &mut state)?;
/// }
/// let stepped = stepper.step(&[4], &mut state)?;
/// assert!(prefilled.iter().zip(stepped).all(|(a, b)| (a - *b).abs() < 1e-5));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Stepper {
    /// As `net` computes: with the weights of int8 rounded.
    model: Model,
    /// (vocab, width)
    embedding: Vec<f32>,
    net: StepNet,
}

impl Stepper {
    /// Tokens of each of `batch` prompts that go through the model at once: together enough for all threads
    /// and no matter for memory.
    pub fn prefill_len(batch: usize) -> usize {
        const TOGETHER: usize = 4096;
        (TOGETHER / batch.max(1)).max(1)
    }

    pub(super) fn new(model: &Model, dtype: StepDtype) -> Result<Self> {
        let network = model.generative()?;
        let table = network.embedding();
        let (mut net, xs) = StepBuilder::new(dtype, table.dim(1)?);
        let logits = network.build_step(&mut net, xs)?;
        let table = table.detach().to_dtype(DType::F32)?;
        Ok(Self {
            model: model.freeze_as(dtype)?,
            embedding: table.flatten_all()?.to_vec1()?,
            net: net.finish(logits),
        })
    }

    /// The network between the embedding and the logits.
    pub fn net(&self) -> &StepNet {
        &self.net
    }

    /// Token ids that the model knows.
    pub fn vocab_size(&self) -> usize {
        self.embedding.len() / self.net.in_channels()
    }

    /// The state before the first token of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        self.net.init_state(batch)
    }

    /// The logits (batch, vocab) after one more token for each sequence.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary, another number of ids than sequences,
    /// or a state of another model; the state is then as it was.
    pub fn step<'a>(&self, ids: &[u32], state: &'a mut State) -> Result<&'a mut [f32]> {
        if ids.len() != state.batch() {
            let expected = format!("{} ids, one for each sequence", state.batch());
            return Err(Error::invalid("batch", expected, ids.len()));
        }
        self.check_ids(ids)?;
        let width = self.net.in_channels();
        self.net.step_with(1, state, |xs| {
            for (xs, &id) in xs.chunks_exact_mut(width).zip(ids) {
                xs.copy_from_slice(&self.embedding[id as usize * width..][..width]);
            }
        })
    }

    /// Logits (batch, vocab) after `ids` (batch, time), which follow what `state` has seen: as many steps
    /// at once, at the rate of a forward pass, in pieces that do not depend on their number.
    ///
    /// # Errors
    /// As [`Stepper::step`].
    pub fn prefill(&self, ids: &[u32], state: &mut State) -> Result<Vec<f32>> {
        let batch = state.batch();
        if batch == 0 || ids.is_empty() || !ids.len().is_multiple_of(batch) {
            let expected = format!("as many for each of {batch} sequences, at least one");
            return Err(Error::invalid("ids", expected, ids.len()));
        }
        self.check_ids(ids)?;
        let time = ids.len() / batch;
        let device = self.model.device();
        let ids = Tensor::from_slice(ids, (batch, time), device)?;
        let mut logits = Vec::new();
        let piece = Self::prefill_len(batch);
        for start in (0..time).step_by(piece) {
            let len = piece.min(time - start);
            let mut pass = Pass::eval().with_state(state);
            if self.net.dtype() == StepDtype::Bf16 {
                pass = pass.with_dtype(DType::BF16);
            }
            let all = self.model.forward(&ids.narrow(1, start, len)?, &mut pass)?;
            if start + len == time {
                let last = all.narrow(1, len - 1, 1)?;
                logits = last.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            }
        }
        Ok(logits)
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab_size = self.vocab_size();
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            None => Ok(()),
            Some(id) => {
                let expected = format!("token ids below {vocab_size}, the size of the vocabulary");
                Err(Error::invalid("ids", expected, id))
            }
        }
    }
}
