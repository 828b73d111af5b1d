//! A batch of training, and what makes one after the other.

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::files::hex;
use crate::graph::{Graph, Network, Run, State};
use crate::text::{BatchMode, BatchPosition, Batches, sha256_of_tokens};

/// A batch: what goes into a network, and what should come out.
#[derive(Debug, Clone)]
pub struct Batch {
    /// A tensor for each input of the network, such as token ids (batch, time).
    pub inputs: Vec<Tensor>,
    /// The numbers or classes that the [loss](super::loss::Loss) compares the outputs with, such as ids (batch, time) of `u32`.
    pub targets: Tensor,
    /// (batch, time): 1 for a step of a sequence, 0 for one that only fills up; see
    /// [`length_mask`](crate::ops::length_mask). The network is run under it; a causal one has no use for a mask and
    /// refuses one that hides something: leave its targets out by `weights`. Targets of the same shape that the mask hides
    /// do not count in a [`CrossEntropy`](super::loss::CrossEntropy).
    pub mask: Option<Tensor>,
    /// Factor of each target in the mean, in the shape of the targets; 0 leaves it out. A closure as the loss applies it
    /// itself.
    pub weights: Option<Tensor>,
    /// The state in which its sequences begin.
    pub start: InitialState,
}

/// The state in which the sequences of a batch begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialState {
    /// None: every sequence is whole, and nothing is carried over.
    Alone,
    /// An empty one, which the batch leaves to the next.
    Fresh,
    /// That in which the batch before left it: each row continues the same row there.
    Continued,
}

impl Batch {
    /// A batch of whole sequences, all of whose targets count.
    pub fn new(inputs: Vec<Tensor>, targets: Tensor) -> Self {
        Self { inputs, targets, mask: None, weights: None, start: InitialState::Alone }
    }

    /// The run over it: under its mask, from the state in which it begins.
    pub(super) fn begin<'a>(
        &self,
        net: &Network,
        mut run: Run<'a>,
        state: &'a mut State,
    ) -> Result<Run<'a>> {
        if let Some(mask) = &self.mask {
            run = run.with_mask(mask)?;
        }
        if self.start == InitialState::Fresh {
            *state = net.init_state(self.sequences()?)?;
        }
        Ok(match self.start {
            InitialState::Alone => run,
            InitialState::Fresh | InitialState::Continued => run.with_state(state),
        })
    }

    /// Its number of sequences.
    ///
    /// # Errors
    /// Those of candle, for an input without axes.
    pub fn sequences(&self) -> Result<usize> {
        self.inputs.first().map_or(Ok(0), |xs| Ok(xs.dim(0)?))
    }
}

/// Data that training goes over: a run resumes with the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataId {
    /// Number of its tokens, or of what else it is counted in.
    pub len: usize,
    /// SHA-256 of them.
    pub sha256: String,
}

impl DataId {
    /// The identity of a text in token ids.
    pub fn of_tokens(tokens: &[u32]) -> Self {
        Self { len: tokens.len(), sha256: sha256_of_tokens(tokens) }
    }

    /// The identity of tensors, counted in numbers.
    ///
    /// # Errors
    /// Those of candle.
    pub fn of_tensors<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<Self> {
        let (mut hash, mut len) = (Sha256::new(), 0);
        for tensor in tensors {
            let numbers = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            let numbers = numbers.flatten_all()?.to_vec1::<f64>()?;
            numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
            len += numbers.len();
        }
        Ok(Self { len, sha256: hex(&hash.finalize()) })
    }
}

/// An endless sequence of batches that can be continued at any place: a function of data, settings and seed.
///
/// [`Batches`] are those of a text. Of a [`TrainConfig`](super::TrainConfig), `batch_size`, `seq_len` and `batches` are
/// for those alone; a source of your own makes its batches as large as it likes.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::text::BatchPosition;
/// use candle_tcn::train::{Batch, BatchSource, DataId};
///
/// /// Frames, and their next ones, some sequences at a time.
/// struct Forecasts { frames: Tensor, rows: usize, position: BatchPosition }
///
/// impl BatchSource for Forecasts {
///     fn next_batch(&mut self) -> candle_tcn::Result<Batch> {
///         let frames = self.frames.narrow(0, self.position.index * self.rows, self.rows)?;
///         let time = frames.dim(1)? - 1;
///         self.position.index += 1;
///         if self.position.index == self.steps_per_epoch() {
///             self.position = BatchPosition { epoch: self.position.epoch + 1, index: 0 };
///         }
///         Ok(Batch::new(vec![frames.narrow(1, 0, time)?], frames.narrow(1, 1, time)?))
///     }
///     fn steps_per_epoch(&self) -> usize { self.frames.dims()[0] / self.rows }
///     fn position(&self) -> BatchPosition { self.position }
///     fn seek(&mut self, position: BatchPosition) -> candle_tcn::Result<()> {
///         self.position = position;
///         Ok(())
///     }
///     fn data(&self) -> DataId { DataId::of_tensors([&self.frames]).unwrap() }
/// }
///
/// let frames = Tensor::rand(0f32, 1., (6, 11, 4), &Device::Cpu)?;
/// let mut batches = Forecasts { frames, rows: 2, position: BatchPosition::default() };
/// assert_eq!(batches.next_batch()?.targets.dims(), [2, 10, 4]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub trait BatchSource: Send {
    /// The next batch.
    ///
    /// # Errors
    /// Those of reading the data.
    fn next_batch(&mut self) -> Result<Batch>;

    /// Batches in a pass over the data.
    fn steps_per_epoch(&self) -> usize;

    /// The position of the next batch.
    fn position(&self) -> BatchPosition;

    /// Goes on at `position`, as if the batches before it had been taken.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) where there is no such position.
    fn seek(&mut self, position: BatchPosition) -> Result<()>;

    /// The data.
    fn data(&self) -> DataId;

    /// Refuses a network that cannot be trained on these batches.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) that says why.
    fn check(&self, graph: &Graph) -> Result<()> {
        let _ = graph;
        Ok(())
    }
}

/// A source that is chosen while the program runs.
impl BatchSource for Box<dyn BatchSource> {
    fn next_batch(&mut self) -> Result<Batch> {
        (**self).next_batch()
    }

    fn steps_per_epoch(&self) -> usize {
        (**self).steps_per_epoch()
    }

    fn position(&self) -> BatchPosition {
        (**self).position()
    }

    fn seek(&mut self, position: BatchPosition) -> Result<()> {
        (**self).seek(position)
    }

    fn data(&self) -> DataId {
        (**self).data()
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        (**self).check(graph)
    }
}

/// Windows over a text, whose targets are the tokens after the inputs: for causal language models.
impl BatchSource for Batches {
    fn next_batch(&mut self) -> Result<Batch> {
        let windows = self.next_windows()?;
        let (shape, weights) = ((windows.batch_size, windows.seq_len), windows.weights());
        let inputs = Tensor::from_vec(windows.inputs, shape, &Device::Cpu)?;
        let targets = Tensor::from_vec(windows.targets, shape, &Device::Cpu)?;
        let start = match (self.mode(), windows.starts_fresh) {
            (BatchMode::Overlap { .. }, _) => InitialState::Alone,
            (BatchMode::Carry, true) => InitialState::Fresh,
            (BatchMode::Carry, false) => InitialState::Continued,
        };
        let weights = weights.map(|weights| Tensor::from_vec(weights, shape, &Device::Cpu));
        let weights = weights.transpose()?;
        Ok(Batch { weights, start, ..Batch::new(vec![inputs], targets) })
    }

    fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch()
    }

    fn position(&self) -> BatchPosition {
        self.position()
    }

    fn seek(&mut self, position: BatchPosition) -> Result<()> {
        self.seek(position)
    }

    fn data(&self) -> DataId {
        DataId { len: self.tokens().len(), sha256: self.tokens().sha256() }
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        graph.expect_language_model()
    }
}
