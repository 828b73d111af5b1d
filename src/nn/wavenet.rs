//! WaveNet's stack of gated residual layers (van den Oord et al. 2016, arXiv:1609.03499).

use candle_core::Tensor;
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::step::{Slot, StepBuilder};
use super::{
    Activation, Conv1d, Conv1dConfig, DropoutKind, Gate, MAX_CHANNELS, MAX_KERNEL, Pass, RingShape,
    State, StepDtype, StepNet, dropout_probability, in_range, total_channels,
};
use crate::geometry::{Block, Dilations, Layer, Padding, Stack};
use crate::ops::{self, Epilogue};
use crate::{Error, Result};

/// The options of a [`WaveNetStack`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveNetStackConfig {
    /// Channels of the residual path.
    pub residual_channels: usize,
    /// Channels of the gated product; the dilated convolution has twice as many.
    pub gate_channels: usize,
    /// Channels of the skip sum and of the first output layer.
    pub skip_channels: usize,
    /// Taps of each dilated convolution.
    pub kernel_size: usize,
    /// One dilation for each layer.
    pub dilations: Dilations,
    /// Probability of dropping a number of a dilated convolution's input in training.
    #[serde(default)]
    pub dropout: f64,
}

impl WaveNetStackConfig {
    /// Checks every field and gives each layer's dilation.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<Vec<usize>> {
        in_range("residual_channels", self.residual_channels, MAX_CHANNELS)?;
        in_range("gate_channels", self.gate_channels, MAX_CHANNELS / 2)?;
        in_range("skip_channels", self.skip_channels, MAX_CHANNELS)?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        dropout_probability("dropout", self.dropout)?;
        let dilations = self.dilations.expand()?;
        if dilations.is_empty() {
            return Err(Error::invalid("dilations", "at least one", "an empty list"));
        }
        let widest = self.residual_channels.max(self.gate_channels).max(self.skip_channels);
        total_channels(dilations.iter().map(|_| widest))?;
        Ok(dilations)
    }

    /// The convolutions that see time, for receptive-field arithmetic.
    ///
    /// # Errors
    /// As [`WaveNetStackConfig::validate`].
    pub fn geometry(&self) -> Result<Stack> {
        let blocks = self.validate()?.into_iter().enumerate().map(|(i, dilation)| {
            let layer = Layer::new(
                format!("layers.{i}.conv"),
                self.kernel_size,
                dilation,
                Padding::Causal,
            )?;
            Ok(Block::residual(vec![layer]))
        });
        Ok(Stack::new(blocks.collect::<Result<_>>()?))
    }
}

#[derive(Debug, Clone)]
struct GatedLayer {
    conv: Conv1d,
    skip: Conv1d,
    /// The last layer feeds the skip sum only.
    residual: Option<Conv1d>,
}

/// Gated residual layers whose skip outputs are summed, then two 1×1 output layers.
///
/// Per layer `h = tanh(a)·σ(b)` with `(a, b)` the halves of a dilated convolution of `x`;
/// `skips += skip(h)`, `x += residual(h)`. Result `output.1(relu(output.0(relu(skips))))`.
///
/// # Shapes
/// Input (batch, time, residual_channels), output (batch, time, out_channels), `f32` where the input is
/// `bf16`.
///
/// # Errors
/// [`Error::Invalid`] for a configuration that does not hold together.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{Params, Pass, WaveNetStack, WaveNetStackConfig};
/// let cfg: WaveNetStackConfig = serde_json::from_str(
///     r#"{"residual_channels": 4, "gate_channels": 4, "skip_channels": 6, "kernel_size": 2,
///         "dilations": {"base": 2, "levels": 3, "stacks": 2}}"#,
/// ).unwrap();
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = WaveNetStack::new(5, &cfg, params.builder())?;
/// let ys = net.forward(&Tensor::zeros((1, 9, 4), DType::F32, &Device::Cpu)?, &mut Pass::eval())?;
/// assert_eq!(ys.dims(), [1, 9, 5]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// van den Oord et al. 2016, arXiv:1609.03499, section 2.3 and figure 4.
#[derive(Debug, Clone)]
pub struct WaveNetStack {
    layers: Vec<GatedLayer>,
    output: [Conv1d; 2],
    dropout: f64,
}

impl WaveNetStack {
    /// A stack with the tensors of `vb`: `layers.{i}.{conv, skip, residual}` and `output.{0, 1}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a configuration that does not hold together; those of `vb`.
    pub fn new(out_channels: usize, cfg: &WaveNetStackConfig, vb: VarBuilder) -> Result<Self> {
        let (residual, gate, skip) = (cfg.residual_channels, cfg.gate_channels, cfg.skip_channels);
        let dilations = cfg.validate()?;
        let pointwise =
            |from, to, name: String| Conv1d::new(from, to, 1, Conv1dConfig::causal(), vb.pp(name));
        let layer = |(i, &dilation): (usize, &usize)| {
            let conv_cfg = Conv1dConfig { dilation, ..Conv1dConfig::causal() };
            let conv = Conv1d::new(
                residual,
                2 * gate,
                cfg.kernel_size,
                conv_cfg,
                vb.pp(format!("layers.{i}.conv")),
            )?;
            let last = i + 1 == dilations.len();
            Ok(GatedLayer {
                conv,
                skip: pointwise(gate, skip, format!("layers.{i}.skip"))?,
                residual: (!last)
                    .then(|| pointwise(gate, residual, format!("layers.{i}.residual")))
                    .transpose()?,
            })
        };
        Ok(Self {
            layers: dilations.iter().enumerate().map(layer).collect::<Result<_>>()?,
            output: [
                pointwise(skip, skip, "output.0".into())?,
                pointwise(skip, out_channels, "output.1".into())?,
            ],
            dropout: cfg.dropout,
        })
    }

    /// The same stack for inference, tensors copied.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        self.freeze_as(StepDtype::F32)
    }

    /// See [`Conv1d::freeze_as`].
    pub(crate) fn freeze_as(&self, dtype: StepDtype) -> Result<Self> {
        let freeze = |layer: &GatedLayer| {
            Ok(GatedLayer {
                conv: layer.conv.freeze_as(dtype)?,
                skip: layer.skip.freeze_as(dtype)?,
                residual: {
                    let residual = layer.residual.as_ref();
                    residual.map(|conv| conv.freeze_as(dtype)).transpose()?
                },
            })
        };
        Ok(Self {
            layers: self.layers.iter().map(freeze).collect::<Result<_>>()?,
            output: [self.output[0].freeze_as(dtype)?, self.output[1].freeze_as(dtype)?],
            dropout: self.dropout,
        })
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.rings()?)
    }

    /// What its convolutions remember, in the order in which they run.
    pub(crate) fn rings(&self) -> Result<Vec<RingShape>> {
        let rings = self.layers.iter().map(|layer| layer.conv.ring());
        rings.filter_map(Result::transpose).collect()
    }

    /// The stack one step at a time, on slices; no dropout.
    ///
    /// # Errors
    /// Those of candle.
    pub fn stepper(&self, dtype: StepDtype) -> Result<StepNet> {
        let first = self.layers.first().map(|layer| layer.conv.in_channels());
        let (mut net, xs) = StepBuilder::new(dtype, first.unwrap_or(Ok(0))?);
        let ys = self.build_step(&mut net, xs)?;
        Ok(net.finish(ys))
    }

    /// Adds the stack's steps to `net`, from `xs` to the slot that is returned.
    pub(crate) fn build_step(&self, net: &mut StepBuilder, mut xs: Slot) -> Result<Slot> {
        let mut skips: Option<Slot> = None;
        for layer in &self.layers {
            let hs = net.conv(&layer.conv, xs, false)?;
            let hs = net.gate(hs, Gate::TanhSigmoid);
            let skip = net.conv(&layer.skip, hs, false)?;
            skips = Some(match skips {
                None => skip,
                Some(sum) => net.add(sum, skip, None),
            });
            if let Some(residual) = &layer.residual {
                let residual = net.conv(residual, hs, false)?;
                xs = net.add(xs, residual, None);
            }
            net.release(hs);
        }
        net.release(xs);
        let skips = skips.ok_or_else(|| Error::invalid("dilations", "at least one", 0))?;
        let skips = net.activate(skips, Activation::Relu);
        let ys = net.conv(&self.output[0], skips, true)?;
        net.release(skips);
        net.conv_to_f32(&self.output[1], ys)
    }

    /// Applies the stack.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that does not fit.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.refuse_mask("a WaveNet", xs)?;
        let mut xs = xs.clone();
        let mut skips: Option<Tensor> = None;
        pass.note_hidden(0, &xs);
        for (i, layer) in self.layers.iter().enumerate() {
            let inputs = pass.dropout(xs.clone(), self.dropout, DropoutKind::Element)?;
            let hs = ops::gate(&layer.conv.forward(&inputs, pass)?, Gate::TanhSigmoid)?;
            let skip = layer.skip.forward(&hs, pass)?;
            skips = Some(match skips {
                None => skip,
                Some(sum) => ops::add(&sum, &skip)?,
            });
            if let Some(residual) = &layer.residual {
                xs = ops::add(&xs, &residual.forward(&hs, pass)?)?;
                pass.note_hidden(i + 1, &xs);
            }
        }
        let skips = skips.ok_or_else(|| Error::invalid("dilations", "at least one", 0))?;
        // what the last layer gives goes there alone
        pass.note_hidden(self.layers.len(), &skips);
        let relu = Epilogue { relu: true, ..Epilogue::default() };
        let f32_output = Epilogue { f32_output: true, ..Epilogue::default() };
        let ys = ops::activate(&skips, Activation::Relu)?;
        let ys = self.output[0].forward_then(&ys, pass, relu)?;
        self.output[1].forward_then(&ys, pass, f32_output)
    }
}
