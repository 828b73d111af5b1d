//! The optimizers that flags name, with the settings that suit the networks here.

use candle_tcn::train::optim::{
    AdamWConfig, MuonConfig, OptimizerConfig, RmsPropConfig, SgdConfig,
};
use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimizerName {
    Adamw,
    Muon,
    Sgd,
    Rmsprop,
}

/// Settings that flags give.
#[derive(Clone, Copy, Default)]
pub struct OptimizerFlags {
    pub lr: Option<f64>,
    pub momentum: Option<f64>,
    pub weight_decay: Option<f64>,
}

impl OptimizerName {
    /// The optimizer, and its learning rate, for data of which a pass takes so many steps, if that is known. Texts that people train on are
    /// small and would be learned by heart without weight decay.
    pub fn config(
        self,
        flags: OptimizerFlags,
        steps_a_pass: Option<f64>,
    ) -> (OptimizerConfig, f64) {
        const BETA2: f64 = 0.99;
        let (usual_lr, usual_decay) = match self {
            Self::Adamw => (4e-3, 2.0),
            Self::Muon => muon_settings(steps_a_pass),
            Self::Sgd => (0.5, 0.0),
            Self::Rmsprop => (5e-4, 0.0),
        };
        let weight_decay = flags.weight_decay.unwrap_or(usual_decay);
        let momentum = flags.momentum.unwrap_or(match self {
            Self::Muon => MuonConfig::default().momentum,
            _ => 0.0,
        });
        let config = match self {
            Self::Adamw => OptimizerConfig::AdamW(AdamWConfig {
                beta2: BETA2,
                weight_decay,
                ..Default::default()
            }),
            Self::Muon => OptimizerConfig::Muon(MuonConfig {
                momentum,
                ns_steps: 3,
                adamw_rate: 0.3,
                beta2: BETA2,
                weight_decay,
                ..Default::default()
            }),
            Self::Sgd => {
                OptimizerConfig::Sgd(SgdConfig { momentum, weight_decay, ..Default::default() })
            }
            Self::Rmsprop => OptimizerConfig::RmsProp(RmsPropConfig {
                momentum,
                weight_decay,
                ..Default::default()
            }),
        };
        (config, flags.lr.unwrap_or(usual_lr))
    }
}

/// Learning rate and weight decay of Muon for data of which a pass takes so many steps. Their product, by which weights
/// forget, lets them remember about a third of a pass at first, more of a long one: a network that forgets sooner knows the
/// end of a text alone, one that forgets later learns a short text by heart. See docs/recipe.md.
fn muon_settings(steps_a_pass: Option<f64>) -> (f64, f64) {
    /// Tiny Shakespeare in batches of 4,096 tokens, for which the settings were searched.
    const STEPS: f64 = 245.0;
    const SETTINGS: (f64, f64) = (0.02, 0.6);
    /// Within what was tried.
    const FACTORS: (f64, f64) = (0.3, 2.0);
    let factor = (STEPS / steps_a_pass.unwrap_or(STEPS)).sqrt().clamp(FACTORS.0, FACTORS.1);
    let lr = SETTINGS.0 * factor.min(1.0);
    let weight_decay = SETTINGS.1 * factor * factor.max(1.0);
    // in digits that can be typed
    ((lr * 1e3).round() / 1e3, (weight_decay * 1e2).round() / 1e2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_texts_want_slower_steps_and_shorter_ones_more_decay() {
        // a quarter of a megabyte, Tiny Shakespeare, five megabytes and fifty in batches of 4,096
        let steps = [61.25, 245.0, 1_225.0, 12_250.0, f64::INFINITY];
        let settings = [(0.02, 2.4), (0.02, 0.6), (0.009, 0.27), (0.006, 0.18), (0.006, 0.18)];
        assert_eq!(steps.map(|steps| muon_settings(Some(steps))), settings);
        assert_eq!(muon_settings(None), settings[1]);
    }
}
