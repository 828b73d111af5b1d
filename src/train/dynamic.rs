//! Evaluation that learns from what it has read.

use candle_core::{DType, Device, Tensor};

use super::batch::Batch;
use super::evaluate::Evaluation;
use super::loss::{CrossEntropy, Loss};
use super::optim::{Gradients, NamedOptimizer, OptimizerConfig, RmsPropConfig};
use crate::graph::{Network, Run, State};
use crate::kernels::Kernel;
use crate::models::directory::ModelFiles;
use crate::nn::Params;
use crate::{Error, Result};

/// Sizes of a dynamic evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicConfig {
    /// Tokens that are predicted before the weights follow them.
    pub segment: usize,
    /// Learning rate.
    pub lr: f64,
    /// Part of the way back to the trained weights after each segment.
    pub decay: f64,
}

impl Default for DynamicConfig {
    fn default() -> Self {
        Self { segment: 64, lr: 1e-4, decay: 1e-3 }
    }
}

/// Evaluates a text that comes in pieces while the weights follow it: each segment is predicted by weights that have
/// learned from all segments before it, and from nothing else. The left context is carried over.
///
/// # Example
///
/// ```
/// use candle_tcn::models::directory::ModelFiles;
/// use candle_tcn::train::{DynamicConfig, DynamicEvaluator};
///
/// let files = ModelFiles::read("models/kjv-tiny")?;
/// let ids = files.tokenizer()?.encode("And God said, Let there be light: and there was light.")?;
/// let mut evaluator = DynamicEvaluator::new(&files, DynamicConfig::default())?;
/// evaluator.push(&ids)?;
/// assert_eq!(evaluator.finish()?.tokens, ids.len() as u64 - 1);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Krause et al. 2018 (arXiv:1709.07432), section 4: steps of gradient descent divided by the root mean square of
/// gradients, and a pull back to the trained weights. The mean square is that of the text so far, as in RMSprop, where
/// the paper takes the training text's.
pub struct DynamicEvaluator {
    config: DynamicConfig,
    model: Network,
    optimizer: NamedOptimizer,
    /// The pull of the trained weights after each segment: themselves times `decay`.
    pull: Vec<Tensor>,
    state: State,
    pending: Vec<u32>,
    sum: Evaluation,
}

impl DynamicEvaluator {
    /// Starts a text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a size out of range, and for a network that is not a causal one on tokens.
    pub fn new(files: &ModelFiles, config: DynamicConfig) -> Result<Self> {
        Error::require(config.segment > 0, "segment", "at least 1", config.segment)?;
        let rate = "a finite number of at least 0";
        Error::require(config.lr.is_finite() && config.lr >= 0.0, "lr", rate, config.lr)?;
        let part = "a number of 0 to 1";
        Error::require((0.0..=1.0).contains(&config.decay), "decay", part, config.decay)?;
        files.config.require_causal()?;
        files.config.expect_tokens()?;
        let params = Params::new(0, DType::F32, &Device::Cpu);
        let model = Network::new(files.config.graph()?, params.builder())?;
        params.load(&files.weights)?;
        let rule = OptimizerConfig::RmsProp(RmsPropConfig::default());
        let optimizer = NamedOptimizer::new(rule, params.trainable())?;
        let pull = optimizer
            .params()
            .iter()
            .map(|(_, var)| Ok((var.as_tensor() * config.decay)?.detach()));
        let pull = pull.collect::<Result<_>>()?;
        let state = model.init_state(1)?;
        let (pending, sum) = (Vec::new(), Evaluation::default());
        Ok(Self { config, model, optimizer, pull, state, pending, sum })
    }

    /// The same under another kernel than the [best](Kernel::best).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a kernel that this processor lacks.
    pub fn with_kernel(self, kernel: Kernel) -> Result<Self> {
        Ok(Self { model: self.model.with_kernel(kernel)?, ..self })
    }

    /// More of the text.
    ///
    /// # Errors
    /// Those of candle, such as an id that is not in the vocabulary; [`Error::NotFinite`] where the weights run away.
    pub fn push(&mut self, tokens: &[u32]) -> Result<()> {
        self.pending.extend_from_slice(tokens);
        let mut read = 0;
        while self.pending.len() - read > self.config.segment {
            self.segment(read, self.config.segment)?;
            read += self.config.segment;
        }
        self.pending.drain(..read);
        Ok(())
    }

    /// The end of the text.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(mut self) -> Result<Evaluation> {
        if self.pending.len() > 1 {
            self.segment(0, self.pending.len() - 1)?;
        }
        Ok(self.sum)
    }

    /// Predicts a segment, then learns from it.
    fn segment(&mut self, from: usize, len: usize) -> Result<()> {
        let row =
            |from: usize| Tensor::new(&self.pending[from..from + len], &Device::Cpu)?.unsqueeze(0);
        let batch = Batch::new(vec![row(from)?], row(from + 1)?);
        let run = Run::eval().with_state(&mut self.state);
        let (outputs, tape) = self.model.trace(&[&batch.inputs[0]], run)?;
        let loss = CrossEntropy::default().value(&outputs.values, &batch)?;
        if !loss.mean.is_finite() {
            let (step, lr) = (self.optimizer.steps_done(), self.config.lr);
            return Err(Error::NotFinite { step, what: "loss", value: loss.mean, lr });
        }
        self.sum.nats += loss.mean * len as f64;
        self.sum.tokens += len as u64;
        let grads = tape.backward(loss.gradients)?;
        let grads = Gradients::of(self.model.graph(), grads, self.optimizer.params());
        self.optimizer.step(&grads, self.config.lr)?;
        if self.config.decay > 0.0 {
            for ((_, var), pull) in self.optimizer.params().iter().zip(&self.pull) {
                let kept = var.as_detached_tensor().affine(1.0 - self.config.decay, 0.0)?;
                var.set(&(kept + pull)?)?;
            }
        }
        Ok(())
    }
}
