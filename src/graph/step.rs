//! Networks one step at a time, on slices: weights packed once, nothing allocated, no tensor.

mod compile;
mod conv;

use std::sync::Arc;

use self::conv::ConvStep;
use super::operation::RowOperation;
use super::{RingShape, State};
use crate::kernels::Kernel;
use crate::kernels::elementwise::{Activation, Gate};
use crate::kernels::rows::RowNorm;
use crate::kernels::step::{self, StepDtype};
use crate::{Error, Result};

/// A buffer of a network's steps: rows of `width` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    index: usize,
    width: usize,
}

/// One operation on all rows.
#[derive(Debug)]
enum StepOp {
    Conv(Box<ConvStep>),
    /// Rows of a table for token ids.
    Embed {
        table: Vec<f32>,
        to: Slot,
    },
    /// Rows with a 1 at the token id.
    OneHot(Slot),
    Copy {
        from: Slot,
        to: Slot,
    },
    /// The channels of `from` beside others, from `at` on.
    Place {
        from: Slot,
        to: Slot,
        at: usize,
    },
    Gate {
        gate: Gate,
        from: Slot,
        to: Slot,
    },
    Activate(Slot, Activation),
    /// The first slot takes the sum.
    Add {
        sum: Slot,
        more: Slot,
        relu: bool,
    },
    /// The first slot takes the product.
    Multiply(Slot, Slot),
    Rows {
        slot: Slot,
        norm: RowNorm,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
    /// `(x − mean)·scale + bias`
    Affine {
        slot: Slot,
        mean: Vec<f32>,
        scale: Vec<f32>,
        bias: Vec<f32>,
    },
    Custom {
        op: Arc<dyn RowOperation>,
        from: Slot,
        to: Slot,
    },
    /// To bf16.
    Round(Slot),
}

/// A causal network one step, or a few, at a time: `&[f32] -> &mut [f32]`, or from token ids.
///
/// Made by [`Network::step_net`](super::Network::step_net). It is immutable and shared; what a sequence needs is in its
/// [`State`]. The cost of a step depends neither on how much came before nor on the receptive field. A step of one
/// sequence allocates nothing and takes no lock after the first of its size (products of more than four million
/// multiplications are shared out to threads, which does).
///
/// # Numerics
/// `f32`: as a run over the whole sequence to about 1e-6 of the largest output; `bf16`: weights and activations rounded
/// as a run rounds them, sums `f32`; `int8`: see [`StepDtype::Int8`]. A sequence gets the same numbers alone, in a batch
/// and in blocks, bit for bit (on AMX up to the order of sums).
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::nn::{Params, StepDtype, TcnConfig, temporal_conv_net};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = temporal_conv_net(2, &TcnConfig::new(vec![8, 4], 3), params.builder())?;
/// let step = net.step_net(StepDtype::F32)?;
/// let mut state = step.init_state(1)?;
/// let ys = step.step(&[0.5, -1.0], &mut state)?;
/// assert_eq!(ys.len(), 4);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct StepNet {
    dtype: StepDtype,
    kernel: Kernel,
    ops: Vec<StepOp>,
    widths: Vec<usize>,
    rings: Arc<[RingShape]>,
    input: StepInput,
    output: Slot,
    weight_bytes: usize,
    input_bits: Option<u32>,
    fingerprint: [u8; 32],
}

/// Kind of the input.
#[derive(Debug, Clone, Copy)]
enum StepInput {
    Tokens { vocab_size: usize, restart: Option<u32> },
    Frames(Slot),
}

impl StepNet {
    /// Form of its weights.
    pub fn dtype(&self) -> StepDtype {
        self.dtype
    }

    /// Bytes of weights that a step reads.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Bits of the whole numbers that inputs of its int8 weights are rounded to at the most, with one scale for each row:
    /// 16, or 8 where a [`Stepper`](super::Stepper) found that they are enough (sums too deep for 8 aside). `None` for
    /// other weights.
    pub fn input_bits(&self) -> Option<u32> {
        self.input_bits
    }

    /// SHA-256 of the operations and weights: the same whatever the type of its weights here and the names they had in a
    /// file. A saved state belongs to it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Rows that a sequence's state remembers, in the order in which the convolutions run.
    pub fn rings(&self) -> &[RingShape] {
        &self.rings
    }

    /// Numbers of a frame that goes in; of token ids one.
    pub fn in_channels(&self) -> usize {
        match self.input {
            StepInput::Tokens { .. } => 1,
            StepInput::Frames(slot) => slot.width,
        }
    }

    /// Numbers of a frame that comes out.
    pub fn out_channels(&self) -> usize {
        self.output.width
    }

    /// Ids are below it; 0 where frames go in.
    pub fn vocab_size(&self) -> usize {
        match self.input {
            StepInput::Tokens { vocab_size, .. } => vocab_size,
            StepInput::Frames(_) => 0,
        }
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.rings.clone())
    }

    /// The next frames of each sequence of `state`: `xs` (batch, frames, in_channels), the result (batch, frames,
    /// out_channels). One frame is a step, more of them a block.
    ///
    /// # Errors
    /// [`Error::Invalid`] for frames that are not whole, a network of token ids, or a state of another network.
    pub fn step<'a>(&self, xs: &[f32], state: &'a mut State) -> Result<&'a mut [f32]> {
        let StepInput::Frames(slot) = self.input else {
            return Err(Error::invalid("frames", "token ids, as the network takes", "frames"));
        };
        let frames = self.frames(xs.len(), state)?;
        self.prepare(state, frames);
        state.scratch.buffers[slot.index][..xs.len()].copy_from_slice(xs);
        Ok(self.run(state, frames))
    }

    /// As [`step`](Self::step), for token ids (batch, frames).
    ///
    /// # Errors
    /// [`Error::Invalid`] for ids that are beyond the vocabulary, not as many for each sequence, a network of frames,
    /// or a state of another network.
    pub fn step_ids<'a>(&self, ids: &[u32], state: &'a mut State) -> Result<&'a mut [f32]> {
        self.check_ids(ids)?;
        let frames = self.frames(ids.len(), state)?;
        let restart = match self.input {
            StepInput::Tokens { restart, .. } => restart.filter(|id| ids.contains(id)),
            StepInput::Frames(_) => None,
        };
        self.prepare(state, frames);
        if let Some(restart) = restart {
            for (sequence, ids) in ids.chunks_exact(frames).enumerate() {
                if ids[0] == restart {
                    state.reset(sequence)?;
                }
            }
            if ids.chunks_exact(frames).any(|ids| ids[1..].contains(&restart)) {
                return self.step_ids_in_parts(ids, frames, restart, state);
            }
        }
        state.scratch.ids.clear();
        state.scratch.ids.extend_from_slice(ids);
        Ok(self.run(state, frames))
    }

    /// A block within which sequences begin anew: cut there for all of them.
    fn step_ids_in_parts<'a>(
        &self,
        ids: &[u32],
        frames: usize,
        restart: u32,
        state: &'a mut State,
    ) -> Result<&'a mut [f32]> {
        let width = self.output.width;
        let mut all = vec![0.0; ids.len() * width];
        let cuts = (1..frames)
            .filter(|&frame| ids.iter().skip(frame).step_by(frames).any(|&id| id == restart));
        let mut start = 0;
        for end in cuts.chain([frames]) {
            let part: Vec<u32> =
                ids.chunks_exact(frames).flat_map(|ids| &ids[start..end]).copied().collect();
            let logits = self.step_ids(&part, state)?;
            let sequences = all.chunks_exact_mut(frames * width);
            for (all, logits) in sequences.zip(logits.chunks_exact((end - start) * width)) {
                all[start * width..end * width].copy_from_slice(logits);
            }
            start = end;
        }
        let output = &mut state.scratch.buffers[self.output.index][..all.len()];
        output.copy_from_slice(&all);
        Ok(output)
    }

    /// Refuses ids beyond the vocabulary.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let StepInput::Tokens { vocab_size, .. } = self.input else {
            return Err(Error::invalid("ids", "frames, as the network takes", "token ids"));
        };
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            None => Ok(()),
            Some(id) => {
                let expected = format!("token ids below {vocab_size}, the size of the vocabulary");
                Err(Error::invalid("ids", expected, id))
            }
        }
    }

    fn frames(&self, len: usize, state: &State) -> Result<usize> {
        state.check_shapes(&self.rings)?;
        let frame = state.batch() * self.in_channels();
        if frame == 0 || len == 0 || !len.is_multiple_of(frame) {
            let (batch, channels) = (state.batch(), self.in_channels());
            let expected = format!("a multiple of {batch} sequences x {channels} channels");
            return Err(Error::invalid("frames", expected, format!("{len} numbers")));
        }
        Ok(len / frame)
    }

    /// Grows the scratch memory where it is too short for this network and `frames`.
    fn prepare(&self, state: &mut State, frames: usize) {
        let rows = state.batch() * frames;
        let scratch = &mut state.scratch;
        scratch.buffers.resize_with(self.widths.len(), Vec::new);
        for (buffer, width) in scratch.buffers.iter_mut().zip(&self.widths) {
            if buffer.len() < rows * width {
                buffer.resize(rows * width, 0.0);
            }
        }
        let words = |op: &StepOp| match op {
            StepOp::Conv(conv) => conv.weights.row_words(),
            _ => 0,
        };
        let words = rows * self.ops.iter().map(words).max().unwrap_or(0);
        if scratch.words.len() < words {
            scratch.words.resize(words, 0);
        }
    }

    fn run<'a>(&self, state: &'a mut State, frames: usize) -> &'a mut [f32] {
        let rows = state.batch() * frames;
        for op in &self.ops {
            op.run(self.kernel, state, frames);
        }
        state.advance(frames);
        &mut state.scratch.buffers[self.output.index][..rows * self.output.width]
    }
}

/// Two different buffers.
fn pair(buffers: &mut [Vec<f32>], rows: usize, a: Slot, b: Slot) -> [&mut [f32]; 2] {
    let high = a.index.max(b.index);
    let (before, after) = buffers.split_at_mut(high);
    let (low, high) = (&mut before[a.index.min(b.index)], &mut after[0]);
    let [first, second] = if a.index < b.index { [low, high] } else { [high, low] };
    [&mut first[..rows * a.width], &mut second[..rows * b.width]]
}

/// Runs through the rows of two different buffers.
fn each_row(
    buffers: &mut [Vec<f32>],
    rows: usize,
    (from, to): (Slot, Slot),
    run: impl Fn(&[f32], &mut [f32]),
) {
    let [xs, ys] = pair(buffers, rows, from, to);
    let rows = xs.chunks_exact(from.width).zip(ys.chunks_exact_mut(to.width));
    rows.for_each(|(x, y)| run(x, y));
}

/// Writes the row of each token id.
fn of_ids(ids: &[u32], ys: &mut [f32], write: impl Fn(usize, &mut [f32])) {
    let width = ys.len() / ids.len().max(1);
    ys.chunks_exact_mut(width.max(1)).zip(ids).for_each(|(y, &id)| write(id as usize, y));
}

impl StepOp {
    fn run(&self, kernel: Kernel, state: &mut State, frames: usize) {
        let rows = state.batch() * frames;
        let State { scratch, .. } = state;
        let buffers = &mut scratch.buffers;
        let whole = |buffers: &mut [Vec<f32>], slot: &Slot, run: &dyn Fn(&mut [f32])| {
            run(&mut buffers[slot.index][..rows * slot.width]);
        };
        match self {
            Self::Conv(conv) => conv.run(state, frames),
            Self::Embed { table, to } => {
                let row = |id: usize| &table[id * to.width..][..to.width];
                whole(buffers, to, &|ys| {
                    of_ids(&scratch.ids, ys, |id, y| y.copy_from_slice(row(id)))
                });
            }
            Self::OneHot(to) => {
                whole(buffers, to, &|ys| {
                    ys.fill(0.0);
                    of_ids(&scratch.ids, ys, |id, y| y[id] = 1.0);
                });
            }
            Self::Copy { from, to } => {
                let [xs, ys] = pair(buffers, rows, *from, *to);
                ys.copy_from_slice(xs);
            }
            Self::Place { from, to, at } => each_row(buffers, rows, (*from, *to), |x, y| {
                y[*at..][..x.len()].copy_from_slice(x);
            }),
            Self::Gate { gate, from, to } => {
                let [xs, ys] = pair(buffers, rows, *from, *to);
                gate.apply_rows(kernel, to.width, xs, ys);
            }
            Self::Activate(slot, f) => whole(buffers, slot, &|xs| f.apply_in_place(kernel, xs)),
            Self::Add { sum, more, relu } => {
                let [sum, more] = pair(buffers, rows, *sum, *more);
                match relu {
                    true => step::add_relu(kernel, sum, more),
                    false => step::add(kernel, sum, more),
                }
            }
            Self::Multiply(product, more) => {
                let [product, more] = pair(buffers, rows, *product, *more);
                step::multiply(kernel, product, more);
            }
            Self::Rows { slot, norm, weight, bias } => {
                whole(buffers, slot, &|xs| {
                    norm.apply_in_place(kernel, xs, weight, bias.as_deref())
                });
            }
            Self::Affine { slot, mean, scale, bias } => {
                whole(buffers, slot, &|xs| step::affine(kernel, xs, mean, scale, bias));
            }
            Self::Custom { op, from, to } => {
                each_row(buffers, rows, (*from, *to), |x, y| op.forward(x, y));
            }
            Self::Round(slot) => whole(buffers, slot, &|xs| step::round(kernel, xs)),
        }
    }
}
