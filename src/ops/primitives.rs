//! The 1-D dilated convolution in candle's own operations, for every device.

use candle_core::{IndexOp, Tensor};

use super::Conv1dParams;
use crate::Error;

/// [`conv1d`](super::conv1d) in candle's primitives: a sum over taps of `narrow` and `matmul`. Right on every device
/// and differentiable by candle itself; slower than the kernels on a CPU.
///
/// # Numerics
/// All in the type of `xs`, to which the other tensors are rounded.
///
/// # Errors
/// As [`conv1d`](super::conv1d).
pub fn conv1d_primitives(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    history: Option<&Tensor>,
    params: Conv1dParams,
) -> crate::Result<Tensor> {
    let s = params.shape(xs, weight, history)?;
    let weight = weight.to_dtype(xs.dtype())?;
    let known = s.history.min(s.pad_left);
    let past = history
        .map(|h| {
            let past = h.detach().narrow(1, s.history - known, known)?;
            past.to_dtype(xs.dtype())
        })
        .transpose()?;
    let xs = match past {
        Some(past) => Tensor::cat(&[&past, xs], 1)?,
        None => xs.clone(),
    };
    // room for whole strides after the last tap
    let reach = (s.kernel_size - 1) * s.dilation + s.out_len * s.stride;
    let right = (reach + known)
        .saturating_sub(s.pad_left + s.in_len)
        .max(params.pad_right);
    let xs = xs.pad_with_zeros(1, s.pad_left - known, right)?;

    let rows = s.batch * s.out_len;
    let mut ys: Option<Tensor> = None;
    for tap in 0..s.kernel_size {
        let x = xs
            .narrow(1, tap * s.dilation, s.out_len * s.stride)?
            .reshape((s.batch, s.out_len, s.stride, s.in_channels))?
            .i((.., .., 0, ..))?
            .reshape((rows, s.groups, s.group_in()))?
            .transpose(0, 1)?
            .contiguous()?;
        let w = weight
            .i((.., .., tap))?
            .reshape((s.groups, s.group_out(), s.group_in()))?
            .transpose(1, 2)?
            .contiguous()?;
        let y = x.matmul(&w)?;
        ys = Some(match ys {
            None => y,
            Some(sum) => (sum + y)?,
        });
    }
    let ys = ys
        .ok_or_else(|| Error::invalid("kernel_size", "at least 1", 0))?
        .transpose(0, 1)?
        .reshape((s.batch, s.out_len, s.out_channels))?;
    Ok(match bias {
        None => ys,
        Some(bias) => ys.broadcast_add(&bias.to_dtype(ys.dtype())?)?,
    })
}
