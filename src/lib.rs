//! Dilated causal convolution stacks for sequence modelling on candle.

mod error;
pub mod geometry;
pub mod kernels;
pub mod models;
pub mod nn;
pub mod ops;

pub use error::{Error, Result};
