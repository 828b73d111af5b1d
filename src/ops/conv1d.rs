//! The 1-D dilated convolution: its parameters, its face, its checks.

use candle_core::Tensor;

use super::convolution::{Convolution, axis, check_channels};
use crate::Error;
use crate::kernels::conv::{Axis, ConvShape};
use crate::kernels::dropout::MaskKey;

/// Places of the taps of a convolution on its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dParams {
    /// Time steps between two taps.
    pub dilation: usize,
    /// Time steps between two outputs.
    pub stride: usize,
    /// Independent channel groups.
    pub groups: usize,
    /// Zero steps (or carried history) before the input.
    pub pad_left: usize,
    /// Zero steps after the input.
    pub pad_right: usize,
}

impl Default for Conv1dParams {
    fn default() -> Self {
        Self { dilation: 1, stride: 1, groups: 1, pad_left: 0, pad_right: 0 }
    }
}

impl Conv1dParams {
    /// The sizes of the product, or why the tensors do not fit together.
    pub(crate) fn shape(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        history: Option<&Tensor>,
    ) -> crate::Result<ConvShape> {
        let (batch, in_len, in_channels) = xs.dims3()?;
        let (out_channels, _, kernel_size) = weight.dims3()?;
        check_channels(weight, in_channels, self.groups, "kernel_size")?;
        let history = match history {
            None => 0,
            Some(history) => {
                let (b, len, c) = history.dims3()?;
                if (b, c) != (batch, in_channels) {
                    return Err(Error::invalid(
                        "history",
                        format!("({batch}, any, {in_channels})"),
                        format!("{:?}", history.dims()),
                    ));
                }
                len
            }
        };
        let lies = (self.dilation, self.stride);
        let width = axis(in_len, kernel_size, lies, (self.pad_left, self.pad_right))?;
        let (groups, height) = (self.groups, Axis::ONE);
        Ok(ConvShape { batch, in_channels, out_channels, groups, height, width, history })
    }
}

/// Dilated 1-D convolution (cross-correlation, as in PyTorch) with correct gradients.
///
/// `ys[b, r] = bias + Σ_tap W[.., tap] · xs[b, r·stride + tap·dilation − pad_left]`, where steps before
/// the first come from `history` (its last row is step −1) and are zero beyond it, and steps after the
/// last are zero.
///
/// # Shapes
/// `xs` (batch, time, in_channels); `weight` (out_channels, in_channels / groups, kernel_size); `bias`
/// (out_channels); `history` (batch, any, in_channels). Result (batch, out_time, out_channels) with
/// `out_time = ⌊(time + pad_left + pad_right − dilation·(kernel_size − 1) − 1) / stride⌋ + 1`.
///
/// # Numerics
/// `f32` or `f64`, accumulated in the same type; or `xs` of `bf16` with `weight` and `bias` of `f32`: the
/// weight is rounded to `bf16`, products are accumulated in `f32` and the result is rounded to `bf16` (see
/// `Epilogue::f32_output`). Gradients are of the types of what they belong to. The history is of the
/// type of `xs` and a constant: no gradient flows into it.
///
/// # Errors
/// [`Error::Invalid`] where shapes do not fit or the padded input is shorter than the effective kernel.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{Conv1dParams, conv1d};
///
/// // kernel (1, 10) at dilation 2, causal: y[t] = x[t − 2] + 10·x[t]
/// let xs = Tensor::new(&[[[1f32], [2.], [3.], [4.]]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[[1f32, 10.]]], &Device::Cpu)?;
/// let params = Conv1dParams { dilation: 2, pad_left: 2, ..Default::default() };
/// let ys = conv1d(&xs, &weight, None, None, params)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [10., 20., 31., 42.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.conv1d`.
pub fn conv1d(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    history: Option<&Tensor>,
    params: Conv1dParams,
) -> crate::Result<Tensor> {
    let op = Convolution {
        shape: params.shape(xs, weight, history)?,
        history: history.map(Tensor::detach).map(|h| h.contiguous()).transpose()?,
        sections: None,
        epilogue: Epilogue::default(),
    };
    op.apply(xs, weight, bias)
}

/// The operations after the sum of a convolution, done while its rows are at hand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epilogue {
    /// `max(0, ·)`.
    pub relu: bool,
    /// Element dropout: probability and mask.
    pub dropout: Option<(f64, MaskKey)>,
    /// An `f32` result where the input is `bf16`.
    pub f32_output: bool,
}

#[cfg(test)]
#[path = "conv1d_tests.rs"]
mod tests;
