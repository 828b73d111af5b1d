//! The temporal convolutional network of Bai, Kolter & Koltun 2018 (arXiv:1803.01271).

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::step::{Slot, StepBuilder};
use super::{
    Activation, Conv1d, Conv1dConfig, DropoutKind, Gate, Norm, NormKind, Pass, RingShape, State,
    StepDtype, StepNet, TcnConfig,
};
use crate::Result;
use crate::ops::{self, Epilogue};

/// What follows a convolution and its norm.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Activation(Activation),
    Gate(Gate),
}

/// `activation(xs + ys)`.
fn add_activate(xs: &Tensor, ys: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Relu => ops::add_relu(xs, ys),
        other => ops::activate(&ops::add(xs, ys)?, other),
    }
}

/// `then(norm(conv xs))`, in steps; `xs` stays as it is.
fn build_conv(
    net: &mut StepBuilder,
    (conv, norm): (&Conv1d, &Norm),
    then: Then,
    xs: Slot,
) -> Result<Slot> {
    let relu = then == Then::Activation(Activation::Relu) && matches!(norm, Norm::Identity);
    let hs = net.conv(conv, xs, relu)?;
    let hs = net.norm(hs, norm)?;
    Ok(match then {
        Then::Activation(activation) if !relu => net.activate(hs, activation),
        Then::Activation(_) | Then::Nothing => hs,
        Then::Gate(gate) => net.gate(hs, gate),
    })
}

#[derive(Debug, Clone)]
struct ResidualBlock {
    conv1: Conv1d,
    norm1: Norm,
    conv2: Conv1d,
    norm2: Norm,
    downsample: Option<Conv1d>,
    dropout: (f64, DropoutKind),
    activation: Activation,
    gate: Option<Gate>,
    pre_norm: bool,
}

impl ResidualBlock {
    fn new(
        in_channels: usize,
        out_channels: usize,
        dilation: usize,
        cfg: &TcnConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        let conv_cfg = Conv1dConfig {
            padding: cfg.padding(),
            dilation,
            weight_norm: cfg.norm == NormKind::Weight,
            ..Conv1dConfig::causal()
        };
        let inner = out_channels * if cfg.gate.is_some() { 2 } else { 1 };
        let normed = if cfg.pre_norm { (in_channels, out_channels) } else { (inner, out_channels) };
        let pointwise = || {
            Conv1d::new(in_channels, out_channels, 1, Conv1dConfig::causal(), vb.pp("downsample"))
        };
        Ok(Self {
            conv1: Conv1d::new(in_channels, inner, cfg.kernel_size, conv_cfg, vb.pp("conv1"))?,
            norm1: Norm::new(cfg.norm, normed.0, vb.pp("norm1"))?,
            conv2: Conv1d::new(
                out_channels,
                out_channels,
                cfg.kernel_size,
                conv_cfg,
                vb.pp("conv2"),
            )?,
            norm2: Norm::new(cfg.norm, normed.1, vb.pp("norm2"))?,
            downsample: (in_channels != out_channels).then(pointwise).transpose()?,
            dropout: (cfg.dropout, cfg.dropout_kind),
            activation: cfg.activation,
            gate: cfg.gate,
            pre_norm: cfg.pre_norm,
        })
    }

    fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let downsample = self.downsample.as_ref();
        Ok(Self {
            conv1: self.conv1.freeze_as(dtype)?,
            conv2: self.conv2.freeze_as(dtype)?,
            downsample: downsample.map(|conv| conv.freeze_as(dtype)).transpose()?,
            ..self.clone()
        })
    }

    /// `dropout(then(norm(conv xs)))`, in one operation where it can be.
    fn convolve(
        &self,
        (conv, norm): (&Conv1d, &Norm),
        then: Then,
        xs: &Tensor,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let (p, kind) = self.dropout;
        let relu = then == Then::Activation(Activation::Relu);
        if matches!(norm, Norm::Identity) && (relu || then == Then::Nothing) {
            let mut epilogue = Epilogue { relu, ..Epilogue::default() };
            if kind == DropoutKind::Element {
                epilogue.dropout = pass.next_mask(p).map(|key| (p, key));
                return conv.forward_then(xs, pass, epilogue);
            }
            let hs = conv.forward_then(xs, pass, epilogue)?;
            return pass.dropout(hs, p, kind);
        }
        let hs = norm.forward(&conv.forward(xs, pass)?, pass)?;
        let hs = match then {
            Then::Nothing => hs,
            Then::Activation(activation) => ops::activate(&hs, activation)?,
            Then::Gate(gate) => ops::gate(&hs, gate)?,
        };
        pass.dropout(hs, p, kind)
    }

    /// The inner branch, before the residual is added.
    fn branch(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let activation = Then::Activation(self.activation);
        let inner = self.gate.map_or(activation, Then::Gate);
        if self.pre_norm {
            let none = &Norm::Identity;
            let hs = self.norm1.forward(xs, pass)?;
            let hs = self.convolve((&self.conv1, none), inner, &hs, pass)?;
            let hs = self.norm2.forward(&hs, pass)?;
            self.convolve((&self.conv2, none), Then::Nothing, &hs, pass)
        } else {
            let hs = self.convolve((&self.conv1, &self.norm1), inner, xs, pass)?;
            self.convolve((&self.conv2, &self.norm2), activation, &hs, pass)
        }
    }

    /// As [`branch`](Self::branch), in steps; `xs` stays as it is.
    fn build_branch(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot> {
        let activation = Then::Activation(self.activation);
        let inner = self.gate.map_or(activation, Then::Gate);
        if self.pre_norm {
            let none = &Norm::Identity;
            let inner = if matches!(self.norm1, Norm::Identity) {
                build_conv(net, (&self.conv1, none), inner, xs)?
            } else {
                let copy = net.copy(xs);
                let hs = net.norm(copy, &self.norm1)?;
                let inner = build_conv(net, (&self.conv1, none), inner, hs)?;
                net.release(hs);
                inner
            };
            let inner = net.norm(inner, &self.norm2)?;
            let hs = build_conv(net, (&self.conv2, none), Then::Nothing, inner)?;
            net.release(inner);
            Ok(hs)
        } else {
            let inner = build_conv(net, (&self.conv1, &self.norm1), inner, xs)?;
            let hs = build_conv(net, (&self.conv2, &self.norm2), activation, inner)?;
            net.release(inner);
            Ok(hs)
        }
    }

    /// As [`finish`](Self::finish), in steps; takes both slots.
    fn build_finish(&self, net: &mut StepBuilder, hs: Slot, xs: Slot) -> Result<Slot> {
        let residual = match &self.downsample {
            None => xs,
            Some(conv) => {
                let residual = net.conv(conv, xs, false)?;
                net.release(xs);
                residual
            }
        };
        let activation = (!self.pre_norm).then_some(self.activation);
        Ok(net.add(hs, residual, activation))
    }

    /// The block's output for its inner branch `hs`.
    fn finish(&self, hs: &Tensor, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let residual = match &self.downsample {
            None => xs,
            Some(conv) => &conv.forward(xs, pass)?,
        };
        match self.pre_norm {
            true => ops::add(hs, residual),
            false => add_activate(hs, residual, self.activation),
        }
    }
}

/// A stack of residual blocks of two dilated convolutions each.
///
/// A block is `act(dropout(act(norm(conv2(dropout(act(norm(conv1 x))))))) + residual(x))`, or, with
/// `pre_norm`, `dropout(conv2(norm(dropout(act(conv1(norm x)))))) + residual(x)`; a gate may take the
/// place of the inner activation, and `residual` is a 1×1 convolution where widths differ.
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
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{Params, Pass, TcnConfig, TemporalConvNet};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = TemporalConvNet::new(4, &TcnConfig::new(vec![8, 8, 6], 3), params.builder())?;
/// let ys = net.forward(&Tensor::zeros((2, 10, 4), DType::F32, &Device::Cpu)?, &mut Pass::eval())?;
/// assert_eq!(ys.dims(), [2, 10, 6]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Bai, Kolter & Koltun 2018, arXiv:1803.01271, section 3; tensor names as in its reference code:
/// `network.{i}.conv{1,2}.{weight_g, weight_v, bias}`, `network.{i}.downsample.{weight, bias}`.
#[derive(Debug, Clone)]
pub struct TemporalConvNet {
    blocks: Vec<ResidualBlock>,
    /// For every block but the last: its skip path, a 1×1 convolution where widths differ.
    skips: Option<Vec<Option<Conv1d>>>,
    /// After the skip sum.
    activation: Activation,
}

impl TemporalConvNet {
    /// A network with the tensors of `vb`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a configuration that does not hold together; those of `vb`.
    pub fn new(num_inputs: usize, cfg: &TcnConfig, vb: VarBuilder) -> Result<Self> {
        let dilations = cfg.validate()?;
        let mut in_channels = num_inputs;
        let mut blocks = Vec::new();
        for (i, (&channels, dilation)) in cfg.num_channels.iter().zip(dilations).enumerate() {
            blocks.push(ResidualBlock::new(
                in_channels,
                channels,
                dilation,
                cfg,
                vb.pp(format!("network.{i}")),
            )?);
            in_channels = channels;
        }
        let (last, others) =
            cfg.num_channels.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
        let skip = |(i, &channels): (usize, &usize)| {
            let vb = vb.pp(format!("downsample_skip_connection.{i}"));
            (channels != last)
                .then(|| Conv1d::new(channels, last, 1, Conv1dConfig::causal(), vb))
                .transpose()
        };
        let skips = cfg
            .skip_connections
            .then(|| others.iter().enumerate().map(skip).collect::<Result<_>>());
        Ok(Self { blocks, skips: skips.transpose()?, activation: cfg.activation })
    }

    /// The same network for inference: weight norm folded, tensors of the convolutions copied.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        self.freeze_as(StepDtype::F32)
    }

    /// See [`Conv1d::freeze_as`].
    pub(crate) fn freeze_as(&self, dtype: StepDtype) -> Result<Self> {
        let freeze = |conv: &Conv1d| conv.freeze_as(dtype);
        let freeze_skip = |skip: &Option<Conv1d>| skip.as_ref().map(freeze).transpose();
        let freeze_all =
            |skips: &Vec<Option<Conv1d>>| skips.iter().map(freeze_skip).collect::<Result<_>>();
        Ok(Self {
            blocks: self.blocks.iter().map(|block| block.freeze(dtype)).collect::<Result<_>>()?,
            skips: self.skips.as_ref().map(freeze_all).transpose()?,
            activation: self.activation,
        })
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) where the network is not causal;
    /// [`Error::TooLarge`](crate::Error::TooLarge) where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.rings()?)
    }

    /// What its convolutions remember, in the order in which they run.
    pub(crate) fn rings(&self) -> Result<Vec<RingShape>> {
        let convs = self.blocks.iter().flat_map(|block| [&block.conv1, &block.conv2]);
        convs.filter_map(|conv| conv.ring().transpose()).collect()
    }

    /// The network one step at a time, on slices; weight norm folded, no dropout.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) where the network is not causal.
    pub fn stepper(&self, dtype: StepDtype) -> Result<StepNet> {
        let (mut net, xs) = StepBuilder::new(dtype, self.in_channels()?);
        let ys = self.build_step(&mut net, xs)?;
        Ok(net.finish(ys))
    }

    fn in_channels(&self) -> Result<usize> {
        self.blocks.first().map_or(Ok(0), |block| block.conv1.in_channels())
    }

    /// Adds the network's steps to `net`, from `xs` to the slot that is returned.
    pub(crate) fn build_step(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot> {
        let mut xs = xs;
        let mut sum: Option<Slot> = None;
        for (i, block) in self.blocks.iter().enumerate() {
            let hs = block.build_branch(net, xs)?;
            let skip = self.skips.as_ref().and_then(|skips| skips.get(i));
            // the residual is added in place, so that the skip path reads the branch first
            let skip = match skip {
                None => None,
                Some(None) => Some(net.copy(hs)),
                Some(Some(conv)) => Some(net.conv(conv, hs, false)?),
            };
            sum = match (sum, skip) {
                (Some(sum), Some(skip)) => Some(net.add(sum, skip, None)),
                (sum, skip) => sum.or(skip),
            };
            xs = block.build_finish(net, hs, xs)?;
        }
        Ok(match (&self.skips, sum) {
            (None, _) => xs,
            (Some(_), None) => net.activate(xs, self.activation),
            (Some(_), Some(sum)) => net.add(sum, xs, Some(self.activation)),
        })
    }

    /// Applies the network.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for an input that does not fit, or for a state where it is not causal.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.refuse_mask("a TemporalConvNet", xs)?;
        let mut xs = xs.clone();
        let mut sum: Option<Tensor> = None;
        pass.note_hidden(0, &xs);
        for (i, block) in self.blocks.iter().enumerate() {
            let hs = block.branch(&xs, pass)?;
            xs = block.finish(&hs, &xs, pass)?;
            pass.note_hidden(i + 1, &xs);
            let Some(skip) = self.skips.as_ref().and_then(|skips| skips.get(i)) else {
                continue;
            };
            let hs = match skip {
                None => hs,
                Some(conv) => conv.forward(&hs, pass)?,
            };
            sum = Some(match sum {
                None => hs,
                Some(sum) => ops::add(&sum, &hs)?,
            });
        }
        match (&self.skips, sum) {
            (None, _) => Ok(xs),
            (Some(_), None) => ops::activate(&xs, self.activation),
            (Some(_), Some(sum)) => add_activate(&sum, &xs, self.activation),
        }
    }
}
