//! When a run is validated and saved.

use super::super::config::{Budget, Observer};
use super::super::metrics::Record;
use super::super::progress::Clock;
use super::super::valid_set::ValidSet;
use super::Trainer;
use crate::Result;

/// The part of a budget that validations may take together, unless the configuration says how many there are.
const VALIDATIONS_SHARE: f64 = 0.1;

/// Cost of a step, in forward passes.
const FORWARDS_OF_A_STEP: f64 = 3.0;

impl Trainer {
    /// Most validations of the whole run, if that is known: not if they are counted in steps and the budget
    /// in minutes.
    pub fn planned_validations(&self) -> Option<usize> {
        let Some(every) = self.config.valid_every else {
            return Some(self.config.default_validations());
        };
        let steps = self.budget_steps()?;
        // a last one is made at the end
        Some((steps / every as f64).ceil() as usize)
    }

    /// The fraction of the budget that is used.
    pub(super) fn fraction(&self, clock: &Clock) -> f64 {
        self.fraction_after(0.0, clock)
    }

    /// The same after `more` steps; time is taken as it is.
    pub(super) fn fraction_after(&self, more: f64, clock: &Clock) -> f64 {
        let step = self.progress.step as f64 + more;
        match self.config.budget {
            Budget::Steps(steps) => step / steps as f64,
            Budget::Epochs(epochs) => {
                step * self.config.accumulate as f64
                    / (epochs * self.batches.steps_per_epoch() as f64)
            }
            Budget::Minutes(minutes) => clock.elapsed() / (minutes * 60.0),
        }
    }

    /// Optimizer steps of the budget, where it tells.
    fn budget_steps(&self) -> Option<f64> {
        match self.config.budget {
            Budget::Steps(steps) => Some(steps as f64),
            Budget::Epochs(epochs) => {
                Some(epochs * self.batches.steps_per_epoch() as f64 / self.config.accumulate as f64)
            }
            Budget::Minutes(_) => None,
        }
    }

    /// `true` if a step that took the run from one fraction to another makes it due for a validation and a
    /// checkpoint.
    pub(super) fn is_milestone(
        &self,
        (before, after): (f64, f64),
        valid: &ValidSet,
        clock: &Clock,
    ) -> bool {
        if after >= 1.0 {
            return true;
        }
        if let Some(every) = self.config.valid_every {
            return self.progress.step.is_multiple_of(every);
        }
        let milestones = self.validations(valid) as f64;
        (before * milestones).floor() < (after * milestones).floor()
            && self.affords_one(valid, clock)
    }

    /// Validations over the run: as many as are wanted and a part of the budget pays for, at least one. That
    /// depends on nothing but the configuration and the text.
    fn validations(&self, valid: &ValidSet) -> usize {
        let wanted = self.config.default_validations();
        let is_waited_for = self.config.validations_waited_for().is_some();
        let Some(steps) = self.budget_steps().filter(|_| !is_waited_for) else {
            return wanted;
        };
        let config = &self.config;
        let tokens =
            steps * config.accumulate as f64 * config.batch_size as f64 * config.seq_len as f64;
        let cost = valid.len().max(1) as f64 / FORWARDS_OF_A_STEP;
        wanted.min((VALIDATIONS_SHARE * tokens / cost) as usize).max(1)
    }

    /// `true` unless a budget in minutes has no time left for a validation beside the one at its end.
    fn affords_one(&self, valid: &ValidSet, clock: &Clock) -> bool {
        let Budget::Minutes(minutes) = self.config.budget else {
            return true;
        };
        if self.config.validations_waited_for().is_some() {
            return true;
        }
        let progress = &self.progress;
        let of_token = progress.training_s / progress.tokens.max(1) as f64 / FORWARDS_OF_A_STEP;
        let cost = self.validation_s.unwrap_or(valid.len() as f64 * of_token);
        let spent = clock.elapsed() - progress.training_s;
        spent + 2.0 * cost <= VALIDATIONS_SHARE * minutes * 60.0
    }

    /// Validates, records and saves; whether the observer interrupts. A validation that is cut short is
    /// made anew when the run goes on.
    pub(super) fn milestone(
        &mut self,
        mut record: Record,
        valid: &ValidSet,
        observer: &mut dyn Observer,
        clock: &Clock,
    ) -> Result<bool> {
        let mut validated = None;
        let start = clock.elapsed();
        if !valid.is_empty() {
            validated = self.validate(valid, &mut record, observer)?;
            if validated.is_none() {
                self.progress.pending = Some(record);
                self.checkpoint(clock)?;
                return Ok(true);
            }
        }
        self.record(&record)?;
        self.checkpoint(clock)?;
        if let Some((model, best)) = validated {
            observer.validated(&record, &model, best)?;
        }
        self.validation_s = Some(clock.elapsed() - start);
        Ok(observer.interrupted())
    }
}
