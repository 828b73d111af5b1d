//! Activations, gates and products as operations.

use candle_core::{D, Result, Tensor};

use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, on_cpu};
use super::{filled, tensor};
use crate::Error;
use crate::kernels::Kernel;
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
    Ok(apply(Activate(activation), &[xs])?)
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
    Ok(apply(Gated(gate), &[xs])?)
}

pub(crate) struct Activate(pub Activation);

impl Op for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let x = inputs[0];
        dispatch!(self.name(), x.dtype(), T => {
            let xs = x.slice::<T>()?;
            Ok(filled::<T>(x.shape(), |y| self.0.forward(kernel, xs, y)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let dx = on_cpu(&[&inputs[0], dy], |args| {
            dispatch!(self.name(), dy.dtype(), T => {
                let (x, dy) = (args[0].slice::<T>()?, args[1].slice::<T>()?);
                Ok(filled::<T>(args[0].shape(), |dx| self.0.backward(kernel, x, dy, dx)))
            }, bf16)
        })?;
        Ok(vec![Some(tensor(dx))])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let xs = inputs[0];
        match self.0 {
            Activation::Relu => xs.relu(),
            // of `gelu_erf`, candle knows the gradient to six digits only
            Activation::Gelu => ((xs / 2f64.sqrt())?.erf()? + 1.0)? * (xs * 0.5)?,
            Activation::Silu => xs.silu(),
            Activation::Elu => xs.elu(1.0),
            Activation::Selu => xs.elu(SELU_ALPHA)? * SELU_SCALE,
            Activation::LeakyRelu => candle_nn::ops::leaky_relu(xs, 0.01),
            Activation::Tanh => xs.tanh(),
            Activation::Sigmoid => candle_nn::ops::sigmoid(xs),
            // ln(1 + e^x) without e^x of a large x
            Activation::Mish => {
                let softplus = (xs.relu()? + (xs.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
                xs * softplus.tanh()?
            }
        }
    }
}

pub(crate) struct Gated(pub Gate);

impl Op for Gated {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let x = inputs[0];
        let (channels, mut dims) = (x.channels() / 2, x.shape().dims().to_vec());
        if let Some(last) = dims.last_mut() {
            *last = channels;
        }
        dispatch!(self.name(), x.dtype(), T => {
            let xs = x.slice::<T>()?;
            Ok(filled::<T>(&dims.into(), |y| self.0.forward(kernel, channels, xs, y)))
        }, bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let dx = on_cpu(&[&inputs[0], dy], |args| {
            let channels = args[1].channels();
            dispatch!(self.name(), dy.dtype(), T => {
                let (x, dy) = (args[0].slice::<T>()?, args[1].slice::<T>()?);
                Ok(filled::<T>(args[0].shape(), |dx| self.0.backward(kernel, channels, x, dy, dx)))
            }, bf16)
        })?;
        Ok(vec![Some(tensor(dx))])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let xs = inputs[0];
        let half = xs.dim(D::Minus1)? / 2;
        let (a, b) = (xs.narrow(D::Minus1, 0, half)?, xs.narrow(D::Minus1, half, half)?);
        let a = match self.0 {
            Gate::Glu => a,
            Gate::TanhSigmoid => a.tanh()?,
        };
        a * candle_nn::ops::sigmoid(&b)?
    }
}

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
