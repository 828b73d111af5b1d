//! An operation: a kernel, its gradient, and the same in candle's primitives.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor,
    WithDType, bail,
};

use super::profile;
use crate::kernels::Kernel;

/// Tensors that the gradient of an operation reads beside that of its output; the others are freed early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Inputs,
    Output,
    Both,
}

impl Keep {
    pub fn inputs(self) -> bool {
        matches!(self, Self::Inputs | Self::Both)
    }

    pub fn output(self) -> bool {
        matches!(self, Self::Output | Self::Both)
    }
}

/// Storage and shape of a result.
pub(crate) type Computed = Result<(CpuStorage, Shape)>;

/// One gradient for each input, `None` for one that has none.
pub(crate) type Grads = Result<Vec<Option<Tensor>>>;

/// A differentiable operation on contiguous tensors.
pub(crate) trait Op: Send + Sync + 'static {
    /// Name in error messages and profiles.
    fn name(&self) -> &'static str;

    /// Tensors that `backward` reads.
    fn keep(&self) -> Keep;

    /// Runs the kernel.
    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed;

    /// The gradients; `dy` is contiguous. Tensors that [`keep`](Op::keep) does not name hold nothing but
    /// their shape.
    fn backward(&self, kernel: Kernel, inputs: &[Tensor], y: &Tensor, dy: &Tensor) -> Grads;

    /// The same in candle's own operations, which know their gradients, for any device.
    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor>;
}

/// One argument of an operation on the CPU.
#[derive(Clone, Copy)]
pub(crate) struct Arg<'a> {
    storage: &'a CpuStorage,
    layout: &'a Layout,
}

impl<'a> Arg<'a> {
    pub fn new(storage: &'a CpuStorage, layout: &'a Layout) -> Self {
        Self { storage, layout }
    }

    /// The elements of a contiguous tensor.
    pub fn slice<T: WithDType>(self) -> Result<&'a [T]> {
        let data = T::cpu_storage_as_slice(self.storage)?;
        match self.layout.contiguous_offsets() {
            Some((from, to)) => Ok(&data[from..to]),
            None => Err(candle_core::Error::RequiresContiguous { op: "candle-tcn" }.bt()),
        }
    }

    pub fn dtype(self) -> DType {
        self.storage.dtype()
    }

    pub fn shape(self) -> &'a Shape {
        self.layout.shape()
    }

    /// Numbers of a row: the last axis.
    pub fn channels(self) -> usize {
        self.layout.dims().last().copied().unwrap_or(1)
    }
}

/// Runs `work` on tensors of the CPU.
pub(crate) fn on_cpu<R>(tensors: &[&Tensor], work: impl FnOnce(&[Arg]) -> Result<R>) -> Result<R> {
    let held: Vec<_> = tensors.iter().map(|tensor| tensor.storage_and_layout()).collect();
    let mut args = Vec::with_capacity(held.len());
    for (storage, layout) in &held {
        match &**storage {
            Storage::Cpu(storage) => args.push(Arg::new(storage, layout)),
            _ => bail!("candle-tcn: expected a tensor on the CPU"),
        }
    }
    work(&args)
}

/// Runs an operation whose gradient candle will not ask for.
pub(crate) fn run(kernel: Kernel, op: &dyn Op, inputs: &[&Tensor]) -> Result<Tensor> {
    let _span = profile::span(profile::part_of(op.name()));
    let (storage, shape) = on_cpu(inputs, |args| op.forward(kernel, args))?;
    Ok(Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), false))
}

/// Applies an operation, differentiably, on any device; on the CPU by the best kernel.
pub(crate) fn apply(op: impl Op, inputs: &[&Tensor]) -> Result<Tensor> {
    apply_by(Kernel::best(), op, inputs)
}

/// `true` if `kernel` computes with these tensors; otherwise candle's own operations do.
pub(crate) fn is_ours<'a>(kernel: Kernel, inputs: impl IntoIterator<Item = &'a Tensor>) -> bool {
    kernel != Kernel::Candle && inputs.into_iter().all(|x| x.device().is_cpu())
}

/// As [`apply`], on the CPU by `kernel`.
pub(crate) fn apply_by(kernel: Kernel, op: impl Op, inputs: &[&Tensor]) -> Result<Tensor> {
    if !is_ours(kernel, inputs.iter().copied()) {
        return op.primitives(inputs);
    }
    let inputs = inputs.iter().map(|x| x.contiguous()).collect::<Result<Vec<_>>>()?;
    if !inputs.iter().any(Tensor::track_op) {
        return run(kernel, &op, &inputs.iter().collect::<Vec<_>>());
    }
    let op = Custom { kernel, op: Arc::new(op) };
    match &inputs[..] {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => bail!("{}: candle's operations take one to three arguments", op.op.name()),
    }
}

/// An operation as candle knows it.
struct Custom {
    kernel: Kernel,
    op: Arc<dyn Op>,
}

impl Custom {
    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Computed {
        let _span = profile::span(profile::part_of(self.op.name()));
        let args = inputs.iter().map(|(storage, layout)| Arg::new(storage, layout));
        self.op.forward(self.kernel, &args.collect::<Vec<_>>())
    }

    fn backward<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let (inputs, dy) = (inputs.map(Tensor::detach), dy.contiguous()?);
        let grads = self.op.backward(self.kernel, &inputs, &y.detach(), &dy)?;
        let count = grads.len();
        grads.try_into().or_else(|_| bail!("{}: {count} gradients of {N}", self.op.name()))
    }
}

impl CustomOp1 for Custom {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Computed {
        self.forward(&[(s, l)])
    }

    fn bwd(&self, a: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.backward([a], y, dy)?;
        Ok(a)
    }
}

impl CustomOp2 for Custom {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Computed {
        self.forward(&[(s1, l1), (s2, l2)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward([a, b], y, dy)?.into())
    }
}

impl CustomOp3 for Custom {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Computed {
        self.forward(&[(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward([a, b, c], y, dy)?.into())
    }
}

/// Runs a body for the type of the elements: `dispatch!("name", dtype, T => body)`, with bf16 where the last word
/// says so.
macro_rules! dispatch {
    ($op:expr, $dtype:expr, $T:ident => $body:expr, bf16) => {
        match $dtype {
            candle_core::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            other => $crate::ops::op::dispatch!($op, other, $T => $body),
        }
    };
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, $op).bt()),
        }
    };
}
pub(crate) use dispatch;
