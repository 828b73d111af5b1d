//! The dilated convolutions in candle's own operations, for every device.

use candle_core::{IndexOp, Result, Tensor};

use super::sections::{Section, Sections};
use super::{Conv1dParams, Conv2dParams};
use crate::kernels::conv::{Axis, ConvShape};

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
    let shape = params.shape(xs, weight, history)?;
    Ok(over_time(xs, weight, bias, history, shape)?)
}

/// As [`conv1d_primitives`], of a shape that was checked.
pub(super) fn over_time(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    history: Option<&Tensor>,
    mut shape: ConvShape,
) -> Result<Tensor> {
    let known = shape.history.min(shape.width.pad_before);
    let xs = match history {
        Some(history) => {
            let past = history.detach().narrow(1, shape.history - known, known)?;
            Tensor::cat(&[&past.to_dtype(xs.dtype())?, xs], 1)?
        }
        None => xs.clone(),
    };
    // what is known stands in place of as much padding
    shape.width.in_len += known;
    shape.width.pad_before -= known;
    sum_over_taps(&xs.unsqueeze(1)?, &weight.unsqueeze(2)?, bias, &shape)?.squeeze(1)
}

/// As [`over_time`], for each of the sections by itself.
pub(super) fn over_sections(
    (xs, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
    history: Option<&Tensor>,
    shape: ConvShape,
    sections: &Sections,
) -> Result<Tensor> {
    let one = |section: &Section| {
        let Section { sequences, steps, continues } = section;
        let rows = |all: &Tensor| all.narrow(0, sequences.start, sequences.len());
        let xs = rows(xs)?.narrow(1, steps.start, steps.len())?;
        let history = history.filter(|_| *continues).map(rows).transpose()?;
        let mut shape = ConvShape { batch: sequences.len(), ..shape };
        (shape.width.in_len, shape.width.out_len) = (steps.len(), steps.len());
        shape.history *= usize::from(history.is_some());
        over_time(&xs, weight, bias, history.as_ref(), shape)
    };
    // the sections of a sequence, one after the other; then the sequences
    let (mut sequences, mut steps) = (Vec::new(), Vec::new());
    for section in sections.iter() {
        steps.push(one(section)?);
        if section.steps.end == shape.width.in_len {
            sequences.push(Tensor::cat(&steps, 1)?);
            steps.clear();
        }
    }
    Tensor::cat(&sequences, 0)
}

/// [`conv2d`](super::conv2d) in candle's primitives, as [`conv1d_primitives`].
///
/// # Numerics
/// As [`conv1d_primitives`].
///
/// # Errors
/// As [`conv2d`](super::conv2d).
pub fn conv2d_primitives(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: Conv2dParams,
) -> crate::Result<Tensor> {
    let shape = params.shape(xs, weight)?;
    Ok(sum_over_taps(xs, weight, bias, &shape)?)
}

pub(super) fn sum_over_taps(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    s: &ConvShape,
) -> Result<Tensor> {
    let weight = weight.to_dtype(xs.dtype())?;
    let xs = pad(&pad(xs, 1, &s.height)?, 2, &s.width)?;
    let (height, width) = (s.height.out_len, s.width.out_len);
    let rows = s.batch * height * width;
    let mut sum = Tensor::zeros((s.groups, rows, s.group_out()), xs.dtype(), xs.device())?;
    for tap in 0..s.taps() {
        let (m, n) = s.tap(tap);
        let x = pick(&pick(&xs, 1, &s.height, m)?, 2, &s.width, n)?;
        let x = x.reshape((rows, s.groups, s.group_in()))?.transpose(0, 1)?.contiguous()?;
        let w = weight
            .i((.., .., m, n))?
            .reshape((s.groups, s.group_out(), s.group_in()))?
            .transpose(1, 2)?
            .contiguous()?;
        sum = (sum + x.matmul(&w)?)?;
    }
    let ys = sum.transpose(0, 1)?.reshape((s.batch, height, width, s.out_channels))?;
    match bias {
        None => Ok(ys),
        Some(bias) => ys.broadcast_add(&bias.to_dtype(ys.dtype())?),
    }
}

/// Zeros before axis `dim`, and after it, so many that there are whole strides after the last tap.
fn pad(xs: &Tensor, dim: usize, axis: &Axis) -> Result<Tensor> {
    let reach = (axis.kernel_size - 1) * axis.dilation + axis.out_len * axis.stride;
    let after = reach.saturating_sub(axis.pad_before + axis.in_len);
    xs.pad_with_zeros(dim, axis.pad_before, after)
}

/// The positions that the outputs read at `tap` of axis `dim`.
fn pick(xs: &Tensor, dim: usize, axis: &Axis, tap: usize) -> Result<Tensor> {
    let xs = xs.narrow(dim, tap * axis.dilation, axis.out_len * axis.stride)?;
    if axis.stride == 1 {
        return Ok(xs);
    }
    let mut dims = xs.dims().to_vec();
    dims[dim] = axis.out_len;
    dims.insert(dim + 1, axis.stride);
    xs.contiguous()?.reshape(dims)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
}
