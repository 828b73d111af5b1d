//! A graph with its tensors.

use std::sync::Arc;

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::VarBuilder;

use super::forward::walk;
use super::operation::{Operation, Param, Weight};
use super::run::Mask;
use super::{Graph, Input, Outputs, Run, State, StepNet, Stepper, Tape};
use crate::kernels::Kernel;
use crate::kernels::step::{StepDtype, round_weight};
use crate::{Error, Result, ops};

/// A [`Graph`] with its tensors: runs whole sequences, with gradients or without.
///
/// As one of candle's modules it evaluates, also by `forward_t(xs, true)`: dropout needs a seed and batch norm says
/// when its statistics change, so training is [`forward_with`](Self::forward_with) and [`Run::train`]. What comes out is
/// differentiable by candle where the tensors are variables, with masks and dropout too; [`trace`](Self::trace) gives
/// the same gradients in half the memory, and its outputs are constants to candle.
///
/// # Example
/// See [`graph`](super).
#[derive(Debug, Clone)]
pub struct Network {
    graph: Arc<Graph>,
    /// In the order of the graph's parameters; running statistics are variables.
    tensors: Vec<Tensor>,
    dtype: DType,
    device: Device,
    kernel: Kernel,
}

impl Network {
    /// A network with the tensors of `vb`.
    ///
    /// # Errors
    /// Those of `vb` for tensors that are missing or of another shape.
    pub fn new(graph: Graph, vb: VarBuilder) -> Result<Self> {
        let mut tensors = Vec::with_capacity(graph.parameters.len());
        for parameter in &graph.parameters {
            let tensor =
                vb.get_with_hints(&parameter.shape[..], &parameter.name, parameter.init)?;
            tensors.push(match parameter.trained {
                true => tensor,
                // set by runs in training, whoever made it
                false => Var::from_tensor(&tensor)?.into_inner(),
            });
        }
        let (dtype, device) = (vb.dtype(), vb.device().clone());
        Ok(Self { graph: graph.into(), tensors, dtype, device, kernel: Kernel::best() })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The same network, whose runs, tapes and steps on a CPU compute with `kernel`; without it with the
    /// [best](Kernel::best).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a kernel that this processor lacks.
    pub fn with_kernel(self, kernel: Kernel) -> Result<Self> {
        Ok(Self { kernel: kernel.available()?, ..self })
    }

    /// Kernel that it computes with.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Device of the tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the network on its inputs: conditioning inputs may be left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for inputs, a mask or a state that do not fit: the state is then as it was.
    ///
    /// # Example
    /// See [`Run`].
    pub fn run(&self, inputs: &[&Tensor], run: Run) -> Result<Outputs> {
        Ok(walk(self, inputs, run, false)?.0)
    }

    /// As [`run`](Self::run), on the record: [`Tape::backward`] then gives the gradients of the parameters.
    ///
    /// A program that trains should call [`keep_freed_memory`](crate::kernels::memory::keep_freed_memory) first: it
    /// makes steps 1.4 times as fast on Linux.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Example
    /// See [`graph`](super).
    pub fn trace(&self, inputs: &[&Tensor], run: Run) -> Result<(Outputs, Tape)> {
        let (outputs, tape) = walk(self, inputs, run, true)?;
        let none = || Error::invalid("tape", "one", "none");
        Ok((outputs, tape.ok_or_else(none)?))
    }

    /// The first output for one input; differentiable by candle where the tensors are variables.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn forward_with(&self, xs: &Tensor, run: Run) -> Result<Tensor> {
        self.run(&[xs], run)?.into_first()
    }

    /// The next steps of the sequences of `state`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn prefill(&self, xs: &Tensor, state: &mut State) -> Result<Tensor> {
        self.forward_with(xs, Run::eval().with_state(state))
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the network is not causal; [`Error::TooLarge`] where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.graph.rings()?)
    }

    /// The mask that hides the steps of `ids` which the network leaves out of itself; `None` where there are none.
    ///
    /// # Errors
    /// Those of candle.
    pub fn attention_mask(&self, ids: &Tensor) -> Result<Option<Tensor>> {
        let hidden = self.graph.inputs().next().and_then(|input| match input {
            Input::Tokens { cfg, .. } => cfg.hidden,
            _ => None,
        });
        let Some(id) = hidden else { return Ok(None) };
        let mask = ids.ne(id)?;
        Ok(Mask::new(&mask)?.factors.is_some().then_some(mask))
    }

    /// The same network for inference: weight norm folded, variables copied.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        self.freeze_as(StepDtype::F32)
    }

    /// As [`freeze`](Self::freeze), weights rounded to int8 where steps of this type do it; where they round to bf16, a
    /// run in bf16 does so itself.
    pub(super) fn freeze_as(&self, dtype: StepDtype) -> Result<Self> {
        let mut graph = (*self.graph).clone();
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            // copied where it shares its numbers with a variable, and only there: a large model would not fit twice
            let own = if tensor.is_variable() { tensor.detach().copy()? } else { tensor.detach() };
            tensors.push(own);
        }
        let table = self.graph.embedding().map(|table| table.name.clone());
        for node in &mut graph.nodes {
            let Operation::Conv(conv) = &mut node.operation else { continue };
            let Param(at) = match conv.weight {
                Weight::Plain(param) => param,
                Weight::Norm { v, g } => {
                    let [v32, g32] = [v, g].map(|p| tensors[p.0].to_dtype(wide(self.dtype)));
                    let folded = ops::weight_norm(&v32?, &g32?)?.detach();
                    let name = &mut graph.parameters[v.0].name;
                    *name = name.trim_end_matches("_v").to_string();
                    tensors[v.0] = folded;
                    v
                }
            };
            conv.weight = Weight::Plain(Param(at));
            if dtype == StepDtype::Int8 {
                // a tied table is looked up as it is
                let tied = table.as_deref() == Some(&graph.parameters[at].name);
                let rounded = round(&tensors[at], dtype)?;
                if tied {
                    graph.parameters.push(graph.parameters[at].clone());
                    tensors.push(rounded);
                    conv.weight = Weight::Plain(Param(tensors.len() - 1));
                } else {
                    tensors[at] = rounded;
                }
            }
        }
        for (tensor, parameter) in tensors.iter_mut().zip(&graph.parameters) {
            if !parameter.trained {
                *tensor = Var::from_tensor(tensor)?.into_inner();
            }
        }
        Ok(Self { graph: graph.into(), tensors, ..self.clone() })
    }

    /// The network one step at a time, on slices, weights packed: a program for real-time frames.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the node, where a step cannot be taken.
    pub fn step_net(&self, dtype: StepDtype) -> Result<StepNet> {
        StepNet::compile(self, dtype, false)
    }

    /// The network in steps and prompts: for generation.
    ///
    /// # Errors
    /// As [`step_net`](Self::step_net).
    pub fn stepper(&self, dtype: StepDtype) -> Result<Stepper> {
        Stepper::new(self, dtype)
    }

    /// Sets every `weight_g` to the length of its `weight_v`: as weight norm starts. Under
    /// [`Params`](crate::nn::Params) they start so; under a `VarMap`, where one tensor's start cannot depend on
    /// another's, call this once.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the tensors are no variables.
    pub fn init_weight_norm(&self) -> Result<()> {
        for node in &self.graph.nodes {
            let Operation::Conv(conv) = &node.operation else { continue };
            let Weight::Norm { v, g } = conv.weight else { continue };
            let (v, g) = (self.tensor(v), self.tensor(g));
            if !g.is_variable() {
                return Err(Error::invalid("weight_g", "a variable", "a fixed tensor"));
            }
            let lengths = v.detach().flatten_from(1)?.sqr()?.sum(1)?.sqrt()?.reshape(g.shape())?;
            Var::from_tensor(g)?.set(&lengths)?;
        }
        Ok(())
    }

    /// Tensors with their names, in the order of the graph's parameters.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.graph.parameters.iter().map(|p| p.name.as_str()).zip(&self.tensors)
    }

    pub(super) fn tensor(&self, param: Param) -> &Tensor {
        &self.tensors[param.0]
    }

    /// Running statistics as they are now.
    pub(super) fn buffer(&self, param: Param) -> Tensor {
        self.tensors[param.0].detach()
    }

    pub(super) fn set_buffer(&self, param: Param, value: &Tensor) -> Result<()> {
        Ok(Var::from_tensor(&self.tensors[param.0])?.set(value)?)
    }

    /// Type of the activations of a run; f16 is computed in f32.
    pub(super) fn activations(&self, run: &Run) -> DType {
        match run.dtype.unwrap_or(self.dtype) {
            DType::F16 => DType::F32,
            other => other,
        }
    }

    /// An output in the type that the parameters ask for.
    pub(super) fn as_given(&self, output: Tensor, run: &Run) -> candle_core::Result<Tensor> {
        match run.dtype.unwrap_or(self.dtype) {
            DType::F16 => output.to_dtype(DType::F16),
            _ => Ok(output),
        }
    }
}

/// The type that derived weights are computed in.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::BF16 | DType::F16 => DType::F32,
        other => other,
    }
}

/// A weight as steps of this type compute with it.
fn round(weight: &Tensor, dtype: StepDtype) -> Result<Tensor> {
    let mut numbers: Vec<f32> = weight.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    round_weight(dtype, &mut numbers, weight.dim(0)?);
    let rounded = Tensor::from_vec(numbers, weight.shape(), &Device::Cpu)?;
    Ok(rounded.to_device(weight.device())?.to_dtype(weight.dtype())?)
}

impl Module for Network {
    fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_with(xs, Run::eval())?)
    }
}
