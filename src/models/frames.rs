//! Networks whose input is frames of numbers instead of tokens.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::pytorch_tcn::PytorchTcn;
use super::temporal_conv_net::TemporalConvNetModel;
use crate::nn::{Conv1d, ConvTranspose1d, Pass, RingShape, StepDtype};
use crate::{Error, Result};

/// The order of the axes in files of frames; layers and networks always take (batch, time, channels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FrameLayout {
    /// (batch, channels, time), as PyTorch's convolutions.
    #[default]
    #[serde(rename = "NCL")]
    ChannelsFirst,
    /// (batch, time, channels).
    #[serde(rename = "NLC")]
    ChannelsLast,
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Token ids `u32`, (batch, time).
    Tokens {
        /// Ids are below it.
        vocab_size: usize,
    },
    /// Numbers, (batch, time, channels).
    Frames {
        /// Numbers of one time step.
        channels: usize,
        /// Of files, for [`run`](super::run).
        layout: FrameLayout,
    },
}

/// A network on frames: see [`ModelConfig`](super::ModelConfig) for the kinds.
#[derive(Debug, Clone)]
pub struct FrameNetwork {
    channels: usize,
    network: Network,
}

#[derive(Debug, Clone)]
pub(super) enum Network {
    PytorchTcn(PytorchTcn),
    TemporalConvNet(TemporalConvNetModel),
    Conv(Conv1d),
    Transposed(ConvTranspose1d),
}

impl FrameNetwork {
    pub(super) fn new(channels: usize, network: Network) -> Self {
        Self { channels, network }
    }

    pub(super) fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if xs.rank() != 3 || xs.dims()[2] != self.channels || xs.elem_count() == 0 {
            return Err(Error::invalid(
                "input",
                format!("frames (batch, time, {}), at least one", self.channels),
                format!("{:?}", xs.dims()),
            ));
        }
        pass.refuse_mask("a network on frames", xs)?;
        if !xs.dtype().is_float() {
            let found = format!("{:?}", xs.dtype());
            return Err(Error::invalid("input", "frames of floating-point numbers", found));
        }
        let conditioned = matches!(self.network, Network::PytorchTcn(_));
        if !conditioned && !pass.embeddings().is_empty() {
            return Err(Error::invalid(
                "conditioning inputs",
                "none, as this network takes no conditioning",
                pass.embeddings().len(),
            ));
        }
        match &self.network {
            Network::PytorchTcn(net) => net.forward(xs, pass),
            Network::TemporalConvNet(net) => net.forward(xs, pass),
            Network::Conv(conv) => conv.forward(xs, pass),
            Network::Transposed(conv) => conv.forward(xs, pass),
        }
    }

    pub(super) fn freeze(&self) -> Result<Self> {
        let dtype = StepDtype::F32;
        let network = match &self.network {
            Network::PytorchTcn(net) => Network::PytorchTcn(net.freeze(dtype)?),
            Network::TemporalConvNet(net) => Network::TemporalConvNet(net.freeze(dtype)?),
            Network::Conv(conv) => Network::Conv(conv.freeze()?),
            Network::Transposed(conv) => Network::Transposed(conv.freeze()?),
        };
        Ok(Self::new(self.channels, network))
    }

    pub(super) fn rings(&self) -> Result<Vec<RingShape>> {
        let of_one = |ring: Option<RingShape>| ring.into_iter().collect();
        match &self.network {
            Network::PytorchTcn(net) => net.rings(),
            Network::TemporalConvNet(net) => net.rings(),
            Network::Conv(conv) => conv.ring().map(of_one),
            Network::Transposed(conv) => conv.ring().map(of_one),
        }
    }

    pub(super) fn device(&self) -> &Device {
        match &self.network {
            Network::PytorchTcn(net) => net.device(),
            Network::TemporalConvNet(net) => net.device(),
            Network::Conv(conv) => conv.device(),
            Network::Transposed(conv) => conv.device(),
        }
    }
}
