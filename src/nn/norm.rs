//! Normalisation layers over the channels of `(batch, time, channels)`.

use candle_core::{Tensor, Var};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use super::Pass;
use crate::Result;
use crate::kernels::{elementwise::Activation, rows::RowNorm};
use crate::ops;

/// Which normalisation a block uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Weight norm on the convolutions' weights (Salimans & Kingma 2016, arXiv:1602.07868).
    #[default]
    Weight,
    /// Layer norm over the channels of each step, eps 1e-5 (`torch.nn.LayerNorm`).
    Layer,
    /// Batch norm over batch and time, eps 1e-5, momentum 0.1 (`torch.nn.BatchNorm1d`).
    Batch,
    /// Root-mean-square norm over the channels of each step, eps 1e-6 (`torch.nn.RMSNorm`).
    Rms,
    /// None.
    None,
}

/// A normalisation layer; [`NormKind::Weight`] and [`NormKind::None`] leave the input as it is.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{Norm, NormKind, Params, Pass};
/// let params = Params::new(1, DType::F64, &Device::Cpu);
/// let norm = Norm::new(NormKind::Layer, 2, params.builder())?;
/// let ys = norm.forward(&Tensor::new(&[[[1f64, 3.]]], &Device::Cpu)?, &mut Pass::eval())?;
/// let ys = ys.flatten_all()?.to_vec1::<f64>()?;
/// assert!((ys[0] + 1.).abs() < 1e-4 && (ys[1] - 1.).abs() < 1e-4);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum Norm {
    /// No change.
    Identity,
    /// Layer or RMS norm.
    Rows {
        /// (channels)
        weight: Tensor,
        /// (channels); layer norm only
        bias: Option<Tensor>,
        /// Centred or not, and eps.
        norm: RowNorm,
    },
    /// Batch norm.
    Batch(BatchNorm),
}

/// Batch norm over batch and time, one mean and variance per channel.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
}

const BATCH_EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl Norm {
    /// A layer of this kind with the tensors of `vb`: `weight`, and `bias`, `running_mean`,
    /// `running_var` where the kind has them, each `(channels)`.
    ///
    /// # Errors
    /// Those of `vb`.
    pub fn new(kind: NormKind, channels: usize, vb: VarBuilder) -> Result<Self> {
        let one = |name| vb.get_with_hints(channels, name, Init::Const(1.0));
        let zero = |name| vb.get_with_hints(channels, name, Init::Const(0.0));
        Ok(match kind {
            NormKind::Weight | NormKind::None => Self::Identity,
            NormKind::Layer => Self::layer(channels, 1e-5, vb)?,
            NormKind::Rms => Self::Rows {
                weight: one("weight")?,
                bias: None,
                norm: RowNorm { center: false, eps: 1e-6 },
            },
            NormKind::Batch => Self::Batch(BatchNorm {
                weight: one("weight")?,
                bias: zero("bias")?,
                running_mean: Var::from_tensor(&zero("running_mean")?)?,
                running_var: Var::from_tensor(&one("running_var")?)?,
            }),
        })
    }

    /// Layer norm with an eps of its own.
    ///
    /// # Errors
    /// Those of `vb`.
    pub fn layer(channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self::Rows {
            weight: vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            bias: Some(vb.get_with_hints(channels, "bias", Init::Const(0.0))?),
            norm: RowNorm { center: true, eps },
        })
    }

    /// Normalises `(batch, time, channels)`. In training, batch norm uses the batch's own statistics
    /// and updates the running ones.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(xs.clone()),
            Self::Rows { weight, bias, norm } => {
                ops::normalize_rows(xs, weight, bias.as_ref(), *norm, None)
            }
            Self::Batch(norm) if pass.is_training() => norm.train(xs),
            Self::Batch(norm) => {
                let moments = [&*norm.running_mean, &*norm.running_var];
                ops::batch_norm_with(xs, &norm.weight, &norm.bias, moments, BATCH_EPS)
            }
        }
    }

    /// As [`forward`](Self::forward), then `activation`; of a norm of rows in one pass.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn forward_then(
        &self,
        xs: &Tensor,
        activation: Activation,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        match self {
            Self::Rows { weight, bias, norm } => {
                ops::normalize_rows(xs, weight, bias.as_ref(), *norm, Some(activation))
            }
            _ => ops::activate(&self.forward(xs, pass)?, activation),
        }
    }
}

impl BatchNorm {
    /// Mean, scale and bias of each channel by the running statistics: `y = (x − mean)·scale + bias`.
    pub(crate) fn affine(&self) -> Result<[Tensor; 3]> {
        let mean = self.running_mean.as_detached_tensor();
        let var = self.running_var.as_detached_tensor();
        let scale = (&self.weight / (var + BATCH_EPS)?.sqrt()?)?;
        Ok([mean, scale, self.bias.clone()])
    }

    fn train(&self, xs: &Tensor) -> Result<Tensor> {
        let (ys, mean, var) = ops::batch_norm(xs, &self.weight, &self.bias, BATCH_EPS)?;
        let n = (xs.elem_count() / self.weight.elem_count()) as f64;
        // PyTorch keeps the unbiased variance
        let unbiased = (var * (n / (n - 1.0).max(1.0)))?;
        for (running, new) in [(&self.running_mean, mean), (&self.running_var, unbiased)] {
            let kept = (running.as_detached_tensor() * (1.0 - MOMENTUM))?;
            running.set(&(kept + (new * MOMENTUM)?)?)?;
        }
        Ok(ys)
    }
}
