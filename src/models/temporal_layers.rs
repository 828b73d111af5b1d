//! Single layers of pytorch-tcn as models of their own.

use serde::{Deserialize, Serialize};

use super::pytorch_tcn::no_lookahead;
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalConv1dConfig {
    /// Channels of a frame.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Taps.
    pub kernel_size: usize,
    /// Time steps between two outputs.
    #[serde(default = "one")]
    pub stride: usize,
    /// 0; what is padded follows from the kernel size and the dilation.
    #[serde(default)]
    pub padding: usize,
    /// Time steps between two taps.
    #[serde(default = "one")]
    pub dilation: usize,
    /// Independent channel groups.
    #[serde(default = "one")]
    pub groups: usize,
    /// `true` for a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Content of the steps before the first and after the last.
    #[serde(default)]
    pub padding_mode: PaddingMode,
    /// `true` if all padding is on the left; otherwise half of it, an odd step more on the right.
    #[serde(default = "yes")]
    pub causal: bool,
    /// 0; any other value is refused there too.
    #[serde(default)]
    pub lookahead: usize,
}

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalConvTranspose1dConfig {
    /// Channels of a frame.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Taps: twice the stride.
    pub kernel_size: usize,
    /// Output steps for each input step.
    #[serde(default = "one")]
    pub stride: usize,
    /// 0; what is cut off follows from the stride.
    #[serde(default)]
    pub padding: usize,
    /// 0.
    #[serde(default)]
    pub output_padding: usize,
    /// Independent channel groups.
    #[serde(default = "one")]
    pub groups: usize,
    /// `true` for a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// 1.
    #[serde(default = "one")]
    pub dilation: usize,
    /// Content of the steps before the first of a causal layer; others do not look at it.
    #[serde(default)]
    pub padding_mode: PaddingMode,
    /// `true` if no output sees a later input.
    #[serde(default = "yes")]
    pub causal: bool,
    /// 0; any other value is refused there too.
    #[serde(default)]
    pub lookahead: usize,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// `value`, where pytorch-tcn takes only `allowed`.
fn fixed(field: &str, value: usize, allowed: usize) -> Result<()> {
    if value == allowed {
        return Ok(());
    }
    let expected = format!("{allowed}, the only value that pytorch-tcn takes here");
    Err(Error::invalid(field, expected, value))
}

impl Architecture for TemporalConv1dConfig {
    fn graph(&self) -> Result<Graph> {
        in_range("in_channels", self.in_channels, MAX_CHANNELS)?;
        in_range("out_channels", self.out_channels, MAX_CHANNELS)?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        fixed("padding", self.padding, 0)?;
        no_lookahead(self.lookahead)?;
        let cfg = Conv1dConfig {
            padding: if self.causal { Padding::Causal } else { Padding::Same },
            padding_mode: self.padding_mode,
            dilation: self.dilation,
            stride: self.stride,
            groups: self.groups,
            bias: self.bias,
            weight_norm: false,
        };
        let mut g = Graph::new();
        let xs = g.frames(self.in_channels)?;
        let ys = g.conv1d("", xs, self.out_channels, self.kernel_size, cfg)?;
        g.output(ys)?;
        Ok(g)
    }

    fn layout(&self) -> FrameLayout {
        FrameLayout::ChannelsFirst
    }
}

impl Architecture for TemporalConvTranspose1dConfig {
    fn graph(&self) -> Result<Graph> {
        in_range("in_channels", self.in_channels, MAX_CHANNELS)?;
        in_range("out_channels", self.out_channels, MAX_CHANNELS)?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        in_range("stride", self.stride, MAX_KERNEL)?;
        fixed("kernel_size", self.kernel_size, 2 * self.stride)?;
        fixed("padding", self.padding, 0)?;
        fixed("output_padding", self.output_padding, 0)?;
        fixed("dilation", self.dilation, 1)?;
        no_lookahead(self.lookahead)?;
        let cfg = ConvTranspose1dConfig {
            padding: match self.causal {
                true => TransposePadding::Causal,
                false => TransposePadding::Same,
            },
            padding_mode: self.padding_mode,
            groups: self.groups,
            bias: self.bias,
            ..ConvTranspose1dConfig::causal(self.stride)
        };
        let mut g = Graph::new();
        let xs = g.frames(self.in_channels)?;
        let ys = g.conv_transpose1d("", xs, self.out_channels, self.kernel_size, cfg)?;
        g.output(ys)?;
        Ok(g)
    }

    fn layout(&self) -> FrameLayout {
        FrameLayout::ChannelsFirst
    }
}
