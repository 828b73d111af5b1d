//! Options of a run over a network, and what comes out of it.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::{Input, State};
use crate::kernels::dropout::MaskKey;
use crate::{Error, Result};

/// A run over a network: evaluation or training, with or without a mask and a [`State`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "models")] {
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::graph::Run;
/// use candle_tcn::models::ModelConfig;
/// use candle_tcn::nn::Params;
/// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = config.build(params.builder())?;
/// let ids = Tensor::new(&[[3u32, 1, 4]], &Device::Cpu)?;
/// let outputs = model.run(&[&ids], Run::eval().recording(|name| name == "hidden.2"))?;
/// assert_eq!(outputs.values[0].dims(), [1, 3, 20]);
/// assert_eq!(outputs.recorded[0].1.dims(), [1, 3, 112]);
/// # }
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Default)]
pub struct Run<'a> {
    pub(crate) dropout: Option<MaskKey>,
    pub(crate) state: Option<&'a mut State>,
    pub(crate) dtype: Option<DType>,
    pub(crate) mask: Option<Mask>,
    first_row: usize,
    wanted: Option<Wanted<'a>>,
}

/// `true` for the name of a value that is to be kept.
type Wanted<'a> = Box<dyn Fn(&str) -> bool + 'a>;

/// One factor for each step of each sequence.
#[derive(Clone)]
pub(crate) struct Mask {
    pub dims: (usize, usize),
    /// `None` where all are 1.
    pub factors: Option<Arc<[f32]>>,
}

/// Dropouts of one step that have masks of their own.
const DROPOUTS: u64 = 1 << 20;

impl<'a> Run<'a> {
    /// No dropout, running statistics in batch norms.
    pub fn eval() -> Self {
        Self::default()
    }

    /// Training: dropout masks are a function of `seed`, `step` and the dropout.
    pub fn train(seed: u64, step: u64) -> Self {
        let key = MaskKey::new(seed, step.wrapping_mul(DROPOUTS));
        Self { dropout: Some(key), ..Self::eval() }
    }

    /// Counts the sequences of this run from `first_row` of a batch that is run in parts: each part drops what the
    /// whole batch would drop there.
    pub fn with_first_row(self, first_row: usize) -> Self {
        Self { first_row, ..self }
    }

    /// Continues the sequences of `state`, and leaves it after the last step of this run, where it succeeds.
    pub fn with_state(self, state: &'a mut State) -> Self {
        Self { state: Some(state), ..self }
    }

    /// Activations of this type, instead of that of the parameters: `BF16` beside parameters of `F32`. Logits are
    /// `F32` all the same.
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype: Some(dtype), ..self }
    }

    /// Steps of `mask` (batch, time) that are of a sequence, 1, or fill it up or are hidden, 0.
    ///
    /// A network that looks ahead multiplies the input of each convolution that sees other steps by it, so that a
    /// sequence gives what it gives without what fills it up; a causal one refuses a mask that hides something.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a mask that is not (batch, time).
    pub fn with_mask(self, mask: &Tensor) -> Result<Self> {
        Ok(Self { mask: Some(Mask::new(mask)?), ..self })
    }

    /// Keeps the values that `wanted` names, for [`Outputs::recorded`].
    ///
    /// A stack labels its input `hidden.0` and the output of layer `i`, counted from 1, `hidden.{i}`; a language model
    /// also `logits`.
    pub fn recording(self, wanted: impl Fn(&str) -> bool + 'a) -> Self {
        Self { wanted: Some(Box::new(wanted)), ..self }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted(name))
    }

    /// Key of the dropout of this number, in training, whose mask has so many numbers for a sequence.
    pub(crate) fn key(&self, number: u64, draws: usize) -> Option<MaskKey> {
        let MaskKey { seed, stream, .. } = self.dropout?;
        let offset = self.first_row as u64 * draws as u64;
        Some(MaskKey { seed, stream: stream.wrapping_add(number), offset })
    }
}

impl Mask {
    pub fn new(mask: &Tensor) -> Result<Self> {
        let dims = mask
            .dims2()
            .map_err(|_| Error::invalid("mask", "(batch, time)", format!("{:?}", mask.dims())))?;
        let factors: Vec<f32> = mask.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let all = factors.iter().all(|&factor| factor == 1.0);
        Ok(Self { dims, factors: (!all).then(|| factors.into()) })
    }

    /// Checks that it is as long as the input, and that a network which has no use for it gets one that hides nothing.
    pub fn check(&self, batch: usize, time: usize, has_use: bool) -> Result<()> {
        let fits = self.dims == (batch, time);
        if fits && (has_use || self.factors.is_none()) {
            return Ok(());
        }
        let expected = match has_use {
            true => format!("({batch}, {time}), as the input"),
            false => {
                format!("none, or ones alone of ({batch}, {time}): the network has no use for one")
            }
        };
        let found = match self.factors {
            Some(_) if !has_use => format!("one of {:?} that hides steps", self.dims),
            _ => format!("{:?}", self.dims),
        };
        Err(Error::invalid("mask", expected, found))
    }
}

/// Values that come out of a run.
#[derive(Debug)]
pub struct Outputs {
    /// Outputs of the graph, in order.
    pub values: Vec<Tensor>,
    /// Values that were [recorded](Run::recording), with their names, in the order in which they were labelled.
    pub recorded: Vec<(String, Tensor)>,
}

impl Outputs {
    /// The first output.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is none.
    pub fn into_first(self) -> Result<Tensor> {
        let none = || Error::invalid("outputs", "at least one", "none");
        self.values.into_iter().next().ok_or_else(none)
    }
}

impl Input {
    /// The tensor, where it is of this kind; of numbers in the type of the activations.
    pub(super) fn check(
        &self,
        xs: &Tensor,
        number: usize,
        (batch, time): (usize, usize),
        dtype: DType,
    ) -> Result<Tensor> {
        let dims = xs.dims();
        let described = format!("{dims:?} of {}", xs.dtype().as_str());
        let refuse = |expected: String| Err(Error::invalid("input", expected, described));
        match *self {
            Self::Tokens { .. } if xs.rank() != 2 || xs.dtype() != DType::U32 => {
                refuse("token ids (batch, time) of u32".into())
            }
            Self::Tokens { .. } => Ok(xs.clone()),
            Self::Frames { channels }
                if xs.rank() != 3 || dims[2] != channels || xs.elem_count() == 0 =>
            {
                let last = if xs.rank() == 3 { "; channels come last" } else { ", at least one" };
                let expected = format!("frames (batch, time, {channels}){last}");
                Err(Error::invalid("input", expected, format!("{dims:?}")))
            }
            Self::Images { channels }
                if xs.rank() != 4 || dims[3] != channels || xs.elem_count() == 0 =>
            {
                let expected =
                    format!("images (batch, height, width, {channels}); channels come last");
                Err(Error::invalid("input", expected, format!("{dims:?}")))
            }
            Self::Frames { .. } | Self::Images { .. } if !xs.dtype().is_float() => {
                refuse("floating-point numbers".into())
            }
            Self::Frames { .. } | Self::Images { .. } => Ok(xs.to_dtype(dtype)?),
            Self::Condition { channels } => {
                let rows = match *dims {
                    [b, c] if (b, c) == (batch, channels) => {
                        xs.unsqueeze(1)?.broadcast_as((batch, time, channels))?
                    }
                    [b, t, c] if (b, t, c) == (batch, time, channels) => xs.clone(),
                    _ => {
                        return Err(Error::invalid(
                            format!("embedding.{}", number - 1),
                            format!(
                                "{channels} channels, once for each of {batch} sequences or for each of their {time} steps"
                            ),
                            format!("{dims:?}"),
                        ));
                    }
                };
                Ok(rows.to_dtype(dtype)?)
            }
        }
    }
}
