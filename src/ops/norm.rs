//! Normalisation of rows, and of weights.

use candle_core::{D, Result, Shape, Tensor};

use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, on_cpu};
use super::{Element, StoredElement, filled, zeros};
use crate::kernels::{
    Kernel,
    elementwise::Activation,
    rows::{self, RowNorm},
};

/// Rows normalised over their channels, then scaled and shifted: layer norm (`norm.center`) or root-mean-square
/// norm; then an activation, if there is one, in the same pass.
///
/// `ys = then((xs − mean)/√(var + eps)·weight + bias)`; without `center`, `mean` is 0 and `var` the mean
/// square. Of rows (…, channels), a weight and perhaps a bias (channels).
///
/// # Numerics
/// Rows of `bf16` go with `weight` and `bias` of `f32`, computed in `f32`; their gradients are of the same types.
///
/// # References
/// `torch.nn.LayerNorm`, `torch.nn.RMSNorm` (Zhang & Sennrich 2019, arXiv:1910.07467).
pub(crate) struct NormalizeRows {
    pub norm: RowNorm,
    pub then: Option<Activation>,
}

impl NormalizeRows {
    fn gradients<T: StoredElement>(&self, kernel: Kernel, args: &[Arg]) -> Grads {
        let [x, rest @ .., dy] = args else { return Ok(Vec::new()) };
        let (shape, device) = (x.shape(), &candle_core::Device::Cpu);
        let (x, mut dy) = (x.slice::<T>()?, dy.slice::<T>()?);
        let weight = rest[0].slice::<T::Real>()?;
        let mut dx = zeros::<T>(x.len());
        let mut affine = zeros::<T::Real>(2 * weight.len());
        let before;
        if let Some(activation) = self.then {
            let bias = rest.get(1).map(|bias| bias.slice::<T::Real>()).transpose()?;
            // again, instead of keeping it
            let mut normal = zeros::<T>(x.len());
            self.norm.forward(kernel, x, weight, bias, None, &mut normal);
            let mut grads = zeros::<T>(x.len());
            activation.backward(kernel, &normal, dy, &mut grads);
            before = grads;
            dy = &before;
        }
        self.norm.backward(kernel, x, weight, dy, &mut dx, &mut affine);
        let db = affine.split_off(weight.len());
        let mut grads = vec![
            Some(Tensor::from_vec(dx, shape, device)?),
            Some(Tensor::from_vec(affine, weight.len(), device)?),
        ];
        if rest.len() > 1 {
            grads.push(Some(Tensor::from_vec(db, weight.len(), device)?));
        }
        Ok(grads)
    }
}

impl Op for NormalizeRows {
    fn name(&self) -> &'static str {
        "row-norm"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let (x, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
        dispatch!(self.name(), x.dtype(), T => {
            let bias = bias.map(|bias| bias.slice::<<T as crate::kernels::Stored>::Real>());
            let (xs, weight, bias) = (x.slice::<T>()?, weight.slice()?, bias.transpose()?);
            Ok(filled::<T>(x.shape(), |y| self.norm.forward(kernel, xs, weight, bias, self.then, y)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let all: Vec<&Tensor> = inputs.iter().chain([dy]).collect();
        on_cpu(
            &all,
            |args| dispatch!(self.name(), dy.dtype(), T => self.gradients::<T>(kernel, args), bf16),
        )
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (xs, weight) = (inputs[0], inputs[1]);
        let mut ys = xs.to_dtype(weight.dtype())?;
        if self.norm.center {
            ys = ys.broadcast_sub(&ys.mean_keepdim(D::Minus1)?)?;
        }
        let scale = (ys.sqr()?.mean_keepdim(D::Minus1)? + self.norm.eps)?.sqrt()?;
        ys = ys.broadcast_div(&scale)?.broadcast_mul(weight)?;
        if let Some(bias) = inputs.get(2) {
            ys = ys.broadcast_add(bias)?;
        }
        let ys = ys.to_dtype(xs.dtype())?;
        match self.then {
            Some(activation) => super::pointwise::Activate(activation).primitives(&[&ys]),
            None => Ok(ys),
        }
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
    Ok(apply(WeightNorm, &[v, g])?)
}

/// Of directions `v` and lengths `g`.
pub(crate) struct WeightNorm;

impl WeightNorm {
    fn gradients<T: Element>(kernel: Kernel, args: &[Arg]) -> Grads {
        let (v, g) = (args[0].slice::<T>()?, args[1].slice::<T>()?);
        let (mut dv, mut dg) = (zeros::<T>(v.len()), zeros::<T>(g.len()));
        rows::weight_norm_grad(kernel, v, g, args[2].slice::<T>()?, &mut dv, &mut dg);
        let grad = |grad, shape: &Shape| Tensor::from_vec(grad, shape, &candle_core::Device::Cpu);
        Ok(vec![Some(grad(dv, args[0].shape())?), Some(grad(dg, args[1].shape())?)])
    }
}

impl Op for WeightNorm {
    fn name(&self) -> &'static str {
        "weight-norm"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        dispatch!(self.name(), inputs[0].dtype(), T => {
            let (v, g) = (inputs[0].slice::<T>()?, inputs[1].slice::<T>()?);
            Ok(filled::<T>(inputs[0].shape(), |w| rows::weight_norm(kernel, v, g, w)))
        })
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dw: &Tensor) -> Grads {
        on_cpu(
            &[&inputs[0], &inputs[1], dw],
            |args| dispatch!(self.name(), dw.dtype(), T => Self::gradients::<T>(kernel, args)),
        )
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (flat, g) = (inputs[0].flatten_from(1)?, inputs[1]);
        let scale = g.flatten_all()?.unsqueeze(1)?.div(&flat.sqr()?.sum_keepdim(1)?.sqrt()?)?;
        flat.broadcast_mul(&scale)?.reshape(inputs[0].shape())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::{DType, Var};

    fn normalize_rows(
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        norm: RowNorm,
        then: Option<Activation>,
    ) -> Result<Tensor> {
        let inputs: Vec<_> = [xs, weight].into_iter().chain(bias).collect();
        apply(NormalizeRows { norm, then }, &inputs)
    }

    #[test]
    fn gradients_agree_with_differences() {
        for batch in [1, 3] {
            let inputs = [random(1, &[batch, 2, 5]), random(2, &[5]), random(3, &[5])];
            let layer = RowNorm { center: true, eps: 1e-5 };
            for then in [None, Some(Activation::Gelu), Some(Activation::Tanh)] {
                gradients(&inputs, |t| normalize_rows(&t[0], &t[1], Some(&t[2]), layer, then));
            }
            let rms = RowNorm { center: false, eps: 1e-6 };
            for then in [None, Some(Activation::Silu)] {
                gradients(&inputs[..2], |t| normalize_rows(&t[0], &t[1], None, rms, then));
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
                    let op = NormalizeRows { norm, then: None };
                    let inputs: Vec<_> = [&xs, &w].into_iter().chain(bias).collect();
                    let plain = op.primitives(&inputs).unwrap();
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
