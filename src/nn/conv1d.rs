//! The 1-D dilated convolution layer.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, VarBuilder};

use super::{MAX_CHANNELS, MAX_KERNEL, Pass, RingShape, State, in_range};
use crate::geometry::{Padding, effective_kernel};
use crate::kernels::step::{StepDtype, round_weight};
use crate::ops::{self, Conv1dParams, Epilogue, PaddingMode, tape};
use crate::{Error, Result};

/// The options of a [`Conv1d`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dConfig {
    /// How many steps are added on each side.
    pub padding: Padding,
    /// What they hold.
    pub padding_mode: PaddingMode,
    /// Time steps between two taps.
    pub dilation: usize,
    /// Time steps between two outputs.
    pub stride: usize,
    /// Independent channel groups; as many as input channels make it depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether the weight is stored as direction `weight_v` and length `weight_g`.
    pub weight_norm: bool,
}

impl Conv1dConfig {
    /// A causal convolution: no output sees a later input. Dilation, stride and groups 1, with bias.
    pub fn causal() -> Self {
        Self {
            padding: Padding::Causal,
            padding_mode: PaddingMode::Zeros,
            dilation: 1,
            stride: 1,
            groups: 1,
            bias: true,
            weight_norm: false,
        }
    }
}

impl Default for Conv1dConfig {
    fn default() -> Self {
        Self::causal()
    }
}

#[derive(Debug, Clone)]
enum Weight {
    Plain(Tensor),
    /// (out_channels, in_channels), of one tap
    Matrix(Tensor),
    Norm {
        v: Tensor,
        g: Tensor,
    },
}

/// Dilated 1-D convolution, `ys[t] = bias + Σ_tap W[.., tap] · xs[t·stride + tap·dilation − pad_left]`.
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
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
/// use candle_tcn::nn::{Conv1d, Conv1dConfig, Pass};
///
/// let weight = Tensor::new(&[[[1f32, 10.]]], &Device::Cpu)?;
/// let tensors = HashMap::from([("weight".to_string(), weight)]);
/// let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
/// let cfg = Conv1dConfig { dilation: 2, bias: false, ..Conv1dConfig::causal() };
/// let conv = Conv1d::new(1, 1, 2, cfg, vb)?;
/// let xs = Tensor::new(&[[[1f32], [2.], [3.]]], &Device::Cpu)?;
/// let ys = conv.forward(&xs, &mut Pass::eval())?; // x[t − 2] + 10·x[t]
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [10., 20., 31.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Conv1d`, initialised as there: `U(±1/√fan_in)` for weight and bias.
#[derive(Debug, Clone)]
pub struct Conv1d {
    weight: Weight,
    bias: Option<Tensor>,
    kernel_size: usize,
    params: Conv1dParams,
    padding_mode: PaddingMode,
}

impl Conv1d {
    /// A layer with the tensors of `vb`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that do not fit; those of `vb` for tensors that are missing or of
    /// another shape.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel_size: usize,
        cfg: Conv1dConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        in_range("in_channels", in_channels, MAX_CHANNELS)?;
        in_range("out_channels", out_channels, MAX_CHANNELS)?;
        in_range("kernel_size", kernel_size, MAX_KERNEL)?;
        in_range("stride", cfg.stride, MAX_CHANNELS)?;
        if cfg.groups == 0
            || !in_channels.is_multiple_of(cfg.groups)
            || !out_channels.is_multiple_of(cfg.groups)
        {
            return Err(Error::invalid(
                "groups",
                format!("a divisor of in_channels {in_channels} and out_channels {out_channels}"),
                cfg.groups,
            ));
        }
        let (pad_left, pad_right) = cfg.padding.split(kernel_size, cfg.dilation)?;
        let shape = (out_channels, in_channels / cfg.groups, kernel_size);
        let bound = 1.0 / ((shape.1 * kernel_size) as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let weight = if cfg.weight_norm {
            let v = vb.get_with_hints(shape, "weight_v", init)?;
            let g = vb.get_with_hints((out_channels, 1, 1), "weight_g", Init::Const(1.0))?;
            Weight::Norm { v, g }
        } else {
            Weight::Plain(vb.get_with_hints(shape, "weight", init)?)
        };
        let bias = cfg.bias.then(|| vb.get_with_hints(out_channels, "bias", init)).transpose()?;
        Ok(Self {
            weight,
            bias,
            kernel_size,
            params: Conv1dParams {
                dilation: cfg.dilation,
                stride: cfg.stride,
                groups: cfg.groups,
                pad_left,
                pad_right,
            },
            padding_mode: cfg.padding_mode,
        })
    }

    /// A pointwise layer over an existing matrix, such as a tied embedding.
    pub(crate) fn from_matrix(matrix: Tensor, bias: Option<Tensor>) -> Self {
        Self {
            weight: Weight::Matrix(matrix),
            bias,
            kernel_size: 1,
            params: Conv1dParams::default(),
            padding_mode: PaddingMode::Zeros,
        }
    }

    /// The weight that applies, weight norm included.
    ///
    /// # Errors
    /// Those of candle.
    pub fn weight(&self) -> Result<Tensor> {
        match &self.weight {
            Weight::Plain(weight) => Ok(weight.clone()),
            Weight::Matrix(matrix) => {
                let (out_channels, in_channels) = matrix.dims2()?;
                Ok(tape::reshape(matrix, (out_channels, in_channels, 1))?)
            }
            Weight::Norm { v, g } => ops::weight_norm(v, g),
        }
    }

    /// The same layer for inference: weight norm folded, tensors that may be in training copied.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        self.freeze_as(StepDtype::F32)
    }

    /// As [`freeze`](Self::freeze), the weights rounded to int8 where steps of this type do it; where they
    /// round to bf16, a pass in bf16 does so itself.
    pub(crate) fn freeze_as(&self, dtype: StepDtype) -> Result<Self> {
        let shared = match &self.weight {
            Weight::Plain(weight) | Weight::Matrix(weight) => weight.is_variable(),
            Weight::Norm { .. } => false,
        };
        let mut weight = settled(&self.weight()?, shared)?;
        if dtype == StepDtype::Int8 {
            let (kind, dims, device) = (weight.dtype(), weight.dims3()?, weight.device().clone());
            let mut numbers = weight.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            round_weight(dtype, &mut numbers, dims.0);
            weight = Tensor::from_vec(numbers, dims, &device)?.to_dtype(kind)?;
        }
        let bias = self.bias.as_ref();
        let bias = bias.map(|b| settled(b, b.is_variable())).transpose()?;
        Ok(Self { weight: Weight::Plain(weight), bias, ..self.clone() })
    }

    /// Applies the layer; with a state in `pass`, to the steps that follow those before.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that does not fit, or for a state where the layer is not causal.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        self.forward_then(xs, pass, Epilogue::default())
    }

    /// Applies the layer, then `epilogue`.
    ///
    /// # Errors
    /// As [`Conv1d::forward`].
    pub(crate) fn forward_then(
        &self,
        xs: &Tensor,
        pass: &mut Pass,
        epilogue: Epilogue,
    ) -> Result<Tensor> {
        let p = self.params;
        let pointwise = (self.kernel_size, p.pad_left, p.pad_right, p.stride) == (1, 0, 0, 1);
        if pass.is_streaming() && !pointwise {
            return self.forward_streaming(xs, pass, epilogue);
        }
        let mut params = self.params;
        let padded;
        let xs = if self.padding_mode == PaddingMode::Zeros {
            xs
        } else {
            padded = ops::pad1d(xs, params.pad_left, params.pad_right, self.padding_mode)?;
            (params.pad_left, params.pad_right) = (0, 0);
            &padded
        };
        let bias = self.bias.as_ref();
        ops::conv1d_then(xs, &self.weight()?, bias, None, params, epilogue)
    }

    fn forward_streaming(
        &self,
        xs: &Tensor,
        pass: &mut Pass,
        epilogue: Epilogue,
    ) -> Result<Tensor> {
        let span = self.span()?;
        let history = match span {
            0 => None,
            _ => pass.history(xs, span)?,
        };
        let (bias, history) = (self.bias.as_ref(), history.as_ref());
        ops::conv1d_then(xs, &self.weight()?, bias, history, self.params, epilogue)
    }

    /// Earlier inputs that an output sees: `(kernel_size − 1)·dilation`.
    fn span(&self) -> Result<usize> {
        let p = self.params;
        let span = effective_kernel(self.kernel_size, p.dilation)? - 1;
        if (p.pad_left, p.pad_right) == (span, 0) {
            return Ok(span);
        }
        Err(Error::invalid(
            "convolution with a state",
            "causal padding",
            format!("padding {} and {}", p.pad_left, p.pad_right),
        ))
    }

    /// What the layer remembers of a sequence; nothing where it sees one input only.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the layer is not causal.
    pub(crate) fn ring(&self) -> Result<Option<RingShape>> {
        let (span, channels) = (self.span()?, self.in_channels()?);
        Ok((span > 0).then_some(RingShape { span, channels }))
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the layer is not causal; [`Error::TooLarge`] where there is not so much
    /// memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.ring()?.into_iter().collect::<Vec<_>>())
    }

    /// Where the layer computes.
    pub(crate) fn device(&self) -> &Device {
        match &self.weight {
            Weight::Plain(weight) | Weight::Matrix(weight) | Weight::Norm { v: weight, .. } => {
                weight.device()
            }
        }
    }

    /// Numbers of an input row.
    pub(crate) fn in_channels(&self) -> Result<usize> {
        let [_, in_channels, _] = self.weight_dims()?;
        Ok(in_channels * self.params.groups)
    }

    /// (out_channels, in_channels / groups, kernel_size)
    fn weight_dims(&self) -> Result<[usize; 3]> {
        let (out_channels, in_channels) = match &self.weight {
            Weight::Matrix(matrix) => matrix.dims2()?,
            Weight::Plain(v) | Weight::Norm { v, .. } => (v.dim(0)?, v.dim(1)?),
        };
        Ok([out_channels, in_channels, self.kernel_size])
    }

    /// What a step of this layer computes with.
    ///
    /// # Errors
    /// As [`Conv1d::ring`]; [`Error::Invalid`] for groups or a stride.
    pub(crate) fn numbers(&self) -> Result<ConvNumbers> {
        for (field, value) in [("groups", self.params.groups), ("stride", self.params.stride)] {
            if value != 1 {
                return Err(Error::invalid(field, "1 in single steps", value));
            }
        }
        let numbers = |tensor: &Tensor| -> Result<Vec<f32>> {
            Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        Ok(ConvNumbers {
            dims: self.weight_dims()?,
            weight: numbers(&self.weight()?.detach())?,
            bias: self.bias.as_ref().map(numbers).transpose()?,
            dilation: self.params.dilation,
            ring: self.ring()?,
        })
    }
}

/// A convolution in numbers.
#[derive(Debug)]
pub(crate) struct ConvNumbers {
    /// (out_channels, in_channels, kernel_size)
    pub dims: [usize; 3],
    /// Weight norm folded.
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub dilation: usize,
    pub ring: Option<RingShape>,
}

/// A tensor that stays as it is: copied where it shares its numbers with a variable, which training sets
/// anew, and only there, since a large model would not fit the memory twice.
fn settled(tensor: &Tensor, shared: bool) -> Result<Tensor> {
    Ok(match shared {
        true => tensor.detach().copy()?,
        false => tensor.detach(),
    })
}

/// A linear layer on the last axis of `(batch, time, in_channels)`: `weight` (out_channels,
/// in_channels), `bias` (out_channels). `torch.nn.Linear` in names, shapes and initialisation.
///
/// # Errors
/// As [`Conv1d::new`].
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{Params, Pass, linear};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let layer = linear(3, 2, params.builder())?;
/// let ys = layer.forward(&Tensor::zeros((1, 5, 3), DType::F32, &Device::Cpu)?, &mut Pass::eval())?;
/// assert_eq!(ys.dims(), [1, 5, 2]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn linear(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Conv1d> {
    in_range("in_channels", in_channels, MAX_CHANNELS)?;
    in_range("out_channels", out_channels, MAX_CHANNELS)?;
    let bound = 1.0 / (in_channels as f64).sqrt();
    let init = Init::Uniform { lo: -bound, up: bound };
    let weight = vb.get_with_hints((out_channels, in_channels), "weight", init)?;
    let bias = vb.get_with_hints(out_channels, "bias", init)?;
    Ok(Conv1d::from_matrix(weight, Some(bias)))
}
