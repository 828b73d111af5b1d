//! Dilated causal convolution stacks for sequence modelling on candle.

mod error;
mod fsutil;
pub mod generate;
pub mod geometry;
pub mod kernels;
pub mod model_dir;
pub mod models;
pub mod nn;
pub mod ops;
pub mod plot;
pub mod text;
pub mod train;

pub use error::{Error, Result};
pub use model_dir::LoadedModel;
