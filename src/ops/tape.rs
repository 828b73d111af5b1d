//! A recording of our operations, and gradients from it.
//!
//! candle's own `backward` makes a tensor of zeros and a sum for every argument of every operation, and
//! keeps every argument alive until the end. A [`Tape`] keeps what a gradient will read, frees it as
//! soon as it was read, hands gradients on without a copy and adds in place.
//!
//! Operations go through [`apply1`], [`apply2`] and [`apply3`]. Where nothing records they are candle's
//! custom operations, differentiable by candle; while a tape records, they are noted on it. Both use
//! the same `bwd`.
//!
//! While a tape records, results of noted operations are variables to candle. So whatever candle's own
//! operations make of them or of a parameter knows that it has a past, and is refused as an argument:
//! its gradient would get lost.

use std::cell::RefCell;
use std::collections::HashSet;

use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor,
    TensorId, bail,
};
use half::bf16;

use super::walk::Walk;

thread_local! {
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// Which tensors the `bwd` of an operation reads beside the gradient; the others are freed early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Inputs,
    Output,
    Both,
}

/// An operation of any number of arguments.
pub(super) enum Op {
    One(Box<dyn CustomOp1>),
    Two(Box<dyn CustomOp2>),
    Three(Box<dyn CustomOp3>),
    /// The same numbers under another shape.
    Reshape,
}

impl Op {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::One(op) => op.name(),
            Self::Two(op) => op.name(),
            Self::Three(op) => op.name(),
            Self::Reshape => "reshape",
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(CpuStorage, Shape)> {
        match (self, inputs) {
            (Self::One(op), [a]) => on_cpu(a, |s, l| op.cpu_fwd(s, l)),
            (Self::Two(op), [a, b]) => {
                on_cpu(a, |s, l| on_cpu(b, |s2, l2| op.cpu_fwd(s, l, s2, l2)))
            }
            (Self::Three(op), [a, b, c]) => on_cpu(a, |s, l| {
                on_cpu(b, |s2, l2| on_cpu(c, |s3, l3| op.cpu_fwd(s, l, s2, l2, s3, l3)))
            }),
            _ => bail!("{}: {} arguments are not what it takes", self.name(), inputs.len()),
        }
    }

    /// The gradient of each argument.
    fn backward(&self, inputs: &[Tensor], y: &Tensor, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(match (self, inputs) {
            (Self::One(op), [a]) => vec![op.bwd(a, y, dy)?],
            (Self::Two(op), [a, b]) => op.bwd(a, b, y, dy).map(|(a, b)| vec![a, b])?,
            (Self::Three(op), [a, b, c]) => {
                op.bwd(a, b, c, y, dy).map(|(a, b, c)| vec![a, b, c])?
            }
            (Self::Reshape, [a]) => vec![Some(dy.reshape(a.shape())?)],
            _ => bail!("{}: {} arguments are not what it takes", self.name(), inputs.len()),
        })
    }
}

fn on_cpu<R>(tensor: &Tensor, run: impl FnOnce(&CpuStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => run(storage, layout),
        _ => bail!("a tape records on the CPU only"),
    }
}

/// One noted operation.
pub(super) struct Node {
    op: Op,
    /// Shapes at least; numbers where `bwd` reads them.
    inputs: Vec<Tensor>,
    output: Tensor,
    /// Of each input that has a gradient.
    pub(super) to: Vec<Option<TensorId>>,
    pub(super) from: TensorId,
}

impl Node {
    /// The gradient of each argument for that of the result, and the tensors that `bwd` read.
    pub(super) fn gradients(&self, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let grads = self.op.backward(&self.inputs, &self.output, dy)?;
        for (x, grad) in self.inputs.iter().zip(&grads) {
            if let Some(grad) = grad
                && (grad.shape() != x.shape() || grad.dtype() != x.dtype())
            {
                bail!(
                    "{}: a gradient of {:?} {:?} for an argument of {:?} {:?}",
                    self.op.name(),
                    grad.dtype(),
                    grad.shape(),
                    x.dtype(),
                    x.shape()
                )
            }
        }
        Ok(grads)
    }

    pub(super) fn name(&self) -> &'static str {
        self.op.name()
    }

    /// The tensors that are not the node's alone.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.inputs.iter().chain([&self.output])
    }
}

/// A recording of operations; see the module.
#[derive(Default)]
pub(crate) struct Tape {
    nodes: Vec<Node>,
    /// Results of [`reshape`], which are not variables to candle.
    views: HashSet<TensorId>,
}

/// Puts back what recorded before, also where an operation fails.
struct Restore(Option<Tape>);

impl Drop for Restore {
    fn drop(&mut self) {
        RECORDING.set(self.0.take());
    }
}

impl Tape {
    /// Notes the operations that `run` does on this thread.
    ///
    /// # Errors
    /// Those of `run`.
    pub(crate) fn record<T>(run: impl FnOnce() -> crate::Result<T>) -> crate::Result<(T, Self)> {
        let restore = Restore(RECORDING.replace(Some(Self::default())));
        let value = run()?;
        let tape = RECORDING.take().unwrap_or_default();
        drop(restore);
        Ok((value, tape))
    }

    /// The gradient of `loss` by each of `params`, `None` where it does not depend on one. Each lies in
    /// a buffer of its own.
    ///
    /// # Errors
    /// Where `loss` is not the result of a noted operation, and those of the operations.
    pub(crate) fn backward<'a>(
        mut self,
        loss: Tensor,
        params: impl IntoIterator<Item = &'a Tensor>,
    ) -> crate::Result<Vec<Option<Tensor>>> {
        if self.nodes.last().is_none_or(|last| last.from != loss.id()) {
            let error = "backward: the loss is not the result of the last operation recorded";
            return Err(candle_core::Error::Msg(error.into()).into());
        }
        let params: Vec<TensorId> = params.into_iter().map(Tensor::id).collect();
        let mut walk = Walk::new(&loss)?;
        drop(loss);
        while let Some(node) = self.nodes.pop() {
            walk.step(node)?;
        }
        Ok(walk.finish(&params)?)
    }

    /// Whether `x` was made by something that is not noted here.
    fn is_stranger(&self, x: &Tensor) -> bool {
        x.track_op() && !x.is_variable() && !self.views.contains(&x.id())
    }

    fn note(&mut self, op: Op, inputs: &[&Tensor], output: &Tensor, keep: Keep) -> Result<()> {
        let kept = |x: &Tensor, needed| if needed { Ok(x.clone()) } else { hollow(x) };
        self.nodes.push(Node {
            op,
            inputs: inputs
                .iter()
                .map(|x| kept(x, matches!(keep, Keep::Inputs | Keep::Both)))
                .collect::<Result<_>>()?,
            output: kept(output, matches!(keep, Keep::Output | Keep::Both))?,
            to: inputs.iter().map(|x| x.track_op().then(|| x.id())).collect(),
            from: output.id(),
        });
        Ok(())
    }
}

/// The shape of a tensor without its numbers: an operation that reads them all the same fails, as it
/// is not contiguous, or (where one element is all there is, which always is contiguous) reads NaN.
fn hollow(x: &Tensor) -> Result<Tensor> {
    let nan = match x.dtype() {
        DType::F32 => Tensor::new(f32::NAN, x.device())?,
        DType::F64 => Tensor::new(f64::NAN, x.device())?,
        DType::BF16 => Tensor::new(bf16::NAN, x.device())?,
        other => bail!("a tape records f32, f64 and bf16, not {other:?}"),
    };
    nan.broadcast_as(x.shape())
}

fn is_recording() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

fn with_tape<R>(run: impl FnOnce(&mut Tape) -> Result<R>) -> Result<R> {
    RECORDING.with_borrow_mut(|tape| run(tape.get_or_insert_default()))
}

/// Runs `work` while nothing records on this thread. Waiting for its pieces, a thread of the pool may
/// take on work of somebody else, whose operations are not to be noted on our tape.
pub(crate) fn unrecorded<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore(RECORDING.take());
    work()
}

/// Runs and notes an operation.
fn run(op: Op, inputs: &[&Tensor], keep: Keep) -> Result<Tensor> {
    if with_tape(|tape| Ok(inputs.iter().any(|x| tape.is_stranger(x))))? {
        bail!(
            "{}: an argument was made from a parameter by an operation that has no recorded gradient",
            op.name()
        )
    }
    let (storage, shape) = unrecorded(|| op.forward(inputs))?;
    let tracked = inputs.iter().any(|x| x.track_op());
    let output = Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), tracked);
    if tracked {
        with_tape(|tape| tape.note(op, inputs, &output, keep))?;
    }
    Ok(output)
}

/// Applies an operation of one argument.
///
/// # Errors
/// Those of the operation; while a tape records, also where the gradient of an argument would get lost.
pub(crate) fn apply1<C: CustomOp1 + Send + Sync + 'static>(
    a: &Tensor,
    op: C,
    keep: Keep,
) -> Result<Tensor> {
    match is_recording() {
        true => run(Op::One(Box::new(op)), &[a], keep),
        false => a.apply_op1(op),
    }
}

/// Applies an operation of two arguments.
///
/// # Errors
/// As [`apply1`].
pub(crate) fn apply2<C: CustomOp2 + Send + Sync + 'static>(
    a: &Tensor,
    b: &Tensor,
    op: C,
    keep: Keep,
) -> Result<Tensor> {
    match is_recording() {
        true => run(Op::Two(Box::new(op)), &[a, b], keep),
        false => a.apply_op2(b, op),
    }
}

/// Applies an operation of three arguments.
///
/// # Errors
/// As [`apply1`].
pub(crate) fn apply3<C: CustomOp3 + Send + Sync + 'static>(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    op: C,
    keep: Keep,
) -> Result<Tensor> {
    match is_recording() {
        true => run(Op::Three(Box::new(op)), &[a, b, c], keep),
        false => a.apply_op3(b, c, op),
    }
}

/// The same numbers under another shape, without a copy.
///
/// # Errors
/// Those of candle; while a tape records, as [`apply1`].
pub(crate) fn reshape(xs: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let ys = xs.reshape(shape.into())?;
    if is_recording() && xs.track_op() && ys.id() != xs.id() {
        with_tape(|tape| {
            if tape.is_stranger(xs) {
                bail!(
                    "reshape: an argument was made from a parameter by an operation that has no recorded gradient"
                )
            }
            tape.views.insert(ys.id());
            tape.note(Op::Reshape, &[xs], &ys, Keep::Nothing)
        })?;
    }
    Ok(ys)
}

#[cfg(test)]
#[path = "tape_tests.rs"]
mod tests;
