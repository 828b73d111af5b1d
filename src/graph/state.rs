//! Memory of a network between the pieces of a sequence.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// Memory of one convolution: the last `span = (kernel_size − 1)·dilation` inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingShape {
    /// Rows.
    pub span: usize,
    /// Numbers in a row.
    pub channels: usize,
}

impl RingShape {
    /// Bytes of a sequence.
    pub fn bytes(&self) -> usize {
        self.span * self.channels * size_of::<f32>()
    }
}

/// The streaming state of a network for a batch of sequences: for each convolution its last inputs, in
/// one ring buffer of `(batch, span, channels)` numbers.
///
/// A state is a value: a network is immutable and shared, `&mut State` is all that a step changes. Every
/// sequence has its own position in the rings: sequences begin, go on, are copied, replaced and dropped
/// independently of each other. Rows are `f32`, whatever a network computes in.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{Conv1dConfig, Params, dilated_conv1d};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let config = Conv1dConfig { dilation: 2, ..Conv1dConfig::causal() };
/// let conv = dilated_conv1d(1, 1, 3, config, params.builder())?;
/// let xs = Tensor::arange(0f32, 8., &Device::Cpu)?.reshape((1, 8, 1))?;
/// let whole = conv.forward(&xs)?;
///
/// let mut state = conv.init_state(1)?;
/// for t in 0..8 {
///     let y = conv.prefill(&xs.narrow(1, t, 1)?, &mut state)?;
///     let expected = whole.narrow(1, t, 1)?;
///     assert!((y - expected)?.abs()?.sum_all()?.to_scalar::<f32>()? < 1e-5);
/// }
/// assert_eq!(state.position(0), 8);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct State {
    pub(super) shapes: Arc<[RingShape]>,
    /// One for each shape: (batch, span, channels); the row of time `t` is `t % span`.
    pub(crate) rings: Vec<Vec<f32>>,
    /// Steps that each sequence has seen.
    pub(crate) positions: Vec<u64>,
    /// Buffers that a step computes in.
    pub(crate) scratch: Scratch,
}

/// Memory that steps work in and that means nothing between them; a copy of a state has none yet.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub buffers: Vec<Vec<f32>>,
    pub words: Vec<u32>,
    /// Token ids of the step.
    pub ids: Vec<u32>,
}

impl Clone for Scratch {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl State {
    /// The state before the first step of `batch` sequences, for convolutions of these shapes in the order
    /// in which they run. Networks have an `init_state` that knows them.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there is not so much memory.
    pub fn new(batch: usize, shapes: impl Into<Arc<[RingShape]>>) -> Result<Self> {
        let shapes = shapes.into();
        let rings = shapes.iter().map(|shape| zeros(batch, *shape));
        Ok(Self {
            rings: rings.collect::<Result<_>>()?,
            positions: vec![0; batch],
            scratch: Scratch::default(),
            shapes,
        })
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.positions.len()
    }

    /// The convolutions that remember, in the order in which they run.
    pub fn shapes(&self) -> &[RingShape] {
        &self.shapes
    }

    /// Steps that sequence `sequence` has seen; not counted where the network remembers nothing.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn position(&self, sequence: usize) -> u64 {
        self.positions[sequence]
    }

    /// Steps that each sequence has seen.
    pub fn positions(&self) -> &[u64] {
        &self.positions
    }

    /// Starts `sequence` anew; the others go on.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sequence.
    pub fn reset(&mut self, sequence: usize) -> Result<()> {
        self.check(sequence)?;
        for (ring, shape) in self.rings.iter_mut().zip(&*self.shapes) {
            let len = shape.span * shape.channels;
            ring[sequence * len..][..len].fill(0.0);
        }
        self.positions[sequence] = 0;
        Ok(())
    }

    /// Replaces `sequence` by a copy of sequence `from` of `other`, which goes on by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sequence, or `other` is of another network.
    pub fn set(&mut self, sequence: usize, other: &Self, from: usize) -> Result<()> {
        self.check(sequence)?;
        other.check(from)?;
        self.check_shapes(&other.shapes)?;
        let rings = self.rings.iter_mut().zip(&other.rings);
        for ((ring, other), shape) in rings.zip(&*self.shapes) {
            let len = shape.span * shape.channels;
            ring[sequence * len..][..len].copy_from_slice(&other[from * len..][..len]);
        }
        self.positions[sequence] = other.positions[from];
        Ok(())
    }

    /// A state of the sequences of these numbers, in this order; one may come several times. What is not
    /// named is dropped: `select(&[0, 2])` ends sequence 1 of three.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sequence; [`Error::TooLarge`] where there is not so much
    /// memory.
    pub fn select(&self, sequences: &[usize]) -> Result<Self> {
        let mut selected = Self::new(sequences.len(), self.shapes.clone())?;
        for (to, &from) in sequences.iter().enumerate() {
            selected.set(to, self, from)?;
        }
        Ok(selected)
    }

    /// `copies` of one sequence, each of which goes on by itself: several continuations of one prompt.
    ///
    /// # Errors
    /// As [`State::select`].
    pub fn fork(&self, sequence: usize, copies: usize) -> Result<Self> {
        self.select(&vec![sequence; copies])
    }

    /// The sequences of this state, then those of `other`.
    ///
    /// # Errors
    /// As [`State::set`] and [`State::select`].
    pub fn join(&self, other: &Self) -> Result<Self> {
        let mut joined = Self::new(self.batch() + other.batch(), self.shapes.clone())?;
        for to in 0..joined.batch() {
            match to.checked_sub(self.batch()) {
                None => joined.set(to, self, to)?,
                Some(from) => joined.set(to, other, from)?,
            }
        }
        Ok(joined)
    }

    /// Appends a copy of sequence `from` of `other`.
    ///
    /// # Errors
    /// As [`State::set`]; [`Error::TooLarge`] where there is not so much memory.
    pub fn push(&mut self, other: &Self, from: usize) -> Result<()> {
        other.check(from)?;
        self.check_shapes(&other.shapes)?;
        let grown = |shape: &RingShape| shape.span * shape.channels;
        let mut rings = self.rings.iter_mut().zip(&*self.shapes);
        // first all that can fail
        if !rings.all(|(ring, shape)| ring.try_reserve(grown(shape)).is_ok()) {
            let message = format!("no memory for one more than {} sequences", self.batch());
            return Err(Error::too_large("the streaming state", message));
        }
        let rings = self.rings.iter_mut().zip(&other.rings);
        for ((ring, other), shape) in rings.zip(&*self.shapes) {
            let len = grown(shape);
            ring.extend_from_slice(&other[from * len..][..len]);
        }
        self.positions.push(other.positions[from]);
        Ok(())
    }

    /// Drops a sequence; the last one takes its number. Costs as much as one sequence, however many there are.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such sequence.
    pub fn swap_remove(&mut self, sequence: usize) -> Result<()> {
        self.check(sequence)?;
        let last = self.batch() - 1;
        for (ring, shape) in self.rings.iter_mut().zip(&*self.shapes) {
            let len = shape.span * shape.channels;
            ring.copy_within(last * len.., sequence * len);
            ring.truncate(last * len);
        }
        self.positions.swap_remove(sequence);
        Ok(())
    }

    fn check(&self, sequence: usize) -> Result<()> {
        if sequence < self.batch() {
            return Ok(());
        }
        let expected = format!("one of the {} that the state has", self.batch());
        Err(Error::invalid("sequence", expected, sequence))
    }

    /// Refuses a state of a network whose convolutions remember something else.
    pub(crate) fn check_shapes(&self, shapes: &[RingShape]) -> Result<()> {
        if *self.shapes == *shapes {
            return Ok(());
        }
        let tell = |shapes: &[RingShape]| {
            let spans: Vec<_> =
                shapes.iter().map(|shape| format!("{} x {}", shape.span, shape.channels)).collect();
            format!("rings of {}", spans.join(", "))
        };
        Err(Error::invalid("state", tell(shapes), tell(&self.shapes)))
    }

    /// Counts `steps` more of every sequence, which the rings hold already.
    pub(crate) fn advance(&mut self, steps: usize) {
        if !self.shapes.is_empty() {
            let positions = self.positions.iter_mut();
            positions.for_each(|position| *position += steps as u64);
        }
    }

    /// The row of ring `index` that `sequence` wrote `back` steps ago (1: its last step).
    fn row_start(&self, index: usize, sequence: usize, back: usize) -> usize {
        let RingShape { span, channels } = self.shapes[index];
        let time = self.positions[sequence] % span as u64 + (span - back) as u64;
        (sequence * span + (time % span as u64) as usize) * channels
    }

    /// All rows of ring `index`, (batch, span, channels), oldest first.
    pub(super) fn in_order(&self, index: usize) -> Vec<f32> {
        let RingShape { span, channels } = self.shapes[index];
        let mut rows = Vec::with_capacity(self.rings[index].len());
        for sequence in 0..self.batch() {
            for back in (1..=span).rev() {
                let start = self.row_start(index, sequence, back);
                rows.extend_from_slice(&self.rings[index][start..][..channels]);
            }
        }
        rows
    }

    /// The state as tensors `(batch, span, channels)`, oldest step first, in the order of the network's
    /// convolutions.
    ///
    /// # Errors
    /// Those of candle.
    pub fn tensors(&self) -> Result<Vec<Tensor>> {
        let tensor = |(i, shape): (usize, &RingShape)| {
            let dims = (self.batch(), shape.span, shape.channels);
            Ok(Tensor::from_vec(self.in_order(i), dims, &Device::Cpu)?)
        };
        self.shapes.iter().enumerate().map(tensor).collect()
    }

    /// The inverse of [`State::tensors`] and [`State::positions`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a tensor that is not `(batch, span, channels)`, one sequence for each of
    /// `positions`.
    pub fn from_tensors(positions: &[u64], tensors: &[Tensor]) -> Result<Self> {
        let batch = positions.len();
        let shape = |tensor: &Tensor| match *tensor.dims() {
            [b, span, channels] if b == batch => Ok(RingShape { span, channels }),
            ref dims => Err(Error::invalid(
                "state",
                format!("({batch}, span, channels)"),
                format!("{dims:?}"),
            )),
        };
        let shapes: Vec<_> = tensors.iter().map(shape).collect::<Result<_>>()?;
        let ring = |tensor: &Tensor| {
            let tensor = tensor.flatten_all()?.to_dtype(DType::F32)?;
            Ok(tensor.to_vec1::<f32>()?)
        };
        let mut rings: Vec<_> = tensors.iter().map(ring).collect::<Result<_>>()?;
        for (ring, shape) in rings.iter_mut().zip(&shapes) {
            // the oldest row is of time `position − span`
            let sequences = ring.chunks_exact_mut((shape.span * shape.channels).max(1));
            for (rows, position) in sequences.zip(positions) {
                let ahead = (position % shape.span.max(1) as u64) as usize;
                rows.rotate_right(ahead * shape.channels);
            }
        }
        Ok(Self {
            shapes: shapes.into(),
            rings,
            positions: positions.to_vec(),
            scratch: Scratch::default(),
        })
    }
}

/// Writes the next rows of each sequence, `rows` (batch, any, channels), into a ring of `span` rows; the
/// first of them is of time `positions`. Of more rows than the ring has, the last stay.
pub(crate) fn remember(
    ring: &mut [f32],
    (span, channels): (usize, usize),
    positions: &[u64],
    rows: &[f32],
) {
    let sequences = ring.chunks_exact_mut(span * channels);
    let new = rows.chunks_exact((rows.len() / positions.len().max(1)).max(1));
    for ((ring, rows), &position) in sequences.zip(new).zip(positions) {
        let skipped = (rows.len() / channels).saturating_sub(span);
        let rows = rows.chunks_exact(channels).enumerate().skip(skipped);
        for (i, row) in rows {
            let at = ((position + i as u64) % span as u64) as usize;
            ring[at * channels..][..channels].copy_from_slice(row);
        }
    }
}

fn zeros(batch: usize, shape: RingShape) -> Result<Vec<f32>> {
    let len = shape.span.checked_mul(shape.channels).and_then(|len| len.checked_mul(batch));
    // asked for without an abort first; the zeros then come from the system as they are touched
    let there_is = |&len: &usize| Vec::<f32>::new().try_reserve_exact(len).is_ok();
    match len.filter(there_is) {
        Some(len) => Ok(vec![0.0; len]),
        None => Err(Error::too_large(
            "the streaming state",
            format!(
                "{batch} sequences x {} rows x {} channels do not fit the memory; lower the dilations or the batch",
                shape.span, shape.channels
            ),
        )),
    }
}
