//! AdamW: Adam with weight decay taken outside the moments.

use candle_core::Result as CandleResult;
use serde::{Deserialize, Serialize};

use super::{ParamUpdate, Rule, check_non_negative, check_unit};
use crate::Result;
use crate::ops::inplace;

/// AdamW as in `torch.optim.AdamW` (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).
///
/// With g the gradient, t the step counted from 1, η the learning rate and λ `weight_decay`:
///
/// ```text
/// m = β₁ m + (1 − β₁) g
/// v = β₂ v + (1 − β₂) g²
/// p = p (1 − η λ) − η · m / (1 − β₁ᵗ) / (√v / √(1 − β₂ᵗ) + eps)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the running mean of the gradient; at least 0, below 1.
    pub beta1: f64,
    /// Decay of the running mean of its square; at least 0, below 1.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// λ, per unit of learning rate. Biases, norms and gains are spared, see [`super::NamedOptimizer`].
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's values.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl Rule for AdamWConfig {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn validate(&self) -> Result<()> {
        check_unit("optimizer.beta1", self.beta1)?;
        check_unit("optimizer.beta2", self.beta2)?;
        check_non_negative("optimizer.eps", self.eps)?;
        check_non_negative("optimizer.weight_decay", self.weight_decay)
    }

    fn slots(&self, _: bool) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn update(&self, u: &ParamUpdate) -> CandleResult<()> {
        let Self { beta1, beta2, eps, .. } = *self;
        let [m, v] = u.slots else {
            candle_core::bail!("adamw: expected two moments, found {}", u.slots.len())
        };
        let (param, factor) = (u.param, u.factor);
        let keep = 1. - u.lr * u.decay(self.weight_decay);
        let root = (1. - beta2.powf(u.step)).sqrt();
        // the fraction of the formula, multiplied by √(1 − β₂ᵗ): one division instead of two
        let (rate, eps) = (u.lr / (1. - beta1.powf(u.step)) * root, eps * root);
        if u.in_place {
            return inplace::update(
                param,
                u.grad,
                [m, v],
                #[inline(always)]
                |p, g, [m, v]| {
                    let g = g * factor;
                    let m = beta1 * m + (1. - beta1) * g;
                    let v = beta2 * v + (1. - beta2) * g * g;
                    (p * keep - rate * m / (v.sqrt() + eps), [m, v])
                },
            );
        }
        let grad = u.full_grad(0.)?;
        m.set(&((m.as_tensor() * beta1)? + (&grad * (1. - beta1))?)?)?;
        v.set(&((v.as_tensor() * beta2)? + (grad.sqr()? * (1. - beta2))?)?)?;
        let update = (m.as_tensor() / (v.sqrt()? + eps)?)?;
        param.set(&((param.as_tensor() * keep)? - (update * rate)?)?)
    }
}
