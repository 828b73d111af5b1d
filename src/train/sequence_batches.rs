//! Batches of sequences of frames: whole ones, or windows of long ones.

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::batch::{Batch, BatchSource, DataId};
use super::layout::BatchLayout;
use crate::files::hex;
use crate::graph::Graph;
use crate::ops::length_mask;
use crate::series::{FrameSequence, SequenceTargets};
use crate::text::BatchPosition;
use crate::{Error, Result};

/// Sizes of batches of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceSizes {
    /// Sequences, or windows of them.
    pub batch_size: usize,
    /// Most steps of a window; a longer sequence is cut into several.
    pub window: usize,
    /// Steps at the beginning of a window that are not scored, unless its sequence begins there: as many as the network
    /// looks back.
    pub history: usize,
    /// `true` if the network [takes a mask](Graph::takes_mask).
    pub with_mask: bool,
}

/// Sequences of frames, some at a time, with their targets: classes of whole ones, (batch) of `u32`; of each step, (batch,
/// time) of `u32`; or numbers of each step, (batch, time, width). In each epoch they come in another order, and windows
/// begin at other places.
///
/// Shorter ones are filled up with zeros, of which nothing is asked and of which the mask says that they are none: a
/// network says of a sequence what it says of it alone.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{Column, Series, SeriesSet, SeriesTask, TaskKind};
/// use candle_tcn::train::{BatchSource, SequenceBatches, SequenceSizes};
///
/// let set = SeriesSet {
///     columns: vec![Column::of_numbers("height")],
///     classes: vec!["rises".into(), "falls".into()],
///     series: [(vec![1., 2., 3.], 0), (vec![2., 1.], 1), (vec![0., 5.], 0)]
///         .map(|(frames, class)| Series::new(frames, 1).of_class(class))
///         .to_vec(),
/// };
/// let task = SeriesTask::fit(&set, TaskKind::Classify { classes: set.classes.clone() })?;
/// let sizes = SequenceSizes { batch_size: 2, window: 100, history: 0, with_mask: true };
/// let mut batches = SequenceBatches::new(task.sequences(&set)?, sizes, 1)?;
/// assert_eq!(batches.steps_per_epoch(), 2);
/// let sizes = [batches.next_batch()?.sequences()?, batches.next_batch()?.sequences()?];
/// assert_eq!(sizes.iter().sum::<usize>(), 3);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SequenceBatches {
    sequences: Vec<FrameSequence>,
    /// Of each window, its sequence and its number among those of the sequence.
    windows: Vec<(u32, u32)>,
    sizes: SequenceSizes,
    seed: u64,
    /// Share by which series are stretched, and their channels.
    stretch: (f32, usize),
    layout: BatchLayout,
}

impl SequenceBatches {
    /// Batches of sequences; one of an epoch, anywhere in it, may have fewer.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are no sequences, one has no steps, other channels or a number that is not finite,
    /// nothing is asked of any, or for sizes of 0 and a history that leaves nothing of a window.
    pub fn new(sequences: Vec<FrameSequence>, sizes: SequenceSizes, seed: u64) -> Result<Self> {
        let SequenceSizes { batch_size, window, history, .. } = sizes;
        Error::require(batch_size > 0, "batch_size", "a number above 0", batch_size)?;
        let expected = format!("more than {history}, the steps that the network looks back");
        let longest = sequences.iter().map(FrameSequence::len).max().unwrap_or(0);
        Error::require(window > history || longest <= window, "seq_len", &expected, window)?;
        Error::require(!sequences.is_empty(), "series", "at least one", "none")?;
        let channels = sequences[0].channels;
        for (i, sequence) in sequences.iter().enumerate() {
            let wrong =
                |expected| Err(Error::invalid(format!("series {}", i + 1), expected, "another"));
            if sequence.channels != channels || sequence.is_empty() {
                return wrong("frames of all channels");
            }
            if !sequence.inputs.iter().all(|x| x.is_finite()) {
                return wrong("finite values");
            }
            if sequence.targets == SequenceTargets::Class(SequenceTargets::UNKNOWN) {
                return wrong("one of the classes");
            }
        }
        let asks = sequences.iter().any(FrameSequence::asks);
        Error::require(asks, "series", "targets to learn", "none")?;
        let count = |sequence: &FrameSequence| {
            let len = sequence.len();
            let whole = len <= window || matches!(sequence.targets, SequenceTargets::Class(_));
            if whole { 1 } else { (len - history).div_ceil(window - history) }
        };
        let windows = (0u32..).zip(&sequences);
        let windows: Vec<_> = windows
            .flat_map(|(i, sequence)| (0..count(sequence) as u32).map(move |k| (i, k)))
            .collect();
        let whole = std::iter::repeat_n(batch_size, windows.len() / batch_size);
        let rest = Some(windows.len() % batch_size).filter(|&rest| rest > 0);
        // of one rank: what is alike in length is not always alike in class, batches are to be mixed
        let layout = BatchLayout::new(vec![0; windows.len()], whole.chain(rest).collect(), seed)?;
        Ok(Self { sequences, windows, sizes, seed, stretch: (0.0, 0), layout })
    }

    /// The same batches, in which the first `channels` numbers of all frames of a sequence are multiplied by a factor from
    /// 1 − `share` to 1 + `share`, another one in each epoch (Um et al. 2017, arXiv:1706.00527, "scaling"): classes of few
    /// series are then told by their forms. Batches [in order](Self::in_order) and [whole](Self::whole) ones stay as they
    /// are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a share that is not from 0 to 1, or more channels than there are.
    pub fn stretched(mut self, share: f64, channels: usize) -> Result<Self> {
        Error::require((0.0..=1.0).contains(&share), "stretch", "a number from 0 to 1", share)?;
        let most = self.sequences[0].channels;
        Error::require(channels <= most, "channels", &format!("at most {most}"), channels)?;
        self.stretch = (share as f32, channels);
        Ok(self)
    }

    /// All windows in their order, each step of each sequence scored once: fixed batches to validate on.
    ///
    /// # Errors
    /// Those of candle.
    pub fn in_order(&self) -> Result<Vec<Batch>> {
        let parts: Vec<FrameSequence> =
            (0..self.windows.len()).map(|i| self.cut(i, None)).collect();
        parts.chunks(self.sizes.batch_size).map(|parts| self.batch(parts)).collect()
    }

    /// A batch of whole sequences by their numbers.
    ///
    /// # Errors
    /// Those of candle.
    ///
    /// # Panics
    /// For a number without a sequence.
    pub fn whole(&self, numbers: impl IntoIterator<Item = usize>) -> Result<Batch> {
        let parts = numbers.into_iter().map(|i| self.sequences[i].clone());
        self.batch(&parts.collect::<Vec<_>>())
    }

    /// A window, at its place in this epoch or, without one, in order.
    fn cut(&self, number: usize, epoch: Option<usize>) -> FrameSequence {
        let SequenceSizes { window, history, .. } = self.sizes;
        let (i, k) = self.windows[number];
        let sequence = &self.sequences[i as usize];
        let len = sequence.len();
        if len <= window || matches!(sequence.targets, SequenceTargets::Class(_)) {
            return sequence.clone();
        }
        let step = window - history;
        let start = match epoch {
            None => k as usize * step,
            Some(epoch) => {
                let mut rng = self.draws(number, epoch);
                // before the first full window too: the beginning is scored as often as the rest
                (k as usize * step + rng.random_range(0..step)).saturating_sub(step - 1)
            }
        };
        let start = start.min(len - window.min(len));
        let mut part = sequence.part(start..(start + window).min(len));
        // in order, the last window overlaps the one before it
        let scored =
            if epoch.is_none() && k > 0 { k as usize * step + history - start } else { history };
        if start > 0 {
            part.hide(0..scored.min(part.len()));
        }
        part
    }

    /// The draws of a window in an epoch.
    fn draws(&self, number: usize, epoch: usize) -> ChaCha8Rng {
        let key = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ key);
        rng.set_stream(epoch as u64);
        rng
    }

    /// A window as it trains in an epoch.
    fn drawn(&self, number: usize, epoch: usize) -> FrameSequence {
        let mut part = self.cut(number, Some(epoch));
        let (share, channels) = self.stretch;
        if share > 0.0 {
            let factor = self.draws(number, epoch).random_range(1.0 - share..=1.0 + share);
            let frames = part.inputs.chunks_exact_mut(part.channels);
            frames.flat_map(|frame| &mut frame[..channels]).for_each(|x| *x *= factor);
        }
        part
    }

    fn batch(&self, parts: &[FrameSequence]) -> Result<Batch> {
        let lengths: Vec<usize> = parts.iter().map(FrameSequence::len).collect();
        let (channels, time) = (parts[0].channels, lengths.iter().copied().max().unwrap_or(0));
        let mut frames = Vec::with_capacity(parts.len() * time * channels);
        for (row, part) in (1..).zip(parts) {
            frames.extend_from_slice(&part.inputs);
            frames.resize(row * time * channels, 0.0);
        }
        let frames = Tensor::from_vec(frames, (parts.len(), time, channels), &Device::Cpu)?;
        let mask = self.sizes.with_mask.then(|| length_mask(&lengths, time)).transpose()?;
        Ok(Batch { mask, ..Batch::new(vec![frames], targets(parts, time)?) })
    }
}

/// The targets of sequences, filled up to `time` steps of which nothing is asked.
fn targets(parts: &[FrameSequence], time: usize) -> Result<Tensor> {
    let (mut classes, mut numbers, mut of_numbers, mut of_steps) =
        (Vec::new(), Vec::new(), None, false);
    for (row, part) in (1..).zip(parts) {
        match &part.targets {
            SequenceTargets::Class(class) => classes.push(*class),
            SequenceTargets::Classes(steps) => {
                of_steps = true;
                classes.extend_from_slice(steps);
                classes.resize(row * time, SequenceTargets::UNKNOWN);
            }
            SequenceTargets::Numbers { values, width } => {
                of_numbers = Some(*width);
                numbers.extend_from_slice(values);
                numbers.resize(row * time * width, f32::NAN);
            }
        }
    }
    let count = parts.len();
    Ok(match of_numbers {
        Some(width) => Tensor::from_vec(numbers, (count, time, width), &Device::Cpu)?,
        None if of_steps => Tensor::from_vec(classes, (count, time), &Device::Cpu)?,
        None => Tensor::from_vec(classes, count, &Device::Cpu)?,
    })
}

impl BatchSource for SequenceBatches {
    fn next_batch(&mut self) -> Result<Batch> {
        let epoch = self.layout.position().epoch;
        let numbers = self.layout.next_batch();
        let parts: Vec<_> = numbers.into_iter().map(|i| self.drawn(i as usize, epoch)).collect();
        self.batch(&parts)
    }

    fn steps_per_epoch(&self) -> usize {
        self.layout.len()
    }

    fn position(&self) -> BatchPosition {
        self.layout.position()
    }

    fn seek(&mut self, position: BatchPosition) -> Result<()> {
        self.layout.seek(position)
    }

    fn data(&self) -> DataId {
        let (mut hash, mut len) = (Sha256::new(), 0);
        for sequence in &self.sequences {
            // where a sequence ends counts too
            hash.update((sequence.len() as u64).to_le_bytes());
            sequence.inputs.iter().for_each(|x| hash.update(x.to_le_bytes()));
            match &sequence.targets {
                SequenceTargets::Class(class) => hash.update(class.to_le_bytes()),
                SequenceTargets::Classes(all) => {
                    all.iter().for_each(|x| hash.update(x.to_le_bytes()))
                }
                SequenceTargets::Numbers { values, .. } => {
                    values.iter().for_each(|x| hash.update(x.to_le_bytes()));
                }
            }
            len += sequence.len();
        }
        DataId { len, sha256: hex(&hash.finalize()) }
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        let takes = graph.takes_mask();
        let equal = self.sequences.iter().all(|s| s.len() == self.sequences[0].len());
        let is_right = takes == self.sizes.with_mask || equal && !self.sizes.with_mask;
        let expected = "one for sequences with a mask, as sizes say";
        Error::require(is_right, "model", expected, "another")
    }
}
