//! Normalisation of rows, and of weights.

use candle_core::{CpuStorage, D, Device, Result, Shape, Tensor};

use super::tape::{self, Keep};
use super::{Arg, Element, StoredElement, argument, cpu_op, dispatch, output, slice, zeros};
use crate::kernels::{
    elementwise::Activation,
    rows::{self, RowNorm},
};

/// Normalises each row over its channels, then scales and shifts: layer norm (`norm.center`) or
/// root-mean-square norm. Then applies an activation, if there is one, in the same pass.
///
/// `ys = then((xs − mean)/√(var + eps)·weight + bias)`; without `center`, `mean` is 0 and `var` the mean
/// square.
///
/// # Shapes
/// `xs` (…, channels), `weight` and `bias` (channels); result as `xs`.
///
/// # Numerics
/// `xs` of `bf16` goes with `weight` and `bias` of `f32`, computed in `f32`; their gradients are of the
/// same types.
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
/// let ys = normalize_rows(&xs, &weight, None, RowNorm { center: true, eps: 0. }, None)?;
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
    then: Option<Activation>,
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
        let op = Norm { norm, then };
        return Ok(match bias {
            None => tape::apply2(&xs, &weight, op, Keep::Inputs)?,
            Some(bias) => tape::apply3(&xs, &weight, &bias.contiguous()?, op, Keep::Inputs)?,
        });
    }
    let ys = primitives(xs, weight, bias, norm)?;
    match then {
        Some(activation) => super::activate(&ys, activation),
        None => Ok(ys),
    }
}

/// The same in candle's operations, for every device.
fn primitives(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    norm: RowNorm,
) -> Result<Tensor> {
    let dtype = xs.dtype();
    let mut ys = xs.to_dtype(weight.dtype())?;
    if norm.center {
        ys = ys.broadcast_sub(&ys.mean_keepdim(D::Minus1)?)?;
    }
    let scale = (ys.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?.sqrt()?;
    ys = ys.broadcast_div(&scale)?.broadcast_mul(weight)?;
    if let Some(bias) = bias {
        ys = ys.broadcast_add(bias)?;
    }
    ys.to_dtype(dtype)
}

struct Norm {
    norm: RowNorm,
    then: Option<Activation>,
}

impl Norm {
    fn run2<T: StoredElement>(&self, x: Arg, w: Arg) -> Result<(CpuStorage, Shape)> {
        self.run::<T>(x, w, None)
    }

    fn run3<T: StoredElement>(&self, x: Arg, w: Arg, bias: Arg) -> Result<(CpuStorage, Shape)> {
        self.run::<T>(x, w, Some(bias))
    }

    fn run<T: StoredElement>(
        &self,
        x: Arg,
        w: Arg,
        bias: Option<Arg>,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let bias = bias.map(slice::<T::Real>).transpose()?;
        let (x, w) = (slice::<T>(x)?, slice::<T::Real>(w)?);
        let Self { norm, then } = *self;
        Ok(output::<T>(shape, |y| norm.forward(x, w, bias, then, y)))
    }

    /// The gradients of input, weight and bias.
    fn gradients(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let dy = dy.contiguous()?;
        dispatch!("row-norm", xs.dtype(), T => self.grad::<T>(xs, weight, bias, &dy), bf16)
    }

    fn grad<T: StoredElement>(
        &self,
        xs: &Tensor,
        w: &Tensor,
        bias: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let channels = w.elem_count();
        let mut dx = zeros::<T>(xs.elem_count());
        let mut affine = zeros::<T::Real>(2 * channels);
        let [x, w, dy] = [xs, w, dy].map(Tensor::storage_and_layout);
        let (x, w) = (slice::<T>(argument(&x)?)?, slice::<T::Real>(argument(&w)?)?);
        let mut dy = slice::<T>(argument(&dy)?)?;
        let before;
        if let Some(activation) = self.then {
            let bias = bias.map(Tensor::storage_and_layout);
            let bias = bias.as_ref().map(|b| slice::<T::Real>(argument(b)?));
            // again, instead of keeping it
            let mut normal = zeros::<T>(x.len());
            self.norm.forward(x, w, bias.transpose()?, None, &mut normal);
            let mut grads = zeros::<T>(x.len());
            activation.backward(&normal, dy, &mut grads);
            before = grads;
            dy = &before;
        }
        self.norm.backward(x, w, dy, &mut dx, &mut affine);
        let db = affine.split_off(channels);
        let device = &Device::Cpu;
        Ok([
            Tensor::from_vec(dx, xs.shape(), device)?,
            Tensor::from_vec(affine, channels, device)?,
            Tensor::from_vec(db, channels, device)?,
        ])
    }
}

cpu_op!(CustomOp2 + bf16 for Norm, "row-norm",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, _] = self.gradients(xs, weight, None, dy)?;
        Ok((Some(dx), Some(dw)))
    }
);

cpu_op!(CustomOp3 + bf16 for Norm, "row-norm",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = self.gradients(xs, weight, Some(bias), dy)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
);

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
        let (v, g) = (v.contiguous()?, g.contiguous()?);
        return Ok(tape::apply2(&v, &g, WeightNorm, Keep::Inputs)?);
    }
    let flat = v.flatten_from(1)?;
    let scale = g.reshape((out_channels, 1))?.div(&flat.sqr()?.sum_keepdim(1)?.sqrt()?)?;
    Ok(flat.broadcast_mul(&scale)?.reshape(v.shape())?)
}

struct WeightNorm;

impl WeightNorm {
    fn run2<T: Element>(&self, v: Arg, g: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = v.1.shape();
        let (v, g) = (slice::<T>(v)?, slice::<T>(g)?);
        Ok(output::<T>(shape, |w| rows::weight_norm(v, g, w)))
    }
}

cpu_op!(CustomOp2 for WeightNorm, "weight-norm",
    fn bwd(
        &self,
        v: &Tensor,
        g: &Tensor,
        _: &Tensor,
        dw: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dw = dw.contiguous()?;
        let grads = dispatch!("weight-norm", v.dtype(), T => weight_norm_grad::<T>(v, g, &dw));
        grads.map(|(dv, dg)| (Some(dv), Some(dg)))
    }
);

fn weight_norm_grad<T: Element>(v: &Tensor, g: &Tensor, dw: &Tensor) -> Result<(Tensor, Tensor)> {
    let mut dv = zeros::<T>(v.elem_count());
    let mut dg = zeros::<T>(g.elem_count());
    let held = [v, g, dw].map(Tensor::storage_and_layout);
    rows::weight_norm_grad(
        slice::<T>(argument(&held[0])?)?,
        slice::<T>(argument(&held[1])?)?,
        slice::<T>(argument(&held[2])?)?,
        &mut dv,
        &mut dg,
    );
    let device = &Device::Cpu;
    Ok((Tensor::from_vec(dv, v.shape(), device)?, Tensor::from_vec(dg, g.shape(), device)?))
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::{DType, Var};

    #[test]
    fn gradients_agree_with_differences() {
        for batch in [1, 3] {
            let inputs = [random(1, &[batch, 2, 5]), random(2, &[5]), random(3, &[5])];
            let layer = RowNorm { center: true, eps: 1e-5 };
            for then in [None, Some(Activation::Gelu), Some(Activation::Tanh)] {
                gradients(&inputs, |t| Ok(normalize_rows(&t[0], &t[1], Some(&t[2]), layer, then)?));
            }
            let rms = RowNorm { center: false, eps: 1e-6 };
            for then in [None, Some(Activation::Silu)] {
                gradients(&inputs[..2], |t| Ok(normalize_rows(&t[0], &t[1], None, rms, then)?));
            }
        }
        gradients(&[random(1, &[4, 3, 2]), random(2, &[4, 1, 1])], |t| {
            Ok(weight_norm(&t[0], &t[1])?)
        });
    }

    #[test]
    fn bf16_rows_go_with_f32_weights() {
        let layer = RowNorm { center: true, eps: 1e-5 };
        let rounded = random(1, &[2, 3, 7]).to_dtype(DType::BF16).unwrap();
        let run = |dtype: DType, weights: DType| {
            let var = |t: &Tensor, dtype| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap();
            let xs = var(&rounded, dtype);
            let weight = var(&random(2, &[7]).to_dtype(DType::F32).unwrap(), weights);
            let bias = var(&random(3, &[7]).to_dtype(DType::F32).unwrap(), weights);
            let ys = normalize_rows(&xs, &weight, Some(&bias), layer, None).unwrap();
            let grads = ys.sum_all().unwrap().backward().unwrap();
            let grads = [&xs, &weight, &bias].map(|var| grads.get(var).unwrap().clone());
            (ys, grads)
        };
        let (ys, grads) = run(DType::BF16, DType::F32);
        let (want, want_grads) = run(DType::F64, DType::F64);
        assert_eq!(ys.dtype(), DType::BF16);
        assert_close(&ys, &want, 1. / 256.);
        let dtypes = grads.each_ref().map(Tensor::dtype);
        assert_eq!(dtypes, [DType::BF16, DType::F32, DType::F32]);
        for (grad, want) in grads.iter().zip(&want_grads) {
            assert_close(grad, want, 1. / 256.);
        }
    }

    #[test]
    fn primitives_agree() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 1. / 128.)] {
            for center in [false, true] {
                let norm = RowNorm { center, eps: 1e-5 };
                let xs = random(1, &[2, 3, 7]).to_dtype(dtype).unwrap();
                let [w, b] = [2, 3].map(|seed| random(seed, &[7]).to_dtype(DType::F32).unwrap());
                for bias in [None, Some(&b)] {
                    let ours = normalize_rows(&xs, &w, bias, norm, None).unwrap();
                    let plain = primitives(&xs, &w, bias, norm).unwrap();
                    assert_eq!(plain.dtype(), dtype);
                    assert_close(&ours, &plain, tolerance);
                }
            }
        }
    }

    #[test]
    fn an_activation_in_the_same_pass_is_the_one_after_it() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let norm = RowNorm { center: true, eps: 1e-5 };
            let weights = match dtype {
                DType::BF16 => DType::F32,
                other => other,
            };
            let xs = Var::from_tensor(&random(1, &[3, 50, 33]).to_dtype(dtype).unwrap()).unwrap();
            let [w, b] = [2, 3].map(|seed| {
                Var::from_tensor(&random(seed, &[33]).to_dtype(weights).unwrap()).unwrap()
            });
            for activation in [Activation::Relu, Activation::Gelu] {
                let then = Some(activation);
                let fused = normalize_rows(&xs, &w, Some(&b), norm, then).unwrap();
                let apart = normalize_rows(&xs, &w, Some(&b), norm, None).unwrap();
                let apart = super::super::activate(&apart, activation).unwrap();
                let [fused, apart] = [fused, apart].map(|ys| {
                    let grads = ys.sqr().unwrap().backward().unwrap();
                    let grads = [&xs, &w, &b].map(|var| grads.get(var).unwrap().clone());
                    let all = [ys, grads[0].clone(), grads[1].clone(), grads[2].clone()];
                    all.map(|t| {
                        let t = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
                        t.to_vec1::<f64>().unwrap()
                    })
                });
                assert_eq!(fused, apart, "{dtype:?} {activation:?}");
            }
        }
    }
}
