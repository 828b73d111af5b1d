//! The safe face of the 1-D dilated convolution: sizes are checked once, then the chosen
//! implementation runs.

use std::ops::Range;

use super::{Kernel, Real, portable, reference};
use crate::{Error, Result};

/// The sizes of one 1-D dilated convolution. All are counted in elements or rows (time steps).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dShape {
    /// Sequences.
    pub batch: usize,
    /// Input rows per sequence.
    pub in_len: usize,
    /// Output rows per sequence.
    pub out_len: usize,
    /// Numbers per input row.
    pub in_channels: usize,
    /// Numbers per output row.
    pub out_channels: usize,
    /// Taps.
    pub kernel_size: usize,
    /// Rows between two taps.
    pub dilation: usize,
    /// Input rows between two output rows.
    pub stride: usize,
    /// Independent channel groups; divides both channel counts.
    pub groups: usize,
    /// Rows before the first input row that output row 0 starts at.
    pub pad_left: usize,
    /// Rows of carried history that stand right before the input (zero rows before them).
    pub history: usize,
}

/// A run of output rows that read one source at one tap: output rows `out` read source rows
/// `first`, `first + stride`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub out: Range<usize>,
    pub first: usize,
}

impl Conv1dShape {
    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups.max(1)
    }

    /// Output rows within `within` whose source row `r·stride + offset` lies in `lo..hi`, with the
    /// first source row counted from `lo`.
    fn segment(&self, tap: usize, lo: isize, hi: isize, within: &Range<usize>) -> Segment {
        let stride = self.stride as isize;
        let offset = (tap * self.dilation) as isize - self.pad_left as isize;
        let from = (lo - offset).max(0) as usize;
        let to = (hi - offset).max(0) as usize;
        let start = from.div_ceil(self.stride).max(within.start);
        let end = to.div_ceil(self.stride).min(within.end).max(start);
        Segment {
            out: start..end,
            first: if start < end {
                (start as isize * stride + offset - lo) as usize
            } else {
                0
            },
        }
    }

    /// The output rows of `within` that read the input at `tap`, and where they start reading.
    pub(super) fn input_segment(&self, tap: usize, within: &Range<usize>) -> Segment {
        self.segment(tap, 0, self.in_len as isize, within)
    }

    /// The same for the carried history.
    pub(super) fn history_segment(&self, tap: usize, within: &Range<usize>) -> Segment {
        self.segment(tap, -(self.history as isize), 0, within)
    }

    fn weight_len(&self) -> usize {
        product([self.out_channels, self.group_in(), self.kernel_size])
    }

    /// Whether every row number of the convolution fits a signed integer.
    fn is_addressable(&self) -> bool {
        let taps = self.kernel_size.checked_mul(self.dilation);
        let rows = self.out_len.checked_mul(self.stride);
        taps.zip(rows)
            .and_then(|(taps, rows)| {
                taps.checked_add(rows)?
                    .checked_add(self.pad_left)?
                    .checked_add(self.history)
            })
            .is_some_and(|n| n <= isize::MAX as usize)
    }

    fn check(&self, buffers: &[(&'static str, usize, usize)]) -> Result<()> {
        if self.groups == 0
            || self.stride == 0
            || self.kernel_size == 0
            || !self.in_channels.is_multiple_of(self.groups)
            || !self.out_channels.is_multiple_of(self.groups)
        {
            return Err(Error::invalid(
                "convolution",
                "kernel_size, stride and groups of at least 1, groups dividing both channel counts",
                format!("{self:?}"),
            ));
        }
        if !self.is_addressable() {
            return Err(Error::too_large("the convolution", format!("{self:?}")));
        }
        for &(name, expected, found) in buffers {
            if expected != found {
                return Err(Error::invalid(name, format!("{expected} elements"), found));
            }
        }
        Ok(())
    }

    fn sizes(&self) -> (usize, usize, usize) {
        (
            product([self.batch, self.in_len, self.in_channels]),
            product([self.batch, self.history, self.in_channels]),
            product([self.batch, self.out_len, self.out_channels]),
        )
    }
}

/// A number of elements; what overflows is longer than any slice.
fn product(sizes: [usize; 3]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}

/// `y[r] = bias + Σ_tap x[r·stride + offset(tap)] · W[tap]`.
///
/// # Shapes
/// `x` (batch, in_len, in_channels); `history` (batch, history, in_channels), empty for none;
/// `weight` (out_channels, in_channels / groups, kernel_size), as PyTorch keeps it; `bias`
/// (out_channels); `y` (batch, out_len, out_channels), overwritten.
///
/// # Errors
/// [`Error::Invalid`] where a slice is not as long as `shape` says.
pub fn forward<T: Real>(
    shape: &Conv1dShape,
    x: &[T],
    history: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) -> Result<()> {
    let (x_len, history_len, y_len) = shape.sizes();
    shape.check(&[
        ("input", x_len, x.len()),
        ("history", history_len, history.len()),
        ("weight", shape.weight_len(), weight.len()),
        (
            "bias",
            shape.out_channels,
            bias.map_or(shape.out_channels, <[T]>::len),
        ),
        ("output", y_len, y.len()),
    ])?;
    match Kernel::current() {
        Kernel::Reference => reference::forward(shape, x, history, weight, bias, y),
        _ => portable::forward(shape, x, history, weight, bias, y),
    }
    Ok(())
}

/// `dx[i] = Σ_tap dy[(i − offset(tap)) / stride] · W[tap]ᵀ`, shapes as in [`forward`]; `dx` is
/// overwritten. The history gets no gradient.
///
/// # Errors
/// As [`forward`].
pub fn grad_input<T: Real>(
    shape: &Conv1dShape,
    dy: &[T],
    weight: &[T],
    dx: &mut [T],
) -> Result<()> {
    let (x_len, _, y_len) = shape.sizes();
    shape.check(&[
        ("output gradient", y_len, dy.len()),
        ("weight", shape.weight_len(), weight.len()),
        ("input gradient", x_len, dx.len()),
    ])?;
    match Kernel::current() {
        Kernel::Reference => reference::grad_input(shape, dy, weight, dx),
        _ => portable::grad_input(shape, dy, weight, dx),
    }
    Ok(())
}

/// `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`, shapes as in [`forward`]; `dw` is
/// overwritten.
///
/// # Errors
/// As [`forward`].
pub fn grad_weight<T: Real>(
    shape: &Conv1dShape,
    x: &[T],
    history: &[T],
    dy: &[T],
    dw: &mut [T],
) -> Result<()> {
    let (x_len, history_len, y_len) = shape.sizes();
    shape.check(&[
        ("input", x_len, x.len()),
        ("history", history_len, history.len()),
        ("output gradient", y_len, dy.len()),
        ("weight gradient", shape.weight_len(), dw.len()),
    ])?;
    match Kernel::current() {
        Kernel::Reference => reference::grad_weight(shape, x, history, dy, dw),
        _ => portable::grad_weight(shape, x, history, dy, dw),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn shapes() -> impl Strategy<Value = Conv1dShape> {
        let sizes = (1usize..4, 1usize..40, 1usize..5, 1usize..9, 1usize..4);
        let channels = (1usize..4, 1usize..6, 1usize..6);
        (sizes, channels, 0usize..30, 0usize..30, 0usize..20).prop_filter_map(
            "padded input shorter than the kernel",
            |(
                (batch, in_len, kernel_size, dilation, stride),
                (groups, ci, co),
                pad_left,
                pad_right,
                history,
            )| {
                let span = (kernel_size - 1) * dilation + 1;
                let padded = in_len + pad_left + pad_right;
                (padded >= span).then(|| Conv1dShape {
                    batch,
                    in_len,
                    out_len: (padded - span) / stride + 1,
                    in_channels: groups * ci,
                    out_channels: groups * co,
                    kernel_size,
                    dilation,
                    stride,
                    groups,
                    pad_left,
                    history,
                })
            },
        )
    }

    fn random(rng: &mut rand_chacha::ChaCha8Rng, len: usize) -> Vec<f64> {
        (0..len)
            .map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5)
            .collect()
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn portable_agrees_with_the_reference(shape in shapes(), seed in 0u64..1000) {
            let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let (x_len, h_len, y_len) = shape.sizes();
            let (x, h, dy) = (random(rng, x_len), random(rng, h_len), random(rng, y_len));
            let (w, b) = (random(rng, shape.weight_len()), random(rng, shape.out_channels));
            let (mut want, mut got) = (vec![7.0; y_len], vec![8.0; y_len]);
            reference::forward(&shape, &x, &h, &w, Some(&b), &mut want);
            portable::forward(&shape, &x, &h, &w, Some(&b), &mut got);
            prop_assert!(close(&got, &want), "forward {shape:?}");
            let (mut want, mut got) = (vec![7.0; x_len], vec![8.0; x_len]);
            reference::grad_input(&shape, &dy, &w, &mut want);
            portable::grad_input(&shape, &dy, &w, &mut got);
            prop_assert!(close(&got, &want), "grad_input {shape:?}");
            let (mut want, mut got) = (vec![7.0; w.len()], vec![8.0; w.len()]);
            reference::grad_weight(&shape, &x, &h, &dy, &mut want);
            portable::grad_weight(&shape, &x, &h, &dy, &mut got);
            prop_assert!(close(&got, &want), "grad_weight {shape:?}");
        }
    }

    #[test]
    fn a_slice_of_the_wrong_length_is_an_error() {
        let shape = Conv1dShape {
            batch: 1,
            in_len: 3,
            out_len: 3,
            in_channels: 2,
            out_channels: 1,
            kernel_size: 1,
            dilation: 1,
            stride: 1,
            groups: 1,
            pad_left: 0,
            history: 0,
        };
        let error = forward(&shape, &[0f32; 5], &[], &[0.0; 2], None, &mut [0.0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "input: expected 6 elements, found 5");
    }
}
