//! The temporal convolutional network on frames, with a linear layer or without.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::frames::FrameLayout;
use crate::Result;
use crate::nn::{
    Activation, Conv1d, MAX_CHANNELS, Pass, RingShape, StepDtype, TcnConfig, TemporalConvNet,
    in_range, linear,
};
use crate::ops;

/// The options of a [`TemporalConvNetModel`].
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let json = r#"{"model_type": "temporal_conv_net", "num_inputs": 88, "num_outputs": 88,
///                "output_activation": "sigmoid",
///                "network": {"num_channels": [150, 150], "kernel_size": 3}}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// assert_eq!(config.geometry()?.receptive_field()?.total, 13); // 1 + 2·2·(1 + 2)
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalConvNetConfig {
    /// Channels of a frame.
    pub num_inputs: usize,
    /// The blocks.
    pub network: TcnConfig,
    /// Channels of a last linear layer; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_outputs: Option<usize>,
    /// Applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_activation: Option<Activation>,
    /// The layout of the files that hold inputs and outputs; see [`run`](super::run). `"NLC"` if absent.
    #[serde(default = "channels_last")]
    pub input_shape: FrameLayout,
}

fn channels_last() -> FrameLayout {
    FrameLayout::ChannelsLast
}

impl TemporalConvNetConfig {
    pub(super) fn validate(&self) -> Result<()> {
        in_range("num_inputs", self.num_inputs, MAX_CHANNELS)?;
        if let Some(channels) = self.num_outputs {
            in_range("num_outputs", channels, MAX_CHANNELS)?;
        }
        self.network.validate().map(|_| ())
    }
}

/// A temporal convolutional network on frames: the music model of Bai, Kolter & Koltun 2018
/// (arXiv:1803.01271, section 5), or the blocks alone.
///
/// # Shapes
/// Frames (batch, time, num_inputs), result (batch, time, num_outputs or the last of num_channels).
/// Tensors: `network.*` (see [`TemporalConvNet`]), `linear.{weight, bias}`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::{Model, ModelConfig};
/// use candle_tcn::nn::{Params, Pass};
/// let json = r#"{"model_type": "temporal_conv_net", "num_inputs": 4, "num_outputs": 2,
///                "network": {"num_channels": [8, 8], "kernel_size": 3}}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = Model::new(&config, params.builder())?;
/// let xs = Tensor::ones((1, 9, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&xs, &mut Pass::eval())?.dims(), [1, 9, 2]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TemporalConvNetModel {
    tcn: TemporalConvNet,
    linear: Option<Conv1d>,
    output_activation: Option<Activation>,
    device: Device,
}

impl TemporalConvNetModel {
    pub(super) fn new(cfg: &TemporalConvNetConfig, vb: VarBuilder) -> Result<Self> {
        let width = cfg.network.num_channels.last().copied().unwrap_or(0);
        let linear = |channels| linear(width, channels, vb.pp("linear"));
        Ok(Self {
            tcn: TemporalConvNet::new(cfg.num_inputs, &cfg.network, vb.clone())?,
            linear: cfg.num_outputs.map(linear).transpose()?,
            output_activation: cfg.output_activation,
            device: vb.device().clone(),
        })
    }

    pub(super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let linear = self.linear.as_ref();
        Ok(Self {
            tcn: self.tcn.freeze_as(dtype)?,
            linear: linear.map(|conv| conv.freeze_as(dtype)).transpose()?,
            ..self.clone()
        })
    }

    pub(super) fn rings(&self) -> Result<Vec<RingShape>> {
        self.tcn.rings()
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut xs = self.tcn.forward(xs, pass)?;
        if let Some(linear) = &self.linear {
            xs = linear.forward(&xs, pass)?;
        }
        match self.output_activation {
            None => Ok(xs),
            Some(activation) => ops::activate(&xs, activation),
        }
    }
}
