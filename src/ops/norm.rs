//! Normalisation of rows, and of weights.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};

use super::{Element, dispatch, output, slice};
use crate::kernels::rows::{self, RowNorm};

/// Normalises each row over its channels, then scales and shifts: layer norm (`norm.center`) or
/// root-mean-square norm.
///
/// `ys = (xs − mean)/√(var + eps)·weight + bias`; without `center`, `mean` is 0 and `var` the mean square.
///
/// # Shapes
/// `xs` (…, channels), `weight` and `bias` (channels); result as `xs`.
///
/// # Errors
/// Those of candle (shape or dtype).
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::{kernels::rows::RowNorm, ops::normalize_rows};
/// let xs = Tensor::new(&[[1f64, 3.]], &Device::Cpu)?;
/// let weight = Tensor::new(&[2f64, 2.], &Device::Cpu)?;
/// let ys = normalize_rows(&xs, &weight, None, RowNorm { center: true, eps: 0. })?;
/// assert_eq!(ys.to_vec2::<f64>()?, [[-2., 2.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.LayerNorm`, `torch.nn.RMSNorm` (Zhang & Sennrich 2019, arXiv:1910.07467).
pub fn normalize_rows(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    norm: RowNorm,
) -> crate::Result<Tensor> {
    let channels = xs.dim(D::Minus1)?;
    if weight.dims() != [channels] {
        return Err(crate::Error::invalid(
            "norm weight",
            format!("({channels})"),
            format!("{:?}", weight.dims()),
        ));
    }
    if xs.device().is_cpu() {
        let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
        return Ok(match bias {
            None => xs.apply_op2(&weight, Norm(norm))?,
            Some(bias) => xs.apply_op3(&weight, &bias.contiguous()?, Norm(norm))?,
        });
    }
    let xs = if norm.center {
        xs.broadcast_sub(&xs.mean_keepdim(D::Minus1)?)?
    } else {
        xs.clone()
    };
    let scale = (xs.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?.sqrt()?;
    let ys = xs.broadcast_div(&scale)?.broadcast_mul(weight)?;
    Ok(match bias {
        None => ys,
        Some(bias) => ys.broadcast_add(bias)?,
    })
}

struct Norm(RowNorm);

impl Norm {
    fn run<T: Element>(
        &self,
        (x, lx): (&CpuStorage, &Layout),
        (w, lw): (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = bias.map(|(b, l)| slice::<T>(b, l)).transpose()?;
        let (x, w) = (slice::<T>(x, lx)?, slice::<T>(w, lw)?);
        Ok(output::<T>(lx.shape(), |y| self.0.forward(x, w, bias, y)))
    }

    /// The gradients of input, weight and bias.
    fn gradients(&self, xs: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<[Tensor; 3]> {
        let dy = dy.contiguous()?;
        let dx = xs.apply_op3_no_bwd(weight, &dy, &NormGradInput(self.0))?;
        let affine = xs.apply_op2_no_bwd(&dy, &NormGradAffine(self.0))?;
        Ok([dx, affine.get(0)?, affine.get(1)?])
    }
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "row-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!("row-norm", x, self.run((x, lx), (w, lw), None))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, _] = self.gradients(xs, weight, dy)?;
        Ok((Some(dx), Some(dw)))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "row-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!("row-norm", x, self.run((x, lx), (w, lw), Some((b, lb))))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = self.gradients(xs, weight, dy)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

struct NormGradInput(RowNorm);

impl NormGradInput {
    fn run<T: Element>(
        &self,
        (x, lx): (&CpuStorage, &Layout),
        (w, lw): (&CpuStorage, &Layout),
        (dy, ldy): (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, dy) = (slice::<T>(x, lx)?, slice::<T>(w, lw)?, slice::<T>(dy, ldy)?);
        Ok(output::<T>(lx.shape(), |dx| {
            self.0.grad_input(x, w, dy, dx)
        }))
    }
}

impl CustomOp3 for NormGradInput {
    fn name(&self) -> &'static str {
        "row-norm-grad"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!("row-norm-grad", x, self.run((x, lx), (w, lw), (dy, ldy)))
    }
}

struct NormGradAffine(RowNorm);

impl NormGradAffine {
    fn run<T: Element>(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let channels = lx.dims().last().copied().unwrap_or(1);
        let (x, dy) = (slice::<T>(x, lx)?, slice::<T>(dy, ldy)?);
        Ok(output::<T>(&(2, channels).into(), |out| {
            self.0.grad_affine(x, dy, out)
        }))
    }
}

impl CustomOp2 for NormGradAffine {
    fn name(&self) -> &'static str {
        "row-norm-grad-affine"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!("row-norm-grad-affine", x, self.run(x, lx, dy, ldy))
    }
}

/// Weight normalisation `w = g·v/‖v‖`, the norm taken over all axes but the first.
///
/// # Shapes
/// `v` (out_channels, …), `g` with `out_channels` elements, any rank; result as `v`.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) where `g` does not have one element per output channel.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::weight_norm;
/// let v = Tensor::new(&[[3f64, 4.]], &Device::Cpu)?;
/// let g = Tensor::new(&[10f64], &Device::Cpu)?;
/// assert_eq!(weight_norm(&v, &g)?.to_vec2::<f64>()?, [[6., 8.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Salimans & Kingma 2016, arXiv:1602.07868; `torch.nn.utils.weight_norm` with `dim=0`.
pub fn weight_norm(v: &Tensor, g: &Tensor) -> crate::Result<Tensor> {
    let out_channels = v.dim(0)?;
    if g.elem_count() != out_channels || v.elem_count() == 0 {
        return Err(crate::Error::invalid(
            "weight_g",
            format!("{out_channels} elements"),
            format!("{:?}", g.dims()),
        ));
    }
    if v.device().is_cpu() {
        return Ok(v.contiguous()?.apply_op2(&g.contiguous()?, WeightNorm)?);
    }
    let flat = v.flatten_from(1)?;
    let scale = g
        .reshape((out_channels, 1))?
        .div(&flat.sqr()?.sum_keepdim(1)?.sqrt()?)?;
    Ok(flat.broadcast_mul(&scale)?.reshape(v.shape())?)
}

struct WeightNorm;

impl WeightNorm {
    fn run<T: Element>(
        &self,
        v: &CpuStorage,
        lv: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (v, g) = (slice::<T>(v, lv)?, slice::<T>(g, lg)?);
        Ok(output::<T>(lv.shape(), |w| rows::weight_norm(v, g, w)))
    }
}

impl CustomOp2 for WeightNorm {
    fn name(&self) -> &'static str {
        "weight-norm"
    }

    fn cpu_fwd(
        &self,
        v: &CpuStorage,
        lv: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!("weight-norm", v, self.run(v, lv, g, lg))
    }

    fn bwd(
        &self,
        v: &Tensor,
        g: &Tensor,
        _: &Tensor,
        dw: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dw = dw.contiguous()?;
        let dv = v.apply_op3_no_bwd(g, &dw, &WeightNormGradV)?;
        let dg = v.apply_op2_no_bwd(&dw, &WeightNormGradG)?;
        Ok((Some(dv), Some(dg.reshape(g.shape())?)))
    }
}

struct WeightNormGradV;

impl WeightNormGradV {
    fn run<T: Element>(
        &self,
        (v, lv): (&CpuStorage, &Layout),
        (g, lg): (&CpuStorage, &Layout),
        (dw, ldw): (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        let (v, g, dw) = (slice::<T>(v, lv)?, slice::<T>(g, lg)?, slice::<T>(dw, ldw)?);
        Ok(output::<T>(lv.shape(), |dv| {
            rows::weight_norm_grad_v(v, g, dw, dv)
        }))
    }
}

impl CustomOp3 for WeightNormGradV {
    fn name(&self) -> &'static str {
        "weight-norm-grad-v"
    }

    fn cpu_fwd(
        &self,
        v: &CpuStorage,
        lv: &Layout,
        g: &CpuStorage,
        lg: &Layout,
        dw: &CpuStorage,
        ldw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!(
            "weight-norm-grad-v",
            v,
            self.run((v, lv), (g, lg), (dw, ldw))
        )
    }
}

struct WeightNormGradG;

impl WeightNormGradG {
    fn run<T: Element>(
        &self,
        v: &CpuStorage,
        lv: &Layout,
        dw: &CpuStorage,
        ldw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (v, dw) = (slice::<T>(v, lv)?, slice::<T>(dw, ldw)?);
        Ok(output::<T>(&lv.dims()[0].into(), |dg| {
            rows::weight_norm_grad_g(v, dw, dg)
        }))
    }
}

impl CustomOp2 for WeightNormGradG {
    fn name(&self) -> &'static str {
        "weight-norm-grad-g"
    }

    fn cpu_fwd(
        &self,
        v: &CpuStorage,
        lv: &Layout,
        dw: &CpuStorage,
        ldw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!("weight-norm-grad-g", v, self.run(v, lv, dw, ldw))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{gradients, random};
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        for batch in [1, 3] {
            let inputs = [random(1, &[batch, 2, 5]), random(2, &[5]), random(3, &[5])];
            let layer = RowNorm {
                center: true,
                eps: 1e-5,
            };
            gradients(&inputs, |t| {
                Ok(normalize_rows(&t[0], &t[1], Some(&t[2]), layer)?)
            });
            let rms = RowNorm {
                center: false,
                eps: 1e-6,
            };
            gradients(&inputs[..2], |t| {
                Ok(normalize_rows(&t[0], &t[1], None, rms)?)
            });
        }
        gradients(&[random(1, &[4, 3, 2]), random(2, &[4, 1, 1])], |t| {
            Ok(weight_norm(&t[0], &t[1])?)
        });
    }
}
