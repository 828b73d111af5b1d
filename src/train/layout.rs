//! Sequences shared out to batches, in another order in each epoch.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::text::BatchPosition;
use crate::{Error, Result};

/// The batches of an epoch: a function of seed and epoch alone.
#[derive(Debug, Clone)]
pub struct BatchLayout {
    /// Of each sequence, how large it is: neighbours in a batch are of similar sizes.
    ranks: Vec<usize>,
    /// Numbers of sequences in each batch, by falling ranks: the same in every epoch.
    sizes: Vec<usize>,
    seed: u64,
    position: BatchPosition,
    /// The sequences of each batch of this epoch.
    batches: Vec<Vec<u32>>,
}

impl BatchLayout {
    /// Batches of `sizes` sequences, all together as many as there are `ranks`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than 2³² sequences.
    pub fn new(ranks: Vec<usize>, sizes: Vec<usize>, seed: u64) -> Result<Self> {
        if u32::try_from(ranks.len()).is_err() {
            return Err(Error::too_large("number of sequences", ranks.len().to_string()));
        }
        let position = BatchPosition::default();
        let mut layout = Self { ranks, sizes, seed, position, batches: Vec::new() };
        layout.lay_out();
        Ok(layout)
    }

    /// Batches in an epoch.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The position of the next batch.
    pub fn position(&self) -> BatchPosition {
        self.position
    }

    /// The sequences of the next batch, which is then behind.
    pub fn next_batch(&mut self) -> Vec<u32> {
        let BatchPosition { epoch, index } = self.position;
        let batch = std::mem::take(&mut self.batches[index]);
        self.position.index += 1;
        if self.position.index == self.sizes.len() {
            self.position = BatchPosition { epoch: epoch + 1, index: 0 };
            self.lay_out();
        }
        batch
    }

    /// Goes on at `position`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an index beyond the batches of an epoch.
    pub fn seek(&mut self, position: BatchPosition) -> Result<()> {
        let expected = format!("an index below the {} batches of an epoch", self.sizes.len());
        let index = position.index;
        Error::require(index < self.sizes.len(), "data position", &expected, index)?;
        self.position = position;
        self.lay_out();
        Ok(())
    }

    fn lay_out(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.position.epoch as u64);
        let mut order: Vec<u32> = (0..self.ranks.len() as u32).collect();
        order.shuffle(&mut rng);
        // stable: those of one rank stay in the order drawn
        order.sort_by_key(|&i| std::cmp::Reverse(self.ranks[i as usize]));
        let mut rest = &order[..];
        self.batches = Vec::with_capacity(self.sizes.len());
        for &size in &self.sizes {
            let (batch, others) = rest.split_at(size);
            self.batches.push(batch.to_vec());
            rest = others;
        }
        self.batches.shuffle(&mut rng);
    }
}
