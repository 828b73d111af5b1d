//! From layers to the operations of their steps: which buffer each one reads and writes.

use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};

use super::{ConvStep, Op, Slot, StepNet};
use crate::Result;
use crate::kernels::step::{StepDtype, StepWeights};
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
    /// Of what the network computes, before its weights are rounded.
    hash: Sha256,
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
            hash: Sha256::new(),
        };
        let input = builder.slot(width);
        builder.round(input);
        (builder, input)
    }

    /// Makes `numbers` and what they are for part of the network's fingerprint.
    pub fn mark(&mut self, what: &str, numbers: &[f32]) {
        self.hash.update(format!("{what} {}\n", numbers.len()));
        let mut bytes = [0; 4096];
        for numbers in numbers.chunks(bytes.len() / 4) {
            let bytes = &mut bytes[..4 * numbers.len()];
            for (to, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                *to = number.to_le_bytes();
            }
            self.hash.update(bytes);
        }
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
        let conv = conv.numbers()?;
        let [out_channels, in_channels, kernel_size] = conv.dims;
        let shape = (out_channels, in_channels, kernel_size);
        let bias = conv.bias.as_deref();
        self.mark(&format!("{shape:?} {} {relu}", conv.dilation), &conv.weight);
        self.mark("bias", bias.unwrap_or_default());
        let weights = StepWeights::new(self.dtype, shape, &conv.weight, bias)?;
        let to = self.slot(out_channels);
        let ring = conv.ring.map(|ring| {
            self.rings.push(ring);
            self.rings.len() - 1
        });
        self.ops.push(Op::Conv(Box::new(ConvStep {
            weights,
            channels: from.width,
            kernel_size,
            dilation: conv.dilation,
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
        self.ops.push(Op::Copy { from: from.index, to: to.index });
        to
    }

    /// In place.
    pub fn activate(&mut self, slot: Slot, activation: Activation) -> Slot {
        self.mark(&format!("{activation:?}"), &[]);
        self.ops.push(Op::Activate(slot.index, activation));
        self.round(slot);
        slot
    }

    /// Half as wide; `from` is released.
    pub fn gate(&mut self, from: Slot, gate: Gate) -> Slot {
        let to = self.slot(from.width / 2);
        self.mark(&format!("{gate:?}"), &[]);
        self.ops.push(Op::Gate { gate, from, to });
        self.release(from);
        self.round(to);
        to
    }

    /// `activation(sum + more)` in the place of `sum`; `more` is released.
    pub fn add(&mut self, sum: Slot, more: Slot, activation: Option<Activation>) -> Slot {
        self.mark(&format!("add {activation:?}"), &[]);
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
        let op = match norm {
            Norm::Identity => return Ok(slot),
            Norm::Rows { weight, bias, norm } => {
                let (weight, bias) = (numbers(weight)?, bias.as_ref().map(numbers).transpose()?);
                self.mark(&format!("{norm:?}"), &weight);
                self.mark("bias", bias.as_deref().unwrap_or_default());
                Op::Rows { slot: slot.index, norm: *norm, weight, bias }
            }
            Norm::Batch(norm) => {
                let [mean, scale, bias] = norm.affine()?;
                let [mean, scale, bias] = [numbers(&mean)?, numbers(&scale)?, numbers(&bias)?];
                self.mark("mean", &mean);
                self.mark("scale", &scale);
                self.mark("bias", &bias);
                Op::Affine { slot: slot.index, mean, scale, bias }
            }
        };
        self.ops.push(op);
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
            fingerprint: self.hash.finalize().into(),
        }
    }
}
