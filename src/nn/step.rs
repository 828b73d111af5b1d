//! Networks one step at a time, on slices: weights packed once, nothing allocated, no tensor.

mod builder;

pub(crate) use builder::StepBuilder;

use super::state::remember;
use super::{Activation, Gate, RingShape, State};
use crate::kernels::rows::RowNorm;
use crate::kernels::step::{self, StepDtype, StepWeights};
use crate::kernels::vectorized;
use crate::{Error, Result};

/// A buffer of a network's steps: some rows of so many numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    index: usize,
    width: usize,
}

/// One operation on all rows; slots are numbers of buffers.
#[derive(Debug)]
enum Op {
    Conv(Box<ConvStep>),
    Copy {
        from: usize,
        to: usize,
    },
    Gate {
        gate: Gate,
        from: Slot,
        to: Slot,
    },
    Activate(usize, Activation),
    /// The first slot takes the sum.
    Add(usize, usize, Option<Activation>),
    Rows {
        slot: usize,
        norm: RowNorm,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
    /// `(x − mean)·scale + bias`
    Affine {
        slot: usize,
        mean: Vec<f32>,
        scale: Vec<f32>,
        bias: Vec<f32>,
    },
    /// To bf16.
    Round(usize),
}

/// A convolution.
#[derive(Debug)]
struct ConvStep {
    weights: StepWeights,
    /// Of a row that goes in.
    channels: usize,
    kernel_size: usize,
    dilation: usize,
    /// Number of the ring; none where there is one tap.
    ring: Option<usize>,
    relu: bool,
    from: usize,
    to: usize,
}

/// A causal network one step, or a few, at a time: `&[f32] -> &mut [f32]`.
///
/// Made by [`TemporalConvNet::stepper`](super::TemporalConvNet::stepper) and
/// [`WaveNetStack::stepper`](super::WaveNetStack::stepper). It is immutable and shared; what a sequence
/// needs is in its [`State`]. The cost of a step depends neither on how much came before nor on the
/// receptive field. A step of one sequence allocates nothing and takes no lock after the first of its size
/// (products of more than four million multiplications are shared out to threads, which does).
///
/// # Numerics
/// `f32`: as `forward` to about 1e-6 of the largest output; `bf16`: weights and activations rounded as
/// `forward` rounds them, sums `f32`; `int8`: see [`StepDtype::Int8`]. A sequence gets the same numbers
/// alone, in a batch and in blocks, bit for bit (on AMX up to the order of sums).
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::nn::{Params, StepDtype, TcnConfig, TemporalConvNet};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = TemporalConvNet::new(2, &TcnConfig::new(vec![8, 4], 3), params.builder())?;
/// let step = net.stepper(StepDtype::F32)?;
/// let mut state = step.init_state(1)?;
/// let ys = step.step(&[0.5, -1.0], &mut state)?;
/// assert_eq!(ys.len(), 4);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct StepNet {
    dtype: StepDtype,
    ops: Vec<Op>,
    widths: Vec<usize>,
    rings: std::sync::Arc<[RingShape]>,
    output: Slot,
    weight_bytes: usize,
    fingerprint: [u8; 32],
}

impl StepNet {
    /// How its weights are kept.
    pub fn dtype(&self) -> StepDtype {
        self.dtype
    }

    /// Bytes of weights that a step reads.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// SHA-256 of what the network computes, operations and weights: the same whatever the type of its
    /// weights here and the names they had in a file. A saved state belongs to it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// What a sequence's state remembers, in the order in which the convolutions run.
    pub fn rings(&self) -> &[RingShape] {
        &self.rings
    }

    /// Numbers of a frame that goes in.
    pub fn in_channels(&self) -> usize {
        self.widths[0]
    }

    /// Numbers of a frame that comes out.
    pub fn out_channels(&self) -> usize {
        self.output.width
    }

    /// The state before the first step of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there is not so much memory.
    pub fn init_state(&self, batch: usize) -> Result<State> {
        State::new(batch, self.rings.clone())
    }

    /// The next frames of each sequence of `state`: `xs` (batch, frames, in_channels), the result (batch,
    /// frames, out_channels). One frame is a step, more of them a block.
    ///
    /// # Errors
    /// [`Error::Invalid`] for frames that are not whole, or a state of another network.
    pub fn step<'a>(&self, xs: &[f32], state: &'a mut State) -> Result<&'a mut [f32]> {
        let frames = self.frames(xs.len(), state)?;
        self.prepare(state, frames);
        state.scratch.buffers[0][..xs.len()].copy_from_slice(xs);
        Ok(self.run(state, frames))
    }

    /// As [`step`](Self::step), the frames written by `fill` into (batch · frames, in_channels).
    pub(crate) fn step_with<'a>(
        &self,
        frames: usize,
        state: &'a mut State,
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<&'a mut [f32]> {
        let len = state.batch() * frames * self.in_channels();
        self.frames(len, state)?;
        self.prepare(state, frames);
        fill(&mut state.scratch.buffers[0][..len]);
        Ok(self.run(state, frames))
    }

    fn frames(&self, len: usize, state: &State) -> Result<usize> {
        state.check_shapes(&self.rings)?;
        let frame = state.batch() * self.in_channels();
        if frame == 0 || len == 0 || !len.is_multiple_of(frame) {
            let expected = format!(
                "a multiple of {} sequences x {} channels",
                state.batch(),
                self.in_channels()
            );
            return Err(Error::invalid("frames", expected, format!("{len} numbers")));
        }
        Ok(len / frame)
    }

    /// Grows the scratch memory where it is too short for this network and so many frames.
    fn prepare(&self, state: &mut State, frames: usize) {
        let rows = state.batch() * frames;
        let scratch = &mut state.scratch;
        scratch.buffers.resize_with(self.widths.len(), Vec::new);
        for (buffer, width) in scratch.buffers.iter_mut().zip(&self.widths) {
            if buffer.len() < rows * width {
                buffer.resize(rows * width, 0.0);
            }
        }
        let words = |op: &Op| match op {
            Op::Conv(conv) => conv.weights.row_words(),
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
            self.run_op(op, state, frames);
        }
        state.advance(frames);
        &mut state.scratch.buffers[self.output.index][..rows * self.output.width]
    }

    fn run_op(&self, op: &Op, state: &mut State, frames: usize) {
        let rows = state.batch() * frames;
        let len = |slot: usize| rows * self.widths[slot];
        let buffers = &mut state.scratch.buffers;
        match op {
            Op::Conv(conv) => {
                let xs = std::mem::take(&mut buffers[conv.from]);
                let mut ys = std::mem::take(&mut buffers[conv.to]);
                conv.run(&xs[..len(conv.from)], state, frames, &mut ys[..len(conv.to)]);
                state.scratch.buffers[conv.from] = xs;
                state.scratch.buffers[conv.to] = ys;
            }
            Op::Copy { from, to } => {
                let n = len(*from);
                let [from, to] = pair(buffers, *from, *to);
                to[..n].copy_from_slice(&from[..n]);
            }
            Op::Gate { gate, from, to } => {
                let [xs, ys] = pair(buffers, from.index, to.index);
                gate.apply_rows(to.width, &xs[..rows * from.width], &mut ys[..rows * to.width]);
            }
            Op::Activate(slot, activation) => {
                activation.apply_in_place(&mut buffers[*slot][..len(*slot)]);
            }
            Op::Add(sum, more, activation) => {
                let n = len(*sum);
                let [sum, more] = pair(buffers, *sum, *more);
                let (sum, more) = (&mut sum[..n], &more[..n]);
                match activation {
                    Some(Activation::Relu) => step::add_relu(sum, more),
                    Some(activation) => {
                        step::add(sum, more);
                        activation.apply_in_place(sum);
                    }
                    None => step::add(sum, more),
                }
            }
            Op::Rows { slot, norm, weight, bias } => {
                norm.apply_in_place(&mut buffers[*slot][..len(*slot)], weight, bias.as_deref())
            }
            Op::Affine { slot, mean, scale, bias } => {
                step::affine(&mut buffers[*slot][..len(*slot)], mean, scale, bias)
            }
            Op::Round(slot) => step::round(&mut buffers[*slot][..len(*slot)]),
        }
    }
}

/// Two different buffers.
fn pair(buffers: &mut [Vec<f32>], a: usize, b: usize) -> [&mut Vec<f32>; 2] {
    let (low, high) = (a.min(b), a.max(b));
    let (before, after) = buffers.split_at_mut(high);
    let (low, high) = (&mut before[low], &mut after[0]);
    if a < b { [low, high] } else { [high, low] }
}

impl ConvStep {
    /// `frames` new frames of each sequence, which its ring then remembers.
    fn run(&self, xs: &[f32], state: &mut State, frames: usize, ys: &mut [f32]) {
        let (channels, span) = (self.channels, (self.kernel_size - 1) * self.dilation);
        let State { rings, positions, scratch, .. } = state;
        let words = self.weights.row_words();
        let a = &mut scratch.words[..positions.len() * frames * words];
        let past = self.ring.map_or(&[][..], |ring| &rings[ring][..]);
        vectorized(
            #[inline(always)]
            || {
                for (row, packed) in a.chunks_exact_mut(words).enumerate() {
                    let (sequence, frame) = (row / frames, row % frames);
                    let now = &xs[sequence * frames * channels..][..frames * channels];
                    let past = &past[sequence * span * channels..][..span * channels];
                    let head = match span {
                        0 => 0,
                        _ => (positions[sequence] % span as u64) as usize,
                    };
                    let tap = |tap: usize| {
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
                    };
                    self.weights.pack_row((0..self.kernel_size).map(tap), packed);
                }
            },
        );
        step::product(&self.weights, a, self.relu, ys);
        if let Some(ring) = self.ring {
            remember(&mut rings[ring], (span, channels), positions, xs);
        }
    }
}
