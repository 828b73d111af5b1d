//! The dilated convolution and its gradients, in one dimension or two: sizes are checked once, then the kernel
//! runs.

mod dispatch;
mod row_map;
mod shape;

pub(super) use dispatch::{Operands, single};
pub(super) use row_map::{AxisMap, RowRun, Source};
pub use shape::{Axis, ConvShape};

use super::dropout::{self, MaskKey};
use super::elementwise::Activation;
use super::instructions::Instructions;
use super::{Kernel, Real, Stored};
use crate::Result;

/// The operations after the sum of a convolution, done while its rows are at hand: bias, then ReLU, then
/// element dropout.
#[derive(Debug, Clone, Copy)]
pub struct RowEpilogue<'a, R> {
    /// (out_channels)
    pub bias: Option<&'a [R]>,
    /// `max(0, ·)`; NaN stays NaN.
    pub relu: bool,
    /// Probability and mask of element dropout over the whole output.
    pub dropout: Option<(f64, MaskKey)>,
}

impl<R: Real> RowEpilogue<'_, R> {
    /// `y = relu(sums + bias)` of one row, or of its channels from `first` on.
    #[inline(always)]
    pub(super) fn store_row<Y: Stored<Real = R>>(&self, sums: &[R], first: usize, y: &mut [Y]) {
        // loops: a closure would be compiled for instructions of its own
        match self.bias {
            None => {
                for (y, &sum) in y.iter_mut().zip(sums) {
                    *y = self.finish(sum);
                }
            }
            Some(bias) => {
                for ((y, &sum), &bias) in y.iter_mut().zip(sums).zip(&bias[first..]) {
                    *y = self.finish(sum + bias);
                }
            }
        }
    }

    #[inline(always)]
    fn finish<Y: Stored<Real = R>>(&self, x: R) -> Y {
        Y::store(if self.relu { Activation::Relu.apply(x) } else { x })
    }

    /// Applies dropout to the output's elements from `first` on.
    #[inline(always)]
    pub(super) fn drop_elements<Y: Stored<Real = R>>(
        &self,
        isa: impl Instructions,
        first: usize,
        y: &mut [Y],
    ) {
        if let Some((p, key)) = self.dropout {
            dropout::apply_in_place(isa, key, p, first, y);
        }
    }
}

/// `y[r] = bias + Σ_tap x[r·stride + offset(tap)] · W[tap]`, then the rest of `epilogue`; rows, strides and
/// offsets are those of both axes.
///
/// # Shapes
/// `x` (batch, height, width, in_channels); `history` (batch, height, history, in_channels), empty for
/// none; `weight` (out_channels, in_channels / groups, kernel height, kernel width), as PyTorch keeps it;
/// bias (out_channels); `y` (batch, out height, out width, out_channels), overwritten.
///
/// # Numerics
/// Of `bf16` inputs, the operands of the product are `bf16` too; sums are `f32`.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) where a slice is not as long as `shape` says.
pub fn forward<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    kernel: Kernel,
    shape: &ConvShape,
    x: &[X],
    history: &[X],
    weight: &[R],
    epilogue: &RowEpilogue<R>,
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
    if (x.is_empty() && history.is_empty()) || y.is_empty() {
        // nothing to sum
        let sums = vec![R::zero(); shape.out_channels];
        for y in y.chunks_exact_mut(shape.out_channels.max(1)) {
            epilogue.store_row(&sums, 0, y);
        }
        epilogue.drop_elements(kernel, 0, y);
        return Ok(());
    }
    let operands = Operands::Forward { x: (x, history), weight, epilogue, y };
    R::convolve(kernel, &shape.merged(), operands);
    Ok(())
}

/// `dx[i] = Σ_tap dy[(i − offset(tap)) / stride] · W[tap]ᵀ`, shapes as in [`forward`]; `dx` is
/// overwritten. The history gets no gradient.
///
/// # Errors
/// As [`forward`].
pub fn grad_input<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    kernel: Kernel,
    shape: &ConvShape,
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
    R::convolve(kernel, &shape.merged(), Operands::GradInput { dy, weight, dx });
    Ok(())
}

/// `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`, shapes as in [`forward`]; `dw` is
/// overwritten.
///
/// # Errors
/// As [`forward`].
pub fn grad_weight<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    kernel: Kernel,
    shape: &ConvShape,
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
    if dw.is_empty() || dy.is_empty() || (x.is_empty() && history.is_empty()) {
        dw.fill(R::zero());
        return Ok(());
    }
    R::convolve(kernel, &shape.merged(), Operands::GradWeight { x: (x, history), dy, dw });
    Ok(())
}

#[cfg(test)]
#[path = "conv_tests.rs"]
mod tests;
