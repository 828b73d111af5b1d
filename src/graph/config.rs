//! Options of the layers.

use serde::{Deserialize, Serialize};

use crate::geometry::Padding;
use crate::ops::PaddingMode;

/// Options of a 1-D convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dConfig {
    /// Steps added on each side.
    pub padding: Padding,
    /// Content of the padding.
    pub padding_mode: PaddingMode,
    /// Time steps between two taps.
    pub dilation: usize,
    /// Time steps between two outputs.
    pub stride: usize,
    /// Independent channel groups; as many as input channels make it depthwise.
    pub groups: usize,
    /// `true` for a bias.
    pub bias: bool,
    /// `true` if the weight is stored as direction `weight_v` and length `weight_g`.
    pub weight_norm: bool,
}

impl Conv1dConfig {
    /// A causal convolution: no output sees a later input. Dilation, stride and groups 1, with bias.
    pub fn causal() -> Self {
        Self {
            padding: Padding::Causal,
            padding_mode: PaddingMode::Zeros,
            dilation: 1,
            stride: 1,
            groups: 1,
            bias: true,
            weight_norm: false,
        }
    }
}

impl Default for Conv1dConfig {
    fn default() -> Self {
        Self::causal()
    }
}

/// Options of a 2-D convolution. Pairs are (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Lines and columns added on each side; [`Padding::Causal`] adds all of them above, or at
    /// the left.
    pub padding: (Padding, Padding),
    /// Content of the padding.
    pub padding_mode: PaddingMode,
    /// Pixels between two taps.
    pub dilation: (usize, usize),
    /// Pixels between two outputs.
    pub stride: (usize, usize),
    /// Independent channel groups; as many as input channels make it depthwise.
    pub groups: usize,
    /// `true` for a bias.
    pub bias: bool,
    /// The size of every input, where it is known: an input that the kernel does not fit is then an error
    /// at once.
    pub input_size: Option<(usize, usize)>,
}

impl Conv2dConfig {
    /// As many outputs as inputs: `(kernel − 1)·dilation` zeros along each axis, half of them on each side.
    /// Dilation, stride and groups 1, with bias.
    pub fn same() -> Self {
        Self {
            padding: (Padding::Same, Padding::Same),
            padding_mode: PaddingMode::Zeros,
            dilation: (1, 1),
            stride: (1, 1),
            groups: 1,
            bias: true,
            input_size: None,
        }
    }

    /// No padding; otherwise as [`same`](Self::same).
    pub fn valid() -> Self {
        Self { padding: (Padding::Valid, Padding::Valid), ..Self::same() }
    }
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self::same()
    }
}

/// Options of a transposed 1-D convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose1dConfig {
    /// Steps that are cut off.
    pub padding: TransposePadding,
    /// Content of the steps before the first; causal layers only.
    pub padding_mode: PaddingMode,
    /// Output steps between two taps.
    pub dilation: usize,
    /// Output steps for each input step.
    pub stride: usize,
    /// Independent channel groups.
    pub groups: usize,
    /// `true` for a bias.
    pub bias: bool,
}

impl ConvTranspose1dConfig {
    /// A causal layer that makes `stride` steps of each: dilation and groups 1, with bias.
    pub fn causal(stride: usize) -> Self {
        Self {
            padding: TransposePadding::Causal,
            padding_mode: PaddingMode::Zeros,
            dilation: 1,
            stride,
            groups: 1,
            bias: true,
        }
    }
}

/// Part of all that the taps reach which a transposed convolution gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransposePadding {
    /// The first `time·stride` steps: no output sees a later input.
    Causal,
    /// `time·stride` steps from the middle: `(effective kernel − stride) / 2` are cut off on the left.
    Same,
    /// As `torch.nn.ConvTranspose1d`: `padding` steps are cut off on both sides, `output_padding` fewer on
    /// the right.
    Explicit {
        /// Steps.
        padding: usize,
        /// Steps, below the greater of stride and dilation.
        output_padding: usize,
    },
}

/// Normalisation of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Weight norm on the convolutions' weights (Salimans & Kingma 2016, arXiv:1602.07868).
    #[default]
    Weight,
    /// Layer norm over the channels of each step, eps 1e-5 (`torch.nn.LayerNorm`).
    Layer,
    /// Batch norm over batch and time, eps 1e-5, momentum 0.1 (`torch.nn.BatchNorm1d`).
    Batch,
    /// Root-mean-square norm over the channels of each step, eps 1e-6 (`torch.nn.RMSNorm`).
    Rms,
    /// None.
    None,
}

impl NormKind {
    /// The same for weights in which weight norm is folded.
    #[cfg(feature = "models")]
    pub(crate) fn folded(self) -> Self {
        if self == Self::Weight { Self::None } else { self }
    }
}

/// Options of an embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbedConfig {
    /// Id whose row is not trained.
    pub padding_idx: Option<u32>,
    /// First values are drawn evenly from −bound to bound.
    pub bound: f64,
}

impl Default for EmbedConfig {
    fn default() -> Self {
        Self { padding_idx: None, bound: 0.1 }
    }
}
