//! Dilated causal convolution stacks for sequence modelling on candle.

mod error;
pub use error::{Error, Result};
