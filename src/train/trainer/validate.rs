//! Validation of a [`Trainer`].

use super::super::config::Observer;
use super::super::evaluate::{Evaluation, Evaluator};
use super::super::metrics::Record;
use super::super::valid_set::ValidSet;
use super::Trainer;
use crate::files::{names, write_tensors};
use crate::graph::{Network, Run, State};
use crate::{Error, Result};

impl Trainer {
    /// The model that was validated and whether it is the best so far; nothing where the observer
    /// interrupts.
    pub(super) fn validate(
        &mut self,
        valid: &ValidSet,
        record: &mut Record,
        observer: &mut dyn Observer,
    ) -> Result<Option<(Network, bool)>> {
        let model = self.frozen()?;
        let Some(evaluation) = self.evaluate(&model, valid, observer)? else {
            return Ok(None);
        };
        let (loss, bpc) = (evaluation.loss(), valid.bpc(&evaluation));
        if !loss.is_finite() {
            let (step, lr) = (self.progress.step, record.lr);
            return Err(Error::NotFinite { step, what: "validation loss", value: loss, lr });
        }
        (record.valid_loss, record.valid_bpc) = (Some(loss), bpc);
        self.schedule.observe_validation(loss);
        let best = self.progress.best.is_none_or(|(lowest, _)| loss < lowest);
        if best {
            self.progress.best = Some((loss, bpc));
            self.progress.since_best = 0;
            write_tensors(self.run.join(names::WEIGHTS), &self.params.snapshot()?)?;
        } else {
            self.progress.since_best += 1;
        }
        Ok(Some((model, best)))
    }

    /// Nothing where the observer interrupts.
    fn evaluate(
        &self,
        model: &Network,
        valid: &ValidSet,
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>> {
        match valid.batches.is_empty() {
            true => evaluate_text(model, valid, observer),
            false => self.evaluate_batches(model, valid, observer),
        }
    }

    fn evaluate_batches(
        &self,
        model: &Network,
        valid: &ValidSet,
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>> {
        let (mut sum, mut weight, mut count) = (0.0, 0.0, 0);
        let mut state = State::new(0, Vec::new())?;
        for batch in &valid.batches {
            let run = batch.begin(model, Run::eval(), &mut state)?;
            let outputs = model.run(&batch.inputs.iter().collect::<Vec<_>>(), run)?;
            let value = self.loss.value(&outputs.values, batch)?;
            (sum, weight) = (sum + value.mean * value.weight, weight + value.weight);
            count += value.count;
            observer.validating(count, valid.len() as u64);
            if observer.interrupted() {
                return Ok(None);
            }
        }
        Ok(Some(Evaluation { tokens: count, nats: sum / weight * count as f64 }))
    }
}

fn evaluate_text(
    model: &Network,
    valid: &ValidSet,
    observer: &mut dyn Observer,
) -> Result<Option<Evaluation>> {
    let mut evaluator = Evaluator::new(model, Evaluator::CHUNK)?;
    let mut scored = valid.scored.chunks(Evaluator::CHUNK);
    let mut done = 0;
    for piece in valid.tokens.chunks(Evaluator::CHUNK) {
        match scored.next() {
            Some(scored) => evaluator.push_scored(piece, scored)?,
            None => evaluator.push(piece)?,
        }
        done += piece.len() as u64;
        observer.validating(done, valid.tokens.len() as u64);
        if observer.interrupted() {
            return Ok(None);
        }
    }
    evaluator.finish().map(Some)
}
