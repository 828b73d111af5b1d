//! Muon: steps whose singular values are all about one.

use candle_core::{Result as CandleResult, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::adamw::AdamWConfig;
use super::{ParamUpdate, Rule, check_non_negative, check_unit};
use crate::ops::inplace;
use crate::ops::orthogonal::orthogonal;
use crate::{Error, Result};

/// Muon for the weights between hidden channels, as `torch.optim.Muon` (Jordan 2024; steps as large as AdamW's: Liu et
/// al. 2025, arXiv:2502.16982, equation 4), and [AdamW](AdamWConfig) for all others: embeddings, heads, biases, gains.
///
/// With g the gradient, η the learning rate and λ `weight_decay`:
///
/// ```text
/// m = μ m + (1 − μ) g
/// u = orthogonal(μ m + (1 − μ) g)
/// p = p (1 − η λ) − 0.2 η √(max(rows, columns)) u
/// ```
///
/// `orthogonal` brings all singular values near 1, by iterations of Newton and Schulz. A kernel is a matrix
/// (out_channels, in_channels) for each tap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    /// μ, at least 0 and below 1.
    pub momentum: f64,
    /// Iterations of Newton and Schulz, at least 1. Three do as well as five on small networks, in less time.
    pub ns_steps: usize,
    /// λ, per unit of learning rate; that of AdamW too.
    pub weight_decay: f64,
    /// Of AdamW: its learning rate over that of Muon, above 0.
    pub adamw_rate: f64,
    /// Of AdamW: decay of the running mean of the gradient; at least 0, below 1.
    pub beta1: f64,
    /// Of AdamW: decay of the running mean of its square; at least 0, below 1.
    pub beta2: f64,
    /// Of AdamW: added to the denominator.
    pub eps: f64,
}

impl Default for MuonConfig {
    /// PyTorch's values.
    fn default() -> Self {
        let AdamWConfig { beta1, beta2, eps, .. } = AdamWConfig::default();
        Self { momentum: 0.95, ns_steps: 5, weight_decay: 0.1, adamw_rate: 1.0, beta1, beta2, eps }
    }
}

impl MuonConfig {
    fn adamw(&self) -> AdamWConfig {
        let Self { weight_decay, beta1, beta2, eps, .. } = *self;
        AdamWConfig { beta1, beta2, eps, weight_decay }
    }

    /// Adds the gradient to the momentum; gives the two together, as Nesterov does.
    fn direction(&self, u: &ParamUpdate, momentum: &Var) -> CandleResult<Tensor> {
        let (kept, new, factor) = (self.momentum, 1. - self.momentum, u.factor);
        if u.in_place {
            let direction = momentum.zeros_like()?;
            inplace::update(
                momentum,
                u.grad,
                [&direction],
                #[inline(always)]
                |m, g, _| {
                    let g = g * factor;
                    let m = kept * m + new * g;
                    (m, [kept * m + new * g])
                },
            )?;
            return Ok(direction);
        }
        let grad = (u.full_grad(0.)? * new)?;
        momentum.set(&((momentum.as_tensor() * kept)? + &grad)?)?;
        Ok(((momentum.as_tensor() * kept)? + grad)?.detach())
    }
}

impl Rule for MuonConfig {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn validate(&self) -> Result<()> {
        check_unit("optimizer.momentum", self.momentum)?;
        // each is three products of matrices
        let allowed = (1..=100).contains(&self.ns_steps);
        let expected = "a whole number from 1 to 100";
        Error::require(allowed, "optimizer.ns_steps", expected, self.ns_steps)?;
        check_non_negative("optimizer.weight_decay", self.weight_decay)?;
        let rate = self.adamw_rate;
        let allowed = rate.is_finite() && rate > 0.;
        Error::require(allowed, "optimizer.adamw_rate", "a finite number above 0", rate)?;
        self.adamw().validate()
    }

    fn slots(&self, hidden: bool) -> &'static [&'static str] {
        match hidden {
            true => &["momentum"],
            false => self.adamw().slots(hidden),
        }
    }

    fn update(&self, u: &ParamUpdate) -> CandleResult<()> {
        if !u.hidden {
            return self.adamw().update(&ParamUpdate { lr: u.lr * self.adamw_rate, ..*u });
        }
        let [momentum] = u.slots else {
            candle_core::bail!("muon: expected one moment, found {}", u.slots.len())
        };
        let direction = self.direction(u, momentum)?;
        let direction = orthogonal(&direction, self.ns_steps, u.products)?;
        let keep = 1. - u.lr * u.decay(self.weight_decay);
        let longer = u.param.dim(0)?.max(u.param.dim(1)?);
        let rate = 0.2 * u.lr * (longer as f64).sqrt();
        if u.in_place {
            return inplace::update(
                u.param,
                &direction,
                [],
                #[inline(always)]
                |p, u, []| (p * keep - rate * u, []),
            );
        }
        u.param.set(&((u.param.as_tensor() * keep)? - (direction * rate)?)?)
    }
}
