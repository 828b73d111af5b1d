//! The temporal convolutional network of Bai, Kolter & Koltun 2018 (arXiv:1803.01271).

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::{Activation, DropoutKind, Gate, total_channels};
use crate::geometry::{Dilations, Growth, Padding, Stack};
use crate::graph::{
    Conv1dConfig, Graph, MAX_CHANNELS, MAX_KERNEL, Network, NormKind, Value, dropout_probability,
    in_range,
};
use crate::{Error, Result};

/// Options of a [`temporal_conv_net`], as they stand in a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcnConfig {
    /// Channels of each block's output; their number is the number of blocks.
    pub num_channels: Vec<usize>,
    /// Taps of each dilated convolution.
    pub kernel_size: usize,
    /// One dilation for each block; without it 1, 2, 4, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dilations: Option<Dilations>,
    /// Taps of the second convolution of each block; without it `kernel_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_kernel_size: Option<usize>,
    /// Dilation of the second convolution of each block; without it that of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_dilation: Option<usize>,
    /// Probability of dropping in training.
    #[serde(default)]
    pub dropout: f64,
    /// Elements or whole channels.
    #[serde(default)]
    pub dropout_kind: DropoutKind,
    /// `true` if an output sees no later input; otherwise the field is centred.
    #[serde(default = "yes")]
    pub causal: bool,
    /// Normalisation.
    #[serde(default)]
    pub norm: NormKind,
    /// Activation after each convolution, and after the residual sum of a block that is not pre-norm.
    #[serde(default)]
    pub activation: Activation,
    /// Gate in place of the first activation: the first convolution then has twice the channels.
    /// `"none"` or absent for none.
    #[serde(default, deserialize_with = "gate_or_none", skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Normalise before the convolutions and leave the residual path free, as transformers do.
    #[serde(default)]
    pub pre_norm: bool,
    /// Add the inner branches of all blocks to the last block's output.
    #[serde(default)]
    pub skip_connections: bool,
}

fn gate_or_none<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Gate>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        None,
        Glu,
        TanhSigmoid,
    }
    Ok(match Option::deserialize(deserializer)? {
        Some(Name::Glu) => Some(Gate::Glu),
        Some(Name::TanhSigmoid) => Some(Gate::TanhSigmoid),
        Some(Name::None) | None => None,
    })
}

fn yes() -> bool {
    true
}

impl TcnConfig {
    /// The reference network: weight norm, ReLU, dilations 1, 2, 4, …, causal, without dropout. Under a `VarMap` see
    /// [`Network::init_weight_norm`](crate::graph::Network::init_weight_norm).
    pub fn new(num_channels: Vec<usize>, kernel_size: usize) -> Self {
        Self {
            num_channels,
            kernel_size,
            dilations: None,
            second_kernel_size: None,
            second_dilation: None,
            dropout: 0.0,
            dropout_kind: DropoutKind::Element,
            causal: true,
            norm: NormKind::Weight,
            activation: Activation::Relu,
            gate: None,
            pre_norm: false,
            skip_connections: false,
        }
    }

    /// Checks every field and gives each block's dilation.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<Vec<usize>> {
        if self.num_channels.is_empty() {
            return Err(Error::invalid("num_channels", "at least one block", "an empty list"));
        }
        for (i, &channels) in self.num_channels.iter().enumerate() {
            // a gate doubles them
            in_range(format!("num_channels[{i}]"), channels, MAX_CHANNELS / 2)?;
        }
        total_channels(self.num_channels.iter().copied())?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        in_range("second_kernel_size", self.second_kernel_size.unwrap_or(1), MAX_KERNEL)?;
        dropout_probability("dropout", self.dropout)?;
        let blocks = self.num_channels.len();
        let dilations = match &self.dilations {
            Some(dilations) => dilations.expand()?,
            None => Dilations::Growth(Growth::new(2, blocks)).expand()?,
        };
        if dilations.len() != blocks {
            return Err(Error::invalid(
                "dilations",
                format!("{blocks}, one for each of num_channels"),
                dilations.len(),
            ));
        }
        Ok(dilations)
    }

    /// The convolutions that see time, for receptive-field arithmetic.
    ///
    /// # Errors
    /// As [`TcnConfig::validate`].
    pub fn geometry(&self) -> Result<Stack> {
        let mut g = Graph::new();
        let xs = g.frames(1)?;
        let ys = self.append(&mut g, xs)?;
        g.output(ys)?;
        g.stack()
    }

    /// Adds the network to a graph, from `xs` (batch, time, channels) to the value that is returned.
    ///
    /// # Errors
    /// As [`TcnConfig::validate`].
    pub fn append(&self, g: &mut Graph, xs: Value) -> Result<Value> {
        let activate = |g: &mut Graph, xs| g.activate(xs, self.activation);
        self.append_with(g, xs, &activate, &|_, hs| Ok(hs))
    }

    /// As [`append`](Self::append), with an activation that is no [`Activation`], and with `condition` after the first
    /// convolution of each block and its norm.
    pub(crate) fn append_with(
        &self,
        g: &mut Graph,
        xs: Value,
        activate: &Then,
        condition: &Then,
    ) -> Result<Value> {
        let dilations = self.validate()?;
        let last = self.num_channels.len() - 1;
        let width = self.num_channels[last];
        let (mut xs, mut sum) = (xs, None);
        g.label_hidden(0, xs);
        for (i, (&channels, dilation)) in self.num_channels.iter().zip(dilations).enumerate() {
            let block = ResidualBlock { cfg: self, channels, dilation, activate, condition };
            let (branch, ys) = g.scope(format!("network.{i}"), |g| block.append(g, xs))?;
            xs = ys;
            g.label_hidden(i + 1, xs);
            if !self.skip_connections || i == last {
                continue;
            }
            let skip = match channels == width {
                true => branch,
                false => {
                    let name = format!("downsample_skip_connection.{i}");
                    g.conv1d(&name, branch, width, 1, Conv1dConfig::causal())?
                }
            };
            sum = Some(match sum {
                None => skip,
                Some(sum) => g.add(sum, skip)?,
            });
        }
        match (self.skip_connections, sum) {
            (false, _) => Ok(xs),
            (true, None) => activate(g, xs),
            (true, Some(sum)) => {
                let sum = g.add(sum, xs)?;
                activate(g, sum)
            }
        }
    }
}

/// Adds what follows a value.
type Then<'a> = dyn Fn(&mut Graph, Value) -> Result<Value> + 'a;

/// A residual block.
struct ResidualBlock<'a> {
    cfg: &'a TcnConfig,
    channels: usize,
    dilation: usize,
    activate: &'a Then<'a>,
    condition: &'a Then<'a>,
}

impl ResidualBlock<'_> {
    /// The inner branch, and the block's output.
    fn append(&self, g: &mut Graph, xs: Value) -> Result<(Value, Value)> {
        let cfg = self.cfg;
        let mut hs = xs;
        if cfg.pre_norm {
            hs = g.norm("norm1", hs, cfg.norm)?;
        }
        let gated = if cfg.gate.is_some() { 2 } else { 1 };
        let taps = (cfg.kernel_size, self.dilation);
        hs = self.conv(g, "conv1", hs, self.channels * gated, taps)?;
        if !cfg.pre_norm {
            hs = g.norm("norm1", hs, cfg.norm)?;
        }
        hs = (self.condition)(g, hs)?;
        hs = match cfg.gate {
            Some(gate) => g.gate(hs, gate)?,
            None => (self.activate)(g, hs)?,
        };
        hs = g.dropout(hs, cfg.dropout, cfg.dropout_kind)?;
        if cfg.pre_norm {
            hs = g.norm("norm2", hs, cfg.norm)?;
        }
        let taps = (
            cfg.second_kernel_size.unwrap_or(cfg.kernel_size),
            cfg.second_dilation.unwrap_or(self.dilation),
        );
        hs = self.conv(g, "conv2", hs, self.channels, taps)?;
        if !cfg.pre_norm {
            hs = g.norm("norm2", hs, cfg.norm)?;
            hs = (self.activate)(g, hs)?;
        }
        hs = g.dropout(hs, cfg.dropout, cfg.dropout_kind)?;
        let residual = match g.edge(xs).channels == self.channels {
            true => xs,
            false => g.conv1d("downsample", xs, self.channels, 1, Conv1dConfig::causal())?,
        };
        let sum = g.add(hs, residual)?;
        Ok((hs, if cfg.pre_norm { sum } else { (self.activate)(g, sum)? }))
    }

    fn conv(
        &self,
        g: &mut Graph,
        name: &str,
        xs: Value,
        out_channels: usize,
        (kernel_size, dilation): (usize, usize),
    ) -> Result<Value> {
        let cfg = Conv1dConfig {
            padding: if self.cfg.causal { Padding::Causal } else { Padding::Same },
            dilation,
            weight_norm: self.cfg.norm == NormKind::Weight,
            ..Conv1dConfig::causal()
        };
        g.conv1d(name, xs, out_channels, kernel_size, cfg)
    }
}

/// Builds a stack of residual blocks of two dilated convolutions each.
///
/// A block is `act(dropout(act(norm(conv2(dropout(act(norm(conv1 x))))))) + residual(x))`, or, with
/// `pre_norm`, `dropout(conv2(norm(dropout(act(conv1(norm x)))))) + residual(x)`; a gate may take the
/// place of the inner activation, and `residual` is a 1×1 convolution where widths differ. The second convolution has the
/// first one's taps unless `second_kernel_size` and `second_dilation` say.
///
/// With `skip_connections` the result is `act(last output + Σ skip(inner branch))` over all blocks but
/// the last, as in pytorch-tcn 1.2.3; `skip` is a 1×1 convolution where widths differ from the last.
///
/// # Shapes
/// Input (batch, time, num_inputs), output (batch, time, last of num_channels).
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for a configuration that does not hold together.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{Params, TcnConfig, temporal_conv_net};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = temporal_conv_net(4, &TcnConfig::new(vec![8, 8, 6], 3), params.builder())?;
/// let ys = net.forward(&Tensor::zeros((2, 10, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(ys.dims(), [2, 10, 6]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Bai, Kolter & Koltun 2018, arXiv:1803.01271, section 3; tensor names as in its reference code:
/// `network.{i}.conv{1,2}.{weight_g, weight_v, bias}`, `network.{i}.downsample.{weight, bias}`.
pub fn temporal_conv_net(num_inputs: usize, config: &TcnConfig, vb: VarBuilder) -> Result<Network> {
    let mut g = Graph::new();
    let xs = g.frames(num_inputs)?;
    let ys = config.append(&mut g, xs)?;
    g.output(ys)?;
    Network::new(g, vb)
}
