//! Layers and the known stacks on channels-last tensors, `(batch, time, channels)` or
//! `(batch, height, width, channels)`, in candle-nn's dialect: a configuration, a function that takes a `VarBuilder`
//! with PyTorch's names and shapes, and a [`Network`] that is a candle [`Module`](candle_core::Module).
//!
//! Under a `VarMap`, where one tensor's start cannot depend on another's, call
//! [`init_weight_norm`](Network::init_weight_norm) once on a network with weight norm. Of candle's own layers,
//! `candle_nn::layer_norm` and `rms_norm` have no gradient (candle-nn 0.11): take [`norm`]. A mask cannot pass through a
//! `Sequential`; sequences of unequal lengths are [`Network::forward_with`], [`length_mask`] and
//! [`mean_rows`] or [`last_step`].
//!
//! Each stack's configuration also has `append`, which adds it to a [`Graph`](crate::graph::Graph).

mod aspp;
mod bytenet;
mod context;
mod dropout;
mod layers;
mod layout;
mod params;
mod spatio_temporal;
mod tcn;
mod wavenet;

pub use crate::graph::{
    Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, EmbedConfig, NormKind, State, StepNet,
    TransposePadding,
};
pub use crate::kernels::elementwise::{Activation, Gate};
pub use crate::kernels::step::StepDtype;
pub use crate::ops::{
    DropoutKind, PaddingMode, Pool, last_step, length_mask, mean_rows, pool_rows,
};
pub use aspp::{AsppConfig, aspp};
#[cfg(feature = "models")]
pub(crate) use bytenet::check_eps;
pub use bytenet::{ByteNetStackConfig, bytenet_stack};
pub use context::{ContextConfig, ContextForm, context_module};
pub use dropout::SeededDropout;
pub use layers::{
    Embedding, Linear, dilated_conv_transpose1d, dilated_conv1d, dilated_conv2d, embedding, linear,
    norm,
};
pub use layout::{to_channels_first, to_channels_last};
pub use params::Params;
pub use spatio_temporal::{SpatioTemporalConfig, SpatioTemporalConv};
pub use tcn::{TcnConfig, temporal_conv_net};
pub use wavenet::{WaveNetStackConfig, wavenet_stack};

use crate::graph::MAX_STACK_LAYERS;
#[cfg(doc)]
use crate::graph::Network;
use crate::{Error, Result};

/// Most channels of all layers together.
const MAX_TOTAL_CHANNELS: usize = 1 << 22;

/// Refuses networks of too many and too wide layers to be even listed.
pub(crate) fn total_channels(channels: impl Iterator<Item = usize>) -> Result<()> {
    let (layers, total) = channels.fold((0, 0usize), |(layers, total), channels| {
        (layers + 1, total.saturating_add(channels))
    });
    let problem = if layers > MAX_STACK_LAYERS {
        format!("{layers} layers; at most {MAX_STACK_LAYERS} are supported")
    } else if total > MAX_TOTAL_CHANNELS {
        format!("{total} channels in all its layers; at most {MAX_TOTAL_CHANNELS} are supported")
    } else {
        return Ok(());
    };
    Err(Error::too_large("the network", problem))
}
