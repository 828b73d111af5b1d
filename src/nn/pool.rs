//! One row for a whole sequence.

use candle_core::Tensor;

use crate::{Error, Result};

/// The mean over the steps of each sequence that `mask` counts; over all without a mask.
///
/// `y = Σ_t mask[t]·x[t] / Σ_t mask[t]`, 0 for a sequence without a counted step.
///
/// # Shapes
/// `xs` (batch, time, channels), `mask` (batch, time) of any type of number; result (batch, channels).
///
/// # Errors
/// [`Error::Invalid`] for a mask of another shape.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::nn::mean_time;
/// let xs = Tensor::new(&[[[1f32], [3.], [8.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// assert_eq!(mean_time(&xs, Some(&mask))?.to_vec2::<f32>()?, [[2.]]);
/// assert_eq!(mean_time(&xs, None)?.to_vec2::<f32>()?, [[4.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn mean_time(xs: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, time, _) = xs.dims3()?;
    let Some(mask) = mask else {
        return Ok(xs.mean(1)?);
    };
    if mask.dims() != [batch, time] {
        return Err(Error::invalid(
            "mask",
            format!("({batch}, {time}), as the input"),
            format!("{:?}", mask.dims()),
        ));
    }
    let mask = mask.to_dtype(xs.dtype())?;
    let sum = mask.unsqueeze(1)?.matmul(&xs.contiguous()?)?.squeeze(1)?;
    // a sum of no steps is 0 whatever it is divided by
    let count = mask.sum_keepdim(1)?;
    let count = (&count + count.eq(0f64)?.to_dtype(count.dtype())?)?;
    Ok(sum.broadcast_div(&count)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_sequence_of_nothing_is_zero() {
        let xs =
            Tensor::new(&[[[1f32, 2.], [3., 4.]], [[5., 6.], [7., 8.]]], &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[0u32, 0], [0, 1]], &Device::Cpu).unwrap();
        let ys = mean_time(&xs, Some(&mask)).unwrap();
        assert_eq!(ys.to_vec2::<f32>().unwrap(), [[0., 0.], [7., 8.]]);
        let error = mean_time(&xs, Some(&mask.t().unwrap().narrow(0, 0, 1).unwrap())).unwrap_err();
        assert_eq!(error.to_string(), "mask: expected (2, 2), as the input, found [1, 2]");
    }
}
