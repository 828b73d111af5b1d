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
        let embedding: Vec<f32> = table.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        net.mark("embedding", &embedding);
        let logits = network.build_step(&mut net, xs)?;
        Ok(Self { model: model.freeze_as(dtype)?, embedding, net: net.finish(logits) })
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
        self.step_frames(1, ids, state)
    }

    /// Logits (batch, vocab) after `ids` (batch, time), which follow what `state` has seen: as many steps
    /// at once, at the rate of a forward pass, in pieces that do not depend on their number.
    ///
    /// # Errors
    /// As [`Stepper::step`].
    pub fn prefill(&self, ids: &[u32], state: &mut State) -> Result<Vec<f32>> {
        let ids = self.in_rows(ids, state.batch())?;
        let (batch, time) = ids.dims2()?;
        let piece = Self::prefill_len(batch);
        let mut last = Vec::new();
        for start in (0..time).step_by(piece) {
            let len = piece.min(time - start);
            let logits = self.forward(&ids.narrow(1, start, len)?, state)?;
            if start + len == time {
                let logits = logits.narrow(1, len - 1, 1)?;
                last = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            }
        }
        Ok(last)
    }

    /// Logits (batch, time, vocab) of the token after each of `ids` (batch, time), all at once: by the
    /// forward pass, in int8 by the steps' own arithmetic.
    ///
    /// # Errors
    /// As [`Stepper::step`].
    pub fn logits(&self, ids: &[u32], state: &mut State) -> Result<Tensor> {
        let rows = self.in_rows(ids, state.batch())?;
        if self.net.dtype() != StepDtype::Int8 {
            return self.forward(&rows, state);
        }
        let (batch, time) = rows.dims2()?;
        let logits = self.step_frames(time, ids, state)?;
        let shape = (batch, time, self.vocab_size());
        Ok(Tensor::from_slice(logits, shape, self.model.device())?)
    }

    /// The forward pass of `ids` (batch, time), as the network computes it.
    fn forward(&self, ids: &Tensor, state: &mut State) -> Result<Tensor> {
        let mut pass = Pass::eval().with_state(state);
        if self.net.dtype() == StepDtype::Bf16 {
            pass = pass.with_dtype(DType::BF16);
        }
        self.model.forward(ids, &mut pass)
    }

    /// The next `frames` ids of each sequence of `state`.
    fn step_frames<'a>(
        &self,
        frames: usize,
        ids: &[u32],
        state: &'a mut State,
    ) -> Result<&'a mut [f32]> {
        let width = self.net.in_channels();
        self.net.step_with(frames, state, |xs| {
            for (xs, &id) in xs.chunks_exact_mut(width).zip(ids) {
                xs.copy_from_slice(&self.embedding[id as usize * width..][..width]);
            }
        })
    }

    /// `ids` as (batch, time).
    fn in_rows(&self, ids: &[u32], batch: usize) -> Result<Tensor> {
        if batch == 0 || ids.is_empty() || !ids.len().is_multiple_of(batch) {
            let expected = format!("as many for each of {batch} sequences, at least one");
            return Err(Error::invalid("ids", expected, ids.len()));
        }
        self.check_ids(ids)?;
        let shape = (batch, ids.len() / batch);
        Ok(Tensor::from_slice(ids, shape, self.model.device())?)
    }

    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
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
