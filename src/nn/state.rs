//! What a pass through a network carries: training or not, and the state of a sequence that comes
//! in pieces.

use candle_core::{DType, Device, Tensor};

use crate::kernels::dropout::MaskKey;
use crate::ops::{self, DropoutKind};
use crate::{Error, Result};

/// The last inputs of one convolution: a ring of `span = (kernel_size − 1)·dilation` rows.
#[derive(Debug)]
struct Ring {
    /// (batch, span, channels)
    rows: Tensor,
    /// The oldest row, which the next one replaces.
    head: usize,
}

impl Ring {
    fn span(&self) -> Result<usize> {
        Ok(self.rows.dim(1)?)
    }

    /// All rows, oldest first.
    fn in_order(&self) -> Result<Tensor> {
        if self.head == 0 {
            return Ok(self.rows.clone());
        }
        let newer = self.rows.narrow(1, self.head, self.span()? - self.head)?;
        Ok(Tensor::cat(
            &[&newer, &self.rows.narrow(1, 0, self.head)?],
            1,
        )?)
    }
}

/// The streaming state of a network for a batch of sequences: for each convolution its last inputs.
///
/// A state is a value: a network is immutable and shared, `&mut State` is all that a step changes. It
/// starts empty (zeros before the first step) and takes its shape from the first pass.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
/// use candle_tcn::geometry::Padding;
/// use candle_tcn::nn::{Conv1d, Conv1dConfig, Params, Pass, State};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let conv = Conv1d::new(1, 1, 3, Conv1dConfig { dilation: 2, ..Conv1dConfig::causal() }, params.builder())?;
/// let xs = Tensor::arange(0f32, 8., &Device::Cpu)?.reshape((1, 8, 1))?;
/// let whole = conv.forward(&xs, &mut Pass::eval())?;
///
/// let mut state = State::new(1);
/// for t in 0..8 {
///     let y = conv.forward(&xs.narrow(1, t, 1)?, &mut Pass::eval().with_state(&mut state))?;
///     let expected = whole.narrow(1, t, 1)?;
///     assert!((y - expected)?.abs()?.sum_all()?.to_scalar::<f32>()? < 1e-5);
/// }
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct State {
    batch: usize,
    rings: Vec<Ring>,
}

impl State {
    /// The state before the first step of `batch` sequences.
    pub fn new(batch: usize) -> Self {
        Self {
            batch,
            rings: Vec::new(),
        }
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// A copy that goes on by itself.
    ///
    /// # Errors
    /// Those of candle.
    pub fn fork(&self) -> Result<Self> {
        let rings = self.rings.iter().map(|ring| {
            Ok(Ring {
                rows: ring.rows.force_contiguous()?,
                head: ring.head,
            })
        });
        Ok(Self {
            batch: self.batch,
            rings: rings.collect::<Result<_>>()?,
        })
    }

    /// The state as tensors, oldest step first, in the order of the network's convolutions.
    ///
    /// # Errors
    /// Those of candle.
    pub fn tensors(&self) -> Result<Vec<Tensor>> {
        // copies: a later step writes into the rings
        let copy = |ring: &Ring| Ok(ring.in_order()?.force_contiguous()?);
        self.rings.iter().map(copy).collect()
    }

    /// The inverse of [`State::tensors`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a tensor that is not `(batch, span, channels)`.
    pub fn from_tensors(batch: usize, tensors: Vec<Tensor>) -> Result<Self> {
        let ring = |rows: Tensor| match rows.dims() {
            [b, _, _] if *b == batch => Ok(Ring {
                rows: rows.force_contiguous()?,
                head: 0,
            }),
            dims => Err(Error::invalid(
                "state",
                format!("({batch}, span, channels)"),
                format!("{dims:?}"),
            )),
        };
        Ok(Self {
            batch,
            rings: tensors.into_iter().map(ring).collect::<Result<_>>()?,
        })
    }
}

/// One pass through a network: evaluation or training, with or without a [`State`].
///
/// A pass belongs to one call of `forward`: it numbers the dropout layers and convolutions as they run.
pub struct Pass<'a> {
    dropout: Option<MaskKey>,
    state: Option<&'a mut State>,
    ring: usize,
    dtype: Option<DType>,
}

/// Dropout layers of one step that have masks of their own.
const LAYERS: u64 = 1 << 20;

impl<'a> Pass<'a> {
    /// No dropout, running statistics in batch norms.
    pub fn eval() -> Self {
        Self {
            dropout: None,
            state: None,
            ring: 0,
            dtype: None,
        }
    }

    /// Training: dropout masks are a function of `seed`, `step` and the layer.
    pub fn train(seed: u64, step: u64) -> Self {
        let key = MaskKey {
            seed,
            stream: step.wrapping_mul(LAYERS),
        };
        Self {
            dropout: Some(key),
            ..Self::eval()
        }
    }

    /// Continues the sequences of `state`, and leaves it after the last step of this pass.
    pub fn with_state(self, state: &'a mut State) -> Self {
        Self {
            state: Some(state),
            ..self
        }
    }

    /// Activations of this type, instead of that of the parameters: `BF16` beside parameters of `F32`.
    /// Logits are `F32` all the same. The embedding of a [`Model`](crate::models::Model) reads it, and
    /// what follows takes the type of what it is given: a layer called by itself does not ask.
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self {
            dtype: Some(dtype),
            ..self
        }
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

    /// The next convolution's ring, made of zeros where the sequence begins.
    fn next_ring(&mut self, xs: &Tensor, span: usize) -> Result<Option<&mut Ring>> {
        let Some(state) = self.state.as_deref_mut() else {
            return Ok(None);
        };
        let (batch, _, channels) = xs.dims3()?;
        let index = self.ring;
        self.ring += 1;
        if index == state.rings.len() {
            if batch != state.batch {
                return Err(Error::invalid(
                    "batch",
                    format!("{} sequences, as the state has", state.batch),
                    batch,
                ));
            }
            state.rings.push(Ring {
                rows: zeros((batch, span, channels), xs.dtype(), xs.device())?,
                head: 0,
            });
        }
        let ring = &mut state.rings[index];
        if ring.rows.dims() != [batch, span, channels] {
            return Err(Error::invalid(
                format!("state of convolution {index}"),
                format!("{:?}", [batch, span, channels]),
                format!("{:?}", ring.rows.dims()),
            ));
        }
        // a state that began in another precision goes on in this one
        ring.rows = ring.rows.to_dtype(xs.dtype())?;
        Ok(Some(ring))
    }

    /// The inputs before `xs` of the next convolution, `span` rows; afterwards the ring holds the last
    /// `span` rows up to the end of `xs`. `None` without a state.
    pub(crate) fn history(&mut self, xs: &Tensor, span: usize) -> Result<Option<Tensor>> {
        let Some(ring) = self.next_ring(xs, span)? else {
            return Ok(None);
        };
        let history = ring.in_order()?;
        // in a buffer of its own: a later step writes into it
        *ring = Ring {
            rows: ops::last_steps(&history, xs)?,
            head: 0,
        };
        Ok(Some(history))
    }

    /// One step: the inputs that the taps of the next convolution read, `(batch, kernel_size, channels)`
    /// with the newest last. The step's own row replaces the oldest, in place.
    pub(crate) fn taps(
        &mut self,
        xs: &Tensor,
        kernel_size: usize,
        dilation: usize,
    ) -> Result<Option<Tensor>> {
        let span = (kernel_size - 1) * dilation;
        let Some(ring) = self.next_ring(xs, span)? else {
            return Ok(None);
        };
        let mut rows = (0..kernel_size - 1)
            .map(|tap| {
                Ok(ring
                    .rows
                    .narrow(1, (ring.head + tap * dilation) % span, 1)?)
            })
            .collect::<Result<Vec<_>>>()?;
        rows.push(xs.clone());
        let taps = Tensor::cat(&rows, 1)?;
        ring.rows
            .slice_set(&xs.detach().contiguous()?, 1, ring.head)?;
        ring.head = (ring.head + 1) % span;
        Ok(Some(taps))
    }
}

fn zeros(shape: (usize, usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, dtype, device)?)
}
