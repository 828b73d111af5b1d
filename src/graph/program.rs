//! The rewrite before every run: which nodes run together, and when a value is read for the last time.

use super::operation::{Input, Operation};
use super::{Graph, Value};
use crate::kernels::elementwise::Activation;
use crate::ops::DropoutKind;
use crate::{Error, Result};

/// Nodes that run in one pass over memory, with one rounding in bf16.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The first node.
    pub node: usize,
    /// An activation after it.
    pub then: Option<Activation>,
    /// Probability and number of a dropout of elements after that.
    pub dropout: Option<(f64, u64)>,
    /// The value that comes out.
    pub output: usize,
    /// Values that go in: those of the first node.
    pub inputs: Vec<usize>,
    /// Values that nobody reads after it.
    pub last: Vec<usize>,
}

/// A graph as it runs.
#[derive(Debug)]
pub(crate) struct Program {
    pub groups: Vec<Group>,
    /// Values of the graph's outputs.
    pub outputs: Vec<usize>,
    /// Values to be recorded, with their names.
    pub recorded: Vec<(String, usize)>,
}

impl Program {
    /// The program of `graph` where `given` inputs of it are given, the labels for which `wanted` holds are recorded,
    /// and dropouts drop if it is for training.
    ///
    /// # Errors
    /// [`Error::Invalid`] where an output depends on an input that is not given.
    pub fn new(
        graph: &Graph,
        given: usize,
        train: bool,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let present = present(graph, given, train);
        let at = |value: Value| present[value.0];
        let outputs = graph.outputs.iter().map(|&value| {
            let expected = format!("{}, or fewer that it can do without", graph.inputs.len());
            at(value).ok_or_else(|| Error::invalid("inputs", expected, given))
        });
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let labels = graph.labels.iter().filter(|(name, _)| wanted(name));
        let recorded: Vec<_> =
            labels.filter_map(|(name, value)| Some((name.clone(), at(*value)?))).collect();

        let len = graph.nodes.len();
        let mut readers = vec![Vec::new(); len];
        // a reader of its own, beyond all nodes
        outputs
            .iter()
            .chain(recorded.iter().map(|(_, value)| value))
            .for_each(|&value| readers[value].push(len));
        let runs = |node: usize| present[node] == Some(node);
        for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| runs(*i)) {
            for input in node.inputs.iter().filter_map(|&value| at(value)) {
                readers[input].push(i);
            }
        }
        let mut absorbed = vec![false; len];
        let mut groups = Vec::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            if !runs(i) || absorbed[i] || matches!(node.operation, Operation::Input(_)) {
                continue;
            }
            let inputs = node.inputs.iter().filter_map(|&value| at(value)).collect();
            let mut group =
                Group { node: i, then: None, dropout: None, output: i, inputs, last: Vec::new() };
            while let [next] = readers[group.output][..]
                && next < len
                && group.absorb(&node.operation, &graph.nodes[next].operation)
            {
                absorbed[next] = true;
                group.output = next;
            }
            groups.push(group);
        }
        let mut program = Self { groups, outputs, recorded };
        program.find_last_reads(len);
        Ok(program)
    }

    fn find_last_reads(&mut self, len: usize) {
        let mut last = vec![None; len];
        for (at, group) in self.groups.iter().enumerate() {
            // a value that nobody reads goes at once
            last[group.output] = Some(at);
            group.inputs.iter().for_each(|&value| last[value] = Some(at));
        }
        let kept = self.outputs.iter().chain(self.recorded.iter().map(|(_, value)| value));
        kept.for_each(|&value| last[value] = None);
        for (value, at) in last.into_iter().enumerate() {
            if let Some(at) = at {
                self.groups[at].last.push(value);
            }
        }
    }
}

impl Group {
    /// Takes up the only reader of its value, where one pass over memory does both.
    fn absorb(&mut self, first: &Operation, next: &Operation) -> bool {
        let fresh = self.then.is_none() && self.dropout.is_none();
        match (first, next) {
            (Operation::Conv(_) | Operation::Add, Operation::Activate(Activation::Relu))
                if fresh =>
            {
                self.then = Some(Activation::Relu);
            }
            (Operation::RowNorm { .. }, Operation::Activate(activation)) if fresh => {
                self.then = Some(*activation);
            }
            (Operation::Conv(_), &Operation::Dropout { p, kind: DropoutKind::Element, number })
                if self.dropout.is_none() =>
            {
                self.dropout = Some((p, number));
            }
            _ => return false,
        }
        true
    }
}

/// For each node the value that stands for it: its own, another one's, or none where an input that it depends on is not
/// given.
fn present(graph: &Graph, given: usize, train: bool) -> Vec<Option<usize>> {
    let mut inputs = 0;
    let mut present: Vec<Option<usize>> = Vec::with_capacity(graph.nodes.len());
    for (i, node) in graph.nodes.iter().enumerate() {
        let at = |value: &Value| present[value.0];
        present.push(match &node.operation {
            Operation::Input(input) => {
                inputs += 1;
                let may_lack = matches!(input, Input::Condition { .. });
                (inputs <= given || !may_lack).then_some(i)
            }
            Operation::Otherwise => at(&node.inputs[0]).or_else(|| at(&node.inputs[1])),
            Operation::Dropout { .. } if !train => at(&node.inputs[0]),
            _ => node.inputs.iter().all(|value| at(value).is_some()).then_some(i),
        });
    }
    present
}
