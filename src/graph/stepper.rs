//! A network of token ids in steps and in prompts.

use std::f64::consts::LN_2;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Network, Run, State, StepNet};
use crate::kernels::step::StepDtype;
use crate::{Error, Result};

/// Bits per token that inputs of 8 bits may lose to those of 16.
const SHORT_LOSS: f64 = 0.01;

/// Mean divergence of the predictions of `short`, whose inputs have 8 bits, from those of `long`: what it loses in
/// bits per token, on text that `long` writes from random tokens.
fn loss_of_short_inputs(long: &StepNet, short: &StepNet) -> Result<f64> {
    const SEQUENCES: usize = 16;
    const STEPS: usize = 32;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut unit = || f64::from(rng.next_u32()) / 2f64.powi(32);
    let vocab_size = long.vocab_size();
    let mut ids = [0; SEQUENCES].map(|_: u32| (unit() * vocab_size as f64) as u32);
    let log_probabilities = |logits: &[f32]| {
        let logits = Tensor::from_slice(logits, (SEQUENCES, vocab_size), &Device::Cpu)?;
        log_softmax(&logits, D::Minus1)
    };
    let (mut longs, mut shorts) = (long.init_state(SEQUENCES)?, short.init_state(SEQUENCES)?);
    let mut nats = 0.0;
    for _ in 0..STEPS {
        let log_p = log_probabilities(long.step_ids(&ids, &mut longs)?)?;
        let log_q = log_probabilities(short.step_ids(&ids, &mut shorts)?)?;
        let p = log_p.exp()?;
        nats += f64::from((&p * (log_p - log_q)?)?.sum_all()?.to_scalar::<f32>()?);
        for (id, p) in ids.iter_mut().zip(p.to_vec2::<f32>()?) {
            let mut left = unit();
            let drawn = p.iter().position(|&p| {
                left -= f64::from(p);
                left < 0.0
            });
            *id = drawn.unwrap_or(0) as u32;
        }
    }
    Ok(nats / LN_2 / (STEPS * SEQUENCES) as f64)
}

/// A [`Network`] of token ids for generation: single steps of any number of sequences by a [`StepNet`], prompts by the
/// network's own forward pass.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "models")] {
/// use candle_core::{DType, Device};
/// use candle_tcn::models::ModelConfig;
/// use candle_tcn::nn::{Params, StepDtype};
///
/// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let stepper = config.build(params.builder())?.stepper(StepDtype::F32)?;
///
/// let mut state = stepper.init_state(1)?;
/// let prefilled = stepper.prefill(&[3, 1, 4], &mut state)?; // the logits after the last
/// let mut state = stepper.init_state(1)?;
/// for id in [3, 1] {
///     stepper.step(&[id], &mut state)?;
/// }
/// let stepped = stepper.step(&[4], &mut state)?;
/// assert!(prefilled.iter().zip(stepped).all(|(a, b)| (a - *b).abs() < 1e-5));
/// # }
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Stepper {
    network: Network,
    net: StepNet,
}

impl Stepper {
    /// Steps of a prompt of `batch` sequences that are read at once: a few megabytes of activations.
    pub fn prefill_len(batch: usize) -> usize {
        const TOGETHER: usize = 4096;
        (TOGETHER / batch.max(1)).max(1)
    }

    pub(super) fn new(network: &Network, dtype: StepDtype) -> Result<Self> {
        network.graph().expect_language_model()?;
        let mut net = StepNet::compile(network, dtype, true)?;
        if net.input_bits() == Some(8) {
            let long = StepNet::compile(network, dtype, false)?;
            let loss = loss_of_short_inputs(&long, &net)?;
            if loss.is_nan() || loss > SHORT_LOSS {
                net = long;
            }
        }
        Ok(Self { net, network: network.freeze_as(dtype)? })
    }

    /// The network in single steps.
    pub fn net(&self) -> &StepNet {
        &self.net
    }

    /// Ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.net.vocab_size()
    }

    /// The token that ends a document and begins the next, where the network has one.
    pub fn end_token(&self) -> Option<u32> {
        self.network.graph().restart()
    }

    /// The state before the first token of `batch` sequences.
    ///
    /// # Errors
    /// As [`StepNet::init_state`].
    pub fn init_state(&self, batch: usize) -> Result<State> {
        self.net.init_state(batch)
    }

    /// The next token of each sequence: logits (batch, vocab_size).
    ///
    /// # Errors
    /// As [`StepNet::step_ids`].
    pub fn step<'a>(&self, ids: &[u32], state: &'a mut State) -> Result<&'a mut [f32]> {
        if ids.len() != state.batch() {
            let expected = format!("{} ids, one for each sequence", state.batch());
            return Err(Error::invalid("batch", expected, ids.len()));
        }
        self.net.step_ids(ids, state)
    }

    /// Reads `ids` (batch, any), and gives the logits after the last of each, (batch, vocab_size).
    ///
    /// # Errors
    /// [`Error::Invalid`] for ids beyond the vocabulary or not as many for each sequence.
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

    /// As [`prefill`](Self::prefill), all logits: (batch, time, vocab_size).
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn logits(&self, ids: &[u32], state: &mut State) -> Result<Tensor> {
        let rows = self.in_rows(ids, state.batch())?;
        if self.net.dtype() != StepDtype::Int8 {
            return self.forward(&rows, state);
        }
        let (batch, time) = rows.dims2()?;
        let logits = self.net.step_ids(ids, state)?;
        let shape = (batch, time, self.net.out_channels());
        Ok(Tensor::from_slice(logits, shape, self.network.device())?)
    }

    fn forward(&self, ids: &Tensor, state: &mut State) -> Result<Tensor> {
        let mut run = Run::eval().with_state(state);
        if self.net.dtype() == StepDtype::Bf16 {
            run = run.with_dtype(DType::BF16);
        }
        self.network.forward_with(ids, run)
    }

    fn in_rows(&self, ids: &[u32], batch: usize) -> Result<Tensor> {
        if batch == 0 || ids.is_empty() || !ids.len().is_multiple_of(batch) {
            let expected = format!("as many for each of {batch} sequences, at least one");
            return Err(Error::invalid("ids", expected, ids.len()));
        }
        self.check_ids(ids)?;
        let shape = (batch, ids.len() / batch);
        Ok(Tensor::from_slice(ids, shape, self.network.device())?)
    }

    /// Refuses ids beyond the vocabulary.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        self.net.check_ids(ids)
    }
}
