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

impl OptimizerName {
    /// The optimizer, and the learning rate that suits it. Momentum and weight decay are the usual ones where they are
    /// not given: texts that people train on are small and would be learned by heart without decay.
    pub fn config(
        self,
        momentum: Option<f64>,
        weight_decay: Option<f64>,
    ) -> (OptimizerConfig, f64) {
        const BETA2: f64 = 0.99;
        let decay = |usual| weight_decay.unwrap_or(usual);
        match self {
            Self::Adamw => {
                let config =
                    AdamWConfig { beta2: BETA2, weight_decay: decay(2.0), ..Default::default() };
                (OptimizerConfig::AdamW(config), 4e-3)
            }
            Self::Muon => {
                let usual = MuonConfig::default();
                let config = MuonConfig {
                    momentum: momentum.unwrap_or(usual.momentum),
                    ns_steps: 3,
                    adamw_rate: 0.3,
                    beta2: BETA2,
                    weight_decay: decay(0.5),
                    ..usual
                };
                (OptimizerConfig::Muon(config), 0.03)
            }
            Self::Sgd => {
                let (momentum, weight_decay) = (momentum.unwrap_or(0.0), decay(0.0));
                (
                    OptimizerConfig::Sgd(SgdConfig {
                        momentum,
                        weight_decay,
                        ..Default::default()
                    }),
                    0.5,
                )
            }
            Self::Rmsprop => {
                let (momentum, weight_decay) = (momentum.unwrap_or(0.0), decay(0.0));
                let config = RmsPropConfig { momentum, weight_decay, ..Default::default() };
                (OptimizerConfig::RmsProp(config), 5e-4)
            }
        }
    }
}
