//! The transposed 1-D convolution layer: upsampling.

use candle_core::{Device, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use super::{MAX_CHANNELS, MAX_KERNEL, Pass, RingShape, State, in_range};
use crate::geometry::effective_kernel;
use crate::ops::{self, ConvTranspose1dParams, PaddingMode};
use crate::{Error, Result};

/// Which part of everything that the taps reach a [`ConvTranspose1d`] gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransposePadding {
    /// The first `time·stride` steps: no output sees a later input.
    Causal,
    /// `time·stride` steps from the middle: `(effective kernel − stride) / 2` are cut off on the left.
    Same,
    /// As `torch.nn.ConvTranspose1d`: `padding` steps are cut off on both sides, `output_padding` fewer on
    /// the right.
    Explicit {
        /// Steps.
        padding: usize,
        /// Steps, below the greater of stride and dilation.
        output_padding: usize,
    },
}

/// The options of a [`ConvTranspose1d`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose1dConfig {
    /// What is cut off.
    pub padding: TransposePadding,
    /// What stands before the first input step; causal layers only.
    pub padding_mode: PaddingMode,
    /// Output steps between two taps.
    pub dilation: usize,
    /// Output steps for each input step.
    pub stride: usize,
    /// Independent channel groups.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl ConvTranspose1dConfig {
    /// A causal layer that makes `stride` steps of each: dilation and groups 1, with bias.
    pub fn causal(stride: usize) -> Self {
        Self {
            padding: TransposePadding::Causal,
            padding_mode: PaddingMode::Zeros,
            dilation: 1,
            stride,
            groups: 1,
            bias: true,
        }
    }
}

/// Transposed 1-D convolution,
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
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
/// use candle_tcn::nn::{ConvTranspose1d, ConvTranspose1dConfig, Pass};
///
/// let weight = Tensor::new(&[[[1f32, 2., 10., 20.]]], &Device::Cpu)?;
/// let tensors = HashMap::from([("weight".to_string(), weight)]);
/// let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
/// let cfg = ConvTranspose1dConfig { bias: false, ..ConvTranspose1dConfig::causal(2) };
/// let up = ConvTranspose1d::new(1, 1, 4, cfg, vb)?;
/// let xs = Tensor::new(&[[[1f32], [3.]]], &Device::Cpu)?;
/// let ys = up.forward(&xs, &mut Pass::eval())?; // x[t] and, two steps later, ten times as much
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [1., 2., 13., 26.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.ConvTranspose1d`, initialised as there; causal with a kernel of twice the stride it is
/// pytorch-tcn's `TemporalConvTranspose1d`, [`TransposePadding::Same`] its non-causal variant.
#[derive(Debug, Clone)]
pub struct ConvTranspose1d {
    weight: Tensor,
    bias: Option<Tensor>,
    cfg: ConvTranspose1dConfig,
    /// Output steps that the taps of one input step span.
    effective: usize,
}

impl ConvTranspose1d {
    /// A layer with the tensors of `vb`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that do not fit; those of `vb` for tensors that are missing or of
    /// another shape.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel_size: usize,
        cfg: ConvTranspose1dConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        in_range("in_channels", in_channels, MAX_CHANNELS)?;
        in_range("out_channels", out_channels, MAX_CHANNELS)?;
        in_range("kernel_size", kernel_size, MAX_KERNEL)?;
        in_range("stride", cfg.stride, MAX_KERNEL)?;
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
        if let TransposePadding::Explicit { output_padding, .. } = cfg.padding {
            let most = cfg.stride.max(cfg.dilation);
            if output_padding >= most {
                let expected = format!("below {most}, the greater of stride and dilation");
                return Err(Error::invalid("output_padding", expected, output_padding));
            }
        }
        let shape = (in_channels, out_channels / cfg.groups, kernel_size);
        let bound = 1.0 / ((shape.1 * kernel_size) as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let weight = vb.get_with_hints(shape, "weight", init)?;
        let bias = cfg.bias.then(|| vb.get_with_hints(out_channels, "bias", init)).transpose()?;
        Ok(Self { weight, bias, cfg, effective: effective_kernel(kernel_size, cfg.dilation)? })
    }

    /// The same layer for inference: tensors copied.
    ///
    /// # Errors
    /// Those of candle.
    pub fn freeze(&self) -> Result<Self> {
        Ok(Self {
            weight: self.weight.detach().copy()?,
            bias: self.bias.as_ref().map(|b| b.detach().copy()).transpose()?,
            ..self.clone()
        })
    }

    /// Applies the layer; with a state in `pass`, to the steps that follow those before.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input that does not fit, or for a state where the layer is not causal.
    pub fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let cfg = &self.cfg;
        let (span, padded);
        let mut xs = xs;
        let len = xs.dim(1)?;
        let mut cut_left = 0;
        match cfg.padding {
            TransposePadding::Causal => {
                span = self.span();
                if pass.is_streaming() {
                    if span > 0
                        && let Some(history) = pass.history(xs, span)?
                    {
                        padded = Tensor::cat(&[&history, xs], 1)?;
                        (xs, cut_left) = (&padded, span * cfg.stride);
                    }
                } else if cfg.padding_mode != PaddingMode::Zeros {
                    padded = ops::pad1d(xs, span, 0, cfg.padding_mode)?;
                    (xs, cut_left) = (&padded, span * cfg.stride);
                }
            }
            _ if pass.is_streaming() => return Err(self.not_causal()),
            TransposePadding::Same => cut_left = self.effective.saturating_sub(cfg.stride) / 2,
            TransposePadding::Explicit { padding, .. } => cut_left = padding,
        }
        let params = ConvTranspose1dParams {
            dilation: cfg.dilation,
            stride: cfg.stride,
            groups: cfg.groups,
            crop_left: cut_left,
            out_len: self.out_len(len)?,
        };
        ops::conv_transpose1d(xs, &self.weight, self.bias.as_ref(), params)
    }

    /// Output steps for `len` input steps.
    fn out_len(&self, len: usize) -> Result<usize> {
        let too_large = || {
            Error::too_large(
                "the output of a transposed convolution",
                format!("{len} steps at stride {} overflow", self.cfg.stride),
            )
        };
        let TransposePadding::Explicit { padding, output_padding } = self.cfg.padding else {
            return len.checked_mul(self.cfg.stride).ok_or_else(too_large);
        };
        let whole = len
            .saturating_sub(1)
            .checked_mul(self.cfg.stride)
            .and_then(|n| n.checked_add(self.effective)?.checked_add(output_padding))
            .ok_or_else(too_large)?;
        let left = padding.checked_mul(2).and_then(|cut| whole.checked_sub(cut));
        left.filter(|&left| left > 0 && len > 0).ok_or_else(|| {
            Error::invalid(
                "padding",
                format!("less than half of the {whole} steps that {len} input steps make"),
                padding,
            )
        })
    }

    /// Earlier inputs that an output of a causal layer sees.
    fn span(&self) -> usize {
        (self.effective - 1) / self.cfg.stride
    }

    fn not_causal(&self) -> Error {
        let found = format!("padding {:?}", self.cfg.padding);
        Error::invalid("transposed convolution with a state", "causal padding", found)
    }

    /// What the layer remembers of a sequence; nothing where it sees one input only.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the layer is not causal.
    pub(crate) fn ring(&self) -> Result<Option<RingShape>> {
        if self.cfg.padding != TransposePadding::Causal {
            return Err(self.not_causal());
        }
        let (span, channels) = (self.span(), self.weight.dim(0)?);
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
        self.weight.device()
    }
}
