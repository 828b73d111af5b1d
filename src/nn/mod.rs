//! Layers on channels-last tensors, `(batch, time, channels)` or `(batch, height, width, channels)`,
//! built from a candle `VarBuilder` with PyTorch's names and shapes, and the value that carries them
//! through a sequence in pieces.

mod aspp;
mod block;
mod bytenet;
mod context;
mod conv1d;
mod conv2d;
mod conv_transpose1d;
mod layout;
mod norm;
mod params;
mod pass;
mod pool;
mod spatio_temporal;
mod state;
mod step;
mod tcn_config;
mod wavenet;

pub use crate::kernels::step::StepDtype;
pub use aspp::{Aspp, AsppConfig};
pub use block::TemporalConvNet;
pub(crate) use bytenet::norm_eps;
pub use bytenet::{ByteNetStack, ByteNetStackConfig};
pub use context::{ContextConfig, ContextForm, ContextModule};
pub use conv_transpose1d::{ConvTranspose1d, ConvTranspose1dConfig, TransposePadding};
pub use conv1d::{Conv1d, Conv1dConfig, linear};
pub use conv2d::{Conv2d, Conv2dConfig};
pub use layout::{to_channels_first, to_channels_last};
pub use norm::{Norm, NormKind};
pub use params::Params;
pub use pass::Pass;
pub use pool::mean_time;
pub use spatio_temporal::{SpatioTemporalConfig, SpatioTemporalConv};
pub use state::{RingShape, State};
pub use step::StepNet;
pub(crate) use step::{Slot, StepBuilder};
pub use tcn_config::TcnConfig;
pub use wavenet::{WaveNetStack, WaveNetStackConfig};

pub use crate::kernels::elementwise::{Activation, Gate};
pub use crate::ops::{DropoutKind, Epilogue, PaddingMode};

use crate::{Error, Result};

/// The most channels a layer may have; with [`MAX_KERNEL`] it keeps every size within `usize`.
pub const MAX_CHANNELS: usize = 1 << 20;

/// The most taps a kernel may have.
pub const MAX_KERNEL: usize = 1 << 12;

/// The most layers of a network: describing one takes some kilobytes.
pub const MAX_STACK_LAYERS: usize = 1 << 12;

/// `value` if it is in `1..=most`.
pub(crate) fn in_range(field: impl Into<String>, value: usize, most: usize) -> Result<usize> {
    if (1..=most).contains(&value) {
        Ok(value)
    } else {
        Err(Error::invalid(field, format!("a whole number from 1 to {most}"), value))
    }
}

/// The most channels of all layers together.
const MAX_TOTAL_CHANNELS: usize = 1 << 22;

/// Whether the layers of a network are not too many and wide to be even listed.
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

/// `p` if it is a probability of dropping.
pub(crate) fn dropout_probability(field: &str, p: f64) -> Result<f64> {
    if (0.0..1.0).contains(&p) {
        Ok(p)
    } else {
        Err(Error::invalid(field, "a probability of at least 0 and below 1", p))
    }
}
