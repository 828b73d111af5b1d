//! From layers to the operations of their steps: which buffer each one reads and writes.

use candle_core::{DType, Tensor};

use super::{ConvStep, Op, Slot, StepNet};
use crate::Result;
use crate::kernels::step::StepDtype;
use crate::nn::{Activation, Conv1d, Gate, Norm, RingShape};

/// Puts a network's operations in order.
#[derive(Debug)]
pub(crate) struct StepBuilder {
    dtype: StepDtype,
    ops: Vec<Op>,
    widths: Vec<usize>,
    /// Slots that nobody reads any more.
    free: Vec<usize>,
    rings: Vec<RingShape>,
}

impl StepBuilder {
    /// A network whose inputs have `width` numbers; they lie in the slot.
    pub fn new(dtype: StepDtype, width: usize) -> (Self, Slot) {
        let mut builder = Self {
            dtype,
            ops: Vec::new(),
            widths: Vec::new(),
            free: Vec::new(),
            rings: Vec::new(),
        };
        let input = builder.slot(width);
        builder.round(input);
        (builder, input)
    }

    fn slot(&mut self, width: usize) -> Slot {
        let fits = |&&index: &&usize| self.widths[index] == width;
        if let Some(&index) = self.free.iter().find(fits) {
            self.free.retain(|&free| free != index);
            return Slot { index, width };
        }
        self.widths.push(width);
        let index = self.widths.len() - 1;
        Slot { index, width }
    }

    /// The slot is read no more.
    pub fn release(&mut self, slot: Slot) {
        self.free.push(slot.index);
    }

    fn round(&mut self, slot: Slot) {
        if self.dtype == StepDtype::Bf16 {
            self.ops.push(Op::Round(slot.index));
        }
    }

    /// A convolution, and ReLU, into a new slot.
    pub fn conv(&mut self, conv: &Conv1d, from: Slot, relu: bool) -> Result<Slot> {
        let to = self.convolve(conv, from, relu)?;
        self.round(to);
        Ok(to)
    }

    /// As [`conv`](Self::conv), never rounded: logits.
    pub fn conv_to_f32(&mut self, conv: &Conv1d, from: Slot) -> Result<Slot> {
        self.convolve(conv, from, false)
    }

    fn convolve(&mut self, conv: &Conv1d, from: Slot, relu: bool) -> Result<Slot> {
        let (weights, dilation, ring) = conv.pack(self.dtype)?;
        let to = self.slot(weights.columns());
        let kernel_size = ring.map_or(1, |ring| ring.span / dilation + 1);
        let ring = ring.map(|ring| {
            self.rings.push(ring);
            self.rings.len() - 1
        });
        self.ops.push(Op::Conv(Box::new(ConvStep {
            weights,
            channels: from.width,
            kernel_size,
            dilation,
            ring,
            relu,
            from: from.index,
            to: to.index,
        })));
        Ok(to)
    }

    /// The same numbers in a new slot.
    pub fn copy(&mut self, from: Slot) -> Slot {
        let to = self.slot(from.width);
        self.ops.push(Op::Copy {
            from: from.index,
            to: to.index,
        });
        to
    }

    /// In place.
    pub fn activate(&mut self, slot: Slot, activation: Activation) -> Slot {
        self.ops.push(Op::Activate(slot.index, activation));
        self.round(slot);
        slot
    }

    /// Half as wide; `from` is released.
    pub fn gate(&mut self, from: Slot, gate: Gate) -> Slot {
        let to = self.slot(from.width / 2);
        self.ops.push(Op::Gate { gate, from, to });
        self.release(from);
        self.round(to);
        to
    }

    /// `activation(sum + more)` in the place of `sum`; `more` is released.
    pub fn add(&mut self, sum: Slot, more: Slot, activation: Option<Activation>) -> Slot {
        self.ops.push(Op::Add(sum.index, more.index, activation));
        self.release(more);
        self.round(sum);
        sum
    }

    /// In place.
    pub fn norm(&mut self, slot: Slot, norm: &Norm) -> Result<Slot> {
        let numbers = |tensor: &Tensor| -> Result<Vec<f32>> {
            Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        self.ops.push(match norm {
            Norm::Identity => return Ok(slot),
            Norm::Rows { weight, bias, norm } => Op::Rows {
                slot: slot.index,
                norm: *norm,
                weight: numbers(weight)?,
                bias: bias.as_ref().map(numbers).transpose()?,
            },
            Norm::Batch(norm) => {
                let [mean, scale, bias] = norm.affine()?;
                Op::Affine {
                    slot: slot.index,
                    mean: numbers(&mean)?,
                    scale: numbers(&scale)?,
                    bias: numbers(&bias)?,
                }
            }
        });
        self.round(slot);
        Ok(slot)
    }

    /// The network, whose results lie in `output`.
    pub fn finish(self, output: Slot) -> StepNet {
        let weights = |op: &Op| match op {
            Op::Conv(conv) => Some(conv.weights.bytes()),
            _ => None,
        };
        StepNet {
            dtype: self.dtype,
            weight_bytes: self.ops.iter().filter_map(weights).sum(),
            ops: self.ops,
            widths: self.widths,
            rings: self.rings.into(),
            output,
        }
    }
}
