//! Stochastic gradient descent.

use candle_core::Result as CandleResult;
use serde::{Deserialize, Serialize};

use super::{ParamUpdate, Rule, check_non_negative, check_unit};
use crate::ops::inplace;
use crate::{Error, Result};

/// SGD with momentum as in `torch.optim.SGD` with dampening 0 (Sutskever et al. 2013, "On the
/// importance of initialization and momentum in deep learning").
///
/// With g the gradient plus `weight_decay` · p, μ `momentum` and η the learning rate:
///
/// ```text
/// buf = μ buf + g
/// p   = p − η buf            or, with nesterov,   p − η (g + μ buf)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// μ; at least 0, below 1. At 0 there is no buffer.
    pub momentum: f64,
    /// Look ahead along the momentum; needs `momentum` above 0.
    pub nesterov: bool,
    /// L2 penalty added to the gradient. Biases, norms and gains are spared, see
    /// [`super::NamedOptimizer`].
    pub weight_decay: f64,
}

impl Rule for SgdConfig {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn validate(&self) -> Result<()> {
        check_unit("optimizer.momentum", self.momentum)?;
        let allowed = !self.nesterov || self.momentum > 0.;
        Error::require(allowed, "optimizer.momentum", "above 0 with nesterov", 0)?;
        check_non_negative("optimizer.weight_decay", self.weight_decay)
    }

    fn slots(&self, _: bool) -> &'static [&'static str] {
        if self.momentum > 0. { &["momentum"] } else { &[] }
    }

    fn update(&self, u: &ParamUpdate) -> CandleResult<()> {
        let (param, lr, momentum, nesterov) = (u.param, u.lr, self.momentum, self.nesterov);
        let (factor, decay) = (u.factor, u.decay(self.weight_decay));
        match u.slots {
            [buf] if u.in_place => inplace::update(
                param,
                u.grad,
                [buf],
                #[inline(always)]
                |p, g, [buf]| {
                    let g = g * factor + decay * p;
                    let buf = momentum * buf + g;
                    let step = if nesterov { g + momentum * buf } else { buf };
                    (p - lr * step, [buf])
                },
            ),
            [buf] => {
                let grad = u.full_grad(decay)?;
                buf.set(&((buf.as_tensor() * momentum)? + &grad)?)?;
                let step = if nesterov {
                    (grad + (buf.as_tensor() * momentum)?)?
                } else {
                    buf.as_detached_tensor()
                };
                param.set(&(param.as_tensor() - (step * lr)?)?)
            }
            _ if u.in_place => inplace::update(
                param,
                u.grad,
                [],
                #[inline(always)]
                |p, g, []| (p - lr * (g * factor + decay * p), []),
            ),
            _ => param.set(&(param.as_tensor() - (u.full_grad(decay)? * lr)?)?),
        }
    }
}
