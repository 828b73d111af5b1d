//! RMSprop.

use candle_core::Result as CandleResult;
use serde::{Deserialize, Serialize};

use super::{ParamUpdate, Rule, check_non_negative, check_unit};
use crate::Result;
use crate::ops::inplace;

/// RMSprop as in `torch.optim.RMSprop`, not centred (Tieleman & Hinton 2012, lecture 6.5 of
/// "Neural networks for machine learning").
///
/// With g the gradient plus `weight_decay` · p, α `alpha`, μ `momentum` and η the learning rate:
///
/// ```text
/// v   = α v + (1 − α) g²
/// buf = μ buf + g / (√v + eps)
/// p   = p − η buf
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RmsPropConfig {
    /// Decay of the running mean of the squared gradient; at least 0, below 1.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// μ; at least 0, below 1. At 0 there is no buffer.
    pub momentum: f64,
    /// L2 penalty added to the gradient. Biases, norms and gains are spared, see
    /// [`super::NamedOptimizer`].
    pub weight_decay: f64,
}

impl Default for RmsPropConfig {
    /// PyTorch's values.
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, momentum: 0., weight_decay: 0. }
    }
}

impl Rule for RmsPropConfig {
    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn validate(&self) -> Result<()> {
        check_unit("optimizer.alpha", self.alpha)?;
        check_unit("optimizer.momentum", self.momentum)?;
        check_non_negative("optimizer.eps", self.eps)?;
        check_non_negative("optimizer.weight_decay", self.weight_decay)
    }

    fn slots(&self, _: bool) -> &'static [&'static str] {
        if self.momentum > 0. { &["v", "momentum"] } else { &["v"] }
    }

    fn update(&self, u: &ParamUpdate) -> CandleResult<()> {
        let Self { alpha, eps, momentum, .. } = *self;
        let (param, lr, factor) = (u.param, u.lr, u.factor);
        let decay = u.decay(self.weight_decay);
        match u.slots {
            [v] if u.in_place => inplace::update(
                param,
                u.grad,
                [v],
                #[inline(always)]
                |p, g, [v]| {
                    let g = g * factor + decay * p;
                    let v = alpha * v + (1. - alpha) * g * g;
                    (p - lr * g / (v.sqrt() + eps), [v])
                },
            ),
            [v, buf] if u.in_place => inplace::update(
                param,
                u.grad,
                [v, buf],
                #[inline(always)]
                |p, g, [v, buf]| {
                    let g = g * factor + decay * p;
                    let v = alpha * v + (1. - alpha) * g * g;
                    let buf = momentum * buf + g / (v.sqrt() + eps);
                    (p - lr * buf, [v, buf])
                },
            ),
            [v, buf @ ..] => {
                let grad = u.full_grad(decay)?;
                v.set(&((v.as_tensor() * alpha)? + (grad.sqr()? * (1. - alpha))?)?)?;
                let mut step = (grad / (v.sqrt()? + eps)?)?;
                if let Some(buf) = buf.first() {
                    step = ((buf.as_tensor() * momentum)? + step)?;
                    buf.set(&step)?;
                }
                param.set(&(param.as_tensor() - (step * lr)?)?)
            }
            [] => candle_core::bail!("rmsprop: expected 1 or 2 moments, found none"),
        }
    }
}
