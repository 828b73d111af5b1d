//! Batches of whole sequences of frames with their classes.

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::batch::{Batch, BatchSource, DataId};
use super::layout::BatchLayout;
use crate::files::hex;
use crate::graph::Graph;
use crate::ops::length_mask;
use crate::series::SeriesSet;
use crate::text::BatchPosition;
use crate::{Error, Result};

/// Sequences of frames, some at a time, whose targets are their classes, (batch) of `u32`; in each epoch in another order.
///
/// Shorter ones are filled up with zeros, and the mask says so: a network that looks both ways and takes the
/// [mean](Graph::mean) over the steps says of a sequence what it says of it alone.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{Series, SeriesSet};
/// use candle_tcn::train::{BatchSource, SeriesBatches};
///
/// let series = |frames: &[f32], class| Series { frames: frames.to_vec(), channels: 1, class: Some(class) };
/// let set = SeriesSet {
///     channels: vec!["height".into()],
///     classes: vec!["rises".into(), "falls".into()],
///     series: vec![series(&[1., 2., 3.], 0), series(&[2., 1.], 1), series(&[0., 5.], 0)],
/// };
/// let mut batches = SeriesBatches::new(set, 2, 1)?;
/// assert_eq!(batches.steps_per_epoch(), 2);
/// let sizes = [batches.next_batch()?.sequences()?, batches.next_batch()?.sequences()?];
/// assert_eq!(sizes.iter().sum::<usize>(), 3);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SeriesBatches {
    set: SeriesSet,
    layout: BatchLayout,
}

impl SeriesBatches {
    /// Batches of `batch_size` sequences; one of an epoch, anywhere in it, may have fewer.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are no sequences or no channels, one has no class, no frames or a value that is missing or not
    /// finite, or for a `batch_size` of 0.
    pub fn new(set: SeriesSet, batch_size: usize, seed: u64) -> Result<Self> {
        Error::require(batch_size > 0, "batch_size", "a number above 0", batch_size)?;
        let count = set.series.len();
        Error::require(count > 0, "series", "at least one", count)?;
        let channels = set.channels.len();
        Error::require(channels > 0, "channels", "at least one", channels)?;
        for (i, series) in set.series.iter().enumerate() {
            let wrong = |expected| Err(Error::invalid(format!("series {i}"), expected, "another"));
            if series.channels != channels || series.is_empty() {
                return wrong("frames of all channels");
            }
            if series.class.is_none_or(|class| class >= set.classes.len()) {
                return wrong("one of the classes");
            }
            if !series.frames.iter().all(|x| x.is_finite()) {
                return wrong("finite values (fill missing ones)");
            }
        }
        let whole = std::iter::repeat_n(batch_size, count / batch_size);
        let rest = Some(count % batch_size).filter(|&rest| rest > 0);
        // of one rank: what is alike in length is not always alike in class, batches are to be mixed
        let layout = BatchLayout::new(vec![0; count], whole.chain(rest).collect(), seed)?;
        Ok(Self { set, layout })
    }

    /// The sequences.
    pub fn set(&self) -> &SeriesSet {
        &self.set
    }

    /// A batch of sequences by their numbers.
    ///
    /// # Errors
    /// Those of candle.
    ///
    /// # Panics
    /// For a number without a sequence.
    pub fn batch(&self, numbers: impl IntoIterator<Item = usize>) -> Result<Batch> {
        let series: Vec<_> = numbers.into_iter().map(|i| &self.set.series[i]).collect();
        let lengths: Vec<usize> = series.iter().map(|series| series.len()).collect();
        let (channels, time) =
            (self.set.channels.len(), lengths.iter().copied().max().unwrap_or(0));
        let (mut frames, mut classes) = (Vec::new(), Vec::new());
        for (row, series) in (1..).zip(&series) {
            frames.extend_from_slice(&series.frames);
            frames.resize(row * time * channels, 0.0);
            classes.extend(series.class.map(|class| class as u32));
        }
        let frames = Tensor::from_vec(frames, (series.len(), time, channels), &Device::Cpu)?;
        let classes = Tensor::from_vec(classes, series.len(), &Device::Cpu)?;
        let mask = Some(length_mask(&lengths, time)?);
        Ok(Batch { mask, ..Batch::new(vec![frames], classes) })
    }
}

impl BatchSource for SeriesBatches {
    fn next_batch(&mut self) -> Result<Batch> {
        let numbers = self.layout.next_batch();
        self.batch(numbers.into_iter().map(|i| i as usize))
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
        for series in &self.set.series {
            // where a sequence ends counts too
            hash.update((series.len() as u64).to_le_bytes());
            hash.update((series.class.unwrap_or(0) as u64).to_le_bytes());
            series.frames.iter().for_each(|x| hash.update(x.to_le_bytes()));
            len += series.len();
        }
        DataId { len, sha256: hex(&hash.finalize()) }
    }

    fn check(&self, graph: &Graph) -> Result<()> {
        let equal = self.set.series.iter().all(|series| series.len() == self.set.series[0].len());
        let expected = "one that takes a mask, for sequences of unequal lengths";
        Error::require(equal || graph.takes_mask(), "model", expected, "another")
    }
}
