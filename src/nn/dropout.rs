//! Dropout with a seed of its own, for networks built by hand.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{ModuleT, Tensor};

use crate::Result;
use crate::graph::dropout_probability;
use crate::kernels::dropout::MaskKey;
use crate::ops::{self, DropoutKind};

/// Dropout whose masks are a function of a seed and of how often it has dropped.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, ModuleT, Tensor};
/// use candle_tcn::nn::{DropoutKind, SeededDropout};
/// let xs = Tensor::ones((1, 4, 50), DType::F32, &Device::Cpu)?;
/// let drop = || SeededDropout::new(0.5, DropoutKind::Element, 7);
/// let (a, b) = (drop()?.forward_t(&xs, true)?, drop()?.forward_t(&xs, true)?);
/// assert_eq!(a.to_vec3::<f32>()?, b.to_vec3::<f32>()?);
/// assert_eq!(drop()?.forward_t(&xs, false)?.to_vec3::<f32>()?, xs.to_vec3::<f32>()?);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Dropout`, and `Dropout1d` by channels.
#[derive(Debug)]
pub struct SeededDropout {
    p: f64,
    kind: DropoutKind,
    seed: u64,
    drops: AtomicU64,
}

impl SeededDropout {
    /// A layer that drops with probability `p`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a `p` that is no probability below 1.
    pub fn new(p: f64, kind: DropoutKind, seed: u64) -> Result<Self> {
        let p = dropout_probability("dropout", p)?;
        Ok(Self { p, kind, seed, drops: AtomicU64::new(0) })
    }
}

impl ModuleT for SeededDropout {
    fn forward_t(&self, xs: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        if !train {
            return Ok(xs.clone());
        }
        let stream = self.drops.fetch_add(1, Ordering::Relaxed);
        Ok(ops::dropout(xs, self.p, self.kind, MaskKey::new(self.seed, stream))?)
    }
}
