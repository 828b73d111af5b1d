//! A convolution of one step: its taps from a ring buffer, one product with packed weights.

use super::super::State;
use super::super::state::remember;
use super::{Slot, pair};
use crate::kernels::step::{self, StepWeights};

/// A convolution.
#[derive(Debug)]
pub(super) struct ConvStep {
    pub weights: StepWeights,
    pub kernel_size: usize,
    pub dilation: usize,
    /// Number of the ring; none where there is one tap.
    pub ring: Option<usize>,
    pub relu: bool,
    pub from: Slot,
    pub to: Slot,
}

impl ConvStep {
    /// `frames` new frames of each sequence, which its ring then remembers.
    pub fn run(&self, state: &mut State, frames: usize) {
        let (channels, span) = (self.from.width, (self.kernel_size - 1) * self.dilation);
        let rows = state.batch() * frames;
        let State { rings, positions, scratch, .. } = state;
        let words = self.weights.row_words();
        let a = &mut scratch.words[..rows * words];
        let [xs, ys] = pair(&mut scratch.buffers, rows, self.from, self.to);
        let past = self.ring.map_or(&[][..], |ring| &rings[ring][..]);
        self.weights.pack_rows(
            a,
            #[inline(always)]
            |row| {
                let (sequence, frame) = (row / frames, row % frames);
                let now = &xs[sequence * frames * channels..][..frames * channels];
                let past = &past[sequence * span * channels..][..span * channels];
                let head = match span {
                    0 => 0,
                    _ => (positions[sequence] % span as u64) as usize,
                };
                (0..self.kernel_size).map(move |tap| {
                    let back = (self.kernel_size - 1 - tap) * self.dilation;
                    match frame.checked_sub(back) {
                        Some(frame) => &now[frame * channels..][..channels],
                        // `back − frame` steps before the first of these frames
                        None => {
                            let at = head + span - (back - frame);
                            let at = if at < span { at } else { at - span };
                            &past[at * channels..][..channels]
                        }
                    }
                })
            },
        );
        step::product(&self.weights, a, self.relu, ys);
        if let Some(ring) = self.ring {
            remember(&mut rings[ring], (span, channels), positions, xs);
        }
    }
}
