//! The safe face of the dilated convolution, in one dimension or two: sizes are checked once, then the chosen
//! implementation runs.

mod shape;

pub(super) use shape::Segment;
pub use shape::{Axis, ConvShape};

use super::dropout::{self, MaskKey};
use super::elementwise::Activation;
use super::{Kernel, Real, Stored, products, unpacked};
use crate::Result;

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
        shape: &ConvShape,
        x: (&[X], &[X]),
        weight: &[R],
        epilogue: &Epilogue<R>,
        y: &mut [Y],
    );
    /// See [`grad_input`].
    fn grad_input<X: Stored<Real = R>, Y: Stored<Real = R>>(
        shape: &ConvShape,
        dy: &[Y],
        weight: &[R],
        dx: &mut [X],
    );
    /// See [`grad_weight`].
    fn grad_weight<X: Stored<Real = R>, Y: Stored<Real = R>>(
        shape: &ConvShape,
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
        shape: &ConvShape,
        x: (&[X], &[X]),
        weight: &[f64],
        epilogue: &Epilogue<f64>,
        y: &mut [Y],
    ) {
        unpacked::forward(shape, x, weight, epilogue, y);
    }
    fn grad_input<X: Stored<Real = f64>, Y: Stored<Real = f64>>(
        shape: &ConvShape,
        dy: &[Y],
        weight: &[f64],
        dx: &mut [X],
    ) {
        unpacked::grad_input(shape, dy, weight, dx);
    }
    fn grad_weight<X: Stored<Real = f64>, Y: Stored<Real = f64>>(
        shape: &ConvShape,
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
        shape: &ConvShape,
        x: (&[X], &[X]),
        weight: &[f32],
        epilogue: &Epilogue<f32>,
        y: &mut [Y],
    ) {
        with_micro!(shape, X, |micro| products::forward(micro, shape, x, weight, epilogue, y));
        unpacked::forward(shape, x, weight, epilogue, y);
    }
    fn grad_input<X: Stored<Real = f32>, Y: Stored<Real = f32>>(
        shape: &ConvShape,
        dy: &[Y],
        weight: &[f32],
        dx: &mut [X],
    ) {
        with_micro!(shape, X, |micro| products::grad_input(micro, shape, dy, weight, dx));
        unpacked::grad_input(shape, dy, weight, dx);
    }
    fn grad_weight<X: Stored<Real = f32>, Y: Stored<Real = f32>>(
        shape: &ConvShape,
        x: (&[X], &[X]),
        dy: &[Y],
        dw: &mut [f32],
    ) {
        with_micro!(shape, X, |micro| products::grad_weight(micro, shape, x, dy, dw));
        unpacked::grad_weight(shape, x, dy, dw);
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
/// Where `x` is `bf16`, so are the operands of the product; sums are `f32`.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) where a slice is not as long as `shape` says.
pub fn forward<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
    shape: &ConvShape,
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
    if (x.is_empty() && history.is_empty()) || y.is_empty() {
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
    R::Products::grad_input(&shape.merged(), dy, weight, dx);
    Ok(())
}

/// `dW[tap] = Σ_r x[r·stride + offset(tap)]ᵀ · dy[r]`, shapes as in [`forward`]; `dw` is
/// overwritten.
///
/// # Errors
/// As [`forward`].
pub fn grad_weight<R: Real, X: Stored<Real = R>, Y: Stored<Real = R>>(
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
    R::Products::grad_weight(&shape.merged(), (x, history), dy, dw);
    Ok(())
}

#[cfg(test)]
#[path = "conv_tests.rs"]
mod tests;
