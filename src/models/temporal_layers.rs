//! Single layers of pytorch-tcn as models of their own.

use serde::{Deserialize, Serialize};

use super::config_keys::{fixed, one, yes};
use super::{Architecture, FrameLayout};
use crate::geometry::Padding;
use crate::graph::{
    Conv1dConfig, ConvTranspose1dConfig, Graph, MAX_CHANNELS, MAX_KERNEL, TransposePadding,
    in_range,
};
use crate::nn::PaddingMode;
use crate::{Error, Result};

/// The arguments of pytorch-tcn's `TemporalConv1d`, with its names and defaults.
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let json = r#"{"model_type": "temporal_conv1d", "in_channels": 4, "out_channels": 6, "kernel_size": 3,
///                "dilation": 4, "padding_mode": "reflect"}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// assert_eq!(config.graph()?.parameter_count()?, 6 * 4 * 3 + 6);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub type TemporalConv1dConfig = TemporalLayerConfig<false>;

/// The arguments of pytorch-tcn's `TemporalConvTranspose1d`, with its names and defaults.
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let json = r#"{"model_type": "temporal_conv_transpose1d", "in_channels": 4, "out_channels": 6,
///                "kernel_size": 8, "stride": 4}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// assert_eq!(config.graph()?.parameter_count()?, 4 * 6 * 8 + 6);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub type TemporalConvTranspose1dConfig = TemporalLayerConfig<true>;

/// The arguments of a layer of pytorch-tcn, transposed or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalLayerConfig<const TRANSPOSED: bool> {
    /// Channels of a frame.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Taps; of a transposed layer twice the stride.
    pub kernel_size: usize,
    /// Time steps between two outputs; of a transposed layer output steps for each input step.
    #[serde(default = "one")]
    pub stride: usize,
    /// 0; what is padded or cut off follows from the other sizes.
    #[serde(default)]
    pub padding: usize,
    /// 0, of a transposed layer only.
    #[serde(default = "output_padding::<TRANSPOSED>", skip_serializing_if = "Option::is_none")]
    pub output_padding: Option<usize>,
    /// Time steps between two taps; 1 in a transposed layer.
    #[serde(default = "one")]
    pub dilation: usize,
    /// Independent channel groups.
    #[serde(default = "one")]
    pub groups: usize,
    /// `true` for a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Content of the steps before the first and after the last; a transposed layer looks at it where it is causal.
    #[serde(default)]
    pub padding_mode: PaddingMode,
    /// `true` if no output sees a later input; otherwise half of the padding is on each side, an odd step more on the
    /// right.
    #[serde(default = "yes")]
    pub causal: bool,
    /// 0; any other value is refused there too.
    #[serde(default)]
    pub lookahead: usize,
}

fn output_padding<const TRANSPOSED: bool>() -> Option<usize> {
    TRANSPOSED.then_some(0)
}

impl<const TRANSPOSED: bool> Architecture for TemporalLayerConfig<TRANSPOSED> {
    fn graph(&self) -> Result<Graph> {
        let &Self { out_channels, kernel_size, stride, dilation, padding_mode, .. } = self;
        let &Self { groups, bias, causal, .. } = self;
        in_range("in_channels", self.in_channels, MAX_CHANNELS)?;
        in_range("out_channels", out_channels, MAX_CHANNELS)?;
        in_range("kernel_size", kernel_size, MAX_KERNEL)?;
        fixed("padding", self.padding, 0)?;
        fixed("lookahead", self.lookahead, 0)?;
        let mut g = Graph::new();
        let xs = g.frames(self.in_channels)?;
        let ys = if TRANSPOSED {
            in_range("stride", stride, MAX_KERNEL)?;
            fixed("kernel_size", kernel_size, 2 * stride)?;
            fixed("output_padding", self.output_padding.unwrap_or(0), 0)?;
            fixed("dilation", dilation, 1)?;
            let padding = if causal { TransposePadding::Causal } else { TransposePadding::Same };
            let cfg =
                ConvTranspose1dConfig { padding, padding_mode, dilation, stride, groups, bias };
            g.conv_transpose1d("", xs, out_channels, kernel_size, cfg)?
        } else {
            let none = self.output_padding.is_none();
            Error::require(none, "output_padding", "no such field", "one")?;
            let padding = if causal { Padding::Causal } else { Padding::Same };
            let weight_norm = false;
            let cfg =
                Conv1dConfig { padding, padding_mode, dilation, stride, groups, bias, weight_norm };
            g.conv1d("", xs, out_channels, kernel_size, cfg)?
        };
        g.output(ys)?;
        Ok(g)
    }

    fn layout(&self) -> FrameLayout {
        FrameLayout::ChannelsFirst
    }
}
