//! The loss of a model on a text: every token but the first, each with its whole left context.

use candle_core::Tensor;

use crate::Result;
use crate::graph::{Network, State, Stepper};
use crate::kernels::rows::Target;
use crate::ops;

/// The loss of a model on a text.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evaluation {
    /// Predicted tokens: all but the first.
    pub tokens: u64,
    /// The sum of `−ln p(token)` over them.
    pub nats: f64,
}

impl Evaluation {
    /// Nats per predicted token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Bits over `units` of text: characters, bytes or tokens.
    pub fn bits_per(&self, units: u64) -> f64 {
        self.nats / std::f64::consts::LN_2 / units as f64
    }

    /// `e` to the loss.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }
}

/// Evaluates a text that comes in pieces, in constant memory.
///
/// Tokens go through the model `chunk` at a time; the streaming state carries the left context over,
/// so the result does not depend on `chunk` or on how the text is cut (beyond rounding).
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::models::{Network, ModelConfig};
/// use candle_tcn::nn::Params;
/// use candle_tcn::train::evaluate;
///
/// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(10);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = config.build(params.builder())?.freeze()?;
/// let text: Vec<u32> = (0..100).map(|i| i % 10).collect();
/// let whole = evaluate(&model, &text, 64)?;
/// let pieces = evaluate(&model, &text, 7)?;
/// assert_eq!(whole.tokens, 99);
/// assert!((whole.loss() - pieces.loss()).abs() < 1e-5);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Evaluator<'a> {
    source: LogitSource<'a>,
    state: State,
    chunk: usize,
    /// Tokens not yet read by the model, those of weight 0 not to be predicted; the first has been.
    pending: Vec<Target>,
    sum: Evaluation,
}

/// The network that computes the logits.
#[derive(Debug)]
enum LogitSource<'a> {
    Network(&'a Network),
    Stepper(&'a Stepper),
}

impl<'a> Evaluator<'a> {
    /// Tokens that go through the model at once, unless told otherwise: enough for all threads.
    pub const CHUNK: usize = 4096;

    /// Starts a text.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a network on frames;
    /// [`Error::TooLarge`](crate::Error::TooLarge) where there is no memory for the model's state.
    pub fn new(model: &'a Network, chunk: usize) -> Result<Self> {
        model.graph().expect_tokens()?;
        Ok(Self::of(LogitSource::Network(model), model.init_state(1)?, chunk))
    }

    /// As [`Evaluator::new`], in the arithmetic of generation.
    ///
    /// # Errors
    /// As [`Evaluator::new`].
    pub fn with_stepper(stepper: &'a Stepper, chunk: usize) -> Result<Self> {
        let state = stepper.init_state(1)?;
        Ok(Self::of(LogitSource::Stepper(stepper), state, chunk))
    }

    fn of(source: LogitSource<'a>, state: State, chunk: usize) -> Self {
        Self { source, state, chunk: chunk.max(1), pending: Vec::new(), sum: Evaluation::default() }
    }

    /// The figures so far.
    pub fn so_far(&self) -> Evaluation {
        self.sum
    }

    /// More of the text.
    ///
    /// # Errors
    /// Those of candle, such as an id that is not in the vocabulary.
    pub fn push(&mut self, tokens: &[u32]) -> Result<()> {
        self.extend(tokens.iter().map(|&id| Target::from(id)))
    }

    /// As [`push`](Self::push); tokens that are not `scored` are read and not predicted.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    ///
    /// # Panics
    /// If there is not one of `scored` for each of the tokens.
    pub fn push_scored(&mut self, tokens: &[u32], scored: &[bool]) -> Result<()> {
        assert_eq!(tokens.len(), scored.len());
        let target = |(&class, &scored)| Target { class, weight: f64::from(u8::from(scored)) };
        self.extend(tokens.iter().zip(scored).map(target))
    }

    fn extend(&mut self, targets: impl Iterator<Item = Target>) -> Result<()> {
        self.pending.extend(targets);
        while self.pending.len() > self.chunk {
            self.read(self.chunk)?;
        }
        Ok(())
    }

    /// The end of the text.
    ///
    /// # Errors
    /// As [`Evaluator::push`].
    pub fn finish(mut self) -> Result<Evaluation> {
        if self.pending.len() > 1 {
            self.read(self.pending.len() - 1)?;
        }
        Ok(self.sum)
    }

    fn read(&mut self, len: usize) -> Result<()> {
        let ids: Vec<u32> = self.pending[..len].iter().map(|target| target.class).collect();
        let logits = match self.source {
            LogitSource::Network(model) => {
                let ids = Tensor::new(ids, model.device())?.unsqueeze(0)?;
                model.prefill(&ids, &mut self.state)?
            }
            LogitSource::Stepper(stepper) => stepper.logits(&ids, &mut self.state)?,
        };
        let targets = &self.pending[1..=len];
        let scored: f64 = targets.iter().map(|target| target.weight).sum();
        if scored > 0.0 {
            let loss = ops::cross_entropy(&logits, targets)?;
            self.sum.nats += f64::from(loss.to_scalar::<f32>()?) * scored;
            self.sum.tokens += scored as u64;
        }
        self.pending.drain(..len);
        Ok(())
    }
}

/// Evaluates a text that is in memory; see [`Evaluator`].
///
/// # Errors
/// As [`Evaluator::push`].
pub fn evaluate(model: &Network, tokens: &[u32], chunk: usize) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(model, chunk)?;
    for piece in tokens.chunks(1 << 16) {
        evaluator.push(piece)?;
    }
    evaluator.finish()
}
