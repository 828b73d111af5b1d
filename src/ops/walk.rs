//! The way back over a tape: who owns a gradient's buffer, and sums in place.

use std::collections::HashMap;
use std::rc::Rc;

use candle_core::{Result, Tensor, TensorId};

use super::sum::add_assign;
use super::tape::Node;
use crate::profile::{self, Part};

/// A gradient, or the part of it that is known so far.
struct Grad {
    tensor: Tensor,
    /// Everyone whose numbers lie in this buffer holds a clone.
    owners: Rc<()>,
}

impl Grad {
    /// Whether nobody else reads the buffer.
    fn is_ours(&self) -> bool {
        Rc::strong_count(&self.owners) == 1 && self.tensor.is_contiguous()
    }

    /// The gradient in a buffer that nobody else reads.
    fn into_own(self) -> Result<Self> {
        if self.is_ours() {
            return Ok(self);
        }
        Ok(Self { tensor: self.tensor.force_contiguous()?, owners: Rc::default() })
    }

    /// The sum of two, in the buffer of one of them if it can be.
    fn plus(self, other: Self) -> Result<Self> {
        let (sum, more) = match (self.is_ours(), other.is_ours()) {
            (false, true) => (other, self),
            _ => (self, other),
        };
        let sum = sum.into_own()?;
        let _span = profile::span(Part::Elementwise);
        add_assign(&sum.tensor, &more.tensor.contiguous()?)?;
        Ok(sum)
    }
}

/// Where a tensor's numbers lie.
fn buffer(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

/// Gradients on their way from the loss to the parameters.
pub(super) struct Walk {
    grads: HashMap<TensorId, Grad>,
    /// The owner of every buffer that is not a gradient's.
    others: Rc<()>,
}

impl Walk {
    /// The walk that begins at `loss`.
    pub(super) fn new(loss: &Tensor) -> Result<Self> {
        let one = Grad { tensor: loss.ones_like()?.detach(), owners: Rc::default() };
        Ok(Self { grads: HashMap::from([(loss.id(), one)]), others: Rc::default() })
    }

    /// Hands the gradient of the result of `node` on to its arguments, and frees what both held.
    pub(super) fn step(&mut self, node: Node) -> Result<()> {
        // who has no gradient had no part in the loss
        let Some(dy) = self.grads.remove(&node.from) else {
            return Ok(());
        };
        let grads = {
            // what is not a product of its own, such as the derivative of a fused activation
            let _span = profile::span(match profile::part_of(node.name()) {
                Part::Forward => Part::Elementwise,
                part => part,
            });
            node.gradients(&dy.tensor)?
        };
        let mut owners: Vec<(usize, Rc<()>)> = vec![(buffer(&dy.tensor), dy.owners.clone())];
        let others = node.tensors().map(|t| (buffer(t), self.others.clone()));
        owners.extend(others);
        let mut parts = Vec::with_capacity(grads.len());
        for (to, tensor) in node.to.iter().zip(grads) {
            let (Some(to), Some(tensor)) = (*to, tensor) else {
                continue;
            };
            let place = buffer(&tensor);
            let known = owners.iter().find(|(other, _)| *other == place);
            let owner = known.map(|(_, owner)| owner.clone()).unwrap_or_default();
            owners.push((place, owner.clone()));
            let grad = Grad { tensor, owners: owner };
            parts.push((to, grad));
        }
        // from here on, buffers belong to whom they are handed
        drop((node, dy, owners));
        for (to, grad) in parts {
            let sum = match self.grads.remove(&to) {
                None => grad,
                Some(sum) => sum.plus(grad)?,
            };
            self.grads.insert(to, sum);
        }
        Ok(())
    }

    /// The gradients of `params`.
    pub(super) fn finish(mut self, params: &[TensorId]) -> Result<Vec<Option<Tensor>>> {
        params
            .iter()
            .map(|id| {
                let grad = self.grads.remove(id).map(Grad::into_own).transpose()?;
                Ok(grad.map(|grad| grad.tensor))
            })
            .collect()
    }
}
