//! The reverse walk: gradients of the parameters from the entries that a forward walk wrote.
//!
//! candle's own `backward` makes a tensor of zeros and a sum for every argument of every operation, and keeps every
//! argument alive until the end. A [`Tape`] keeps what a gradient will read, frees it as soon as it was read, hands
//! gradients on without a copy and adds in place.

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{DType, Result as CandleResult, Shape, Tensor, Var, bail};
use half::bf16;

use super::Value;
use crate::kernels::Kernel;
use crate::ops::op::Op;
use crate::ops::profile::{self, Part};
use crate::ops::sum::add_assign;
use crate::{Error, Result};

/// Number of a tensor that has a gradient: a parameter, a value, or what lies between two operations of one node.
pub(super) type GradientSlot = usize;

/// An operation that ran, and what its gradient reads.
pub(super) struct Entry {
    pub ran: Ran,
    /// Slots of its inputs, `None` for a constant.
    pub to: Vec<Option<GradientSlot>>,
    pub from: GradientSlot,
}

pub(super) enum Ran {
    Kernel {
        op: Arc<dyn Op>,
        inputs: Vec<Tensor>,
        output: Tensor,
    },
    /// In candle's primitives, whose gradients candle knows.
    Candle {
        inputs: Vec<Var>,
        output: Tensor,
    },
}

/// A forward walk in training, waiting for the gradients of its outputs.
///
/// Made by [`Network::trace`](super::Network::trace).
pub struct Tape {
    pub(super) entries: Vec<Entry>,
    /// Slots of the outputs, and their shapes in the walk.
    pub(super) outputs: Vec<(Option<GradientSlot>, Shape)>,
    /// Shapes of the parameters, whose slots come first.
    pub(super) parameters: Vec<Vec<usize>>,
    /// Slots there are.
    pub(super) slots: usize,
    pub(super) kernel: Kernel,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

/// A gradient, and a count of the tensors that share its buffer.
struct Grad {
    tensor: Tensor,
    owners: Rc<()>,
}

impl Grad {
    /// `true` if nobody else reads the buffer, so that it may be added to.
    fn is_ours(&self) -> bool {
        Rc::strong_count(&self.owners) == 1 && self.tensor.is_contiguous()
    }

    fn into_own(self) -> CandleResult<Self> {
        if self.is_ours() {
            return Ok(self);
        }
        Ok(Self { tensor: self.tensor.force_contiguous()?, owners: Rc::default() })
    }

    /// The sum of two gradients, in the buffer of one of them where it can be.
    fn plus(self, other: Self, kernel: Kernel) -> CandleResult<Self> {
        let (sum, more) = match (self.is_ours(), other.is_ours()) {
            (false, true) => (other, self),
            _ => (self, other),
        };
        let sum = sum.into_own()?;
        let _span = profile::span(Part::Elementwise);
        if sum.tensor.device().is_cpu() {
            add_assign(kernel, &sum.tensor, &more.tensor.contiguous()?)?;
            return Ok(sum);
        }
        Ok(Self { tensor: (sum.tensor + more.tensor)?, owners: Rc::default() })
    }
}

impl Tape {
    /// Gradients of the parameters, in the order of [`Graph::parameters`](super::Graph::parameters), for the gradients
    /// of the outputs; `None` for a parameter that had no part in them.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the number of gradients is not that of the outputs; those of candle.
    pub fn backward(self, outputs: Vec<Tensor>) -> Result<Vec<Option<Tensor>>> {
        let mut grads = vec![None; self.parameters.len()];
        self.backward_each(outputs, |parameter, grad| {
            grads[parameter] = Some(grad);
            Ok(())
        })?;
        Ok(grads)
    }

    /// As [`backward`](Self::backward): hands out each parameter's gradient as soon as its last reader has added to it,
    /// always in the same order.
    ///
    /// # Errors
    /// As [`backward`](Self::backward), and those of `each`.
    pub fn backward_each(
        self,
        outputs: Vec<Tensor>,
        each: impl FnMut(usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        self.walk_back(outputs, each, |_, _| {})
    }

    /// The gradient of a value of the graph instead: one at which no group of operations was joined, such as that of an
    /// embedding.
    ///
    /// # Errors
    /// As [`backward`](Self::backward); [`Error::Invalid`] where the value has no part in the outputs or no gradient.
    pub fn backward_to(self, outputs: Vec<Tensor>, value: Value) -> Result<Tensor> {
        let slot = self.parameters.len() + value.0;
        let mut found = None;
        let nothing = |_: usize, _: Tensor| Ok(());
        self.walk_back(outputs, nothing, |from, grad| {
            if from == slot {
                found = Some(grad.clone());
            }
        })?;
        let none = || Error::invalid("value", "one with a gradient", format!("node {}", value.0));
        found.ok_or_else(none)
    }

    /// Hands out the gradients of parameters to `each`, and shows those of what operations gave to `seen`.
    fn walk_back(
        mut self,
        outputs: Vec<Tensor>,
        mut each: impl FnMut(usize, Tensor) -> Result<()>,
        mut seen: impl FnMut(GradientSlot, &Tensor),
    ) -> Result<()> {
        if outputs.len() != self.outputs.len() {
            let expected = format!("{}, one for each output", self.outputs.len());
            return Err(Error::invalid("gradients", expected, outputs.len()));
        }
        let mut grads: Vec<Option<Grad>> = Vec::new();
        grads.resize_with(self.slots, || None);
        // who calls may hold them too
        let callers = Rc::new(());
        for ((slot, shape), grad) in self.outputs.iter().zip(outputs) {
            let Some(slot) = *slot else { continue };
            let grad = Grad { tensor: grad.contiguous()?.reshape(shape)?, owners: callers.clone() };
            add(self.kernel, &mut grads[slot], grad)?;
        }
        let mut readers = vec![0usize; self.parameters.len()];
        let slots = self.entries.iter().flat_map(|entry| entry.to.iter().flatten());
        slots.filter(|&&slot| slot < self.parameters.len()).for_each(|&slot| readers[slot] += 1);
        while let Some(entry) = self.entries.pop() {
            let to = entry.to.clone();
            if let Some(grad) = &grads[entry.from] {
                seen(entry.from, &grad.tensor);
            }
            entry.hand_on(self.kernel, &mut grads, &self.parameters)?;
            for slot in to.into_iter().flatten() {
                let Some(count) = readers.get_mut(slot) else { continue };
                *count -= 1;
                if *count == 0
                    && let Some(grad) = grads[slot].take()
                {
                    let grad = grad.into_own()?.tensor;
                    each(slot, grad)?;
                }
            }
        }
        Ok(())
    }
}

fn add(kernel: Kernel, sum: &mut Option<Grad>, grad: Grad) -> CandleResult<()> {
    *sum = Some(match sum.take() {
        None => grad,
        Some(sum) => sum.plus(grad, kernel)?,
    });
    Ok(())
}

/// Address of the buffer of a tensor.
fn buffer(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

impl Entry {
    /// Adds the gradients of the inputs to what they have already.
    fn hand_on(
        self,
        kernel: Kernel,
        grads: &mut [Option<Grad>],
        parameters: &[Vec<usize>],
    ) -> CandleResult<()> {
        // what has no gradient had no part in the outputs
        let Some(dy) = grads[self.from].take() else {
            return Ok(());
        };
        let inputs = self.gradients(kernel, &dy.tensor.contiguous()?)?;
        let mut owners: Vec<(usize, Rc<()>)> = vec![(buffer(&dy.tensor), dy.owners.clone())];
        let others = Rc::new(());
        owners.extend(self.tensors().map(|tensor| (buffer(tensor), others.clone())));
        let mut parts = Vec::with_capacity(inputs.len());
        for (to, tensor) in self.to.iter().zip(inputs) {
            let (Some(to), Some(tensor)) = (*to, tensor) else { continue };
            let place = buffer(&tensor);
            let known = owners.iter().find(|(other, _)| *other == place);
            let owner = known.map(|(_, owner)| owner.clone()).unwrap_or_default();
            owners.push((place, owner.clone()));
            // a matrix may be read as a convolution
            let tensor = match parameters.get(to) {
                Some(shape) if tensor.dims() != &shape[..] => tensor.reshape(&shape[..])?,
                _ => tensor,
            };
            parts.push((to, Grad { tensor, owners: owner }));
        }
        // from here on, buffers belong to whom they are handed
        drop((self, dy, owners));
        parts.into_iter().try_for_each(|(to, grad)| add(kernel, &mut grads[to], grad))
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let (inputs, vars, output) = match &self.ran {
            Ran::Kernel { inputs, output, .. } => (&inputs[..], &[][..], output),
            Ran::Candle { inputs, output } => (&[][..], &inputs[..], output),
        };
        inputs.iter().chain(vars.iter().map(|var| var.as_tensor())).chain([output])
    }

    fn gradients(&self, kernel: Kernel, dy: &Tensor) -> CandleResult<Vec<Option<Tensor>>> {
        let (op, inputs, output) = match &self.ran {
            Ran::Kernel { op, inputs, output } => (op, inputs, output),
            Ran::Candle { inputs, output } => {
                let grads = (output * dy)?.sum_all()?.backward()?;
                return Ok(inputs.iter().map(|var| grads.get(var).cloned()).collect());
            }
        };
        // what is not a product of its own, such as the derivative of a fused activation
        let _span = profile::span(match profile::part_of(op.name()) {
            Part::Forward => Part::Elementwise,
            part => part,
        });
        let grads = op.backward(kernel, inputs, output, dy)?;
        for (x, grad) in inputs.iter().zip(&grads) {
            if let Some(grad) = grad
                && (grad.shape() != x.shape() || grad.dtype() != x.dtype())
            {
                bail!(
                    "{}: a gradient of {:?} {:?} for an argument of {:?} {:?}",
                    op.name(),
                    grad.dtype(),
                    grad.shape(),
                    x.dtype(),
                    x.shape()
                )
            }
        }
        Ok(grads)
    }
}

/// A tensor of the same shape that holds nothing but one number, for whom its own were not kept.
pub(super) fn hollow(x: &Tensor) -> CandleResult<Tensor> {
    let nan = match x.dtype() {
        DType::F32 => Tensor::new(f32::NAN, x.device())?,
        DType::F64 => Tensor::new(f64::NAN, x.device())?,
        DType::BF16 => Tensor::new(bf16::NAN, x.device())?,
        other => bail!("a tape records f32, f64 and bf16, not {other:?}"),
    };
    nan.broadcast_as(x.shape())
}
