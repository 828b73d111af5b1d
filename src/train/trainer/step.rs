//! One optimizer step.

use super::super::batch::Batch;
use super::super::loss::LossValue;
use super::super::optim::Gradients;
use super::Trainer;
use crate::graph::Run;
use crate::ops::profile::{self, Part};
use crate::{Error, Result};

impl Trainer {
    /// One optimizer step: the mean loss of its batches and the gradient norm before clipping.
    ///
    /// # Errors
    /// [`Error::NotFinite`], before the parameters change.
    pub fn step(&mut self, lr: f64) -> Result<(f64, f64)> {
        let (loss, mut grads) = self.accumulated()?;
        let _span = profile::span(Part::Optimizer);
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

    /// The mean over all targets of the batches of a step, and its gradient.
    fn accumulated(&mut self) -> Result<(f64, Gradients)> {
        let batch = self.batches.next_batch()?;
        let mut rows = batch.sequences()?;
        let (mut first, mut total) = self.gradients(&batch, 0)?;
        let (mut loss, mut weight) = (first.mean, 1.0);
        for _ in 1..self.config.accumulate {
            let batch = self.batches.next_batch()?;
            let (part, mut grads) = self.gradients(&batch, rows)?;
            rows += batch.sequences()?;
            if first.weight == 0.0 {
                (loss, first, total) = (part.mean, part, grads);
                continue;
            }
            let share = part.weight / first.weight;
            grads.scale(share)?;
            total.accumulate(&grads)?;
            loss += share * part.mean;
            weight += share;
        }
        if weight != 1.0 {
            total.scale(1.0 / weight)?;
        }
        Ok((loss / weight, total))
    }

    /// The loss of a batch that has so many rows of its step before it, and its gradient.
    fn gradients(&mut self, batch: &Batch, rows: usize) -> Result<(LossValue, Gradients)> {
        let run = Run::train(self.config.seed, self.progress.step as u64)
            .with_first_row(rows)
            .with_dtype(self.config.dtype.dtype());
        let run = batch.begin(&self.model, run, &mut self.state)?;
        let inputs: Vec<_> = batch.inputs.iter().collect();
        let (outputs, tape) = self.model.trace(&inputs, run)?;
        let mut loss = self.loss.value(&outputs.values, batch)?;
        drop(outputs);
        self.frozen.restore()?;
        self.progress.tokens += loss.count;
        let grads = tape.backward(std::mem::take(&mut loss.gradients))?;
        Ok((loss, Gradients::of(self.model.graph(), grads, self.optimizer.params())))
    }
}
