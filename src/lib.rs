//! Dilated causal convolution stacks (TCN, WaveNet) for sequence modelling on [candle]: they train on a
//! laptop, stream with constant memory, and their gradients are right.
//!
//! | module | what is in it |
//! |---|---|
//! | [`geometry`] | integers only: dilation schedules, padding, receptive fields and their holes, planning |
//! | [`kernels`] | slices in, slices out: the arithmetic, and a naive oracle of it |
//! | [`ops`] | the same as differentiable operations on candle tensors; where their time goes |
//! | [`graph`] | a network as a value, and what reads it: runs, gradients, steps, reach, cost |
//! | [`nn`] | layers and stacks over time and over images, named parameters, streaming [`State`](nn::State) |
//! | [`models`] | architectures from a `config.json`, presets; model directories; whole sequences; saved states; state dicts of other projects |
//! | [`files`] | safetensors and PyTorch files, read without running anything; writes that survive an interruption |
//! | [`text`] | tokenizers, corpora, batches |
//! | [`train`] | the loop, optimizers, schedules, exact evaluation, checkpoints |
//! | [`generate`] | sampling, stop strings, text as it is made |
//! | [`plot`] | loss curves and receptive fields as SVG |
//! | [`series`] | frames from CSV, `.ts`, `.npy` and safetensors; scaling, splits, tasks |
//! | `serve` | models over HTTP (feature `serve`) |
//! | `hub` | models from the Hugging Face Hub and back (feature `hub`) |
//!
//! Tensors are channels-last, `(batch, time, channels)` or `(batch, height, width, channels)`; weights keep
//! PyTorch's names and shapes.
//!
//! # Example
//!
//! A causal stack over sequences of vectors, whole and step by step:
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_tcn::nn::{Params, StepDtype, TcnConfig, temporal_conv_net};
//!
//! let params = Params::new(1, DType::F32, &Device::Cpu);
//! let config = TcnConfig::new(vec![8, 8, 6], 3);
//! assert_eq!(config.geometry()?.receptive_field()?.total, 29);
//! let net = temporal_conv_net(4, &config, params.builder())?;
//!
//! let xs = Tensor::ones((1, 50, 4), DType::F32, &Device::Cpu)?;
//! let whole = net.forward(&xs)?; // (1, 50, 6)
//!
//! let steps = net.step_net(StepDtype::F32)?;
//! let mut state = steps.init_state(1)?;
//! for y in whole.get(0)?.to_vec2::<f32>()? {
//!     let step = steps.step(&[1.0; 4], &mut state)?;
//!     assert!(step.iter().zip(&y).all(|(a, b)| (*a - b).abs() < 1e-5));
//! }
//! # Ok::<(), candle_tcn::Error>(())
//! ```
//!
//! [candle]: https://github.com/huggingface/candle

// the README's programs run as doc tests
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
mod readme {}

mod error;
#[cfg(feature = "models")]
pub mod files;
#[cfg(feature = "models")]
pub mod generate;
pub mod geometry;
pub mod graph;
#[cfg(feature = "hub")]
pub mod hub;
pub mod kernels;
#[cfg(feature = "models")]
pub mod models;
pub mod nn;
pub mod ops;
#[cfg(feature = "models")]
pub mod plot;
#[cfg(feature = "models")]
pub mod series;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "models")]
pub mod text;
#[cfg(feature = "models")]
pub mod train;

// shared with the tests beside the library
#[cfg(test)]
#[path = "../tests/common/close.rs"]
mod close;
#[cfg(test)]
mod close_tests;
#[cfg(test)]
#[path = "../tests/common/kernels.rs"]
mod test_kernels;

pub use error::{AtPath, Error, Occupant, Result};
#[cfg(feature = "models")]
pub use models::directory::LoadedModel;
