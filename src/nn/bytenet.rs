//! ByteNet's stack of residual layers around dilated convolutions (Kalchbrenner et al. 2016,
//! arXiv:1610.10099).

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::step::{Slot, StepBuilder};
use super::{
    Activation, Conv1d, Conv1dConfig, DropoutKind, MAX_CHANNELS, MAX_KERNEL, MAX_STACK_LAYERS,
    Norm, Pass, RingShape, State, StepDtype, StepNet, dropout_probability, in_range,
    total_channels,
};
use crate::geometry::{Block, Layer, Padding, Stack};
use crate::ops;
use crate::{Error, Result};

/// The options of a [`ByteNetStack`].
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
    /// Whether no output sees a later input; else the convolutions are centred.
    pub causal: bool,
    /// The activation function.
    pub activation: Activation,
    /// Added to the variance by the layer norms.
    pub eps: f64,
    /// Probability of dropping a number of a layer's output in training.
    pub dropout: f64,
    /// What the tensors of a layer are called, in the order in which they work: layer norm, 1×1
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
        norm_eps("eps", self.eps)?;
        let widest = self.hidden_channels.max(self.inner_channels);
        total_channels(self.dilations.iter().map(|_| widest))
    }

    fn padding(&self) -> Padding {
        match self.causal {
            true => Padding::Causal,
            false => Padding::Same,
        }
    }

    /// The convolutions that see time, for receptive-field arithmetic; their names are `prefix`, the
    /// number of the layer and that of the convolution.
    ///
    /// # Errors
    /// As [`ByteNetStackConfig::validate`].
    pub fn geometry(&self, prefix: &str) -> Result<Stack> {
        self.validate()?;
        let block = |(i, &dilation): (usize, &usize)| {
            let name = format!("{prefix}{i}.{}", self.names[3]);
            let layer = Layer::new(name, self.kernel_size, dilation, self.padding())?;
            Ok(Block::residual(vec![layer]))
        };
        let blocks = self.dilations.iter().enumerate().map(block);
        Ok(Stack::new(blocks.collect::<Result<_>>()?))
    }
}

/// `eps` if a layer norm can work with it.
pub(crate) fn norm_eps(field: &str, eps: f64) -> Result<f64> {
    match eps >= 0.0 && eps.is_finite() {
        true => Ok(eps),
        false => Err(Error::invalid(field, "a number of at least 0", eps)),
    }
}

#[derive(Debug, Clone)]
struct ByteNetLayer {
    norm1: Norm,
    narrow: Conv1d,
    norm2: Norm,
    conv: Conv1d,
    norm3: Norm,
    widen: Conv1d,
    activation: Activation,
}

impl ByteNetLayer {
    fn new(cfg: &ByteNetStackConfig, dilation: usize, vb: VarBuilder) -> Result<Self> {
        let (hidden, inner) = (cfg.hidden_channels, cfg.inner_channels);
        let [norm1, narrow, norm2, conv, norm3, widen] = cfg.names.map(|name| vb.pp(name));
        let pointwise = |from, to, vb| Conv1d::new(from, to, 1, Conv1dConfig::causal(), vb);
        let conv_cfg = Conv1dConfig { padding: cfg.padding(), dilation, ..Conv1dConfig::causal() };
        Ok(Self {
            norm1: Norm::layer(hidden, cfg.eps, norm1)?,
            narrow: pointwise(hidden, inner, narrow)?,
            norm2: Norm::layer(inner, cfg.eps, norm2)?,
            conv: Conv1d::new(inner, inner, cfg.kernel_size, conv_cfg, conv)?,
            norm3: Norm::layer(inner, cfg.eps, norm3)?,
            widen: pointwise(inner, hidden, widen)?,
            activation: cfg.activation,
        })
    }

    fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        Ok(Self {
            narrow: self.narrow.freeze_as(dtype)?,
            conv: self.conv.freeze_as(dtype)?,
            widen: self.widen.freeze_as(dtype)?,
            ..self.clone()
        })
    }

    fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let hs = self.activate(&self.norm1, xs, pass)?;
        let hs = self.narrow.forward(&hs, pass)?;
        let hs = self.activate(&self.norm2, &hs, pass)?;
        let hs = pass.masked(hs)?;
        let hs = self.conv.forward(&hs, pass)?;
        let hs = self.activate(&self.norm3, &hs, pass)?;
        let hs = self.widen.forward(&hs, pass)?;
        ops::add(xs, &hs)
    }

    fn activate(&self, norm: &Norm, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        norm.forward_then(xs, self.activation, pass)
    }

    /// As [`forward`](Self::forward), in steps and in the place of `xs`.
    fn build_step(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot> {
        let mut hs = net.copy(xs);
        for (norm, conv) in
            [(&self.norm1, &self.narrow), (&self.norm2, &self.conv), (&self.norm3, &self.widen)]
        {
            let normed = net.norm(hs, norm)?;
            let activated = net.activate(normed, self.activation);
            hs = net.conv(conv, activated, false)?;
            net.release(activated);
        }
        Ok(net.add(xs, hs, None))
    }
}

/// Residual layers of a dilated convolution between two 1×1 convolutions, each after a layer norm and an
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
/// use candle_tcn::nn::{ByteNetStack, ByteNetStackConfig, Params, Pass};
/// let mut cfg = ByteNetStackConfig::new(8, 4, 3);
/// cfg.dilations = vec![1, 2, 4];
/// assert_eq!(cfg.geometry("")?.receptive_field()?.total, 1 + 2 * 7);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = ByteNetStack::new(&cfg, params.builder())?;
/// let xs = Tensor::ones((2, 6, 8), DType::F32, &Device::Cpu)?;
///
/// // without its last two steps a sequence gives what it gives with these masked
/// let mask = Tensor::new(&[[1u8, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], &Device::Cpu)?;
/// let ys = net.forward(&xs, &mut Pass::eval().with_mask(&mask)?)?;
/// let short = net.forward(&xs.narrow(1, 0, 4)?, &mut Pass::eval())?;
/// let difference = (ys.narrow(1, 0, 4)?.get(0)? - short.get(0)?)?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 1e-6);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Kalchbrenner et al. 2016, arXiv:1610.10099, section 3; Yang, Fusi & Lu 2022 (CARP), Cell Systems 15.
#[derive(Debug, Clone)]
pub struct ByteNetStack {
    layers: Vec<ByteNetLayer>,
    dropout: f64,
}

impl ByteNetStack {
    /// A stack with the tensors of `vb`: those of layer `i` under `{i}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a configuration that does not hold together; those of `vb`.
    pub fn new(cfg: &ByteNetStackConfig, vb: VarBuilder) -> Result<Self> {
        cfg.validate()?;
        let layers = cfg.dilations.iter().enumerate();
        let layers = layers.map(|(i, &dilation)| ByteNetLayer::new(cfg, dilation, vb.pp(i)));
        Ok(Self { layers: layers.collect::<Result<_>>()?, dropout: cfg.dropout })
    }

    /// The same stack for inference.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        self.freeze_as(StepDtype::F32)
    }

    /// See [`Conv1d::freeze_as`].
    pub(crate) fn freeze_as(&self, dtype: StepDtype) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.freeze(dtype));
        Ok(Self { layers: layers.collect::<Result<_>>()?, dropout: self.dropout })
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the stack is not causal; [`Error::TooLarge`] where there is not so much
    /// memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.rings()?)
    }

    /// What its convolutions remember, in the order in which they run.
    pub(crate) fn rings(&self) -> Result<Vec<RingShape>> {
        let rings = self.layers.iter().map(|layer| layer.conv.ring());
        rings.filter_map(Result::transpose).collect()
    }

    /// The stack one step at a time, on slices; no dropout, no mask.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the stack is not causal.
    pub fn stepper(&self, dtype: StepDtype) -> Result<StepNet> {
        let first = self.layers.first().map(|layer| layer.narrow.in_channels());
        let (mut net, xs) = StepBuilder::new(dtype, first.unwrap_or(Ok(0))?);
        let ys = self.build_step(&mut net, xs)?;
        Ok(net.finish(ys))
    }

    /// Adds the stack's steps to `net`, in the place of `xs`.
    pub(crate) fn build_step(&self, net: &mut StepBuilder, xs: Slot) -> Result<Slot> {
        let mut layers = self.layers.iter();
        layers.try_fold(xs, |xs, layer| layer.build_step(net, xs))
    }

    /// Applies the stack; [`Pass::with_mask`] multiplies the input of each dilated convolution.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input or a mask that does not fit, or for a state where the stack is not
    /// causal.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut xs = xs.clone();
        pass.note_hidden(0, &xs);
        for (i, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, pass)?;
            xs = pass.dropout(xs, self.dropout, DropoutKind::Element)?;
            pass.note_hidden(i + 1, &xs);
        }
        Ok(xs)
    }
}
