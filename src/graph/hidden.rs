//! The weights of a graph that lie between hidden channels.

use std::collections::HashSet;

use super::operation::{Conv, Node, Operation, Param, Weight};
use super::{Graph, Value};

impl Graph {
    /// Names of the weights between hidden channels: those of convolutions and linear layers whose result is no output,
    /// as they are (not apart as direction and length).
    pub fn hidden_weights(&self) -> HashSet<&str> {
        let weight = |node: &Node| match &node.operation {
            Operation::Conv(Conv { weight: Weight::Plain(weight), .. }) => Some(*weight),
            _ => None,
        };
        let outer = |param: Param| {
            let embeds = |node: &Node| matches!(node.operation, Operation::Embed { table, .. } if table == param);
            let ends = |value: &Value| weight(&self.nodes[value.0]) == Some(param);
            self.nodes.iter().any(embeds) || self.outputs.iter().any(ends)
        };
        let inner = self.nodes.iter().filter_map(weight).filter(|&param| !outer(param));
        inner.map(|param| self.parameters[param.0].name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::Result;
    use crate::graph::{Conv1dConfig, EmbedConfig, Graph};

    #[test]
    fn neither_embeddings_nor_heads_are_hidden() -> Result<()> {
        let mut g = Graph::new();
        let ids = g.tokens(10)?;
        let xs = g.embed("embedding", ids, 8, EmbedConfig::default())?;
        let hs = g.conv1d("conv", xs, 8, 3, Conv1dConfig::causal())?;
        let hs = g.linear("inner", hs, 8)?;
        let logits = g.linear("head", hs, 10)?;
        g.output_logits(logits)?;
        let mut hidden: Vec<_> = g.hidden_weights().into_iter().collect();
        hidden.sort_unstable();
        assert_eq!(hidden, ["conv.weight", "inner.weight"]);
        Ok(())
    }
}
