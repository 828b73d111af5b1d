//! The temporal convolutional network on frames, with a linear layer or without.

use serde::{Deserialize, Serialize};

use super::{Architecture, FrameLayout};
use crate::Result;
use crate::graph::{Graph, MAX_CHANNELS, in_range};
use crate::nn::{Activation, Pool, TcnConfig};

/// Options of the network on frames: the music model of Bai, Kolter & Koltun 2018 (arXiv:1803.01271, section 5), or the
/// blocks alone; with a pool, a classifier of whole sequences.
///
/// Frames (batch, time, num_inputs), result (batch, time, num_outputs or the last of num_channels), pooled without time.
/// Tensors: `network.*`
/// (see [`temporal_conv_net`](crate::nn::temporal_conv_net)), `linear.{weight, bias}`.
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
    /// Channels of a frame; 0 in a preset, which takes it from the data.
    pub num_inputs: usize,
    /// The blocks.
    pub network: TcnConfig,
    /// The way in which the steps become one; absent where each has a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Channels of a last linear layer; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_outputs: Option<usize>,
    /// Applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_activation: Option<Activation>,
    /// The layout of the files that hold inputs and outputs; see [`run`](super::run()). `"NLC"` if absent.
    #[serde(default = "channels_last")]
    pub input_shape: FrameLayout,
}

fn channels_last() -> FrameLayout {
    FrameLayout::ChannelsLast
}

impl Architecture for TemporalConvNetConfig {
    fn graph(&self) -> Result<Graph> {
        in_range("num_inputs", self.num_inputs, MAX_CHANNELS)?;
        if let Some(channels) = self.num_outputs {
            in_range("num_outputs", channels, MAX_CHANNELS)?;
        }
        let mut g = Graph::new();
        let xs = g.frames(self.num_inputs)?;
        let mut ys = self.network.append(&mut g, xs)?;
        if let Some(pool) = self.pool {
            ys = g.pool(ys, pool)?;
        }
        if let Some(channels) = self.num_outputs {
            ys = g.linear("linear", ys, channels)?;
        }
        if let Some(activation) = self.output_activation {
            ys = g.activate(ys, activation)?;
        }
        g.output(ys)?;
        Ok(g)
    }

    fn frames(&mut self) -> Option<(&mut usize, &mut Option<usize>)> {
        Some((&mut self.num_inputs, &mut self.num_outputs))
    }

    fn layout(&self) -> FrameLayout {
        self.input_shape
    }

    fn set_dropout(&mut self, dropout: f64) {
        self.network.dropout = dropout;
    }

    fn fold_weight_norm(&mut self) {
        self.network.norm = self.network.norm.folded();
    }
}
