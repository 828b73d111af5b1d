//! Activations and gates as operations.

use candle_core::{CpuStorage, D, Layout, Result, Shape, Tensor};

use super::tape::{self, Keep};
use super::{Arg, StoredElement, cpu_op, output, slice};
use crate::Error;
use crate::kernels::elementwise::{Activation, Gate, SELU_ALPHA, SELU_SCALE};

/// Applies `activation` to each element.
///
/// # Errors
/// Those of candle (dtype other than `f32`, `f64` and `bf16` on a CPU).
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::{nn::Activation, ops::activate};
/// let xs = Tensor::new(&[-1f32, 2.], &Device::Cpu)?;
/// assert_eq!(activate(&xs, Activation::Relu)?.to_vec1::<f32>()?, [0., 2.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn activate(xs: &Tensor, activation: Activation) -> crate::Result<Tensor> {
    if xs.device().is_cpu() {
        return Ok(tape::apply1(&xs.contiguous()?, Activate(activation), Keep::Inputs)?);
    }
    Ok(match activation {
        Activation::Relu => xs.relu()?,
        Activation::Gelu => xs.gelu_erf()?,
        Activation::Silu => xs.silu()?,
        Activation::Elu => xs.elu(1.0)?,
        Activation::Selu => (xs.elu(SELU_ALPHA)? * SELU_SCALE)?,
        Activation::LeakyRelu => candle_nn::ops::leaky_relu(xs, 0.01)?,
        Activation::Tanh => xs.tanh()?,
        Activation::Sigmoid => candle_nn::ops::sigmoid(xs)?,
        Activation::Mish => xs.mul(&((xs.exp()? + 1.0)?.log()?.tanh()?))?,
    })
}

/// Weighs the first half of the last axis by the second half.
///
/// # Shapes
/// `xs` (…, 2·channels) to (…, channels).
///
/// # Errors
/// [`Error::Invalid`] where the last axis is not even.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::{nn::Gate, ops::gate};
/// let xs = Tensor::new(&[[4f32, 0.]], &Device::Cpu)?;
/// assert_eq!(gate(&xs, Gate::Glu)?.to_vec2::<f32>()?, [[2.]]); // 4·σ(0)
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn gate(xs: &Tensor, gate: Gate) -> crate::Result<Tensor> {
    let channels = xs.dim(D::Minus1)?;
    if channels == 0 || !channels.is_multiple_of(2) {
        return Err(Error::invalid("gate", "an even number of channels", channels));
    }
    if xs.device().is_cpu() {
        return Ok(tape::apply1(&xs.contiguous()?, Gated(gate), Keep::Inputs)?);
    }
    let half = channels / 2;
    let (a, b) = (xs.narrow(D::Minus1, 0, half)?, xs.narrow(D::Minus1, half, half)?);
    let a = match gate {
        Gate::Glu => a,
        Gate::TanhSigmoid => a.tanh()?,
    };
    Ok((a * candle_nn::ops::sigmoid(&b)?)?)
}

struct Activate(Activation);

impl Activate {
    fn run1<T: StoredElement>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let x = slice::<T>(x)?;
        Ok(output::<T>(shape, |y| self.0.forward(x, y)))
    }
}

cpu_op!(CustomOp1 + bf16 for Activate, "activation",
    fn bwd(&self, xs: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(xs.apply_op2_no_bwd(
            &dy.contiguous()?,
            &ActivateGrad(self.0),
        )?))
    }
);

struct ActivateGrad(Activation);

impl ActivateGrad {
    fn run2<T: StoredElement>(&self, x: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape();
        let (x, dy) = (slice::<T>(x)?, slice::<T>(dy)?);
        Ok(output::<T>(shape, |dx| self.0.backward(x, dy, dx)))
    }
}

cpu_op!(CustomOp2 + bf16 for ActivateGrad, "activation-grad");

fn last(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1)
}

struct Gated(Gate);

impl Gated {
    fn run1<T: StoredElement>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let channels = last(x.1) / 2;
        let mut dims = x.1.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = channels;
        }
        let x = slice::<T>(x)?;
        Ok(output::<T>(&dims.into(), |y| self.0.forward(channels, x, y)))
    }
}

cpu_op!(CustomOp1 + bf16 for Gated, "gate",
    fn bwd(&self, xs: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(
            xs.apply_op2_no_bwd(&dy.contiguous()?, &GatedGrad(self.0))?,
        ))
    }
);

struct GatedGrad(Gate);

impl GatedGrad {
    fn run2<T: StoredElement>(&self, x: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let (shape, channels) = (x.1.shape(), last(dy.1));
        let (x, dy) = (slice::<T>(x)?, slice::<T>(dy)?);
        Ok(output::<T>(shape, |dx| self.0.backward(channels, x, dy, dx)))
    }
}

cpu_op!(CustomOp2 + bf16 for GatedGrad, "gate-grad");

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::{DType, Var};

    #[test]
    fn gradients_agree_with_differences() {
        for f in [Activation::Relu, Activation::Gelu, Activation::Selu, Activation::Mish] {
            gradients(&[random(1, &[3, 2, 4])], |t| Ok(activate(&t[0], f)?));
        }
        for g in [Gate::Glu, Gate::TanhSigmoid] {
            gradients(&[random(1, &[3, 2, 6])], |t| Ok(gate(&t[0], g)?));
        }
    }

    #[test]
    fn a_view_is_made_contiguous() {
        let xs = random(1, &[2, 3, 4]).transpose(1, 2).unwrap();
        gradients(&[xs], |t| Ok(activate(&t[0].transpose(0, 1)?, Activation::Silu)?));
    }

    #[test]
    fn an_odd_width_cannot_be_gated() {
        let error = gate(&random(1, &[1, 3]), Gate::Glu).unwrap_err();
        assert_eq!(error.to_string(), "gate: expected an even number of channels, found 3");
    }

    #[test]
    fn bf16_stays_bf16() {
        let xs = random(1, &[2, 3, 6]).to_dtype(DType::BF16).unwrap();
        let run = |dtype: DType| {
            let var = Var::from_tensor(&xs.to_dtype(dtype).unwrap()).unwrap();
            let ys = gate(&activate(&var, Activation::Silu).unwrap(), Gate::Glu).unwrap();
            let grads = ys.sum_all().unwrap().backward().unwrap();
            (ys, grads.get(&var).unwrap().clone())
        };
        let ((ys, dx), (want, want_dx)) = (run(DType::BF16), run(DType::F64));
        assert_eq!((ys.dtype(), dx.dtype()), (DType::BF16, DType::BF16));
        assert_close(&ys, &want, 1. / 128.);
        assert_close(&dx, &want_dx, 1. / 128.);
    }
}
