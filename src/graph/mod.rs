//! A network is a value: a [`Graph`] of operations, written once, that everything else reads.
//!
//! | reader | gives |
//! |---|---|
//! | [`Graph::parameters`] | names, shapes and first values of the tensors; nothing allocated |
//! | [`Graph::stack`], [`Edge`] | receptive fields |
//! | [`Graph::cost`] | FLOPs, bytes |
//! | [`Network::run`], [`Network::trace`] | whole sequences; gradients by a reverse walk over the same nodes |
//! | [`StepNet`] | one step at a time, on slices, with packed weights |
//!
//! `docs/graph.md` in the repository has the table of operations and the reasons.
//!
//! # Example
//!
//! Two causal convolutions with a residual path around them, trained for one step by gradient descent:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_tcn::graph::{Conv1dConfig, Graph, Network, Run};
//! use candle_tcn::nn::{Activation, Params};
//!
//! let mut g = Graph::new();
//! let xs = g.frames(4)?;
//! let mut hs = xs;
//! for (name, dilation) in [("conv1", 1), ("conv2", 2)] {
//!     hs = g.conv1d(name, hs, 4, 3, Conv1dConfig { dilation, ..Conv1dConfig::causal() })?;
//!     hs = g.activate(hs, Activation::Relu)?;
//! }
//! let ys = g.add(hs, xs)?;
//! g.output(ys)?;
//! assert_eq!(g.edge(ys).left(), 2 + 4); // steps before the present one
//!
//! let params = Params::new(1, DType::F32, &Device::Cpu);
//! let net = Network::new(g, params.builder())?;
//! let xs = Tensor::ones((2, 10, 4), DType::F32, &Device::Cpu)?;
//! let (outputs, tape) = net.trace(&[&xs], Run::train(1, 1))?;
//! // the loss is half the mean square: its gradient is ys / n
//! let ys = &outputs.values[0];
//! let grads = tape.backward(vec![(ys / ys.elem_count() as f64)?])?;
//! for (parameter, grad) in net.graph().parameters().iter().zip(&grads) {
//!     let var = &params.get(&parameter.name).unwrap();
//!     var.set(&(var.as_tensor() - (grad.as_ref().unwrap() * 0.1)?)?)?;
//! }
//! # Ok::<(), candle_tcn::Error>(())
//! ```

mod build;
mod config;
mod convolve;
mod cost;
mod edge;
mod forward;
mod hidden;
mod layers;
mod network;
mod operation;
#[cfg(test)]
mod operation_tests;
mod pieces;
mod program;
mod reach;
mod reverse;
mod run;
mod state;
mod step;
mod stepper;

pub use config::{
    Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, EmbedConfig, NormKind, TransposePadding,
};
pub use cost::Cost;
pub use edge::{Axes, Edge};
pub use network::Network;
pub use operation::{Input, Parameter, RowOperation, TokensConfig};
pub use reverse::Tape;
pub use run::{Outputs, Run};
pub use state::{RingShape, State};
pub use step::StepNet;
pub use stepper::Stepper;

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use operation::{Node, Operation};

use crate::{Error, Result};

/// Most channels of a layer; with [`MAX_KERNEL`] it keeps every size within `usize`.
pub const MAX_CHANNELS: usize = 1 << 20;

/// Most taps of a kernel.
pub const MAX_KERNEL: usize = 1 << 12;

/// Most layers of a network: describing one takes some kilobytes.
pub const MAX_STACK_LAYERS: usize = 1 << 12;

/// Most channels of all nodes together.
const MAX_TOTAL_CHANNELS: usize = 1 << 26;

/// A value of a [`Graph`]: the number of the node that gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) usize);

/// Use that a network has for a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Masks {
    /// Inputs of the convolutions that see other rows are multiplied by it where the network looks ahead, pools or has
    /// a batch norm; any other causal network refuses one.
    #[default]
    IfCentred,
    /// Inputs of the convolutions that see other rows are multiplied by it.
    Honoured,
    /// None by definition: one that hides a step is refused.
    Unread,
}

/// A network: nodes in the order in which they run, and the parameters they read. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) inputs: Vec<Value>,
    pub(crate) outputs: Vec<Value>,
    /// Names under which values may be recorded.
    pub(crate) labels: Vec<(String, Value)>,
    masks: Masks,
    scope: String,
    dropouts: u64,
    channels: usize,
}

impl Graph {
    /// A graph without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds with `name` before every name, as `VarBuilder::pp` does.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn scope<T>(
        &mut self,
        name: impl AsRef<str>,
        build: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let len = self.scope.len();
        self.scope.push_str(name.as_ref());
        if !name.as_ref().is_empty() {
            self.scope.push('.');
        }
        let built = build(self);
        self.scope.truncate(len);
        built
    }

    /// Sets the use that the network has for masks.
    pub fn set_masks(&mut self, masks: Masks) {
        self.masks = masks;
    }

    /// `true` if a mask is multiplied into inputs of convolutions, which in a causal network changes nothing.
    pub fn takes_mask(&self) -> bool {
        match self.masks {
            Masks::Honoured => true,
            Masks::Unread => false,
            Masks::IfCentred => self.nodes.iter().any(Node::has_use_for_masks),
        }
    }

    /// Facts of a value.
    pub fn edge(&self, value: Value) -> &Edge {
        &self.nodes[value.0].edge
    }

    /// Parameters in the order in which they were named.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Number of trained parameters.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where it overflows.
    pub fn parameter_count(&self) -> Result<usize> {
        let overflows = || {
            Error::too_large("the model", "its number of parameters overflows; lower its channels")
        };
        let mut trained = self.parameters.iter().filter(|parameter| parameter.trained);
        let size = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = trained.try_fold(0usize, |sum, one| sum.checked_add(size(&one.shape)?));
        count.ok_or_else(overflows)
    }

    /// Values that the network takes, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter().filter_map(|value| match &self.nodes[value.0].operation {
            Operation::Input(input) => Some(input),
            _ => None,
        })
    }

    /// The first output.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the graph has none.
    pub fn first_output(&self) -> Result<Value> {
        let none = || Error::invalid("graph", "at least one output", "none");
        self.outputs.first().copied().ok_or_else(none)
    }

    /// Names of the values that [`Run::recording`] may ask for.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|(name, _)| name.as_str())
    }

    /// Number of the last layer that is recorded as `hidden.{number}`.
    pub fn hidden_layers(&self) -> usize {
        let hidden = self.labels().filter(|name| name.starts_with("hidden."));
        hidden.count().saturating_sub(1)
    }

    /// Size of the vocabulary of a network of token ids.
    pub fn vocab_size(&self) -> Option<usize> {
        match self.inputs().next() {
            Some(Input::Tokens { vocab_size, .. }) => Some(*vocab_size),
            _ => None,
        }
    }

    /// The token id with which a sequence begins anew, of a network of tokens that has one.
    pub fn restart(&self) -> Option<u32> {
        match self.inputs().next() {
            Some(Input::Tokens { cfg, .. }) => cfg.restart,
            _ => None,
        }
    }

    /// The table of the first embedding.
    pub fn embedding(&self) -> Option<&Parameter> {
        self.nodes.iter().find_map(|node| match node.operation {
            Operation::Embed { table, .. } => Some(&self.parameters[table.0]),
            _ => None,
        })
    }

    /// The output of the first embedding.
    pub fn embedded(&self) -> Option<Value> {
        let is_embedding = |node: &Node| matches!(node.operation, Operation::Embed { .. });
        self.nodes.iter().position(is_embedding).map(Value)
    }

    /// `true` if no output depends on a later input.
    pub fn is_causal(&self) -> bool {
        self.outputs.iter().all(|&output| {
            let edge = self.edge(output);
            edge.right() == 0 && !edge.whole
        })
    }

    /// Refuses a network on frames where one on tokens is needed.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says so.
    pub fn expect_tokens(&self) -> Result<()> {
        match self.vocab_size() {
            Some(_) => Ok(()),
            None => Err(Error::invalid(
                "model_type",
                "a language model (tcn, wavenet); what takes frames instead of tokens runs on tensors alone",
                "a network on frames",
            )),
        }
    }

    /// Refuses a network that is no causal language model: tokens in, logits of the next token out.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says so.
    pub fn expect_language_model(&self) -> Result<()> {
        self.expect_tokens()?;
        let (output, vocab_size) = (self.edge(self.first_output()?), self.vocab_size());
        let found = if !self.is_causal() {
            "a masked language model, which does not generate".to_string()
        } else if Some(output.channels) != vocab_size {
            format!("{} numbers for {} tokens", output.channels, vocab_size.unwrap_or(0))
        } else if output.mixes {
            "a network whose outputs depend on the other sequences of a batch".into()
        } else {
            return Ok(());
        };
        Err(Error::invalid(
            "model",
            "a causal language model, which predicts the next token",
            found,
        ))
    }

    /// Takes the second copies of tied weights out of `weights`.
    ///
    /// # Errors
    /// [`Error::Tensor`] where one is no copy.
    pub fn drop_copies(&self, weights: &mut HashMap<String, Tensor>) -> Result<()> {
        for parameter in &self.parameters {
            for second in &parameter.copies {
                let (Some(first), Some(copy)) = (weights.get(&parameter.name), weights.get(second))
                else {
                    continue;
                };
                if copy.elem_count() != first.elem_count() || !is_copy(first, copy)? {
                    return Err(Error::Tensor {
                        name: second.clone(),
                        expected: format!(
                            "a copy of {}, as the configuration ties them",
                            parameter.name
                        ),
                        found: format!("other numbers, {:?}", copy.dims()),
                    });
                }
                weights.remove(second);
            }
        }
        Ok(())
    }

    /// Rows that the convolutions remember of a sequence that comes in pieces, in the order in which they run.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the node, where the network looks ahead, mixes sequences, or changes the rate
    /// before another convolution.
    pub fn rings(&self) -> Result<Vec<RingShape>> {
        self.nodes.iter().filter_map(|node| self.ring(node).transpose()).collect()
    }

    /// Rows that this node remembers.
    pub(crate) fn ring(&self, node: &Node) -> Result<Option<RingShape>> {
        let refuse = |expected: &str, found: String| {
            let field = match node.name.is_empty() {
                true => "network with a state".into(),
                false => format!("{} with a state", node.name),
            };
            Err(Error::invalid(field, expected, found))
        };
        let (span, channels, causal, padding) = match &node.operation {
            Operation::Conv(conv) => {
                let span = conv.span();
                let causal = conv.padding[1] == (span, 0) && conv.kernel_size[0] == 1;
                (span, conv.in_channels, causal, format!("padding {:?}", conv.padding[1]))
            }
            Operation::ConvTranspose(conv) => {
                let causal = conv.config.padding == TransposePadding::Causal;
                (
                    conv.span(),
                    conv.in_channels,
                    causal,
                    format!("padding {:?}", conv.config.padding),
                )
            }
            Operation::Pool(_) => return refuse("no pooling over time", "one".into()),
            _ => return Ok(None),
        };
        if !causal {
            return refuse("causal padding", padding);
        }
        let from = self.edge(node.inputs[0]);
        if span > 0 && from.rate() != (1, 1) {
            let expected = "steps as in the input; give what follows a stride a state of its own";
            return refuse(expected, format!("{:?} of them", from.rate()));
        }
        Ok((span > 0).then_some(RingShape { span, channels }))
    }
}

/// `true` if both hold the same numbers.
fn is_copy(first: &Tensor, copy: &Tensor) -> Result<bool> {
    let copy = copy.reshape(first.shape())?.to_dtype(DType::F32)?;
    let differ = copy.ne(&first.to_dtype(DType::F32)?)?.to_dtype(DType::U32)?;
    Ok(differ.max_all()?.to_scalar::<u32>()? == 0)
}

/// `value` if it is in `1..=most`.
pub(crate) fn in_range(field: impl Into<String>, value: usize, most: usize) -> Result<usize> {
    if (1..=most).contains(&value) {
        Ok(value)
    } else {
        Err(Error::invalid(field, format!("a whole number from 1 to {most}"), value))
    }
}

/// `p` if it is a probability of dropping.
pub(crate) fn dropout_probability(field: &str, p: f64) -> Result<f64> {
    if (0.0..1.0).contains(&p) {
        Ok(p)
    } else {
        Err(Error::invalid(field, "a probability of at least 0 and below 1", p))
    }
}
