//! Rows on their way from a run into a state.

use candle_core::{DType, Device, Tensor};

use super::state::remember;
use super::{RingShape, State};
use crate::{Error, Result};

/// Rows that the convolutions of a run leave to a [`State`]; they are written when the run is over.
#[derive(Debug)]
pub(super) struct Pieces {
    shapes: Vec<RingShape>,
    /// The last rows of each ring so far.
    rows: Vec<Vec<f32>>,
    /// Steps of each sequence.
    steps: usize,
    /// The step at which each sequence began anew for the last time; empty where none did.
    starts: Vec<Option<usize>>,
}

impl Pieces {
    /// For a run over `xs` (batch, time, …) of a network with these rings, whose sequences began anew at `starts`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the state is another network's or has another number of sequences.
    pub fn new(
        state: &State,
        shapes: Vec<RingShape>,
        xs: &Tensor,
        starts: Option<Vec<Option<usize>>>,
    ) -> Result<Self> {
        state.check_shapes(&shapes)?;
        let (batch, steps) = (xs.dim(0)?, xs.dim(1)?);
        if batch != state.batch() {
            let expected = format!("{} sequences, as the state has", state.batch());
            return Err(Error::invalid("batch", expected, batch));
        }
        Ok(Self { shapes, rows: Vec::new(), steps, starts: starts.unwrap_or_default() })
    }

    /// Rows before `xs` of the next ring, (batch, span, channels), whose last rows are noted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for rows that are not those of the ring.
    pub fn history(&mut self, state: &State, xs: &Tensor, span: usize) -> Result<Tensor> {
        let (batch, time, channels) = xs.dims3()?;
        let index = self.rows.len();
        let shape = RingShape { span, channels };
        if self.shapes.get(index) != Some(&shape) || time != self.steps {
            return Err(Error::invalid(
                format!("state of convolution {index}"),
                format!("{} steps for {:?}", self.steps, self.shapes.get(index)),
                format!("{time} steps for {shape:?}"),
            ));
        }
        let history =
            Tensor::from_vec(state.in_order(index), (batch, span, channels), &Device::Cpu)?;
        let last = time.min(span);
        let rows = xs.detach().narrow(1, time - last, last)?.to_dtype(DType::F32)?;
        self.rows.push(rows.flatten_all()?.to_vec1()?);
        Ok(history.to_device(xs.device())?.to_dtype(xs.dtype())?)
    }

    /// Writes the rows, and moves every sequence on.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the run used fewer convolutions than the state has.
    pub fn write(self, state: &mut State) -> Result<()> {
        if self.rows.len() != self.shapes.len() {
            let expected = format!("a run through {} convolutions", self.shapes.len());
            return Err(Error::invalid("state", expected, self.rows.len()));
        }
        let anew = self.starts.iter().enumerate().filter(|(_, start)| start.is_some());
        anew.clone().try_for_each(|(sequence, _)| state.reset(sequence))?;
        for ((ring, shape), rows) in state.rings.iter_mut().zip(&self.shapes).zip(&self.rows) {
            let (span, channels) = (shape.span, shape.channels);
            let kept = self.steps.min(span);
            let sequences = rows.chunks_exact(kept * channels).enumerate();
            for ((sequence, rows), ring) in sequences.zip(ring.chunks_exact_mut(span * channels)) {
                // those since its start
                let start = self.starts.get(sequence).copied().flatten().unwrap_or(0);
                let rows = &rows[kept.saturating_sub(self.steps - start) * channels..];
                let at =
                    state.positions[sequence] + (self.steps - start - rows.len() / channels) as u64;
                remember(ring, (span, channels), &[at], rows);
            }
        }
        state.advance(self.steps);
        if !self.shapes.is_empty() {
            for (sequence, start) in anew {
                state.positions[sequence] -= start.unwrap_or(0) as u64;
            }
        }
        Ok(())
    }
}
