//! Each step of each sequence times a number of its own: masks.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::filled;
use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, run};
use crate::Error;
use crate::kernels::{Kernel, rows};

/// Multiplies each row by its scale, a constant: `ys[b, t] = scales[b·time + t]·xs[b, t]`.
///
/// # Shapes
/// `xs` (batch, time, channels), as many `scales` as it has rows; result as `xs`.
///
/// # Errors
/// [`Error::Invalid`] for another number of scales.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::scale_rows;
/// let xs = Tensor::new(&[[[1f32, 2.], [3., 4.]]], &Device::Cpu)?;
/// assert_eq!(scale_rows(&xs, [0., 1.])?.to_vec3::<f32>()?, [[[0., 0.], [3., 4.]]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn scale_rows(xs: &Tensor, scales: impl Into<Arc<[f32]>>) -> crate::Result<Tensor> {
    let scales = scales.into();
    let (batch, time, channels) = xs.dims3()?;
    if scales.len() != batch * time || channels == 0 {
        return Err(Error::invalid(
            "scales",
            format!("one for each of {batch} x {time} rows of at least one number"),
            format!("{} for {channels} channels", scales.len()),
        ));
    }
    Ok(apply(ScaleRows(scales), &[xs])?)
}

pub(crate) struct ScaleRows(pub Arc<[f32]>);

impl Op for ScaleRows {
    fn name(&self) -> &'static str {
        "scale-rows"
    }

    fn keep(&self) -> Keep {
        Keep::Nothing
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let x = inputs[0];
        dispatch!(self.name(), x.dtype(), T => {
            let (width, xs) = (x.channels(), x.slice::<T>()?);
            Ok(filled::<T>(x.shape(), |y| rows::scale(kernel, xs, width, &self.0, y)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, _: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        Ok(vec![Some(run(kernel, self, &[dy])?)])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let xs = inputs[0];
        let (batch, time, _) = xs.dims3()?;
        let scales = Tensor::from_slice(&self.0, (batch, time, 1), xs.device())?;
        xs.broadcast_mul(&scales.to_dtype(xs.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let scales = [1.0, 0.0, 0.5, 0.0, 1.0, 1.0];
        gradients(&[random(1, &[2, 3, 5])], |t| Ok(scale_rows(&t[0], scales)?));
    }

    #[test]
    fn as_many_scales_as_rows() {
        let error = scale_rows(&random(1, &[2, 3, 5]), [1.0; 5]).unwrap_err();
        assert!(error.to_string().contains("one for each of 2 x 3 rows"), "{error}");
    }
}
