//! One optimizer step.

use candle_core::{Device, Tensor};

use super::super::optim::Gradients;
use super::Trainer;
use crate::graph::Run;
use crate::profile::{self, Part};
use crate::text::{Batch, BatchMode};
use crate::{Error, Result, ops};

impl Trainer {
    /// One optimizer step: the mean loss of its batches and the gradient norm before clipping.
    ///
    /// # Errors
    /// [`Error::NotFinite`], before the parameters change.
    pub fn step(&mut self, lr: f64) -> Result<(f64, f64)> {
        let mut total: Option<Gradients> = None;
        let mut loss = 0.0;
        let parts = self.config.accumulate;
        for part in 0..parts {
            let batch = self.batches.next_batch();
            let micro = (self.progress.step * parts + part) as u64;
            let (part_loss, grads) = self.gradients(&batch, micro)?;
            loss += part_loss / parts as f64;
            self.progress.tokens += batch.scored() as u64;
            match &mut total {
                None => total = Some(grads),
                Some(total) => total.accumulate(&grads)?,
            }
        }
        let _span = profile::span(Part::Optimizer);
        let mut grads = total.unwrap_or_else(|| Gradients::new(Vec::new()));
        if parts > 1 {
            grads.scale(1.0 / parts as f64)?;
        }
        let norm = match self.config.clip {
            Some(clip) => grads.clip(clip)?,
            None => grads.norm()?,
        };
        let step = self.progress.step + 1;
        for (what, value) in [("loss", loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Err(Error::NotFinite { step, what, value, lr });
            }
        }
        self.optimizer.step(&grads, lr)?;
        self.progress.step = step;
        Ok((loss, norm))
    }

    fn gradients(&mut self, batch: &Batch, micro: u64) -> Result<(f64, Gradients)> {
        let ids =
            Tensor::from_slice(&batch.inputs, (batch.batch_size, batch.seq_len), &Device::Cpu)?;
        let mut run = Run::train(self.config.seed, micro).with_dtype(self.config.dtype.dtype());
        if self.config.batches == BatchMode::Carry {
            if batch.starts_fresh {
                self.state = self.model.init_state(batch.batch_size)?;
            }
            run = run.with_state(&mut self.state);
        }
        let (outputs, tape) = self.model.trace(&[&ids], run)?;
        let (loss, grad) = scored_loss(&outputs.into_first()?, batch)?;
        let grads = tape.backward(vec![grad])?;
        Ok((loss, Gradients::of(self.model.graph(), grads, self.optimizer.params())))
    }
}

/// The loss over the tokens that count, and its gradient.
fn scored_loss(logits: &Tensor, batch: &Batch) -> Result<(f64, Tensor)> {
    let from = batch.scored_from;
    if from == 0 {
        return ops::cross_entropy_with_gradient(logits, &batch.targets);
    }
    let scored = ops::narrow_time(logits, from, batch.seq_len - from)?;
    let rows = batch.targets.chunks_exact(batch.seq_len);
    let targets: Vec<u32> = rows.flat_map(|row| &row[from..]).copied().collect();
    let (loss, grad) = ops::cross_entropy_with_gradient(&scored, &targets)?;
    Ok((loss, grad.pad_with_zeros(1, from, 0)?))
}
