//! From a program to the operations of its steps: buffers, packed weights, fingerprint.

use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};

use super::super::forward::BATCH_EPS;
use super::super::operation::{Conv, Input, Operation, Param, Weight};
use super::super::program::{Group, Program};
use super::super::{Graph, Network, RingShape};
use super::{ConvStep, Slot, StepInput, StepNet, StepOp};
use crate::kernels::elementwise::Activation;
use crate::kernels::step::{StepDtype, StepWeights};
use crate::{Error, Result, ops};

/// Puts a network's operations in order.
struct Compiler<'a> {
    net: &'a Network,
    dtype: StepDtype,
    short: bool,
    ops: Vec<StepOp>,
    widths: Vec<usize>,
    /// Buffers that nobody reads any more.
    free: Vec<Slot>,
    /// Buffers of the values that are still read.
    slots: Vec<Option<Slot>>,
    rings: Vec<RingShape>,
    /// Of the operations, before weights are rounded.
    hash: Sha256,
    weight_bytes: usize,
    input_bits: Option<u32>,
}

impl StepNet {
    /// Inputs of int8 weights are rounded to 8 bits where they are to be `short` and can be.
    pub(in super::super) fn compile(net: &Network, dtype: StepDtype, short: bool) -> Result<Self> {
        let graph = net.graph();
        let rings = graph.rings()?;
        let program = Program::new(graph, 1, false, |_| false)?;
        let mut compiler = Compiler {
            net,
            dtype,
            short,
            ops: Vec::new(),
            widths: Vec::new(),
            free: Vec::new(),
            slots: vec![None; graph.nodes.len()],
            rings: Vec::new(),
            hash: Sha256::new(),
            weight_bytes: 0,
            input_bits: None,
        };
        let first = graph.inputs.first().map(|value| value.0);
        let input = match (graph.inputs().next(), first) {
            (Some(Input::Tokens { vocab_size, cfg }), _) => {
                if let Some(id) = cfg.restart {
                    compiler.mark(&format!("restart {id}"), &[]);
                }
                StepInput::Tokens { vocab_size: *vocab_size, restart: cfg.restart }
            }
            (Some(Input::Frames { channels }), Some(first)) => {
                let slot = compiler.slot(*channels);
                compiler.slots[first] = Some(slot);
                compiler.round(slot);
                StepInput::Frames(slot)
            }
            _ => return Err(Error::invalid("network in steps", "one of sequences", "another")),
        };
        for group in &program.groups {
            let slot = compiler.group(group)?;
            compiler.slots[group.output] = Some(slot);
            for &value in &group.last {
                let slot = compiler.slots[value].take();
                compiler.free.extend(slot);
            }
        }
        let output = program.outputs.first().and_then(|&value| compiler.slots[value]);
        let output =
            output.ok_or_else(|| Error::invalid("network in steps", "an output", "none"))?;
        debug_assert_eq!(compiler.rings, rings);
        Ok(Self {
            dtype,
            kernel: net.kernel(),
            ops: compiler.ops,
            widths: compiler.widths,
            rings: rings.into(),
            input,
            output,
            weight_bytes: compiler.weight_bytes,
            input_bits: compiler.input_bits,
            fingerprint: compiler.hash.finalize().into(),
        })
    }
}

impl Compiler<'_> {
    fn graph(&self) -> &Graph {
        self.net.graph()
    }

    /// Makes `numbers` and their purpose part of the network's fingerprint.
    fn mark(&mut self, purpose: &str, numbers: &[f32]) {
        self.hash.update(format!("{purpose} {}\n", numbers.len()));
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
        if let Some(at) = self.free.iter().position(|slot| slot.width == width) {
            return self.free.swap_remove(at);
        }
        self.widths.push(width);
        Slot { index: self.widths.len() - 1, width }
    }

    fn round(&mut self, slot: Slot) {
        if self.dtype == StepDtype::Bf16 {
            self.ops.push(StepOp::Round(slot));
        }
    }

    fn numbers(&self, param: Param) -> Result<Vec<f32>> {
        numbers(self.net.tensor(param))
    }

    /// A slot with the numbers of `value` that may be written: its own where nobody reads it later.
    fn taken(&mut self, value: usize, group: &Group) -> Result<Slot> {
        let slot = self.read(value)?;
        if group.last.contains(&value) {
            self.slots[value] = None;
            return Ok(slot);
        }
        let to = self.slot(slot.width);
        self.ops.push(StepOp::Copy { from: slot, to });
        Ok(to)
    }

    fn read(&self, value: usize) -> Result<Slot> {
        let none = || Error::invalid("network in steps", "a value", "one that was freed");
        self.slots[value].ok_or_else(none)
    }

    /// The slot with the result of a group.
    fn group(&mut self, group: &Group) -> Result<Slot> {
        let node = self.graph().nodes[group.node].clone();
        let refuse = || {
            let path = if node.name.is_empty() { "network" } else { &node.name };
            let found = node.operation.name();
            Error::invalid(format!("{path} in steps"), "an operation on rows", found)
        };
        let from = group.inputs[0];
        let width = node.edge.channels;
        let slot = match &node.operation {
            Operation::Conv(conv) => return self.conv(conv, group, &node.name),
            Operation::Embed { table, .. } => {
                let table = self.numbers(*table)?;
                self.mark("embedding", &table);
                let to = self.slot(width);
                self.ops.push(StepOp::Embed { table, to });
                to
            }
            Operation::OneHot => {
                self.mark("one_hot", &[]);
                let to = self.slot(width);
                self.ops.push(StepOp::OneHot(to));
                to
            }
            Operation::RowNorm { .. } | Operation::BatchNorm(_) => {
                self.norm(&node.operation, group)?
            }
            Operation::Activate(activation) => {
                let slot = self.taken(from, group)?;
                self.then(slot, Some(*activation));
                slot
            }
            Operation::Gate(gate) => {
                self.mark(&format!("{gate:?}"), &[]);
                let (from, to) = (self.read(from)?, self.slot(width));
                self.ops.push(StepOp::Gate { gate: *gate, from, to });
                to
            }
            Operation::Add | Operation::Multiply => self.meet(&node.operation, group)?,
            Operation::Concat => {
                self.mark("concat", &[]);
                let (to, mut at) = (self.slot(width), 0);
                for &value in &group.inputs {
                    let from = self.read(value)?;
                    self.ops.push(StepOp::Place { from, to, at });
                    at += from.width;
                }
                to
            }
            Operation::Custom(op) => {
                self.mark(op.name(), &[]);
                let (from, to) = (self.read(from)?, self.slot(width));
                self.ops.push(StepOp::Custom { op: op.clone(), from, to });
                to
            }
            _ => return Err(refuse()),
        };
        self.round(slot);
        Ok(slot)
    }

    fn norm(&mut self, operation: &Operation, group: &Group) -> Result<Slot> {
        match operation {
            Operation::RowNorm { norm, weight, bias } => {
                let weight = self.numbers(*weight)?;
                let bias = bias.map(|bias| self.numbers(bias)).transpose()?;
                self.mark(&format!("{norm:?}"), &weight);
                self.mark("bias", bias.as_deref().unwrap_or_default());
                let slot = self.taken(group.inputs[0], group)?;
                self.ops.push(StepOp::Rows { slot, norm: *norm, weight, bias });
                self.then(slot, group.then);
                Ok(slot)
            }
            Operation::BatchNorm([weight, bias, mean, var]) => {
                let (mean, var) = (self.net.buffer(*mean), self.net.buffer(*var));
                let scale = (self.net.tensor(*weight).detach() / (var + BATCH_EPS)?.sqrt()?)?;
                let [mean, scale] = [numbers(&mean)?, numbers(&scale)?];
                let bias = self.numbers(*bias)?;
                for (purpose, numbers) in [("mean", &mean), ("scale", &scale), ("bias", &bias)] {
                    self.mark(purpose, numbers);
                }
                let slot = self.taken(group.inputs[0], group)?;
                self.ops.push(StepOp::Affine { slot, mean, scale, bias });
                Ok(slot)
            }
            other => Err(Error::invalid("norm", "one of rows or of the batch", other.name())),
        }
    }

    fn then(&mut self, slot: Slot, activation: Option<Activation>) {
        if let Some(activation) = activation {
            self.mark(&format!("{activation:?}"), &[]);
            self.ops.push(StepOp::Activate(slot, activation));
        }
    }

    /// Two values row by row, into the first that may be written.
    fn meet(&mut self, operation: &Operation, group: &Group) -> Result<Slot> {
        let [a, b] = group.inputs[..] else {
            return Err(Error::invalid(operation.name(), "two inputs", group.inputs.len()));
        };
        let name = if matches!(operation, Operation::Add) { "add" } else { operation.name() };
        self.mark(&format!("{name} {:?}", group.then), &[]);
        let (into, more) = match (group.last.contains(&a), group.last.contains(&b)) {
            (false, true) => (b, a),
            _ => (a, b),
        };
        let more = match a == b {
            // written and read: a copy is read
            true => {
                let from = self.read(more)?;
                let to = self.slot(from.width);
                self.ops.push(StepOp::Copy { from, to });
                to
            }
            false => self.read(more)?,
        };
        let sum = self.taken(into, group)?;
        if a == b {
            self.free.push(more);
        }
        self.ops.push(match operation {
            Operation::Multiply => StepOp::Multiply(sum, more),
            _ => StepOp::Add { sum, more, relu: group.then.is_some() },
        });
        Ok(sum)
    }

    fn conv(&mut self, conv: &Conv, group: &Group, name: &str) -> Result<Slot> {
        for (field, value) in [("groups", conv.groups), ("stride", conv.stride[1])] {
            if value != 1 {
                let field = if name.is_empty() { field.into() } else { format!("{name}.{field}") };
                return Err(Error::invalid(field, "1 in single steps", value));
            }
        }
        let weight = match conv.weight {
            Weight::Plain(param) => self.numbers(param)?,
            Weight::Norm { v, g } => {
                let [v, g] = [v, g].map(|param| self.net.tensor(param).to_dtype(DType::F32));
                numbers(&ops::weight_norm(&v?, &g?)?.detach())?
            }
        };
        let bias = conv.bias.map(|bias| self.numbers(bias)).transpose()?;
        let (kernel_size, dilation) = (conv.kernel_size[1], conv.dilation[1]);
        let shape = (conv.out_channels, conv.in_channels, kernel_size);
        let relu = group.then.is_some();
        self.mark(&format!("{shape:?} {dilation} {relu}"), &weight);
        self.mark("bias", bias.as_deref().unwrap_or_default());
        let weights = StepWeights::new(
            self.net.kernel(),
            (self.dtype, self.short),
            shape,
            &weight,
            bias.as_deref(),
        )?;
        self.weight_bytes += weights.bytes();
        self.input_bits = self.input_bits.into_iter().chain(weights.input_bits()).min();
        let ring = (conv.span() > 0).then(|| {
            self.rings.push(RingShape { span: conv.span(), channels: conv.in_channels });
            self.rings.len() - 1
        });
        let (from, to) = (self.read(group.inputs[0])?, self.slot(conv.out_channels));
        self.ops.push(StepOp::Conv(Box::new(ConvStep {
            weights,
            kernel_size,
            dilation,
            ring,
            relu,
            from,
            to,
        })));
        // logits are never rounded
        if !conv.to_f32 {
            self.round(to);
        }
        Ok(to)
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
