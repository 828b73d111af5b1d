//! Builder methods: each checks its arguments against the facts of its inputs.

use std::sync::Arc;

use candle_nn::Init;

use super::operation::{Node, Operation, Param, Parameter};
use super::{
    Axes, Edge, Graph, Input, MAX_CHANNELS, MAX_STACK_LAYERS, MAX_TOTAL_CHANNELS, RowOperation,
    TokensConfig, Value, in_range,
};
use crate::kernels::elementwise::{Activation, Gate};
use crate::ops::{DropoutKind, Pool};
use crate::{Error, Result};

impl Graph {
    /// Token ids, (batch, time) of `u32`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a vocabulary of no size or beyond [`MAX_CHANNELS`].
    pub fn tokens(&mut self, vocab_size: usize) -> Result<Value> {
        self.tokens_with(vocab_size, TokensConfig::default())
    }

    /// As [`tokens`](Self::tokens), some of which have a meaning of their own.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens); [`Error::Invalid`] for a `restart` beyond the vocabulary.
    pub fn tokens_with(&mut self, vocab_size: usize, cfg: TokensConfig) -> Result<Value> {
        in_range("vocab_size", vocab_size, MAX_CHANNELS)?;
        let restart = cfg.restart.unwrap_or(0);
        let expected = format!("an id below {vocab_size}, the size of the vocabulary");
        Error::require((restart as usize) < vocab_size, "restart", &expected, restart)?;
        let edge = Edge { ids: true, ..Edge::point(Axes::Sequence, vocab_size) };
        self.input(Input::Tokens { vocab_size, cfg }, edge)
    }

    /// Numbers, (batch, time, channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for no channels or more than [`MAX_CHANNELS`].
    pub fn frames(&mut self, channels: usize) -> Result<Value> {
        in_range("in_channels", channels, MAX_CHANNELS)?;
        self.input(Input::Frames { channels }, Edge::point(Axes::Sequence, channels))
    }

    /// Numbers, (batch, height, width, channels).
    ///
    /// # Errors
    /// As [`frames`](Self::frames).
    pub fn images(&mut self, channels: usize) -> Result<Value> {
        in_range("in_channels", channels, MAX_CHANNELS)?;
        self.input(Input::Images { channels }, Edge::point(Axes::Image, channels))
    }

    /// Conditioning numbers, (batch, channels) for whole sequences or (batch, time, channels) for their steps. They may
    /// be left out of a run; then so is all that depends on them, up to an [`otherwise`](Self::otherwise).
    ///
    /// # Errors
    /// As [`frames`](Self::frames).
    pub fn condition(&mut self, channels: usize) -> Result<Value> {
        in_range("in_channels", channels, MAX_CHANNELS)?;
        self.input(Input::Condition { channels }, Edge::point(Axes::Sequence, channels))
    }

    fn input(&mut self, input: Input, edge: Edge) -> Result<Value> {
        let value = self.node("", Operation::Input(input), &[], edge)?;
        self.inputs.push(value);
        Ok(value)
    }

    /// Token ids as rows of `width` numbers with a single one in them.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the input is no ids or the width below the vocabulary.
    pub fn one_hot(&mut self, ids: Value, width: usize) -> Result<Value> {
        let from = *self.expect_ids("one_hot", ids)?;
        if width < from.channels {
            return Err(Error::invalid("width", format!("at least {}", from.channels), width));
        }
        let edge = Edge { ids: false, channels: width, ..from };
        self.node("", Operation::OneHot, &[ids], edge)
    }

    /// An activation function on each number.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input of ids.
    pub fn activate(&mut self, xs: Value, activation: Activation) -> Result<Value> {
        self.row_wise("", Operation::Activate(activation), xs)
    }

    /// A gate: the first half of the channels weighed by the second.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an odd number of channels.
    pub fn gate(&mut self, xs: Value, gate: Gate) -> Result<Value> {
        let from = *self.expect_rows("gate", xs)?;
        if !from.channels.is_multiple_of(2) {
            return Err(Error::invalid("gate", "an even number of channels", from.channels));
        }
        let edge = Edge { channels: from.channels / 2, ..from };
        self.node("", Operation::Gate(gate), &[xs], edge)
    }

    /// The sum of two values.
    ///
    /// # Errors
    /// [`Error::Invalid`] where their axes, channels or rates differ.
    pub fn add(&mut self, xs: Value, ys: Value) -> Result<Value> {
        self.meet(Operation::Add, xs, ys)
    }

    /// The product of two values, number by number.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn multiply(&mut self, xs: Value, ys: Value) -> Result<Value> {
        self.meet(Operation::Multiply, xs, ys)
    }

    fn meet(&mut self, operation: Operation, xs: Value, ys: Value) -> Result<Value> {
        let (a, b) = (*self.expect_rows(operation.name(), xs)?, self.edge(ys));
        if a.channels != b.channels {
            return Err(Error::invalid(operation.name(), a.shape(), b.shape()));
        }
        let edge = self.same_rows(operation.name(), &a, b)?;
        self.node("", operation, &[xs, ys], edge)
    }

    /// Values side by side, along the channels.
    ///
    /// # Errors
    /// [`Error::Invalid`] where their axes or rates differ, or there are none.
    pub fn concat(&mut self, values: &[Value]) -> Result<Value> {
        let [first, rest @ ..] = values else {
            return Err(Error::invalid("concatenation", "at least one value", "none"));
        };
        let mut edge = *self.expect_rows("concatenation", *first)?;
        for value in rest {
            let channels = edge.channels + self.edge(*value).channels;
            edge = Edge { channels, ..self.same_rows("concatenation", &edge, self.edge(*value))? };
        }
        self.node("", Operation::Concat, values, edge)
    }

    /// Dropout, in training; nothing where `p` is 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `p` that is no probability below 1.
    pub fn dropout(&mut self, xs: Value, p: f64, kind: DropoutKind) -> Result<Value> {
        super::dropout_probability("dropout", p)?;
        if p == 0.0 {
            return Ok(xs);
        }
        self.dropouts += 1;
        let number = self.dropouts;
        self.row_wise("", Operation::Dropout { p, kind, number }, xs)
    }

    /// The mean over all rows of a sequence or an image: [`pool`](Self::pool) by [`Pool::Mean`].
    ///
    /// # Errors
    /// As [`pool`](Self::pool).
    pub fn mean(&mut self, xs: Value) -> Result<Value> {
        self.pool(xs, Pool::Mean)
    }

    /// One row of a sequence or an image; hidden steps are left out. As an output it is (batch, channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that is one row already.
    pub fn pool(&mut self, xs: Value, pool: Pool) -> Result<Value> {
        let from = *self.expect_rows("pool", xs)?;
        if from.single {
            return Err(Error::invalid("pool", "rows of a sequence or an image", from.shape()));
        }
        let channels = if pool == Pool::MeanMax { 2 * from.channels } else { from.channels };
        let edge = Edge { single: true, whole: true, channels, ..from };
        self.node("", Operation::Pool(pool), &[xs], edge)
    }

    /// The one row of a sequence or an image, on every row of `like`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `xs` is more than one row, or `like` has other axes.
    pub fn spread(&mut self, xs: Value, like: Value) -> Result<Value> {
        let (from, to) = (*self.edge(xs), *self.edge(like));
        if !from.single || from.axes != to.axes {
            return Err(Error::invalid("spread", "one row a sequence", from.shape()));
        }
        let edge = Edge { channels: from.channels, ids: false, ..to.meet(&from) };
        self.node("", Operation::Spread, &[xs, like], edge)
    }

    /// Softmax over the sequences of the batch, or its logarithm: PyTorch's layer without an axis.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input of ids.
    pub fn batch_softmax(&mut self, xs: Value, log: bool) -> Result<Value> {
        let edge = Edge { mixes: true, ..*self.expect_rows("softmax", xs)? };
        self.node("", Operation::BatchSoftmax { log }, &[xs], edge)
    }

    /// `with` where the conditioning inputs that it depends on are given, else `without`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn otherwise(&mut self, with: Value, without: Value) -> Result<Value> {
        self.meet(Operation::Otherwise, with, without)
    }

    /// A row-wise operation of a user.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input of ids, or an output of no channels.
    pub fn custom(&mut self, xs: Value, operation: Arc<dyn RowOperation>) -> Result<Value> {
        let from = *self.expect_rows(operation.name(), xs)?;
        let channels = operation.out_channels(from.channels);
        in_range("out_channels", channels, MAX_CHANNELS)?;
        self.node("", Operation::Custom(operation), &[xs], Edge { channels, ..from })
    }

    /// Names a value, so that a run may record it.
    pub fn label(&mut self, name: impl Into<String>, value: Value) {
        self.labels.push((name.into(), value));
    }

    /// Labels the output of a layer, counted from 1, `hidden.{layer}`; the input of the first is number 0.
    pub fn label_hidden(&mut self, layer: usize, value: Value) {
        self.label(format!("hidden.{layer}"), value);
    }

    /// Makes a value an output.
    ///
    /// # Errors
    /// [`Error::Invalid`] for token ids.
    pub fn output(&mut self, value: Value) -> Result<()> {
        self.expect_rows("output", value)?;
        self.outputs.push(value);
        Ok(())
    }

    /// Makes a value an output in f32 whatever the type of the activations, labelled `logits`.
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn output_logits(&mut self, value: Value) -> Result<()> {
        if let Operation::Conv(conv) = &mut self.nodes[value.0].operation {
            conv.to_f32 = true;
        }
        self.label("logits", value);
        self.output(value)
    }

    /// Adds a parameter, or finds that of the name.
    pub(super) fn parameter(
        &mut self,
        name: &str,
        part: &str,
        shape: Vec<usize>,
        init: Init,
    ) -> Result<Param> {
        let path = self.path(name, part);
        if let Some(at) = self.parameters.iter().position(|parameter| parameter.name == path) {
            if self.parameters[at].shape != shape {
                let expected =
                    format!("{:?}, as where it is read first", self.parameters[at].shape);
                return Err(Error::Tensor { name: path, expected, found: format!("{shape:?}") });
            }
            return Ok(Param(at));
        }
        let copies = Vec::new();
        self.parameters.push(Parameter { name: path, shape, init, trained: true, copies });
        Ok(Param(self.parameters.len() - 1))
    }

    pub(super) fn row_wise(
        &mut self,
        name: &str,
        operation: Operation,
        xs: Value,
    ) -> Result<Value> {
        let edge = *self.expect_rows(operation.name(), xs)?;
        self.node(name, operation, &[xs], edge)
    }

    pub(super) fn node(
        &mut self,
        name: &str,
        operation: Operation,
        inputs: &[Value],
        edge: Edge,
    ) -> Result<Value> {
        // a layer has up to a dozen nodes
        if self.nodes.len() >= 16 * MAX_STACK_LAYERS {
            let detail = format!("at most {} operations are supported", 16 * MAX_STACK_LAYERS);
            return Err(Error::too_large("the network", detail));
        }
        if !edge.ids {
            self.channels = self.channels.saturating_add(edge.channels);
        }
        if self.channels > MAX_TOTAL_CHANNELS {
            let detail = format!(
                "{} channels in all its operations; at most {MAX_TOTAL_CHANNELS} are supported",
                self.channels
            );
            return Err(Error::too_large("the network", detail));
        }
        let name = match name {
            "" => self.scope.trim_end_matches('.').to_string(),
            name => format!("{}{name}", self.scope),
        };
        self.nodes.push(Node { name, operation, inputs: inputs.to_vec(), edge });
        Ok(Value(self.nodes.len() - 1))
    }

    /// Dotted path of a part of a layer.
    pub(super) fn path(&self, name: &str, part: &str) -> String {
        match name {
            "" => format!("{}{part}", self.scope),
            name => format!("{}{name}.{part}", self.scope),
        }
    }

    pub(super) fn expect_ids(&self, name: &str, value: Value) -> Result<&Edge> {
        let edge = self.edge(value);
        match edge.ids {
            true => Ok(edge),
            false => Err(Error::invalid(self.path(name, "input"), "token ids", edge.shape())),
        }
    }

    pub(super) fn expect_rows(&self, name: &str, value: Value) -> Result<&Edge> {
        let edge = self.edge(value);
        match edge.ids {
            false => Ok(edge),
            true => Err(Error::invalid(self.path(name, "input"), "rows of numbers", "token ids")),
        }
    }

    pub(super) fn expect_axes(&self, name: &str, value: Value, axes: Axes) -> Result<&Edge> {
        let edge = self.expect_rows(name, value)?;
        if edge.axes == axes {
            return Ok(edge);
        }
        let expected = Edge::point(axes, edge.channels).shape();
        Err(Error::invalid(self.path(name, "input"), expected, edge.shape()))
    }

    /// Facts of two values that meet row by row.
    fn same_rows(&self, what: &str, a: &Edge, b: &Edge) -> Result<Edge> {
        let rates = |edge: &Edge| edge.spans.map(|span| span.step);
        if (a.axes, a.single) != (b.axes, b.single) || b.ids {
            return Err(Error::invalid(self.path(what, "input"), a.shape(), b.shape()));
        }
        if rates(a) != rates(b) {
            let found = format!("rates {:?} and {:?}", rates(a), rates(b));
            return Err(Error::invalid(self.path(what, "input"), "rows of one rate", found));
        }
        Ok(a.meet(b))
    }
}
