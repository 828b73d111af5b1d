//! What one pass through a network carries: training or not, the state of sequences that come in
//! pieces, the mask of padded ones, and what is to be kept of what lies between input and output.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::state::{RingShape, State, remember};
use crate::kernels::dropout::MaskKey;
use crate::ops::{self, DropoutKind};
use crate::{Error, Result};

/// One pass through a network: evaluation or training, with or without a [`State`].
///
/// A pass belongs to one call of `forward`: it numbers the dropout layers and convolutions as they run.
#[derive(Default)]
pub struct Pass<'a> {
    dropout: Option<MaskKey>,
    state: Option<&'a mut State>,
    ring: usize,
    /// Steps of the first convolution of a pass with a state.
    steps: usize,
    dtype: Option<DType>,
    embeddings: &'a [Tensor],
    mask: Option<Mask>,
    wanted: Option<Wanted<'a>>,
    recorded: Vec<(String, Tensor)>,
}

/// Whether a tensor of this name is to be kept.
type Wanted<'a> = Box<dyn Fn(&str) -> bool + 'a>;

/// One factor for each step of each sequence.
struct Mask {
    dims: (usize, usize),
    /// None where all are 1.
    factors: Option<Arc<[f32]>>,
}

/// Dropout layers of one step that have masks of their own.
const LAYERS: u64 = 1 << 20;

impl<'a> Pass<'a> {
    /// No dropout, running statistics in batch norms.
    pub fn eval() -> Self {
        Self::default()
    }

    /// Training: dropout masks are a function of `seed`, `step` and the layer.
    pub fn train(seed: u64, step: u64) -> Self {
        let key = MaskKey { seed, stream: step.wrapping_mul(LAYERS) };
        Self { dropout: Some(key), ..Self::eval() }
    }

    /// Continues the sequences of `state`, and leaves it after the last step of this pass.
    pub fn with_state(self, state: &'a mut State) -> Self {
        Self { state: Some(state), ..self }
    }

    /// Conditioning inputs of a network that takes some, each (batch, channels) for whole sequences or
    /// (batch, time, channels) for the steps of this pass.
    pub fn with_embeddings(self, embeddings: &'a [Tensor]) -> Self {
        Self { embeddings, ..self }
    }

    /// See [`with_embeddings`](Self::with_embeddings).
    pub(crate) fn embeddings(&self) -> &'a [Tensor] {
        self.embeddings
    }

    /// Activations of this type, instead of that of the parameters: `BF16` beside parameters of `F32`.
    /// Logits are `F32` all the same. The embedding of a [`Model`](crate::models::Model) reads it, and
    /// what follows takes the type of what it is given: a layer called by itself does not ask.
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype: Some(dtype), ..self }
    }

    /// Which steps of `mask` (batch, time) are of a sequence, 1, and which fill it up or are hidden, 0.
    ///
    /// Networks that know masks ([`ByteNetStack`](super::ByteNetStack)) multiply the input of each dilated
    /// convolution by it, so that a sequence gives what it gives without what fills it up; the others refuse one
    /// that hides something.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a mask that is not (batch, time).
    ///
    /// # Example
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_tcn::nn::Pass;
    /// let mask = Tensor::new(&[[1u8, 1, 1], [1, 0, 0]], &Device::Cpu)?;
    /// let pass = Pass::eval().with_mask(&mask)?;
    /// assert!(pass.has_mask());
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn with_mask(mut self, mask: &Tensor) -> Result<Self> {
        self.set_mask(mask)?;
        Ok(self)
    }

    /// See [`with_mask`](Self::with_mask).
    pub(crate) fn set_mask(&mut self, mask: &Tensor) -> Result<()> {
        let dims = mask
            .dims2()
            .map_err(|_| Error::invalid("mask", "(batch, time)", format!("{:?}", mask.dims())))?;
        let factors: Vec<f32> = mask.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let all = factors.iter().all(|&factor| factor == 1.0);
        self.mask = Some(Mask { dims, factors: (!all).then(|| factors.into()) });
        Ok(())
    }

    /// Keeps what `wanted` says of the tensors between input and output, for
    /// [`take_recorded`](Self::take_recorded).
    ///
    /// A stack notes its input as `hidden.0` and the output of layer `i`, counted from 1, as `hidden.{i}`;
    /// a language model also `logits`.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_tcn::models::{Model, ModelConfig};
    /// use candle_tcn::nn::{Params, Pass};
    /// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
    /// let params = Params::new(1, DType::F32, &Device::Cpu);
    /// let model = Model::new(&config, params.builder())?;
    /// let mut pass = Pass::eval().recording(|name| name == "hidden.2");
    /// model.forward(&Tensor::new(&[[3u32, 1, 4]], &Device::Cpu)?, &mut pass)?;
    /// let recorded = pass.take_recorded();
    /// assert_eq!(recorded.len(), 1);
    /// assert_eq!((recorded[0].0.as_str(), recorded[0].1.dims()), ("hidden.2", &[1, 3, 128][..]));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn recording(mut self, wanted: impl Fn(&str) -> bool + 'a) -> Self {
        self.wanted = Some(Box::new(wanted));
        self
    }

    /// What was [recorded](Self::recording), in the order in which it came about.
    pub fn take_recorded(&mut self) -> Vec<(String, Tensor)> {
        std::mem::take(&mut self.recorded)
    }

    /// Notes a tensor under a name, where one is wanted.
    pub(crate) fn note(&mut self, name: impl FnOnce() -> String, xs: &Tensor) {
        let Some(wanted) = &self.wanted else { return };
        let name = name();
        if wanted(&name) {
            self.recorded.push((name, xs.detach()));
        }
    }

    /// Notes the output of a layer, counted from 1; the input of the first is number 0.
    pub(crate) fn note_hidden(&mut self, layer: usize, xs: &Tensor) {
        self.note(|| format!("hidden.{layer}"), xs);
    }

    /// Whether there is a [mask](Self::with_mask).
    pub fn has_mask(&self) -> bool {
        self.mask.is_some()
    }

    /// `xs` (batch, time, channels), each step multiplied by that of the mask.
    pub(crate) fn masked(&self, xs: Tensor) -> Result<Tensor> {
        let Some(mask) = &self.mask else {
            return Ok(xs);
        };
        let (batch, time, _) = xs.dims3()?;
        if mask.dims != (batch, time) {
            return Err(Error::invalid(
                "mask",
                format!("({batch}, {time}), as the input"),
                format!("{:?}", mask.dims),
            ));
        }
        match &mask.factors {
            None => Ok(xs),
            Some(factors) => ops::scale_rows(&xs, factors.clone()),
        }
    }

    /// Refuses a mask that hides something, for a network that reads none: its outputs would be those of the
    /// hidden steps too.
    pub(crate) fn refuse_mask(&self, network: &str, xs: &Tensor) -> Result<()> {
        let Some(mask) = &self.mask else {
            return Ok(());
        };
        let (batch, time) = (xs.dim(0)?, xs.dim(1)?);
        if mask.factors.is_none() && mask.dims == (batch, time) {
            return Ok(());
        }
        let expected = format!("none, or ones alone of ({batch}, {time}): {network} reads no mask");
        let found = match mask.factors {
            Some(_) => format!("one of {:?} that hides steps", mask.dims),
            None => format!("one of {:?}", mask.dims),
        };
        Err(Error::invalid("mask", expected, found))
    }

    /// The type of the activations, beside `parameter`.
    pub(crate) fn dtype(&self, parameter: &Tensor) -> DType {
        self.dtype.unwrap_or(parameter.dtype())
    }

    /// Whether this pass trains.
    pub fn is_training(&self) -> bool {
        self.dropout.is_some()
    }

    /// The mask of the next dropout layer, if it drops.
    pub(crate) fn next_mask(&mut self, p: f64) -> Option<MaskKey> {
        let key = self.dropout.as_mut().filter(|_| p > 0.0)?;
        key.stream = key.stream.wrapping_add(1);
        Some(*key)
    }

    /// Applies dropout, in training.
    pub(crate) fn dropout(&mut self, xs: Tensor, p: f64, kind: DropoutKind) -> Result<Tensor> {
        match self.next_mask(p) {
            Some(key) => ops::dropout(&xs, p, kind, key),
            None => Ok(xs),
        }
    }

    /// Whether a state goes along.
    pub(crate) fn is_streaming(&self) -> bool {
        self.state.is_some()
    }

    /// The inputs before `xs` of the next convolution, `span` rows; afterwards its ring holds the last
    /// `span` rows up to the end of `xs`. `None` without a state.
    pub(crate) fn history(&mut self, xs: &Tensor, span: usize) -> Result<Option<Tensor>> {
        let Some(state) = self.state.as_deref_mut() else {
            return Ok(None);
        };
        let (batch, time, channels) = xs.dims3()?;
        let index = self.ring;
        self.ring += 1;
        if index == 0 {
            self.steps = time;
        } else if time != self.steps {
            // one position of a sequence serves all its rings
            let expected = format!(
                "{} steps, as in the convolutions before; give what follows a stride a state of its own",
                self.steps
            );
            return Err(Error::invalid("convolution with a state", expected, time));
        }
        if batch != state.batch() {
            let expected = format!("{} sequences, as the state has", state.batch());
            return Err(Error::invalid("batch", expected, batch));
        }
        let shape = RingShape { span, channels };
        if state.shapes.get(index) != Some(&shape) {
            return Err(Error::invalid(
                format!("state of convolution {index}"),
                format!("{span} rows of {channels} channels"),
                format!("{:?}", state.shapes.get(index)),
            ));
        }
        let history =
            Tensor::from_vec(state.in_order(index), (batch, span, channels), xs.device())?
                .to_dtype(xs.dtype())?;
        let last = time.min(span);
        let rows = xs.detach().narrow(1, time - last, last)?;
        let rows: Vec<f32> = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let at: Vec<u64> = state.positions.iter().map(|at| at + (time - last) as u64).collect();
        remember(&mut state.rings[index], (span, channels), &at, &rows);
        // all convolutions of a pass start from the same positions
        if self.ring == state.shapes.len() {
            state.advance(time);
        }
        Ok(Some(history))
    }
}
