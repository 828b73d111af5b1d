//! Learning rate schedules.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The course of the learning rate over a run; in JSON an object whose `name` chooses one.
///
/// # Example
///
/// ```
/// use candle_tcn::train::schedule::ScheduleConfig;
///
/// let json = r#"{"name": "cosine", "warmup": 0.1, "final_fraction": 0}"#;
/// let config: ScheduleConfig = serde_json::from_str(json)?;
/// assert_eq!(config, ScheduleConfig::Cosine { warmup: 0.1, final_fraction: 0.0 });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// Always the base rate.
    #[default]
    Constant,
    /// A straight line up to the base rate, then half a cosine down to `final_fraction` of it
    /// (Loshchilov & Hutter 2017, arXiv:1608.03983, one cycle).
    Cosine {
        /// The fraction of the run, 0 to 1, over which the rate rises.
        #[serde(default = "default_warmup")]
        warmup: f64,
        /// The rate at the end of the run over the base rate, 0 to 1.
        #[serde(default)]
        final_fraction: f64,
    },
    /// A straight line up to the base rate, then a straight line down to 0.
    Linear {
        /// The fraction of the run, 0 to 1, over which the rate rises.
        #[serde(default = "default_warmup")]
        warmup: f64,
    },
    /// The base rate, multiplied by `factor` when the validation loss stops falling.
    ///
    /// The default values are the rule of the reference character model (Bai et al. 2018).
    Plateau {
        /// Multiplies the rate; above 0, at most 1.
        #[serde(default = "default_factor")]
        factor: f64,
        /// When a validation counts as a failure to improve.
        #[serde(default)]
        rule: PlateauRule,
        /// This many validations pass before the rate may fall.
        #[serde(default = "default_after")]
        after: usize,
        /// The rate never falls below this.
        #[serde(default)]
        min_lr: f64,
    },
}

fn default_warmup() -> f64 {
    0.02
}

fn default_factor() -> f64 {
    0.1
}

fn default_after() -> usize {
    5
}

/// When [`ScheduleConfig::Plateau`] lowers the rate; in JSON `{"worst_of": 3}` or `{"patience": 2}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlateauRule {
    /// When the loss is above the worst of this many validations before it.
    WorstOf(usize),
    /// When this many validations in a row, and one more, did not fall below the best (as
    /// `torch.optim.lr_scheduler.ReduceLROnPlateau` with threshold 0).
    Patience(usize),
}

impl Default for PlateauRule {
    fn default() -> Self {
        Self::WorstOf(3)
    }
}

impl ScheduleConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the field.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Constant => Ok(()),
            Self::Cosine { warmup, final_fraction } => {
                check_fraction("schedule.warmup", warmup)?;
                check_fraction("schedule.final_fraction", final_fraction)
            }
            Self::Linear { warmup } => check_fraction("schedule.warmup", warmup),
            Self::Plateau { factor, rule, min_lr, .. } => {
                let expected = "a number above 0 and at most 1";
                Error::require(factor > 0. && factor <= 1., "schedule.factor", expected, factor)?;
                let expected = "a whole number of at least 1";
                let looks_back = rule != PlateauRule::WorstOf(0);
                Error::require(looks_back, "schedule.rule.worst_of", expected, 0)?;
                let expected = "a finite number of at least 0";
                let allowed = min_lr.is_finite() && min_lr >= 0.;
                Error::require(allowed, "schedule.min_lr", expected, min_lr)
            }
        }
    }
}

/// The part of the way down from the base rate, after the rise.
fn fallen(progress: f64, warmup: f64) -> f64 {
    let rest = 1. - warmup;
    if rest > 0. { (progress - warmup) / rest } else { 0. }
}

fn check_fraction(field: &str, value: f64) -> Result<()> {
    Error::require((0. ..=1.).contains(&value), field, "a number from 0 to 1", value)
}

/// A schedule's memory of the validations so far; saved with a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleState {
    /// Validations observed.
    pub validations: usize,
    /// Number of times that the rate was lowered.
    pub reductions: u32,
    /// The latest losses, as many as the rule looks back.
    pub recent: Vec<f64>,
    /// The smallest loss.
    pub best: Option<f64>,
    /// Validations since the best one or the last reduction.
    pub since_best: usize,
}

/// A schedule under way: gives the rate of each step, and is told each validation loss.
///
/// # Example
///
/// ```
/// use candle_tcn::train::schedule::{Schedule, ScheduleConfig};
///
/// let config = ScheduleConfig::Cosine { warmup: 0.2, final_fraction: 0.1 };
/// let schedule = Schedule::new(config)?;
/// assert_eq!(schedule.lr(4.0, 0.1), 2.0); // half of the way up
/// assert_eq!(schedule.lr(4.0, 0.2), 4.0);
/// assert!((schedule.lr(4.0, 0.6) - 2.2).abs() < 1e-12); // half of the way down to 0.4
/// assert!((schedule.lr(4.0, 1.0) - 0.4).abs() < 1e-12);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    state: ScheduleState,
}

impl Schedule {
    /// A schedule at the start of a run.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a setting is out of range.
    pub fn new(config: ScheduleConfig) -> Result<Self> {
        Self::resume(config, ScheduleState::default())
    }

    /// A schedule that continues from a saved state.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a setting is out of range.
    pub fn resume(config: ScheduleConfig, state: ScheduleState) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, state })
    }

    /// The state from which [`Self::resume`] continues exactly.
    pub fn state(&self) -> &ScheduleState {
        &self.state
    }

    /// The learning rate of a step.
    ///
    /// `progress` is the fraction of the run that will be done after this step: (step + 1) / steps
    /// for a budget of steps, elapsed / budget for a budget of time. Values outside 0 to 1 count as
    /// the nearer end.
    pub fn lr(&self, base_lr: f64, progress: f64) -> f64 {
        let progress = progress.clamp(0., 1.);
        match self.config {
            ScheduleConfig::Constant => base_lr,
            ScheduleConfig::Cosine { warmup, .. } | ScheduleConfig::Linear { warmup }
                if progress < warmup =>
            {
                base_lr * progress / warmup
            }
            ScheduleConfig::Cosine { warmup, final_fraction } => {
                let cosine = 0.5 * (1. + (PI * fallen(progress, warmup)).cos());
                base_lr * (final_fraction + (1. - final_fraction) * cosine)
            }
            ScheduleConfig::Linear { warmup } => base_lr * (1. - fallen(progress, warmup)),
            ScheduleConfig::Plateau { factor, min_lr, .. } => {
                let lowered = base_lr * factor.powf(f64::from(self.state.reductions));
                // a base rate that is already below the minimum is kept
                lowered.max(min_lr.min(base_lr))
            }
        }
    }

    /// Takes note of a validation loss; returns whether the learning rate was lowered.
    ///
    /// A loss that is not finite is passed over: it ends the run elsewhere.
    pub fn observe_validation(&mut self, loss: f64) -> bool {
        let ScheduleConfig::Plateau { rule, after, .. } = self.config else {
            return false;
        };
        if !loss.is_finite() {
            return false;
        }
        let state = &mut self.state;
        state.validations += 1;
        let failed = match rule {
            PlateauRule::WorstOf(window) => {
                let failed = state.recent.len() == window && state.recent.iter().all(|&r| loss > r);
                state.recent.push(loss);
                let surplus = state.recent.len().saturating_sub(window);
                state.recent.drain(..surplus);
                failed
            }
            PlateauRule::Patience(patience) => {
                state.since_best += 1;
                if state.best.is_none_or(|best| loss < best) {
                    state.since_best = 0;
                }
                state.since_best > patience
            }
        };
        state.best = Some(state.best.map_or(loss, |best| best.min(loss)));
        let lowered = failed && state.validations > after;
        if lowered {
            state.since_best = 0;
            state.reductions = state.reductions.saturating_add(1);
        }
        lowered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plateau(rule: PlateauRule, after: usize, min_lr: f64) -> Result<Schedule> {
        Schedule::new(ScheduleConfig::Plateau { factor: 0.1, rule, after, min_lr })
    }

    #[test]
    fn cosine_rises_then_falls_to_its_fraction() -> Result<()> {
        let schedule = Schedule::new(ScheduleConfig::Cosine { warmup: 0.25, final_fraction: 0.2 })?;
        let close = |progress, expected: f64| {
            let found = schedule.lr(1., progress);
            assert!((found - expected).abs() < 1e-12, "{progress}: {found}");
        };
        close(0., 0.);
        close(0.125, 0.5);
        close(0.25, 1.);
        close(0.5, 0.2 + 0.8 * 0.75); // a third of the cosine: (1 + cos 60°) / 2
        close(1., 0.2);
        close(7., 0.2);
        close(-1., 0.);
        Ok(())
    }

    #[test]
    fn a_line_rises_then_falls_to_zero() -> Result<()> {
        let schedule = Schedule::new(ScheduleConfig::Linear { warmup: 0.25 })?;
        let rates = [0., 0.125, 0.25, 0.625, 1.].map(|progress| schedule.lr(4., progress));
        assert_eq!(rates, [0., 2., 4., 2., 0.]);
        Ok(())
    }

    #[test]
    fn cosine_without_fall_or_rise() -> Result<()> {
        let lr = |warmup, progress| {
            let final_fraction = 0.5;
            let config = ScheduleConfig::Cosine { warmup, final_fraction };
            Ok::<_, Error>(Schedule::new(config)?.lr(2., progress))
        };
        assert_eq!(lr(0., 0.)?, 2.);
        assert_eq!(lr(1., 0.5)?, 1.);
        assert_eq!(lr(1., 1.)?, 2.);
        Ok(())
    }

    #[test]
    fn reference_rule_looks_at_the_worst_of_the_last_three() -> Result<()> {
        let config = serde_json::from_str(r#"{"name": "plateau"}"#).expect("defaults");
        let mut schedule = Schedule::new(config)?;
        // five validations pass, however bad; then 3.5 is not above the worst of 3, 4, 3; 4.5 is
        let losses = [1., 2., 3., 4., 3., 3.5, 4.5, 4.5, 4.6];
        let lowered: Vec<bool> = losses.map(|l| schedule.observe_validation(l)).into();
        let (no, yes) = (false, true);
        assert_eq!(lowered, [no, no, no, no, no, no, yes, no, yes]);
        assert!((schedule.lr(4., 0.5) - 0.04).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn patience_counts_from_the_best() -> Result<()> {
        let mut schedule = plateau(PlateauRule::Patience(1), 0, 0.05)?;
        let losses = [2., 2., 1.9, 1.9, f64::NAN, 1.9, 1.9, 1.9, 1.9];
        let lowered: Vec<bool> = losses.map(|l| schedule.observe_validation(l)).into();
        let (no, yes) = (false, true);
        assert_eq!(lowered, [no, no, no, no, no, yes, no, yes, no]);
        assert_eq!(schedule.lr(1., 0.), 0.05);
        assert_eq!(schedule.lr(0.01, 0.), 0.01);
        Ok(())
    }

    #[test]
    fn resumed_schedule_continues_exactly() -> Result<()> {
        for rule in [PlateauRule::WorstOf(2), PlateauRule::Patience(1)] {
            let mut whole = plateau(rule, 1, 0.)?;
            let losses = [1.5, 1.25, 1.75, 1.5, 2.0, 2.25, 2.5];
            for (done, &loss) in losses.iter().enumerate() {
                let json = serde_json::to_string(whole.state()).expect("plain numbers");
                let state = serde_json::from_str(&json).expect("its own output");
                let mut resumed = Schedule::resume(whole.config.clone(), state)?;
                let lowered = whole.observe_validation(loss);
                assert_eq!(resumed.observe_validation(loss), lowered, "after {done}");
                assert_eq!(resumed, whole);
            }
            assert!(whole.state().reductions > 0);
        }
        Ok(())
    }

    #[test]
    fn settings_out_of_range_name_their_field() {
        let message = |json: &str| match serde_json::from_str::<ScheduleConfig>(json) {
            Ok(config) => config.validate().map_or_else(|e| e.to_string(), |()| String::new()),
            Err(error) => error.to_string(),
        };
        let found = message(r#"{"name": "cosine", "warmup": 2}"#);
        assert_eq!(found, "schedule.warmup: expected a number from 0 to 1, found 2");
        assert!(message(r#"{"name": "cosine", "final_fraction": -1}"#).contains("final_fraction"));
        assert!(message(r#"{"name": "plateau", "factor": 0}"#).contains("schedule.factor"));
        assert!(message(r#"{"name": "plateau", "min_lr": -1}"#).contains("schedule.min_lr"));
        assert!(message(r#"{"name": "plateau", "rule": {"worst_of": 0}}"#).contains("worst_of"));
        assert!(message(r#"{"name": "step"}"#).contains("expected one of"));
        assert!(message(r#"{"name": "cosine", "warm_up": 0}"#).contains("warm_up"));
        assert_eq!(message(r#"{"name": "constant"}"#), "");
    }
}
