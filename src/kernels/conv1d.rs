//! The safe face of the 1-D dilated convolution: sizes are checked once, then the chosen
//! implementation runs.

use std::ops::Range;

use super::dropout::{self, MaskKey};
use super::{Kernel, Real, Stored, products, unpacked};
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

    /// A pointwise convolution sees no neighbours, so the whole batch is one long sequence.
    fn merged(&self) -> Self {
        let pointwise = self.kernel_size == 1 && self.stride == 1 && self.pad_left == 0;
        if pointwise && self.history == 0 && self.in_len == self.out_len {
            let rows = self.batch * self.in_len;
            Self {
                batch: 1,
                in_len: rows,
                out_len: rows,
                ..*self
            }
        } else {
            *self
        }
    }

    fn weight_len(&self) -> usize {
        product([self.out_channels, self.group_in(), self.kernel_size])
    }

    /// Whether every row number of the convolution fits a signed integer, with room to add some.
    fn is_addressable(&self) -> bool {
        let taps = self.kernel_size.checked_mul(self.dilation);
        let rows = self.out_len.checked_mul(self.stride);
        let sizes = [
            taps,
            rows,
            Some(self.in_len),
            Some(self.pad_left),
            Some(self.history),
        ];
        sizes
            .into_iter()
            .try_fold(0usize, |sum, size| sum.checked_add(size?))
            .is_some_and(|sum| sum <= isize::MAX as usize / 4)
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

/// What follows the sum of a convolution, done while its rows are at hand: bias, then ReLU, then
/// element dropout.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a, R> {
    /// (out_channels)
    pub bias: Option<&'a [R]>,
    /// `max(0, ·)`; NaN stays NaN.
    pub relu: bool,
    /// Probability and mask of element dropout over the whole output.
    pub dropout: Option<(f64, MaskKey)>,
}

impl<R: Real> Epilogue<'_, R> {
    /// `y = relu(sums + bias)` of one row, or of its channels from `first` on.
    #[inline(always)]
    pub(super) fn store_row<Y: Stored<Real = R>>(&self, sums: &[R], first: usize, y: &mut [Y]) {
        match self.bias {
            None => self.store(sums.iter().copied(), y),
            Some(bias) => {
                let sums = sums.iter().zip(&bias[first..]);
                self.store(sums.map(|(&sum, &bias)| sum + bias), y);
            }
        }
    }

    #[inline(always)]
    fn store<Y: Stored<Real = R>>(&self, sums: impl Iterator<Item = R>, y: &mut [Y]) {
        if self.relu {
            // not `max`, which would turn NaN into 0
            let relu = |x: R| if x < R::zero() { R::zero() } else { x };
            y.iter_mut()
                .zip(sums)
                .for_each(|(y, x)| *y = Y::store(relu(x)));
        } else {
            y.iter_mut().zip(sums).for_each(|(y, x)| *y = Y::store(x));
        }
    }

    /// Applies dropout to the output's elements from `first` on.
    #[inline(always)]
    pub(super) fn drop_elements<Y: Stored<Real = R>>(&self, first: usize, y: &mut [Y]) {
        if let Some((p, key)) = self.dropout {
            dropout::apply_in_place(key, p, first, y);
        }
    }
}

/// The three products for one type of number; sizes are checked before.
///
/// The type of `x` says what is computed with: operands of `bf16` activations are rounded to bf16,
/// sums are not.
pub trait Products<R: Real> {
    /// See [`forward`].
    fn forward<X: Stored<Real = R>, Y: Stored<Real = R>>(
        shape: &Conv1dShape,
        x: (&[X], &[X]),
        weight: &[R],
        epilogue: &Epilogue<R>,
        y: &mut [Y],
    );
    /// See [`grad_input`].
    fn grad_input<X: Stored<Real = R>, Y: Stored<Real = R>>(
        shape: &Conv1dShape,
        dy: &[Y],
        weight: &[R],
        dx: &mut [X],
    );
    /// See [`grad_weight`].
    fn grad_weight<X: Stored<Real = R>, Y: Stored<Real = R>>(
        shape: &Conv1dShape,
        x: (&[X], &[X]),
        dy: &[Y],
        dw: &mut [R],
    );
}

/// Products of `f64`: the reference loops or the `gemm` crate.
#[derive(Debug)]
pub struct Double;

impl Products<f64> for Double {
    fn forward<X: Stored<Real = f64>, Y: Stored<Real = f64>>(
        shape: &Conv1dShape,
        x: (&[X], &[X]),
        weight: &[f64],
        epilogue: &Epilogue<f64>,
        y: &mut [Y],
    ) {
        unpacked::forward(shape, x, weight, epilogue, y);
    }
    fn grad_input<X: Stored<Real = f64>, Y: Stored<Real = f64>>(
        shape: &Conv1dShape,
        dy: &[Y],
        weight: &[f64],
        dx: &mut [X],
    ) {
        unpacked::grad_input(shape, dy, weight, dx);
    }
    fn grad_weight<X: Stored<Real = f64>, Y: Stored<Real = f64>>(
        shape: &Conv1dShape,
        x: (&[X], &[X]),
        dy: &[Y],
        dw: &mut [f64],
    ) {
        unpacked::grad_weight(shape, x, dy, dw);
    }
}

/// Products of `f32` and `bf16`: our kernels where the processor has the instructions.
#[derive(Debug)]
pub struct Single;

/// Groups narrower than this waste most of a block of registers; loops over channels are faster.
const NARROW: usize = 8;

/// Calls `$run` with the micro kernel for the kernel in use and the type `$x` of the activations.
macro_rules! with_micro {
    ($shape:ident, $x:ty, |$micro:ident| $run:expr) => {
        #[cfg(target_arch = "x86_64")]
        if $shape.groups == 1 || $shape.group_in().min($shape.group_out()) >= NARROW {
            use super::products::{Amx, Avx2, Avx512, Avx512Pairs};
            let bf16 = size_of::<$x>() < size_of::<f32>();
            let kernel = Kernel::current();
            if let (Kernel::Amx, true, Some($micro)) = (kernel, bf16, Amx::new()) {
                return $run;
            }
            let wide = matches!(kernel, Kernel::Avx512 | Kernel::Amx);
            if let (true, true, Some($micro)) = (wide, bf16, Avx512Pairs::new()) {
                return $run;
            }
            if let (true, true, Some($micro)) = (wide, bf16, Avx512::<true>::new()) {
                return $run;
            }
            if let (true, false, Some($micro)) = (wide, bf16, Avx512::<false>::new()) {
                return $run;
            }
            if let (Kernel::Avx2, true, Some($micro)) = (kernel, bf16, Avx2::<true>::new()) {
                return $run;
            }
            if let (Kernel::Avx2, false, Some($micro)) = (kernel, bf16, Avx2::<false>::new()) {
                return $run;
            }
        }
    };
}

impl Products<f32> for Single {
    fn forward<X: Stored<Real = f32>, Y: Stored<Real = f32>>(
        shape: &Conv1dShape,
        x: (&[X], &[X]),
        weight: &[f32],
        epilogue: &Epilogue<f32>,
        y: &mut [Y],
    ) {
        with_micro!(shape, X, |micro| products::forward(
            micro, shape, x, weight, epilogue, y
        ));
        unpacked::forward(shape, x, weight, epilogue, y);
    }
    fn grad_input<X: Stored<Real = f32>, Y: Stored<Real = f32>>(
        shape: &Conv1dShape,
        dy: &[Y],
        weight: &[f32],
        dx: &mut [X],
    ) {
        with_micro!(shape, X, |micro| products::grad_input(
            micro, shape, dy, weight, dx
        ));
        unpacked::grad_input(shape, dy, weight, dx);
    }
    fn grad_weight<X: Stored<Real = f32>, Y: Stored<Real = f32>>(
        shape: &Conv1dShape,
        x: (&[X], &[X]),
        dy: &[Y],
        dw: &mut [f32],
    ) {
        with_micro!(shape, X, |micro| products::grad_weight(
            micro, shape, x, dy, dw
        ));
        unpacked::grad_weight(shape, x, dy, dw);
    }
}

/// `y[r] = bias + Σ_tap x[r·stride + offset(tap)] · W[tap]`, then the rest of `epilogue`.
///
/// # Shapes
/// `x` (batch, in_len, in_channels); `history` (batch, history, in_channels), empty for none;
/// `weight` (out_channels, in_channels / groups, kernel_size), as PyTorch keeps it; bias
/// (out_channels); `y` (batch, out_len, out_channels), overwritten.
///
/// # Numerics
/// Where `x` is `bf16`, so are the operands of the product; sums are `f32`.
///
/// # Errors
/// [`Error::Invalid`] where a slice is not as long as `shape` says.
pub fn forward<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &Conv1dShape,
    x: &[X],
    history: &[X],
    weight: &[R],
    epilogue: &Epilogue<R>,
    y: &mut [Y],
) -> Result<()> {
    let (x_len, history_len, y_len) = shape.sizes();
    let bias_len = epilogue.bias.map_or(shape.out_channels, <[R]>::len);
    shape.check(&[
        ("input", x_len, x.len()),
        ("history", history_len, history.len()),
        ("weight", shape.weight_len(), weight.len()),
        ("bias", shape.out_channels, bias_len),
        ("output", y_len, y.len()),
    ])?;
    if shape.in_channels == 0 || y.is_empty() {
        // nothing to sum
        let sums = vec![R::zero(); shape.out_channels];
        for y in y.chunks_exact_mut(shape.out_channels.max(1)) {
            epilogue.store_row(&sums, 0, y);
        }
        epilogue.drop_elements(0, y);
        return Ok(());
    }
    R::Products::forward(&shape.merged(), (x, history), weight, epilogue, y);
    Ok(())
}

/// `dx[i] = Σ_tap dy[(i − offset(tap)) / stride] · W[tap]ᵀ`, shapes as in [`forward`]; `dx` is
/// overwritten. The history gets no gradient.
///
/// # Errors
/// As [`forward`].
pub fn grad_input<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &Conv1dShape,
    dy: &[Y],
    weight: &[R],
    dx: &mut [X],
) -> Result<()> {
    let (x_len, _, y_len) = shape.sizes();
    shape.check(&[
        ("output gradient", y_len, dy.len()),
        ("weight", shape.weight_len(), weight.len()),
        ("input gradient", x_len, dx.len()),
    ])?;
    if dx.is_empty() || dy.is_empty() {
        dx.fill(X::store(R::zero()));
        return Ok(());
    }
    R::Products::grad_input(&shape.merged(), dy, weight, dx);
    Ok(())
}

/// `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`, shapes as in [`forward`]; `dw` is
/// overwritten.
///
/// # Errors
/// As [`forward`].
pub fn grad_weight<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &Conv1dShape,
    x: &[X],
    history: &[X],
    dy: &[Y],
    dw: &mut [R],
) -> Result<()> {
    let (x_len, history_len, y_len) = shape.sizes();
    shape.check(&[
        ("input", x_len, x.len()),
        ("history", history_len, history.len()),
        ("output gradient", y_len, dy.len()),
        ("weight gradient", shape.weight_len(), dw.len()),
    ])?;
    if dw.is_empty() || dy.is_empty() {
        dw.fill(R::zero());
        return Ok(());
    }
    R::Products::grad_weight(&shape.merged(), (x, history), dy, dw);
    Ok(())
}

#[cfg(test)]
#[path = "conv1d_tests.rs"]
mod tests;
