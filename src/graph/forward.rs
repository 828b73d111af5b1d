//! The forward walk: a program over tensors, with or without entries for the reverse walk.

use std::sync::Arc;

use candle_core::{D, DType, Result as CandleResult, Tensor, Var, bail};

use super::operation::{Input, Operation, Param, Rows};
use super::pieces::Pieces;
use super::program::{Group, Program};
use super::reverse::{Entry, GradientSlot, Ran, Tape, hollow};
use super::run::Mask;
use super::{Network, Outputs, Run, State};
use crate::ops;
use crate::ops::DropoutKind;
use crate::ops::batch_norm::BatchNorm;
use crate::ops::dropout::Dropout;
use crate::ops::gather::Gather;
use crate::ops::norm::NormalizeRows;
use crate::ops::op::{self, Op};
use crate::ops::pointwise::{Activate, Gated};
use crate::ops::sections::Sections;
use crate::ops::sum::Add;
use crate::{Error, Result};

pub(super) const BATCH_EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// A tensor, and its slot where it has a gradient.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub tensor: Tensor,
    pub slot: Option<GradientSlot>,
}

/// A walk under way.
pub(super) struct Walk<'a> {
    pub net: &'a Network,
    pub run: &'a Run<'a>,
    pub mask: Option<Mask>,
    /// Parts of the sequences that know nothing of each other.
    pub sections: Option<Sections>,
    values: Vec<Option<Known>>,
    /// `None` where gradients are candle's, or nobody's.
    entries: Option<Vec<Entry>>,
    slots: usize,
    /// Rows for the ring buffers, written when all went well.
    pub pieces: Option<Pieces>,
    /// New running statistics, likewise.
    statistics: Vec<(Param, Tensor)>,
}

/// Runs `net` on `inputs`; with `traced`, on the record.
pub(super) fn walk(
    net: &Network,
    inputs: &[&Tensor],
    mut run: Run,
    traced: bool,
) -> Result<(Outputs, Option<Tape>)> {
    let graph = net.graph();
    let train = run.dropout.is_some();
    let program = Program::new(graph, inputs.len(), train, |name| run.wants(name))?;
    let state = run.state.take();
    let mut walk = Walk {
        net,
        run: &run,
        mask: None,
        sections: None,
        values: vec![None; graph.nodes.len()],
        entries: traced.then(Vec::new),
        slots: graph.parameters.len() + graph.nodes.len(),
        pieces: None,
        statistics: Vec::new(),
    };
    walk.take_inputs(inputs)?;
    if let Some(state) = &state {
        let starts = walk.sections.as_ref().map(Sections::last_starts);
        walk.pieces = Some(Pieces::new(state, graph.rings()?, inputs[0], starts)?);
        let state = &**state;
        walk.groups(&program, Some(state))?;
    } else {
        walk.groups(&program, None)?;
    }
    let known = |value: usize| {
        walk.values[value].clone().ok_or_else(|| lost(graph.nodes[value].operation.name()))
    };
    let outputs = program.outputs.iter().map(|&value| known(value)).collect::<Result<Vec<_>>>()?;
    let recorded = program.recorded.iter();
    let recorded = recorded.map(|(name, value)| Ok((name.clone(), known(*value)?.tensor.detach())));
    let recorded = recorded.collect::<Result<Vec<_>>>()?;
    let tape = walk.entries.take().map(|entries| Tape {
        entries,
        outputs: outputs.iter().map(|known| (known.slot, known.tensor.shape().clone())).collect(),
        parameters: graph.parameters.iter().map(|p| p.shape.clone()).collect(),
        slots: walk.slots,
        kernel: net.kernel(),
    });
    if let (Some(state), Some(pieces)) = (state, walk.pieces) {
        pieces.write(state)?;
    }
    walk.statistics.iter().try_for_each(|(param, value)| net.set_buffer(*param, value))?;
    let values = outputs.into_iter().zip(&graph.outputs).map(|(known, &value)| {
        match graph.edge(value).single {
            true => known.tensor.flatten(1, D::Minus2)?.squeeze(1),
            false => Ok(known.tensor),
        }
    });
    let values = values.map(|value| net.as_given(value?, &run));
    Ok((Outputs { values: values.collect::<CandleResult<_>>()?, recorded }, tape))
}

pub(super) fn lost(operation: &str) -> Error {
    candle_core::Error::Msg(format!("{operation}: its value was freed too early")).into()
}

impl Walk<'_> {
    /// Checks the inputs against the graph, and the mask against the inputs.
    fn take_inputs(&mut self, inputs: &[&Tensor]) -> Result<()> {
        let graph = self.net.graph();
        if inputs.len() != 1 && inputs.len() != graph.inputs.len() {
            let conditions = graph.inputs.len() - 1;
            return Err(match conditions {
                0 => Error::invalid(
                    "inputs",
                    "1, as this network takes no conditioning",
                    inputs.len(),
                ),
                n => Error::invalid(
                    "conditioning inputs",
                    format!("{n}, one for each of the network's, or none"),
                    inputs.len().saturating_sub(1),
                ),
            });
        }
        let dtype = self.net.activations(self.run);
        let (batch, time) = (inputs[0].dim(0)?, inputs[0].dims().get(1).copied().unwrap_or(1));
        for (i, (xs, input)) in inputs.iter().zip(graph.inputs()).enumerate() {
            let tensor = input.check(xs, i, (batch, time), dtype)?;
            if let Input::Tokens { cfg, .. } = input {
                if let (Some(id), None) = (cfg.hidden, &self.run.mask) {
                    self.mask = Some(Mask::new(&xs.ne(id)?)?);
                }
                if let Some(id) = cfg.restart {
                    let ids = xs.flatten_all()?.to_vec1::<u32>()?;
                    self.sections = Sections::of(&ids, time, id);
                }
            }
            self.values[graph.inputs[i].0] = Some(Known { tensor, slot: None });
        }
        if let Some(mask) = &self.run.mask {
            mask.check(batch, time, graph.takes_mask())?;
            self.mask = Some(mask.clone());
        }
        Ok(())
    }

    fn groups(&mut self, program: &Program, state: Option<&State>) -> Result<()> {
        for group in &program.groups {
            let value = self.group(group, state).map_err(|error| self.at(group, error))?;
            self.values[group.output] = Some(value);
            group.last.iter().for_each(|&value| self.values[value] = None);
        }
        Ok(())
    }

    /// The error with the node's path before it, where it does not name one.
    fn at(&self, group: &Group, error: Error) -> Error {
        let name = &self.net.graph().nodes[group.node].name;
        match error {
            Error::Invalid { field, expected, found } if !name.is_empty() => {
                Error::invalid(format!("{name}: {field}"), expected, found)
            }
            other => other,
        }
    }

    fn group(&mut self, group: &Group, state: Option<&State>) -> Result<Known> {
        let node = &self.net.graph().nodes[group.node];
        let inputs = group
            .inputs
            .iter()
            .map(|&value| self.values[value].clone().ok_or_else(|| lost(node.operation.name())));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let relu = group.then.is_some();
        let out = self.net.graph().parameters.len() + group.output;
        match (&node.operation, &inputs[..]) {
            (Operation::Embed { table, padding }, [ids]) => {
                let (table, dtype) = (self.parameter(*table)?, self.net.activations(self.run));
                let op = Gather::embedding(&table.tensor, &ids.tensor, *padding, dtype)?;
                self.apply(op, vec![table], out)
            }
            (Operation::OneHot, [ids]) => {
                let graph = self.net.graph();
                let (vocab, width) = (graph.edge(node.inputs[0]).channels, node.edge.channels);
                let tensor =
                    ops::one_hot(&ids.tensor, vocab, width, self.net.activations(self.run))?;
                Ok(Known { tensor, slot: None })
            }
            (operation @ (Operation::ConvTranspose(_) | Operation::Pool(_)), _)
                if self.sections.is_some() =>
            {
                Err(no_sections(operation))
            }
            (Operation::Conv(conv), [xs]) => self.conv(conv, group, xs.clone(), state, out),
            (Operation::ConvTranspose(conv), [xs]) => self.transposed(conv, xs.clone(), state, out),
            (Operation::RowNorm { norm, weight, bias }, [xs]) => {
                let op = NormalizeRows { norm: *norm, then: group.then };
                let mut all = vec![xs.clone(), self.parameter(*weight)?];
                all.extend(bias.map(|bias| self.parameter(bias)).transpose()?);
                self.apply(op, all, out)
            }
            (Operation::BatchNorm(parameters), [xs]) => {
                self.batch_norm(*parameters, node.edge.single, xs.clone(), out)
            }
            (Operation::Activate(activation), [xs]) => {
                self.apply(Activate(*activation), vec![xs.clone()], out)
            }
            (Operation::Gate(gate), [xs]) => self.apply(Gated(*gate), vec![xs.clone()], out),
            (Operation::Add, [_, _]) => self.apply(Add { relu }, inputs, out),
            (&Operation::Dropout { p, kind, number }, [xs]) => {
                self.drop((p, kind, number), xs.clone(), out)
            }
            (Operation::Custom(rows), [xs]) => {
                self.apply(Rows(rows.clone()), vec![xs.clone()], out)
            }
            (operation, _) => {
                let (operation, mask) = (operation.clone(), self.mask.clone());
                self.apply_primitive(inputs, out, move |xs| {
                    primitive(&operation, mask.as_ref(), xs)
                })
            }
        }
    }

    fn drop(
        &mut self,
        (p, kind, number): (f64, DropoutKind, u64),
        xs: Known,
        out: GradientSlot,
    ) -> Result<Known> {
        let dims = xs.tensor.dims();
        let rows = dims[1..dims.len() - 1].iter().product();
        match self.run.key(number, kind.draws(rows, dims[dims.len() - 1])) {
            None => Ok(xs),
            Some(key) => self.apply(Dropout { p, kind, key }, vec![xs], out),
        }
    }

    /// A parameter as kernels read it: of sixteen bits as f32.
    pub fn parameter(&self, param: Param) -> Result<Known> {
        let tensor = self.net.tensor(param);
        let tensor = match tensor.dtype() {
            DType::BF16 | DType::F16 => tensor.to_dtype(DType::F32)?,
            _ => tensor.clone(),
        };
        Ok(Known { tensor, slot: Some(param.0) })
    }

    pub fn new_slot(&mut self) -> GradientSlot {
        self.slots += 1;
        self.slots - 1
    }

    /// Runs an operation into `slot`.
    pub fn apply(&mut self, op: impl Op, inputs: Vec<Known>, slot: GradientSlot) -> Result<Known> {
        if self.entries.is_none() {
            let tensors: Vec<_> = inputs.iter().map(|known| &known.tensor).collect();
            let tensor = op::apply_by(self.net.kernel(), op, &tensors)?;
            return Ok(Known { tensor, slot: None });
        }
        if !op::is_ours(self.net.kernel(), inputs.iter().map(|known| &known.tensor)) {
            return self.apply_primitive(inputs, slot, move |xs| op.primitives(xs));
        }
        let contiguous = |known: &Known| known.tensor.detach().contiguous();
        let tensors = inputs.iter().map(contiguous).collect::<CandleResult<Vec<_>>>()?;
        let output = op::run(self.net.kernel(), &op, &tensors.iter().collect::<Vec<_>>())?;
        let to: Vec<_> = inputs.iter().map(|known| known.slot).collect();
        let tracked = to.iter().any(Option::is_some);
        if let (true, Some(entries)) = (tracked, &mut self.entries) {
            let keep = op.keep();
            let kept = |x: &Tensor, needed| if needed { Ok(x.clone()) } else { hollow(x) };
            let inputs = tensors.iter().map(|x| kept(x, keep.inputs()));
            let inputs = inputs.collect::<CandleResult<_>>()?;
            let ran =
                Ran::Kernel { op: Arc::new(op), inputs, output: kept(&output, keep.output())? };
            entries.push(Entry { ran, to, from: slot });
        }
        Ok(Known { tensor: output, slot: tracked.then_some(slot) })
    }

    /// Runs candle's own operations into `slot`.
    pub fn apply_primitive(
        &mut self,
        inputs: Vec<Known>,
        slot: GradientSlot,
        run: impl Fn(&[&Tensor]) -> CandleResult<Tensor>,
    ) -> Result<Known> {
        let tracked = inputs.iter().any(|known| known.slot.is_some());
        if self.entries.is_none() || !tracked {
            let tensors: Vec<_> = inputs.iter().map(|known| &known.tensor).collect();
            return Ok(Known { tensor: run(&tensors)?, slot: None });
        }
        let vars = inputs.iter().map(|known| Var::from_tensor(&known.tensor.detach()));
        let vars = vars.collect::<CandleResult<Vec<_>>>()?;
        let output = run(&vars.iter().map(|var| var.as_tensor()).collect::<Vec<_>>())?;
        let tensor = output.detach();
        if let Some(entries) = &mut self.entries {
            let to = inputs.iter().map(|known| known.slot).collect();
            entries.push(Entry { ran: Ran::Candle { inputs: vars, output }, to, from: slot });
        }
        Ok(Known { tensor, slot: Some(slot) })
    }

    fn batch_norm(
        &mut self,
        parameters: [Param; 4],
        single: bool,
        xs: Known,
        out: GradientSlot,
    ) -> Result<Known> {
        let [weight, bias, mean, var] = parameters;
        let op = match self.run.dropout {
            None => {
                let moments = [self.net.buffer(mean), self.net.buffer(var)];
                BatchNorm::with([&moments[0], &moments[1]], BATCH_EPS)?
            }
            Some(_) => {
                // of pooled rows all count
                let counted = if single { None } else { self.counted_rows(&xs.tensor)? };
                let op = BatchNorm::of(self.net.kernel(), &xs.tensor, counted, BATCH_EPS)?;
                let [batch_mean, batch_var] = op.statistics(self.net.tensor(mean))?;
                let n = op.rows() as f64;
                // PyTorch keeps the unbiased variance
                let unbiased = (batch_var * (n / (n - 1.0).max(1.0)))?;
                for (param, new) in [(mean, batch_mean), (var, unbiased)] {
                    let kept = (self.net.buffer(param) * (1.0 - MOMENTUM))?;
                    self.statistics.push((param, (kept + (new * MOMENTUM)?)?));
                }
                op
            }
        };
        let all = vec![xs, self.parameter(weight)?, self.parameter(bias)?];
        self.apply(op, all, out)
    }
}

fn no_sections(operation: &Operation) -> Error {
    let expected = "operations that keep the steps, where sequences begin anew within a run";
    Error::invalid("sequence", expected, operation.name())
}

/// Operations that are rare enough for candle's own.
fn primitive(operation: &Operation, mask: Option<&Mask>, xs: &[&Tensor]) -> CandleResult<Tensor> {
    match (operation, xs) {
        (Operation::Multiply, [a, b]) => *a * *b,
        (Operation::Concat, all) => Tensor::cat(all, D::Minus1),
        (Operation::BatchSoftmax { log: false }, [x]) => candle_nn::ops::softmax(x, 0),
        (Operation::BatchSoftmax { log: true }, [x]) => candle_nn::ops::log_softmax(x, 0),
        (Operation::Pool(pool), [x]) => {
            let mask = mask.and_then(|mask| Some((mask.dims, mask.factors.as_ref()?)));
            let mask = mask.map(|(dims, factors)| Tensor::from_slice(factors, dims, x.device()));
            let one = ops::pool_rows(x, *pool, mask.transpose()?.as_ref())?;
            let (batch, channels) = one.dims2()?;
            one.reshape([&[batch][..], &vec![1; x.rank() - 2], &[channels]].concat())
        }
        (Operation::Spread, [x, like]) => {
            let mut dims = like.dims().to_vec();
            if let Some(last) = dims.last_mut() {
                *last = x.dim(D::Minus1)?;
            }
            x.broadcast_as(dims)?.contiguous()
        }
        _ => bail!("{}: no operation on {} inputs", operation.name(), xs.len()),
    }
}
