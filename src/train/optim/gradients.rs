//! The gradients of one step, in the order of the parameters.

use std::sync::OnceLock;

use candle_core::{Tensor, Var, backprop::GradStore};

use crate::graph::Graph;
use crate::kernels::parallel;
use crate::ops;
use crate::ops::inplace::sum_of_squares;
use crate::{Error, Result};

/// One optional gradient per parameter, in the order of the parameters.
///
/// # Numerics
///
/// Sums over gradients are taken in an order fixed by the parameters alone, so results do not
/// depend on the number of threads.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_tcn::train::optim::Gradients;
///
/// let w = Var::new(&[3f32, 4.], &Device::Cpu)?;
/// let params = vec![("w".to_string(), w.clone())];
/// let loss = (w.sqr()?.sum_all()? * 0.5)?; // ∂loss/∂w = w
/// let mut grads = Gradients::from_store(&loss.backward()?, &params);
/// assert_eq!(grads.norm()?, 5.0);
/// assert_eq!(grads.clip(1.0)?, 5.0); // the norm before clipping
/// assert!((grads.norm()? - 1.0).abs() < 1e-6);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gradients {
    tensors: Vec<Option<Tensor>>,
    /// A factor that the tensors are still to be multiplied by: the optimizer does it in its own pass. Two
    /// parameters may share one tensor, which is then not scaled twice.
    factor: f64,
    /// Norm of the tensors without the factor, where it was asked for.
    length: OnceLock<f64>,
}

impl Gradients {
    /// One gradient, or `None`, for each parameter in order.
    pub fn new(grads: Vec<Option<Tensor>>) -> Self {
        let tensors = grads.into_iter().map(|g| g.map(|g| g.detach())).collect();
        Self { tensors, factor: 1., length: OnceLock::new() }
    }

    /// Takes the gradients of `params` from what `loss.backward()` returned. A parameter that the
    /// loss does not depend on has none.
    pub fn from_store(store: &GradStore, params: &[(String, Var)]) -> Self {
        // detached: a gradient would otherwise keep the activations of the whole graph alive
        Self::new(params.iter().map(|(_, p)| store.get(p).cloned()).collect())
    }

    /// Takes the gradients of `params` from what [`Tape::backward`](crate::graph::Tape::backward) returned for a
    /// network of this graph. A parameter that is none of the network's has none.
    pub fn of(graph: &Graph, mut grads: Vec<Option<Tensor>>, params: &[(String, Var)]) -> Self {
        let places = params.iter().map(|(name, _)| {
            graph.parameters().iter().position(|parameter| parameter.name == *name)
        });
        Self::new(places.map(|place| grads.get_mut(place?)?.take()).collect())
    }

    /// The gradients in the order of the parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] if a multiplication fails on the device.
    pub fn tensors(&self) -> Result<Vec<Option<Tensor>>> {
        let scaled = |grad: &Option<Tensor>| {
            let grad = grad.as_ref();
            let scaled = grad.map(|grad| match self.factor {
                1. => Ok(grad.clone()),
                factor => grad.affine(factor, 0.),
            });
            Ok(scaled.transpose()?)
        };
        parallel::map(self.tensors.iter(), scaled).into_iter().collect()
    }

    /// The gradients divided by a factor, and that factor.
    pub(super) fn parts(&self) -> (&[Option<Tensor>], f64) {
        (&self.tensors, self.factor)
    }

    /// Adds the gradients of another micro-batch.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the two are of different length, or two tensors of different shape or
    /// dtype.
    pub fn accumulate(&mut self, other: &Self) -> Result<()> {
        check_len(self.tensors.len(), other.tensors.len())?;
        self.length = OnceLock::new();
        if self.factor != other.factor {
            self.tensors = self.tensors()?;
            self.factor = 1.;
        }
        let other =
            if self.factor == other.factor { other.tensors.clone() } else { other.tensors()? };
        let pairs = self.tensors.iter().zip(other);
        let sums = parallel::map(pairs, |(sum, more)| match (sum, more) {
            // not in place: whoever has a clone of these gradients shares their tensors
            (Some(sum), Some(more)) => Ok(Some(ops::add(sum, &more)?)),
            (sum, more) => Ok(more.or(sum.clone())),
        });
        self.tensors = sums.into_iter().collect::<Result<_>>()?;
        Ok(())
    }

    /// Multiplies every gradient by `factor`, for instance 1 / micro-batches.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] unless `factor` is finite.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        Error::require(factor.is_finite(), "factor", "a finite number", factor)?;
        self.factor *= factor;
        Ok(())
    }

    /// The global L2 norm, √(Σ over all elements of all gradients of g²).
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] if a gradient cannot be read.
    pub fn norm(&self) -> Result<f64> {
        if let Some(length) = self.length.get() {
            return Ok(self.factor.abs() * length);
        }
        let squares =
            parallel::map(self.tensors.iter(), |grad| grad.as_ref().map_or(Ok(0.), sum_of_squares));
        let squares: candle_core::Result<Vec<f64>> = squares.into_iter().collect();
        let length = squares?.iter().sum::<f64>().sqrt();
        Ok(self.factor.abs() * self.length.get_or_init(|| length))
    }

    /// Multiplies all gradients by min(1, `max_norm` / (norm + 1e-6)), as
    /// `torch.nn.utils.clip_grad_norm_` does, and returns the norm before that.
    ///
    /// A norm that is not finite is returned and the gradients are left as they are: the step is
    /// lost either way, and the caller should stop.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] unless `max_norm` is finite and above 0.
    pub fn clip(&mut self, max_norm: f64) -> Result<f64> {
        let allowed = max_norm.is_finite() && max_norm > 0.;
        Error::require(allowed, "clip", "a finite number above 0", max_norm)?;
        let norm = self.norm()?;
        let coef = max_norm / (norm + 1e-6);
        if norm.is_finite() && coef < 1. {
            self.scale(coef)?;
        }
        Ok(norm)
    }
}

pub(super) fn check_len(expected: usize, found: usize) -> Result<()> {
    Error::require(found == expected, "gradients", &format!("{expected}, one per parameter"), found)
}
