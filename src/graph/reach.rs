//! The chain of blocks that a receptive field is drawn from.

use std::collections::HashSet;

use super::Graph;
use super::operation::Operation;
use crate::Result;
use crate::geometry::{Block, Layer, Padding, Stack};

/// The way to a value: a value that stands for all before it, and the convolutions since.
#[derive(Clone)]
struct Way {
    from: usize,
    convs: Vec<usize>,
}

impl Graph {
    /// The convolutions that see other steps, along time or the width, in blocks: a block ends where a path meets one
    /// around it.
    ///
    /// # Errors
    /// Those of [`Layer::new`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "models")] {
    /// use candle_tcn::models::ModelConfig;
    /// let config = ModelConfig::preset("char-ptb")?.with_vocab_size(50);
    /// assert_eq!(config.graph()?.stack()?.receptive_field()?.total, 29);
    /// # }
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn stack(&self) -> Result<Stack> {
        let mut ways: Vec<Way> = Vec::with_capacity(self.nodes.len());
        let mut blocks = Vec::new();
        let mut done = HashSet::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let here = || Way { from: i, convs: Vec::new() };
            let way = match (&node.operation, &node.inputs[..]) {
                (_, []) => here(),
                (Operation::Conv(_) | Operation::ConvTranspose(_), [xs]) => {
                    let mut way = ways[xs.0].clone();
                    if self.sees(i) {
                        way.convs.push(i);
                    }
                    way
                }
                (_, [xs]) => ways[xs.0].clone(),
                (_, inputs) => {
                    let all: Vec<_> = inputs.iter().map(|value| &ways[value.0]).collect();
                    if all.iter().all(|way| way.from == all[0].from && way.convs == all[0].convs) {
                        all[0].clone()
                    } else {
                        for way in all {
                            self.block(&way.convs, true, &mut done, &mut blocks)?;
                        }
                        here()
                    }
                }
            };
            ways.push(way);
        }
        for output in &self.outputs {
            self.block(&ways[output.0].convs, false, &mut done, &mut blocks)?;
        }
        Ok(Stack::new(blocks))
    }

    /// Height and width of the first output for an image of this size.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid), naming the axis, where a kernel does not fit.
    pub fn output_size(&self, size: (usize, usize)) -> Result<(usize, usize)> {
        let mut sizes: Vec<(usize, usize)> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            sizes.push(match (&node.operation, node.inputs.first()) {
                (Operation::Conv(conv), Some(xs)) => conv.output_size(sizes[xs.0])?,
                (_, Some(xs)) => sizes[xs.0],
                (_, None) => size,
            });
        }
        Ok(sizes[self.first_output()?.0])
    }

    /// `true` if the convolution sees other steps, or fewer.
    fn sees(&self, node: usize) -> bool {
        match &self.nodes[node].operation {
            Operation::Conv(conv) => conv.kernel_size[1] > 1 || conv.stride[1] > 1,
            Operation::ConvTranspose(conv) => conv.span() > 0,
            _ => false,
        }
    }

    fn block(
        &self,
        convs: &[usize],
        residual: bool,
        done: &mut HashSet<usize>,
        blocks: &mut Vec<Block>,
    ) -> Result<()> {
        let new: Vec<_> = convs.iter().filter(|&&conv| done.insert(conv)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let layers = new.into_iter().map(|&conv| self.layer(conv)).collect::<Result<_>>()?;
        blocks.push(if residual { Block::residual(layers) } else { Block::plain(layers) });
        Ok(())
    }

    fn layer(&self, node: usize) -> Result<Layer> {
        let node = &self.nodes[node];
        match &node.operation {
            Operation::Conv(conv) => {
                let (left, right) = conv.padding[1];
                let padding = match (left, right) {
                    (0, 0) => Padding::Valid,
                    _ => Padding::Explicit { left: left.min(conv.span()), right },
                };
                let layer =
                    Layer::new(&*node.name, conv.kernel_size[1], conv.dilation[1], padding)?;
                layer.with_stride(conv.stride[1])
            }
            Operation::ConvTranspose(conv) => {
                let causal = conv.config.padding == super::TransposePadding::Causal;
                let padding = if causal { Padding::Causal } else { Padding::Same };
                Layer::new(&*node.name, conv.span() + 1, 1, padding)
            }
            _ => Layer::new(&*node.name, 1, 1, Padding::Causal),
        }
    }
}
