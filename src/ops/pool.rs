//! One row for a whole sequence or image.

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

/// The way in which the rows of a sequence become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Mean of its steps.
    #[default]
    Mean,
    /// The greatest number of each channel.
    Max,
    /// Both, one behind the other: twice as many channels.
    MeanMax,
    /// Its last step.
    Last,
}

/// One row of each sequence, of the steps that `mask` counts; of all without a mask, and of images.
///
/// # Shapes
/// As [`mean_rows`].
///
/// # Errors
/// Those of candle; for [`Pool::Max`] and [`Pool::Last`] also for a sequence without a counted step.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{Pool, pool_rows};
/// let xs = Tensor::new(&[[[4f32], [3.], [8.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// for (pool, one) in [(Pool::Mean, 3.5), (Pool::Max, 4.), (Pool::Last, 3.)] {
///     assert_eq!(pool_rows(&xs, pool, Some(&mask))?.to_vec2::<f32>()?, [[one]]);
/// }
/// assert_eq!(pool_rows(&xs, Pool::MeanMax, Some(&mask))?.to_vec2::<f32>()?, [[3.5, 4.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn pool_rows(xs: &Tensor, pool: Pool, mask: Option<&Tensor>) -> Result<Tensor> {
    match pool {
        Pool::Mean => return mean_rows(xs, mask),
        Pool::MeanMax => {
            let max = pool_rows(xs, Pool::Max, mask)?;
            return Tensor::cat(&[mean_rows(xs, mask)?, max], 1);
        }
        Pool::Max | Pool::Last => {}
    }
    let xs = xs.flatten(1, xs.rank() - 2)?;
    let (batch, time, _) = xs.dims3()?;
    let mask = mask.map(|mask| counted(mask, batch, time)).transpose()?;
    match (pool, mask) {
        (Pool::Last, Some(mask)) => {
            let last = |steps: &[u8]| steps.iter().rposition(|&step| step != 0);
            let lengths: Option<Vec<usize>> =
                mask.chunks(time).map(|steps| Some(last(steps)? + 1)).collect();
            Ok(last_step(&xs, &lengths.ok_or_else(|| no_steps(batch))?)?)
        }
        (Pool::Last, None) => xs.narrow(1, time - 1, 1)?.squeeze(1),
        (_, Some(mask)) => {
            if mask.chunks(time).any(|steps| steps.iter().all(|&step| step == 0)) {
                return Err(no_steps(batch).into());
            }
            let mask = Tensor::from_vec(mask, (batch, time, 1), xs.device())?;
            let least = Tensor::full(f64::NEG_INFINITY, xs.shape(), xs.device())?;
            let mask = mask.broadcast_as(xs.shape())?;
            greatest(&xs, &mask.where_cond(&xs, &least.to_dtype(xs.dtype())?)?)
        }
        (_, None) => greatest(&xs, &xs),
    }
}

/// The numbers of `xs` where those of `seen` are greatest. The gradient goes to them alone, without a pass over all others
/// for each step of candle's maximum.
fn greatest(xs: &Tensor, seen: &Tensor) -> Result<Tensor> {
    let at = seen.detach().argmax_keepdim(1)?;
    xs.contiguous()?.gather(&at, 1)?.squeeze(1)
}

fn no_steps(batch: usize) -> crate::Error {
    let expected = format!("a step of each of {batch} sequences");
    crate::Error::invalid("mask", expected, "a sequence without one")
}

/// The mask as numbers that are 0 for what does not count.
fn counted(mask: &Tensor, batch: usize, time: usize) -> Result<Vec<u8>> {
    expect_shape(mask, batch, time)?;
    mask.ne(0f64)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}

fn expect_shape(mask: &Tensor, batch: usize, time: usize) -> Result<()> {
    if mask.dims() == [batch, time] {
        return Ok(());
    }
    let expected = format!("({batch}, {time}), as the input");
    Err(crate::Error::invalid("mask", expected, format!("{:?}", mask.dims())).into())
}

/// The mean over the rows of each sequence that `mask` counts; over all without a mask, and of images.
///
/// `y = Σ_t mask[t]·x[t] / Σ_t mask[t]`, 0 for a sequence without a counted step.
///
/// # Shapes
/// `xs` (batch, time, channels) or (batch, height, width, channels), `mask` (batch, time) of any type of number; result
/// (batch, channels).
///
/// # Errors
/// Those of candle, for a mask of another shape among others.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::mean_rows;
/// let xs = Tensor::new(&[[[1f32], [3.], [8.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// assert_eq!(mean_rows(&xs, Some(&mask))?.to_vec2::<f32>()?, [[2.]]);
/// assert_eq!(mean_rows(&xs, None)?.to_vec2::<f32>()?, [[4.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn mean_rows(xs: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let dtype = xs.dtype();
    // sums of sixteen bits would lose most of them
    let xs = match dtype {
        DType::BF16 | DType::F16 => xs.to_dtype(DType::F32)?,
        _ => xs.clone(),
    };
    let Some(mask) = mask else {
        let axes: Vec<usize> = (1..xs.rank() - 1).collect();
        return xs.mean(axes)?.to_dtype(dtype);
    };
    let (batch, time, _) = xs.dims3()?;
    expect_shape(mask, batch, time)?;
    let mask = mask.to_dtype(xs.dtype())?.to_device(xs.device())?;
    let sum = mask.unsqueeze(1)?.matmul(&xs.contiguous()?)?.squeeze(1)?;
    // a sum of no steps is 0 whatever it is divided by
    let count = mask.sum_keepdim(1)?;
    let count = (&count + count.eq(0f64)?.to_dtype(count.dtype())?)?;
    sum.broadcast_div(&count)?.to_dtype(dtype)
}

/// The last row of each sequence: that of step `lengths[sequence] − 1`.
///
/// # Shapes
/// `xs` (batch, time, channels); result (batch, channels).
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for lengths that are not one from 1 to time for each sequence.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::last_step;
/// let xs = Tensor::new(&[[[1f32], [3.], [8.]], [[2.], [4.], [0.]]], &Device::Cpu)?;
/// assert_eq!(last_step(&xs, &[3, 2])?.to_vec2::<f32>()?, [[8.], [4.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn last_step(xs: &Tensor, lengths: &[usize]) -> crate::Result<Tensor> {
    let (batch, time, channels) = xs.dims3()?;
    check_lengths(lengths, batch, time)?;
    let rows = lengths.iter().enumerate().map(|(sequence, len)| (sequence * time + len - 1) as u32);
    let rows = Tensor::from_iter(rows, xs.device())?;
    Ok(xs.reshape((batch * time, channels))?.index_select(&rows, 0)?)
}

/// The mask of sequences of these lengths: 1 for each of their steps, 0 for those that fill them up.
///
/// # Shapes
/// Result (batch, time) of `u8`, on the CPU.
///
/// # Errors
/// As [`last_step`].
///
/// # Example
///
/// ```
/// use candle_tcn::ops::length_mask;
/// assert_eq!(length_mask(&[3, 1], 3)?.to_vec2::<u8>()?, [[1, 1, 1], [1, 0, 0]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn length_mask(lengths: &[usize], time: usize) -> crate::Result<Tensor> {
    check_lengths(lengths, lengths.len(), time)?;
    let steps = lengths.iter().flat_map(|&len| (0..time).map(move |t| u8::from(t < len)));
    Ok(Tensor::from_iter(steps, &Device::Cpu)?.reshape((lengths.len(), time))?)
}

fn check_lengths(lengths: &[usize], batch: usize, time: usize) -> crate::Result<()> {
    if lengths.len() == batch && lengths.iter().all(|len| (1..=time).contains(len)) {
        return Ok(());
    }
    let expected = format!("{batch} of them from 1 to {time}");
    Err(crate::Error::invalid("lengths", expected, format!("{lengths:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_of_nothing_is_zero() {
        let xs =
            Tensor::new(&[[[1f32, 2.], [3., 4.]], [[5., 6.], [7., 8.]]], &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[0u32, 0], [0, 1]], &Device::Cpu).unwrap();
        let ys = mean_rows(&xs, Some(&mask)).unwrap();
        assert_eq!(ys.to_vec2::<f32>().unwrap(), [[0., 0.], [7., 8.]]);
        let error = mean_rows(&xs, Some(&mask.t().unwrap().narrow(0, 0, 1).unwrap())).unwrap_err();
        assert!(error.to_string().contains("mask: expected (2, 2), as the input, found [1, 2]"));
    }
}
