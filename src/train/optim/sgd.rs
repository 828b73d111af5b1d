//! Stochastic gradient descent.

use candle_core::Result as CandleResult;
use serde::{Deserialize, Serialize};

use super::{Update, check_non_negative, check_unit};
use crate::ops::inplace::{zip2, zip3};
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
    /// [`super::Optimizer`].
    pub weight_decay: f64,
}

impl SgdConfig {
    pub(super) fn validate(&self) -> Result<()> {
        check_unit("optimizer.momentum", self.momentum)?;
        if self.nesterov && self.momentum == 0. {
            let expected = "above 0 with nesterov";
            return Err(Error::invalid("optimizer.momentum", expected, 0));
        }
        check_non_negative("optimizer.weight_decay", self.weight_decay)
    }

    pub(super) fn slots(&self) -> &'static [&'static str] {
        if self.momentum > 0. {
            &["momentum"]
        } else {
            &[]
        }
    }

    pub(super) fn update(&self, u: &Update) -> CandleResult<()> {
        let (param, lr, momentum) = (u.param, u.lr, self.momentum);
        let grad = u.grad_with_l2(self.weight_decay)?;
        match u.slots {
            [buf] if u.in_place => {
                zip2(buf, &grad, |buf, g| momentum * buf + g)?;
                let nesterov = self.nesterov;
                zip3(param, &grad, buf, |p, g, buf| {
                    p - lr * if nesterov { g + momentum * buf } else { buf }
                })
            }
            [buf] => {
                buf.set(&((buf.as_tensor() * momentum)? + &grad)?)?;
                let step = if self.nesterov {
                    (grad + (buf.as_tensor() * momentum)?)?
                } else {
                    buf.as_detached_tensor()
                };
                param.set(&(param.as_tensor() - (step * lr)?)?)
            }
            _ if u.in_place => zip2(param, &grad, |p, g| p - lr * g),
            _ => param.set(&(param.as_tensor() - (grad * lr)?)?),
        }
    }
}
