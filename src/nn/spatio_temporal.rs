//! Convolution of sequences of frames: over space, then causally over time.

use candle_core::{Module, Tensor};
use candle_nn::VarBuilder;

use super::Activation;
use crate::Result;
use crate::geometry::{Layer, Padding, Stack};
use crate::graph::{Conv2dConfig, Graph, Network};
use crate::kernels::Kernel;

/// The options of a [`SpatioTemporalConv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpatioTemporalConfig {
    /// Numbers per pixel of the input.
    pub in_channels: usize,
    /// Numbers per pixel between the two convolutions.
    pub mid_channels: usize,
    /// Numbers per pixel of the output.
    pub out_channels: usize,
    /// Taps over height and width.
    pub space_kernel: (usize, usize),
    /// Pixels between them.
    pub space_dilation: (usize, usize),
    /// Taps over time.
    pub time_kernel: usize,
    /// Frames between them.
    pub time_dilation: usize,
}

impl SpatioTemporalConfig {
    /// 3×3 taps over space and 3 over time, without dilation, `out_channels` between them.
    pub fn new(in_channels: usize, out_channels: usize) -> Self {
        Self {
            in_channels,
            mid_channels: out_channels,
            out_channels,
            space_kernel: (3, 3),
            space_dilation: (1, 1),
            time_kernel: 3,
            time_dilation: 1,
        }
    }

    /// Reach of an output along time, height and width.
    ///
    /// # Errors
    /// As [`Layer::new`].
    pub fn geometry(&self) -> Result<[Stack; 3]> {
        let (kernel, dilation) = (self.space_kernel, self.space_dilation);
        let stack = |name: &str, kernel_size, dilation, padding| -> Result<Stack> {
            let layer = Layer::new(name, kernel_size, dilation, padding)?;
            Ok(Stack::series(vec![layer]))
        };
        Ok([
            stack("time", self.time_kernel, self.time_dilation, Padding::Causal)?,
            stack("space", kernel.0, dilation.0, Padding::Same)?,
            stack("space", kernel.1, dilation.1, Padding::Same)?,
        ])
    }
}

/// A convolution over each frame with as many outputs as inputs, `max(0, ·)`, then one over time at each
/// pixel in which no frame sees a later one.
///
/// `ys[t, i, j] = b′ + Σ_k W′[k] · zs[t − (K − 1 − k)·d, i, j]` with `zs[t] = max(0, conv(xs[t]))`: a 3-D
/// kernel as a product of a spatial and a temporal one.
///
/// # Shapes
/// (batch, time, height, width, in_channels) to (batch, time, height, width, out_channels). On disk
/// `space.weight` (mid_channels, in_channels, kernel height, kernel width), `time.weight` (out_channels,
/// mid_channels, time_kernel, 1), and a `bias` each.
///
/// # Numerics
/// As [`dilated_conv2d`](super::dilated_conv2d), which both are.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for options or inputs that do not fit.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{Params, SpatioTemporalConfig, SpatioTemporalConv};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let config = SpatioTemporalConfig { time_dilation: 2, ..SpatioTemporalConfig::new(3, 8) };
/// let conv = SpatioTemporalConv::new(&config, params.builder())?;
/// let frames = Tensor::ones((1, 6, 4, 5, 3), DType::F32, &Device::Cpu)?;
/// let ys = conv.forward(&frames)?;
/// assert_eq!(ys.dims(), [1, 6, 4, 5, 8]);
/// // the first four frames do not depend on the later two
/// let past = conv.forward(&frames.narrow(1, 0, 4)?)?;
/// let difference = (ys.narrow(1, 0, 4)? - past)?.abs()?.max_all()?;
/// assert_eq!(difference.to_scalar::<f32>()?, 0.);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (R(2+1)D),
/// arXiv:1711.11248; here causal over time.
#[derive(Debug, Clone)]
pub struct SpatioTemporalConv {
    space: Network,
    time: Network,
}

impl SpatioTemporalConv {
    /// A layer with the tensors of `vb`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for options that do not fit; those of `vb`.
    pub fn new(config: &SpatioTemporalConfig, vb: VarBuilder) -> Result<Self> {
        let (mut space, mut time) = (Graph::new(), Graph::new());
        let cfg = Conv2dConfig { dilation: config.space_dilation, ..Conv2dConfig::same() };
        let xs = space.images(config.in_channels)?;
        let ys = space.conv2d("space", xs, config.mid_channels, config.space_kernel, cfg)?;
        let ys = space.activate(ys, Activation::Relu)?;
        space.output(ys)?;
        // the lines of an image are frames here, and its columns their pixels
        let cfg = Conv2dConfig {
            dilation: (config.time_dilation, 1),
            padding: (Padding::Causal, Padding::Valid),
            ..Conv2dConfig::same()
        };
        let xs = time.images(config.mid_channels)?;
        let ys = time.conv2d("time", xs, config.out_channels, (config.time_kernel, 1), cfg)?;
        time.output(ys)?;
        Ok(Self { space: Network::new(space, vb.clone())?, time: Network::new(time, vb)? })
    }

    /// The same layer by another kernel; see [`Network::with_kernel`].
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a kernel that this processor lacks.
    pub fn with_kernel(self, kernel: Kernel) -> Result<Self> {
        let Self { space, time } = self;
        Ok(Self { space: space.with_kernel(kernel)?, time: time.with_kernel(kernel)? })
    }
}

impl Module for SpatioTemporalConv {
    fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, frames, height, width, channels) = xs.dims5()?;
        let zs = self.space.forward(&xs.reshape((batch * frames, height, width, channels))?)?;
        let mid = zs.dim(3)?;
        let ys = self.time.forward(&zs.reshape((batch, frames, height * width, mid))?)?;
        let channels = ys.dim(3)?;
        ys.reshape((batch, frames, height, width, channels))
    }
}
