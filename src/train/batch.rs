//! A batch of training, and what makes one after the other.

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::files::hex;
use crate::graph::Graph;
use crate::text::{BatchMode, BatchPosition, Batches};

/// A batch: what goes into a network, and what should come out.
#[derive(Debug, Clone)]
pub struct Batch {
    /// A tensor for each input of the network, such as token ids (batch, time).
    pub inputs: Vec<Tensor>,
    /// The numbers or classes that the [loss](super::loss::Loss) compares the outputs with, such as ids (batch, time) of `u32`.
    pub targets: Tensor,
    /// (batch, time): 1 for a step of a sequence, 0 for one that only fills up; see
    /// [`length_mask`](crate::ops::length_mask). The network is run under it, and targets of the same shape that it hides
    /// do not count.
    pub mask: Option<Tensor>,
    /// Factor of each target in the mean, in the shape of the targets; 0 leaves it out.
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
        let mut hash = Sha256::new();
        for piece in tokens.chunks(1 << 14) {
            hash.update(piece.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
        }
        Self { len: tokens.len(), sha256: hex(&hash.finalize()) }
    }
}

/// An endless sequence of batches that can be continued at any place: a function of data, settings and seed.
///
/// [`Batches`] are those of a text.
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

/// Windows over a text, whose targets are the tokens after the inputs: for causal language models.
impl BatchSource for Batches {
    fn next_batch(&mut self) -> Result<Batch> {
        let windows = self.next_windows();
        let shape = (windows.batch_size, windows.seq_len);
        let inputs = Tensor::from_vec(windows.inputs, shape, &Device::Cpu)?;
        let targets = Tensor::from_vec(windows.targets, shape, &Device::Cpu)?;
        let start = match (self.mode(), windows.starts_fresh) {
            (BatchMode::Overlap { .. }, _) => InitialState::Alone,
            (BatchMode::Carry, true) => InitialState::Fresh,
            (BatchMode::Carry, false) => InitialState::Continued,
        };
        let weights = match windows.scored_from {
            0 => None,
            from => {
                let weight = |t: usize| f32::from(u8::from(t >= from));
                let row = Tensor::from_iter((0..shape.1).map(weight), &Device::Cpu)?;
                Some(row.unsqueeze(0)?.repeat((shape.0, 1))?)
            }
        };
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
        DataId::of_tokens(self.tokens())
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        graph.expect_language_model()
    }
}
