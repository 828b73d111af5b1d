//! ByteNet's stack of residual layers around dilated convolutions (Kalchbrenner et al. 2016,
//! arXiv:1610.10099).

use candle_nn::VarBuilder;

use super::{Activation, DropoutKind, total_channels};
use crate::geometry::Padding;
use crate::graph::{
    Conv1dConfig, Graph, MAX_CHANNELS, MAX_KERNEL, MAX_STACK_LAYERS, Masks, Network, Value,
    dropout_probability, in_range,
};
use crate::{Error, Result};

/// Options of a [`bytenet_stack`].
#[derive(Debug, Clone, PartialEq)]
pub struct ByteNetStackConfig {
    /// Channels of the residual path.
    pub hidden_channels: usize,
    /// Channels within a layer, those of the dilated convolution.
    pub inner_channels: usize,
    /// Taps of each dilated convolution; odd unless causal.
    pub kernel_size: usize,
    /// One dilation for each layer.
    pub dilations: Vec<usize>,
    /// `true` if no output sees a later input; else the convolutions are centred.
    pub causal: bool,
    /// The activation function.
    pub activation: Activation,
    /// Added to the variance by the layer norms.
    pub eps: f64,
    /// Probability of dropping a number of a layer's output in training.
    pub dropout: f64,
    /// Names of the tensors of a layer, in the order in which they work: layer norm, 1×1
    /// convolution, layer norm, dilated convolution, layer norm, 1×1 convolution.
    pub names: [&'static str; 6],
}

impl ByteNetStackConfig {
    /// Layers of these sizes with the names of Microsoft's protein-sequence-models; not causal, GELU, eps
    /// 1e-5, no dropout.
    pub fn new(hidden_channels: usize, inner_channels: usize, kernel_size: usize) -> Self {
        Self {
            hidden_channels,
            inner_channels,
            kernel_size,
            dilations: Vec::new(),
            causal: false,
            activation: Activation::Gelu,
            eps: 1e-5,
            dropout: 0.0,
            names: [
                "sequence1.0",
                "sequence1.2.conv",
                "sequence1.3",
                "conv",
                "sequence2.0",
                "sequence2.2.conv",
            ],
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<()> {
        in_range("hidden_channels", self.hidden_channels, MAX_CHANNELS)?;
        in_range("inner_channels", self.inner_channels, MAX_CHANNELS)?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        if !self.causal && self.kernel_size.is_multiple_of(2) {
            let expected = "an odd number, as the convolutions are centred (causal is not set)";
            return Err(Error::invalid("kernel_size", expected, self.kernel_size));
        }
        in_range("layers", self.dilations.len(), MAX_STACK_LAYERS)?;
        dropout_probability("dropout", self.dropout)?;
        check_eps("eps", self.eps)?;
        let widest = self.hidden_channels.max(self.inner_channels);
        total_channels(self.dilations.iter().map(|_| widest))
    }

    /// Adds the layers to a graph, from `xs` (batch, time, hidden_channels) to the value that is returned. The graph
    /// then honours masks.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn append(&self, g: &mut Graph, xs: Value) -> Result<Value> {
        self.validate()?;
        g.set_masks(Masks::Honoured);
        let mut xs = xs;
        g.label_hidden(0, xs);
        for (i, &dilation) in self.dilations.iter().enumerate() {
            let hs = g.scope(i.to_string(), |g| self.layer(g, xs, dilation))?;
            let sum = g.add(xs, hs)?;
            xs = g.dropout(sum, self.dropout, DropoutKind::Element)?;
            g.label_hidden(i + 1, xs);
        }
        Ok(xs)
    }

    fn layer(&self, g: &mut Graph, xs: Value, dilation: usize) -> Result<Value> {
        let padding = if self.causal { Padding::Causal } else { Padding::Same };
        let dilated = Conv1dConfig { padding, dilation, ..Conv1dConfig::causal() };
        let (hidden, inner) = (self.hidden_channels, self.inner_channels);
        let [norm1, narrow, norm2, conv, norm3, widen] = self.names;
        let mut hs = xs;
        for (norm, conv, channels, kernel_size, cfg) in [
            (norm1, narrow, inner, 1, Conv1dConfig::causal()),
            (norm2, conv, inner, self.kernel_size, dilated),
            (norm3, widen, hidden, 1, Conv1dConfig::causal()),
        ] {
            hs = g.layer_norm(norm, hs, self.eps)?;
            hs = g.activate(hs, self.activation)?;
            hs = g.conv1d(conv, hs, channels, kernel_size, cfg)?;
        }
        Ok(hs)
    }
}

/// `eps` if it may be added to a variance.
pub(crate) fn check_eps(field: &str, eps: f64) -> Result<f64> {
    match eps >= 0.0 && eps.is_finite() {
        true => Ok(eps),
        false => Err(Error::invalid(field, "a number of at least 0", eps)),
    }
}

/// Builds residual layers of a dilated convolution between two 1×1 convolutions, each after a layer norm and an
/// activation:
///
/// `x + widen(act(norm3(conv(mask · act(norm2(narrow(act(norm1 x))))))))`
///
/// # Shapes
/// Input and output (batch, time, hidden_channels); on disk in each layer, under the six names of the
/// configuration, the norms' `weight` and `bias` (channels), `weight` (inner, hidden, 1), (inner, inner,
/// kernel_size) and (hidden, inner, 1) of the convolutions and their `bias`.
///
/// # Errors
/// [`Error::Invalid`] for a configuration that does not hold together.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::graph::Run;
/// use candle_tcn::nn::{ByteNetStackConfig, Params, bytenet_stack};
/// let mut cfg = ByteNetStackConfig::new(8, 4, 3);
/// cfg.dilations = vec![1, 2, 4];
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = bytenet_stack(&cfg, params.builder())?;
/// assert_eq!(net.graph().stack()?.receptive_field()?.total, 1 + 2 * 7);
/// let xs = Tensor::ones((2, 6, 8), DType::F32, &Device::Cpu)?;
///
/// // without its last two steps a sequence gives what it gives with these masked
/// let mask = Tensor::new(&[[1u8, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], &Device::Cpu)?;
/// let ys = net.forward_with(&xs, Run::eval().with_mask(&mask)?)?;
/// let short = net.forward_with(&xs.narrow(1, 0, 4)?, Run::eval())?;
/// let difference = (ys.narrow(1, 0, 4)?.get(0)? - short.get(0)?)?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 1e-6);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Kalchbrenner et al. 2016, arXiv:1610.10099, section 3; Yang, Fusi & Lu 2022 (CARP), Cell Systems 15.
pub fn bytenet_stack(config: &ByteNetStackConfig, vb: VarBuilder) -> Result<Network> {
    let mut g = Graph::new();
    let xs = g.frames(config.hidden_channels)?;
    let ys = config.append(&mut g, xs)?;
    g.output(ys)?;
    Network::new(g, vb)
}
