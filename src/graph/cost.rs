//! Costs of a network: arithmetic, weights, states, and what the reverse walk keeps.

use std::collections::HashSet;

use candle_core::DType;

use super::Graph;
use super::operation::Operation;
use super::program::Program;
use crate::{Error, Result};

/// Costs of a network, for each step (or pixel) of its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Floating-point operations of a forward pass: two for each weight of a convolution or matrix,
    /// `2·in/groups·out·kernel_size`. Biases, norms, activations and the embedding, which is looked up, count nothing.
    /// A training step is three times that: the output, the input gradient and the weight gradient of each layer are
    /// as large a product. (The first layer's input gradient is counted too.)
    pub flops: f64,
    /// Numbers that the reverse walk keeps of a forward pass in training.
    pub kept: f64,
}

impl Graph {
    /// The costs of the network.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the graph has no output.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "models")] {
    /// use candle_tcn::models::ModelConfig;
    /// let config = ModelConfig::preset("char-ptb")?.with_vocab_size(50);
    /// // 13.3 MFLOP for a token of training
    /// assert_eq!(3.0 * config.graph()?.cost()?.flops, 13_305_000.0);
    /// # }
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn cost(&self) -> Result<Cost> {
        let program = Program::new(self, self.inputs.len(), true, |_| false)?;
        let rate = |value: usize| {
            let [height, width] = self.nodes[value].edge.spans.map(|span| span.step);
            (height.1 * width.1) as f64 / (height.0 * width.0) as f64
        };
        let mut flops = 0.0;
        let mut kept = HashSet::new();
        for group in &program.groups {
            let node = &self.nodes[group.node];
            let size = |param: super::operation::Param| {
                self.parameters[param.0].shape.iter().map(|&n| n as f64).product::<f64>()
            };
            match &node.operation {
                Operation::Conv(conv) => {
                    let taps = (conv.kernel_size[0] * conv.kernel_size[1]) as f64;
                    let group_in = (conv.in_channels / conv.groups) as f64;
                    flops += 2.0 * rate(group.output) * taps * group_in * conv.out_channels as f64;
                    kept.insert(group.inputs[0]);
                    if group.then.is_some() {
                        kept.insert(group.output);
                    }
                }
                Operation::ConvTranspose(conv) => {
                    flops += 2.0 * rate(group.inputs[0]) * size(conv.weight);
                    kept.insert(group.inputs[0]);
                }
                Operation::Add if group.then.is_none() => {}
                Operation::Add => drop(kept.insert(group.output)),
                Operation::Embed { .. } | Operation::OneHot | Operation::Dropout { .. } => {}
                _ => kept.extend(group.inputs.iter().copied()),
            }
        }
        let numbers = |&value: &usize| rate(value) * self.nodes[value].edge.channels as f64;
        let logits = |value: &&usize| !program.outputs.contains(value);
        Ok(Cost { flops, kept: kept.iter().filter(logits).map(numbers).sum() })
    }

    /// Bytes of the states of `batch` sequences; 0 where the network cannot stream.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where it overflows.
    pub fn state_bytes(&self, batch: usize) -> Result<usize> {
        let rings = self.rings().unwrap_or_default();
        let floats = rings
            .iter()
            .try_fold(0usize, |sum, ring| sum.checked_add(ring.span.checked_mul(ring.channels)?));
        floats
            .and_then(|floats| floats.checked_mul(batch)?.checked_mul(size_of::<f32>()))
            .ok_or_else(|| {
                Error::too_large("the streaming state", "its size overflows; lower the dilations")
            })
    }

    /// Bytes of memory that a training step on `batch_size` sequences of `seq_len` tokens takes, about: activations of
    /// type `dtype`, logits, parameters with gradients and moments, states.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where it overflows.
    pub fn training_bytes(&self, batch_size: usize, seq_len: usize, dtype: DType) -> Result<usize> {
        /// The program itself and what it reads.
        const PROGRAM: f64 = (1 << 25) as f64;
        /// Logits, their gradient, and copies on the way; each f32.
        const LOGITS: f64 = 5.0;
        // beside what is kept: the widest values and gradients under way
        let widest = self.nodes.iter().map(|node| node.edge).filter(|edge| !edge.ids);
        let outputs: f64 = self.outputs.iter().map(|&v| self.edge(v).channels as f64).sum();
        let hidden = widest.map(|edge| edge.channels).filter(|&c| c as f64 != outputs).max();
        let row = (self.cost()?.kept + 4.0 * hidden.unwrap_or(0) as f64)
            * dtype.size_in_bytes() as f64
            + LOGITS * outputs * size_of::<f32>() as f64;
        let parameters = 4.0 * (self.parameter_count()? * size_of::<f32>()) as f64;
        let states = 2.0 * self.state_bytes(1)? as f64 * batch_size as f64;
        let bytes = PROGRAM + row * batch_size as f64 * seq_len as f64 + parameters + states;
        if bytes < usize::MAX as f64 {
            return Ok(bytes as usize);
        }
        let detail = format!(
            "batch size {batch_size} x {seq_len} steps overflows; lower batch_size or seq_len"
        );
        Err(Error::too_large("a training step", detail))
    }
}
