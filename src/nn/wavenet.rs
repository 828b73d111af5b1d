//! WaveNet's stack of gated residual layers (van den Oord et al. 2016, arXiv:1609.03499).

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::{Activation, DropoutKind, Gate, total_channels};
use crate::geometry::Dilations;
use crate::graph::{
    Conv1dConfig, Graph, MAX_CHANNELS, MAX_KERNEL, Network, Value, dropout_probability, in_range,
};
use crate::{Error, Result};

/// Options of a [`wavenet_stack`].
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

    /// Adds the network to a graph, from `xs` (batch, time, residual_channels) to the value that is returned, (batch,
    /// time, out_channels).
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn append(&self, g: &mut Graph, xs: Value, out_channels: usize) -> Result<Value> {
        let dilations = self.validate()?;
        let causal = Conv1dConfig::causal();
        let (mut xs, mut skips) = (xs, None);
        g.label_hidden(0, xs);
        for (i, &dilation) in dilations.iter().enumerate() {
            let (inputs, gate) =
                (g.dropout(xs, self.dropout, DropoutKind::Element)?, self.gate_channels);
            let layer = format!("layers.{i}");
            let cfg = Conv1dConfig { dilation, ..causal };
            let hs = g.conv1d(&format!("{layer}.conv"), inputs, 2 * gate, self.kernel_size, cfg)?;
            let hs = g.gate(hs, Gate::TanhSigmoid)?;
            let skip = g.conv1d(&format!("{layer}.skip"), hs, self.skip_channels, 1, causal)?;
            let sum = match skips {
                None => skip,
                Some(sum) => g.add(sum, skip)?,
            };
            skips = Some(sum);
            // the last layer's result goes to the skip sum alone
            xs = match i + 1 == dilations.len() {
                true => sum,
                false => {
                    let name = format!("{layer}.residual");
                    let residual = g.conv1d(&name, hs, self.residual_channels, 1, causal)?;
                    g.add(xs, residual)?
                }
            };
            g.label_hidden(i + 1, xs);
        }
        let ys = g.activate(xs, Activation::Relu)?;
        let ys = g.conv1d("output.0", ys, self.skip_channels, 1, causal)?;
        let ys = g.activate(ys, Activation::Relu)?;
        g.conv1d("output.1", ys, out_channels, 1, causal)
    }
}

/// Builds gated residual layers whose skip outputs are summed, then two 1×1 output layers.
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
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{Params, WaveNetStackConfig, wavenet_stack};
/// let cfg: WaveNetStackConfig = serde_json::from_str(
///     r#"{"residual_channels": 4, "gate_channels": 4, "skip_channels": 6, "kernel_size": 2,
///         "dilations": {"base": 2, "levels": 3, "stacks": 2}}"#,
/// ).unwrap();
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = wavenet_stack(5, &cfg, params.builder())?;
/// let ys = net.forward(&Tensor::zeros((1, 9, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(ys.dims(), [1, 9, 5]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// van den Oord et al. 2016, arXiv:1609.03499, section 2.3 and figure 4.
pub fn wavenet_stack(
    out_channels: usize,
    config: &WaveNetStackConfig,
    vb: VarBuilder,
) -> Result<Network> {
    let mut g = Graph::new();
    let xs = g.frames(config.residual_channels)?;
    let ys = config.append(&mut g, xs, out_channels)?;
    g.output_logits(ys)?;
    Network::new(g, vb)
}
