//! Each step of each sequence times a number of its own: masks.

use std::sync::Arc;

use candle_core::{CpuStorage, Result, Shape, Tensor};

use super::tape::{self, Keep};
use super::{Arg, StoredElement, cpu_op, output, slice};
use crate::Error;
use crate::kernels::rows;

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
    if !xs.device().is_cpu() {
        let scales = Tensor::from_slice(&scales, (batch, time, 1), xs.device())?;
        return Ok(xs.broadcast_mul(&scales.to_dtype(xs.dtype())?)?);
    }
    let op = ScaleRows(scales);
    Ok(tape::apply1(&xs.contiguous()?, op, Keep::Nothing)?)
}

struct ScaleRows(Arc<[f32]>);

impl ScaleRows {
    fn run1<T: StoredElement>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let width = shape.dims().last().copied().unwrap_or(1);
        let x = slice::<T>(x)?;
        Ok(output::<T>(shape, |y| rows::scale(x, width, &self.0, y)))
    }
}

cpu_op!(CustomOp1 + bf16 for ScaleRows, "scale-rows",
    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(dy.contiguous()?.apply_op1_no_bwd(&Self(self.0.clone()))?))
    }
);

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
