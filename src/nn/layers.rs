//! Single layers as networks of one node, in candle-nn's dialect.

use candle_core::{D, Module, Tensor};
use candle_nn::VarBuilder;

#[allow(unused_imports)]
use crate::Error;
use crate::Result;
use crate::graph::{
    Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, EmbedConfig, Graph, Network, NormKind, Value,
};

/// A network from `input` to the value that `layer` adds.
fn network(
    vb: VarBuilder,
    input: impl FnOnce(&mut Graph) -> Result<Value>,
    layer: impl FnOnce(&mut Graph, Value) -> Result<Value>,
) -> Result<Network> {
    let mut g = Graph::new();
    let xs = input(&mut g)?;
    let ys = layer(&mut g, xs)?;
    g.output(ys)?;
    Network::new(g, vb)
}

/// Builds a dilated 1-D convolution, `ys[t] = bias + Σ_tap W[.., tap] · xs[t·stride + tap·dilation − pad_left]`.
///
/// A causal layer also takes sequences in pieces. What stands before the first piece is zeros whatever the
/// padding mode, and each piece begins a stride of its own, so that pieces of whole strides give what the
/// sequence gives at once (both as pytorch-tcn).
///
/// # Shapes
/// Input (batch, time, in_channels), output (batch, out_time, out_channels). On disk `weight`
/// (out_channels, in_channels / groups, kernel_size), `bias` (out_channels); with weight norm
/// `weight_g` (out_channels, 1, 1) and `weight_v` (as weight).
///
/// # Errors
/// [`Error::Invalid`] for options that do not fit, or an input shorter than the kernel.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::VarBuilder;
/// use candle_tcn::nn::{Conv1dConfig, dilated_conv1d};
///
/// let weight = Tensor::new(&[[[1f32, 10.]]], &Device::Cpu)?;
/// let tensors = HashMap::from([("weight".to_string(), weight)]);
/// let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
/// let cfg = Conv1dConfig { dilation: 2, bias: false, ..Conv1dConfig::causal() };
/// let conv = dilated_conv1d(1, 1, 2, cfg, vb)?;
/// let xs = Tensor::new(&[[[1f32], [2.], [3.]]], &Device::Cpu)?;
/// let ys = conv.forward(&xs)?; // x[t − 2] + 10·x[t]
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [10., 20., 31.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Conv1d`, initialised as there: `U(±1/√fan_in)` for weight and bias.
pub fn dilated_conv1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: Conv1dConfig,
    vb: VarBuilder,
) -> Result<Network> {
    let input = |g: &mut Graph| g.frames(in_channels);
    network(vb, input, |g, xs| g.conv1d("", xs, out_channels, kernel_size, config))
}

/// Builds a dilated 2-D convolution, `ys[i, j] = bias + Σ_m Σ_n W[.., m, n] · xs[i·s + m·d − top, j·s′ + n·d′ − left]`
/// with stride `(s, s′)` and dilation `(d, d′)`.
///
/// Causal along an axis, no output sees a later line (or column): along the height as masked convolutions
/// and streams of spectrogram frames need it.
///
/// # Shapes
/// Input (batch, height, width, in_channels), output (batch, out height, out width, out_channels); see
/// [`to_channels_last`](super::to_channels_last) for tensors of PyTorch's layout. On disk `weight`
/// (out_channels, in_channels / groups, kernel height, kernel width), `bias` (out_channels).
///
/// # Numerics
/// As [`ops::conv2d`](crate::ops::conv2d): `f32`, `f64`, or inputs of `bf16` beside parameters of `f32`.
///
/// # Errors
/// [`Error::Invalid`] for options that do not fit, or an input smaller than the kernel.
///
/// # Example
///
/// A kernel of size 3 at dilation 2 spans 5 pixels, which a 3×3 input has not:
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{Conv2dConfig, Params, dilated_conv2d};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let cfg = Conv2dConfig { dilation: (2, 2), input_size: Some((3, 3)), ..Conv2dConfig::valid() };
/// let error = dilated_conv2d(1, 1, (3, 3), cfg, params.builder()).unwrap_err();
/// assert!(error.to_string().contains("at least 5 steps, the effective size of kernel_size 3"));
///
/// let cfg = Conv2dConfig { dilation: (2, 2), ..Conv2dConfig::same() };
/// let conv = dilated_conv2d(1, 4, (3, 3), cfg, params.builder())?;
/// let ys = conv.forward(&Tensor::ones((2, 3, 3, 1), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(ys.dims(), [2, 3, 3, 4]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Conv2d`, initialised as there: `U(±1/√fan_in)` for weight and bias.
pub fn dilated_conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: (usize, usize),
    config: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Network> {
    let input = |g: &mut Graph| g.images(in_channels);
    network(vb, input, |g, xs| g.conv2d("", xs, out_channels, kernel_size, config))
}

/// Builds a transposed 1-D convolution,
/// `ys[t] = bias + Σ W[.., tap]ᵀ · xs[i]` over all `i·stride + tap·dilation − cut_left = t`.
///
/// A causal layer sees the `⌊(kernel_size − 1)·dilation / stride⌋` inputs before the present one. Before the
/// first they are what the padding mode says, or zeros where a sequence comes in pieces (as pytorch-tcn
/// does it).
///
/// # Shapes
/// Input (batch, time, in_channels), output (batch, out_time, out_channels); out_time is `time·stride`, or
/// with explicit padding `(time − 1)·stride + (kernel_size − 1)·dilation + 1 + output_padding − 2·padding`.
/// On disk `weight` (in_channels, out_channels / groups, kernel_size), `bias` (out_channels).
///
/// # Errors
/// [`Error::Invalid`] for options that do not fit, or an input too short.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::VarBuilder;
/// use candle_tcn::nn::{ConvTranspose1dConfig, dilated_conv_transpose1d};
///
/// let weight = Tensor::new(&[[[1f32, 2., 10., 20.]]], &Device::Cpu)?;
/// let tensors = HashMap::from([("weight".to_string(), weight)]);
/// let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
/// let cfg = ConvTranspose1dConfig { bias: false, ..ConvTranspose1dConfig::causal(2) };
/// let up = dilated_conv_transpose1d(1, 1, 4, cfg, vb)?;
/// let xs = Tensor::new(&[[[1f32], [3.]]], &Device::Cpu)?;
/// let ys = up.forward(&xs)?; // x[t] and, two steps later, ten times as much
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [1., 2., 13., 26.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.ConvTranspose1d`, initialised as there; causal with a kernel of twice the stride it is
/// pytorch-tcn's `TemporalConvTranspose1d`, [`TransposePadding::Same`](super::TransposePadding::Same) its non-causal variant.
pub fn dilated_conv_transpose1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: ConvTranspose1dConfig,
    vb: VarBuilder,
) -> Result<Network> {
    let input = |g: &mut Graph| g.frames(in_channels);
    network(vb, input, |g, xs| g.conv_transpose1d("", xs, out_channels, kernel_size, config))
}

/// Builds a normalisation layer over sequences; [`NormKind::Weight`] and [`NormKind::None`] leave the input as it is.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{NormKind, Params, norm};
/// let params = Params::new(1, DType::F64, &Device::Cpu);
/// let norm = norm(NormKind::Layer, 2, params.builder())?;
/// let ys = norm.forward(&Tensor::new(&[[[1f64, 3.]]], &Device::Cpu)?)?;
/// let ys = ys.flatten_all()?.to_vec1::<f64>()?;
/// assert!((ys[0] + 1.).abs() < 1e-4 && (ys[1] - 1.).abs() < 1e-4);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn norm(kind: NormKind, channels: usize, vb: VarBuilder) -> Result<Network> {
    network(vb, |g| g.frames(channels), |g, xs| g.norm("", xs, kind))
}

/// A linear layer: see [`linear`].
#[derive(Debug, Clone)]
pub struct Linear(Network);

/// Builds a linear layer on the last axis: `weight` (out_channels,
/// in_channels), `bias` (out_channels). `torch.nn.Linear` in names, shapes and initialisation.
///
/// # Errors
/// [`Error::Invalid`] for a width out of range; those of `vb`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{Params, linear};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let layer = linear(3, 2, params.builder())?;
/// let ys = layer.forward(&Tensor::zeros((1, 5, 3), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(ys.dims(), [1, 5, 2]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn linear(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Linear> {
    let input = |g: &mut Graph| g.frames(in_channels);
    Ok(Linear(network(vb, input, |g, xs| g.linear("", xs, out_channels))?))
}

impl Module for Linear {
    /// Of any rank: (…, in_channels) to (…, out_channels).
    fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let mut dims = xs.dims().to_vec();
        let rows = xs.reshape((1, (), xs.dim(D::Minus1)?))?;
        let ys = self.0.forward(&rows)?;
        if let Some(last) = dims.last_mut() {
            *last = ys.dim(D::Minus1)?;
        }
        ys.reshape(dims)
    }
}

/// A table of rows: see [`embedding`].
#[derive(Debug, Clone)]
pub struct Embedding(Network);

/// Builds a table of `vocab_size` rows of `width` numbers, looked up by id: `weight` (vocab_size, width).
///
/// # Errors
/// [`Error::Invalid`] for a size out of range; those of `vb`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{EmbedConfig, Params, embedding};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let table = embedding(10, 4, EmbedConfig::default(), params.builder())?;
/// assert_eq!(table.forward(&Tensor::new(&[[[1u32, 9]]], &Device::Cpu)?)?.dims(), [1, 1, 2, 4]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Embedding`.
pub fn embedding(
    vocab_size: usize,
    width: usize,
    config: EmbedConfig,
    vb: VarBuilder,
) -> Result<Embedding> {
    let input = |g: &mut Graph| g.tokens(vocab_size);
    Ok(Embedding(network(vb, input, |g, ids| g.embed("", ids, width, config))?))
}

impl Module for Embedding {
    /// Ids `u32` of any shape to (…, width).
    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let rows = self.0.forward(&ids.reshape((1, ()))?)?;
        rows.reshape([ids.dims(), &[rows.dim(D::Minus1)?]].concat())
    }
}
