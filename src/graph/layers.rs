//! Builder methods of the layers that have parameters.

use candle_nn::Init;

use super::operation::{Conv, ConvTranspose, Operation, Param, Weight};
use super::{
    Axes, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, Edge, EmbedConfig, Graph,
    MAX_CHANNELS, MAX_KERNEL, NormKind, TransposePadding, Value, in_range,
};
use crate::geometry::{Padding, effective_kernel, output_length};
use crate::kernels::rows::RowNorm;
use crate::ops::PaddingMode;
use crate::ops::conv2d::along;
use crate::{Error, Result};

/// Most lines or columns of padding on one side.
const MAX_PADDING: usize = 1 << 24;

/// Eps of a batch norm and of a layer norm by kind.
const EPS: f64 = 1e-5;

impl Graph {
    /// Rows of a table for token ids: `weight` (vocabulary, width).
    ///
    /// # Errors
    /// [`Error::Invalid`] where the input is no ids, or the width is out of range.
    ///
    /// # References
    /// `torch.nn.Embedding`.
    pub fn embed(
        &mut self,
        name: &str,
        ids: Value,
        width: usize,
        config: EmbedConfig,
    ) -> Result<Value> {
        in_range(self.path(name, "width"), width, MAX_CHANNELS)?;
        let from = *self.expect_ids(name, ids)?;
        let init = Init::Uniform { lo: -config.bound, up: config.bound };
        let table = self.parameter(name, "weight", vec![from.channels, width], init)?;
        let edge = Edge { ids: false, channels: width, ..from };
        self.node(name, Operation::Embed { table, padding: config.padding_idx }, &[ids], edge)
    }

    /// Dilated 1-D convolution: `weight` (out_channels, in_channels / groups, kernel_size), with weight norm
    /// `weight_v` and `weight_g`; `bias` (out_channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that do not fit.
    ///
    /// # References
    /// `torch.nn.Conv1d`, initialised as there: `U(±1/√fan_in)` for weight and bias.
    pub fn conv1d(
        &mut self,
        name: &str,
        xs: Value,
        out_channels: usize,
        kernel_size: usize,
        cfg: Conv1dConfig,
    ) -> Result<Value> {
        let in_channels = self.expect_axes(name, xs, Axes::Sequence)?.channels;
        in_range(self.path(name, "kernel_size"), kernel_size, MAX_KERNEL)?;
        let padding = cfg.padding.split(kernel_size, cfg.dilation)?;
        let group_in = self.groups(name, in_channels, out_channels, cfg.groups)?;
        let shape = vec![out_channels, group_in, kernel_size];
        let init = fan_in(group_in * kernel_size);
        let weight = match cfg.weight_norm {
            false => Weight::Plain(self.parameter(name, "weight", shape, init)?),
            true => Weight::Norm {
                v: self.parameter(name, "weight_v", shape, init)?,
                g: self.parameter(name, "weight_g", vec![out_channels, 1, 1], Init::Const(1.0))?,
            },
        };
        let bias = self.bias(name, cfg.bias, out_channels, init)?;
        let conv = Conv {
            weight,
            bias,
            in_channels,
            out_channels,
            kernel_size: [1, kernel_size],
            dilation: [1, cfg.dilation],
            stride: [1, cfg.stride],
            padding: [(0, 0), padding],
            padding_mode: cfg.padding_mode,
            groups: cfg.groups,
            to_f32: false,
        };
        self.convolution(name, xs, conv)
    }

    /// Dilated 2-D convolution: `weight` (out_channels, in_channels / groups, height, width), `bias` (out_channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that do not fit.
    ///
    /// # References
    /// `torch.nn.Conv2d`, initialised as there.
    pub fn conv2d(
        &mut self,
        name: &str,
        xs: Value,
        out_channels: usize,
        (height, width): (usize, usize),
        cfg: Conv2dConfig,
    ) -> Result<Value> {
        let in_channels = self.expect_axes(name, xs, Axes::Image)?.channels;
        let axis = |axis: &str, kernel_size, dilation, stride, padding: Padding| {
            in_range("kernel_size", kernel_size, MAX_KERNEL)
                .and_then(|_| in_range("stride", stride, MAX_CHANNELS))
                .and_then(|_| padding.split(kernel_size, dilation))
                .and_then(|(before, after)| match before.max(after) {
                    0..=MAX_PADDING => Ok((before, after)),
                    most => Err(Error::invalid(
                        "padding",
                        format!("at most {MAX_PADDING} on a side"),
                        most,
                    )),
                })
                .map_err(|error| along(axis, error))
        };
        let (dilation, stride) = (cfg.dilation, cfg.stride);
        let padding = [
            axis("height", height, dilation.0, stride.0, cfg.padding.0)?,
            axis("width", width, dilation.1, stride.1, cfg.padding.1)?,
        ];
        if let Some(most) = padding.iter().map(|p| p.0.max(p.1)).find(|&p| p > MAX_PADDING) {
            return Err(Error::invalid(
                "padding",
                format!("at most {MAX_PADDING} on a side"),
                most,
            ));
        }
        let group_in = self.groups(name, in_channels, out_channels, cfg.groups)?;
        let init = fan_in(group_in * height * width);
        let shape = vec![out_channels, group_in, height, width];
        let conv = Conv {
            bias: self.bias(name, cfg.bias, out_channels, init)?,
            weight: Weight::Plain(self.parameter(name, "weight", shape, init)?),
            in_channels,
            out_channels,
            kernel_size: [height, width],
            dilation: [dilation.0, dilation.1],
            stride: [stride.0, stride.1],
            padding,
            padding_mode: cfg.padding_mode,
            groups: cfg.groups,
            to_f32: false,
        };
        if let Some(size) = cfg.input_size {
            conv.output_size(size)?;
        }
        self.convolution(name, xs, conv)
    }

    /// Linear layer on each row: `weight` (out_channels, in_channels), `bias` (out_channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a width that is out of range.
    ///
    /// # References
    /// `torch.nn.Linear`, initialised as there.
    pub fn linear(&mut self, name: &str, xs: Value, out_channels: usize) -> Result<Value> {
        let in_channels = self.edge(xs).channels;
        in_range(self.path(name, "out_channels"), out_channels, MAX_CHANNELS)?;
        let init = fan_in(in_channels);
        let weight = self.parameter(name, "weight", vec![out_channels, in_channels], init)?;
        let bias = self.parameter(name, "bias", vec![out_channels], init)?;
        self.matrix(name, xs, weight, Some(bias))
    }

    /// Linear layer with the table of the graph's first embedding as its matrix, and a bias of its own where one is
    /// wanted.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no embedding, or one of another width than the input.
    pub fn tied_linear(&mut self, name: &str, xs: Value, bias: bool) -> Result<Value> {
        let table = self.nodes.iter().find_map(|node| match node.operation {
            Operation::Embed { table, .. } => Some(table),
            _ => None,
        });
        let table = table.ok_or_else(|| Error::invalid("graph", "an embedding to tie", "none"))?;
        let copy = self.path(name, "weight");
        self.parameters[table.0].copies.push(copy);
        let vocab_size = self.parameters[table.0].shape[0];
        let bias = self.bias(name, bias, vocab_size, Init::Const(0.0))?;
        self.matrix(name, xs, table, bias)
    }

    fn matrix(
        &mut self,
        name: &str,
        xs: Value,
        weight: Param,
        bias: Option<Param>,
    ) -> Result<Value> {
        let (shape, in_channels) = (&self.parameters[weight.0].shape, self.edge(xs).channels);
        if self.edge(xs).ids || shape[1] != in_channels {
            let expected = format!("rows of {} numbers", shape[1]);
            return Err(Error::invalid(self.path(name, "input"), expected, self.edge(xs).shape()));
        }
        let conv = Conv {
            weight: Weight::Plain(weight),
            bias,
            in_channels,
            out_channels: shape[0],
            kernel_size: [1, 1],
            dilation: [1, 1],
            stride: [1, 1],
            padding: [(0, 0); 2],
            padding_mode: PaddingMode::Zeros,
            groups: 1,
            to_f32: false,
        };
        self.convolution(name, xs, conv)
    }

    /// Transposed 1-D convolution: `weight` (in_channels, out_channels / groups, kernel_size), `bias` (out_channels).
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that do not fit.
    ///
    /// # References
    /// `torch.nn.ConvTranspose1d`, initialised as there.
    pub fn conv_transpose1d(
        &mut self,
        name: &str,
        xs: Value,
        out_channels: usize,
        kernel_size: usize,
        cfg: ConvTranspose1dConfig,
    ) -> Result<Value> {
        let from = *self.expect_axes(name, xs, Axes::Sequence)?;
        in_range(self.path(name, "kernel_size"), kernel_size, MAX_KERNEL)?;
        in_range(self.path(name, "stride"), cfg.stride, MAX_KERNEL)?;
        effective_kernel(kernel_size, cfg.dilation)?;
        self.groups(name, from.channels, out_channels, cfg.groups)?;
        if let TransposePadding::Explicit { output_padding, .. } = cfg.padding {
            let most = cfg.stride.max(cfg.dilation);
            if output_padding >= most {
                let expected = format!("below {most}, the greater of stride and dilation");
                return Err(Error::invalid("output_padding", expected, output_padding));
            }
        }
        let shape = vec![from.channels, out_channels / cfg.groups, kernel_size];
        let init = fan_in(shape[1] * kernel_size);
        let conv = ConvTranspose {
            weight: self.parameter(name, "weight", shape, init)?,
            bias: self.bias(name, cfg.bias, out_channels, init)?,
            in_channels: from.channels,
            kernel_size,
            config: cfg,
        };
        let (span, causal) = (conv.span(), cfg.padding == TransposePadding::Causal);
        let right = if causal { 0 } else { span.div_ceil(2) };
        let time = from.spans[1].extend(span - right, right);
        let time = time.and_then(|time| time.resampled(1, cfg.stride));
        let time = time.ok_or_else(|| self.too_far(name))?;
        let edge = Edge { channels: out_channels, spans: [from.spans[0], time], ..from };
        self.node(name, Operation::ConvTranspose(conv), &[xs], edge)
    }

    fn convolution(&mut self, name: &str, xs: Value, conv: Conv) -> Result<Value> {
        let from = *self.edge(xs);
        in_range(self.path(name, "out_channels"), conv.out_channels, MAX_CHANNELS)?;
        let mut spans = from.spans;
        for (axis, span) in spans.iter_mut().enumerate() {
            in_range(self.path(name, "stride"), conv.stride[axis], MAX_CHANNELS)?;
            let whole = effective_kernel(conv.kernel_size[axis], conv.dilation[axis])? - 1;
            // without padding an output has the number of its first tap
            let left = conv.padding[axis].0.min(whole);
            let next = span.extend(left, whole - left);
            let next = next.and_then(|span| span.resampled(conv.stride[axis], 1));
            *span = next.ok_or_else(|| self.too_far(name))?;
        }
        let edge = Edge { channels: conv.out_channels, spans, ..from };
        self.node(name, Operation::Conv(conv), &[xs], edge)
    }

    /// Normalisation of each row, or over batch and time: `weight`, and `bias`, `running_mean`, `running_var` where the
    /// kind has them, each (channels). [`NormKind::Weight`] and [`NormKind::None`] leave the input as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input of ids.
    pub fn norm(&mut self, name: &str, xs: Value, kind: NormKind) -> Result<Value> {
        let channels = vec![self.expect_rows(name, xs)?.channels];
        let one = Init::Const(1.0);
        let norm = match kind {
            NormKind::Weight | NormKind::None => return Ok(xs),
            NormKind::Layer => return self.layer_norm(name, xs, EPS),
            NormKind::Rms => Operation::RowNorm {
                norm: RowNorm { center: false, eps: 1e-6 },
                weight: self.parameter(name, "weight", channels, one)?,
                bias: None,
            },
            NormKind::Batch => {
                let zero = Init::Const(0.0);
                let first =
                    [("weight", one), ("bias", zero), ("running_mean", zero), ("running_var", one)];
                let [weight, bias, mean, var] =
                    first.map(|(part, init)| self.parameter(name, part, channels.clone(), init));
                let all = [weight?, bias?, mean?, var?];
                all[2..].iter().for_each(|p| self.parameters[p.0].trained = false);
                Operation::BatchNorm(all)
            }
        };
        self.row_wise(name, norm, xs)
    }

    /// Layer norm with an eps of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input of ids, or an eps that is negative or not finite.
    pub fn layer_norm(&mut self, name: &str, xs: Value, eps: f64) -> Result<Value> {
        if !(eps >= 0.0 && eps.is_finite()) {
            return Err(Error::invalid(self.path(name, "eps"), "a number of at least 0", eps));
        }
        let channels = vec![self.expect_rows(name, xs)?.channels];
        let norm = Operation::RowNorm {
            norm: RowNorm { center: true, eps },
            weight: self.parameter(name, "weight", channels.clone(), Init::Const(1.0))?,
            bias: Some(self.parameter(name, "bias", channels, Init::Const(0.0))?),
        };
        self.row_wise(name, norm, xs)
    }

    fn bias(&mut self, name: &str, wanted: bool, len: usize, init: Init) -> Result<Option<Param>> {
        wanted.then(|| self.parameter(name, "bias", vec![len], init)).transpose()
    }

    fn groups(
        &self,
        name: &str,
        in_channels: usize,
        out_channels: usize,
        groups: usize,
    ) -> Result<usize> {
        in_range(self.path(name, "out_channels"), out_channels, MAX_CHANNELS)?;
        let divides = |n: usize| groups > 0 && n.is_multiple_of(groups);
        if divides(in_channels) && divides(out_channels) {
            return Ok(in_channels / groups);
        }
        let expected =
            format!("a divisor of in_channels {in_channels} and out_channels {out_channels}");
        Err(Error::invalid(self.path(name, "groups"), expected, groups))
    }

    fn too_far(&self, name: &str) -> Error {
        let what = self.path(name, "receptive field");
        Error::too_large(what, "it overflows; lower the dilation")
    }
}

impl Conv {
    /// Size of the result for an input of this height and width.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the axis, where the kernel does not fit.
    pub fn output_size(&self, (height, width): (usize, usize)) -> Result<(usize, usize)> {
        let axis = |axis: usize, len, name: &str| {
            let (before, after) = self.padding[axis];
            let (kernel_size, dilation) = (self.kernel_size[axis], self.dilation[axis]);
            output_length(len, kernel_size, dilation, self.stride[axis], before, after)
                .map_err(|error| along(name, error))
        };
        Ok((axis(0, height, "height")?, axis(1, width, "width")?))
    }
}

/// `U(±1/√fan_in)`, as PyTorch's layers start.
fn fan_in(fan_in: usize) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}
