//! Dilated causal convolution stacks (TCN, WaveNet) for sequence modelling on [candle]: they train on a
//! laptop, stream with constant memory, and their gradients are right.
//!
//! | module | what is in it |
//! |---|---|
//! | [`geometry`] | integers only: dilation schedules, padding, receptive fields and their holes, planning |
//! | [`kernels`] | slices in, slices out: the arithmetic, and a naive oracle of it |
//! | [`ops`] | the same as differentiable operations on candle tensors |
//! | [`nn`] | layers and stacks over time and over images, named parameters, streaming [`State`](nn::State) |
//! | [`models`] | whole models from a `config.json`, presets; state dicts of other projects |
//! | [`text`] | tokenizers, corpora, batches |
//! | [`train`] | the loop, optimizers, schedules, exact evaluation, checkpoints |
//! | [`generate`] | sampling, stop strings, text as it is made |
//! | [`state_file`] | streaming states saved and loaded, bound to their network |
//! | [`store`] | weights as they are stored: folded, in fewer bits |
//! | [`encode`] | whole sequences: hidden states, masks filled in |
//! | [`weights`] | safetensors and PyTorch files, read without running anything |
//! | [`plot`] | loss curves and receptive fields as SVG |
//! | `hub` | models from the Hugging Face Hub and back (feature `hub`) |
//! | [`profile`] | where the time goes |
//!
//! Tensors are channels-last, `(batch, time, channels)` or `(batch, height, width, channels)`; weights keep
//! PyTorch's names and shapes.
//!
//! # Example
//!
//! A causal stack over sequences of vectors, whole and step by step:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_tcn::nn::{Params, Pass, TcnConfig, TemporalConvNet};
//!
//! let params = Params::new(1, DType::F32, &Device::Cpu);
//! let config = TcnConfig::new(vec![8, 8, 6], 3);
//! assert_eq!(config.geometry()?.receptive_field()?.total, 29);
//! let net = TemporalConvNet::new(4, &config, params.builder())?;
//!
//! let xs = Tensor::ones((2, 50, 4), DType::F32, &Device::Cpu)?;
//! let whole = net.forward(&xs, &mut Pass::eval())?; // (2, 50, 6)
//!
//! let frozen = net.freeze()?;
//! let mut state = net.init_state(2)?;
//! for t in 0..50 {
//!     let y = frozen.forward(&xs.narrow(1, t, 1)?, &mut Pass::eval().with_state(&mut state))?;
//!     let difference = (y - whole.narrow(1, t, 1)?)?.abs()?.max_all()?;
//!     assert!(difference.to_scalar::<f32>()? < 1e-5);
//! }
//! # Ok::<(), candle_tcn::Error>(())
//! ```
//!
//! [candle]: https://github.com/huggingface/candle

pub mod encode;
mod error;
pub mod files;
pub mod generate;
pub mod geometry;
#[cfg(feature = "hub")]
pub mod hub;
pub mod kernels;
pub mod model_dir;
pub mod models;
pub mod nn;
pub mod ops;
pub mod plot;
pub mod profile;
pub mod state_file;
pub mod store;
pub mod text;
pub mod train;
pub mod weights;

// shared with the tests beside the library
#[cfg(test)]
#[path = "../tests/common/close.rs"]
mod close;
#[cfg(test)]
mod close_tests;
#[cfg(test)]
#[path = "../tests/common/kernels.rs"]
mod test_kernels;

pub use error::{Error, Result};
pub use model_dir::LoadedModel;
