//! Architectures: a serde configuration tagged by `model_type`, and the graph that it describes; one file each.

mod bytenet;
mod carp;
mod config;
mod config_keys;
mod convert;
mod convnet;
pub mod directory;
mod encode;
mod presets;
mod pytorch_tcn;
mod run;
mod score;
mod series;
pub mod state_file;
mod tcn;
mod temporal_conv_net;
mod temporal_layers;
mod vocabulary;
mod wavenet;

pub use crate::graph::{Input, Network, Stepper};
pub use bytenet::ByteNetConfig;
pub use carp::CarpConfig;
pub use config::{Architecture, FrameLayout, ModelConfig};
pub use convert::{Converted, ORIGINAL_CARP_VOCABULARY, convert, convert_under};
pub use convnet::ConvNetConfig;
pub use encode::{Candidate, Encoder, candidates};
pub(crate) use encode::{expect_finite, likeliest, log_probability};
pub use presets::PRESETS;
pub use pytorch_tcn::{
    EmbeddingMode, KernelInitializer, PytorchActivation, PytorchNorm, PytorchTcnConfig,
};
pub use run::{RunOptions, run};
pub use score::{Change, Scorer};
pub use series::SeriesModel;
pub use tcn::TcnLmConfig;
pub use temporal_conv_net::TemporalConvNetConfig;
pub use temporal_layers::{
    TemporalConv1dConfig, TemporalConvTranspose1dConfig, TemporalLayerConfig,
};
pub use vocabulary::extend_vocabulary;
pub use wavenet::WaveNetConfig;

#[cfg(test)]
mod bf16_tests;
#[cfg(test)]
mod gradient_tests;
