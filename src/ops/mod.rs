//! Differentiable operations on candle tensors: the [`kernels`](crate::kernels) wrapped as custom
//! operations with their own backward pass, for `f32`, `f64` and (activations) `bf16` on the CPU.
//!
//! On other devices the same maths runs in candle's primitives, which are right everywhere. Tensors
//! are channels-last, `(batch, time, channels)` or `(batch, height, width, channels)`.
//!
//! Gradients of gradients are not supported.

pub(crate) mod batch_norm;
mod conv1d;
pub(crate) mod conv2d;
pub(crate) mod conv_transpose1d;
pub(crate) mod convolution;
pub(crate) mod dropout;
pub(crate) mod gather;
#[cfg(feature = "models")]
pub(crate) mod inplace;
mod loss;
pub(crate) mod norm;
pub(crate) mod op;
#[cfg(feature = "models")]
pub(crate) mod orthogonal;
pub(crate) mod pad;
pub(crate) mod pointwise;
mod pool;
mod primitives;
pub mod profile;
pub(crate) mod scale;
pub(crate) mod sections;
pub(crate) mod sum;

pub use conv_transpose1d::{ConvTranspose1dParams, conv_transpose1d};
pub(crate) use conv1d::Epilogue;
pub use conv1d::{Conv1dParams, conv1d};
pub use conv2d::{Conv2dParams, conv2d};
pub use dropout::{DropoutKind, dropout};
pub use gather::{embed, narrow_time, one_hot};
pub use loss::{cross_entropy, cross_entropy_with_gradient};
pub use norm::weight_norm;
pub use pad::{PaddingMode, pad1d, pad2d};
pub use pointwise::{activate, gate};
pub use pool::{Pool, last_step, length_mask, mean_rows, pool_rows};
pub use primitives::{conv1d_primitives, conv2d_primitives};
pub use sum::{add, add_relu};

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, Shape, Storage, Tensor, WithDType};
use rayon::prelude::*;

use crate::kernels::{Real, Stored};

/// A number that a kernel and candle both know how to handle.
trait Element: Real + Stored<Real = Self> + WithDType {}
impl Element for f32 {}
impl Element for f64 {}

/// A number in a tensor that a kernel takes: with `bf16`, computed with as `f32`.
trait StoredElement: Stored<Real: Element> + WithDType {}
impl StoredElement for f32 {}
impl StoredElement for f64 {}
impl StoredElement for half::bf16 {}

/// Zeros, written by all threads where there are many: memory that was used before has to be cleared.
fn zeros<T: WithDType>(len: usize) -> Vec<T> {
    const MANY: usize = 1 << 16;
    /// Written at once, by vector instructions.
    const PIECE: usize = 64;
    let zero = <T as num_traits::Zero>::zero();
    if len < MANY {
        return vec![zero; len];
    }
    let pieces = rayon::iter::repeat_n([zero; PIECE], len.div_ceil(PIECE));
    let pieces: Vec<_> = pieces.with_min_len(MANY / PIECE).collect();
    let mut zeros = pieces.into_flattened();
    zeros.truncate(len);
    zeros
}

/// Storage of a new tensor, filled by `fill`.
pub(crate) fn filled<T: WithDType>(
    shape: &Shape,
    fill: impl FnOnce(&mut [T]),
) -> (CpuStorage, Shape) {
    let mut data = zeros::<T>(shape.elem_count());
    fill(&mut data);
    (T::to_cpu_storage_owned(data), shape.clone())
}

/// Tensor of such a storage, without a past.
pub(crate) fn tensor((storage, shape): (CpuStorage, Shape)) -> Tensor {
    Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), false)
}

#[cfg(test)]
pub(crate) mod check {
    //! Gradients against central differences in double precision.

    use candle_core::{DType, Device, Result, Tensor, Var};
    use rand::{Rng, SeedableRng};

    use super::convolution::Convolution;
    use super::{Conv1dParams, Conv2dParams, Epilogue};
    use crate::close::{Tolerance, compare};

    pub(crate) fn random(seed: u64, shape: &[usize]) -> Tensor {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let len = shape.iter().product();
        let data: Vec<f64> =
            (0..len).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// Compares every component of every gradient of `Σ f(inputs)·coefficients`.
    pub(crate) fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let out = f(&tensors).unwrap();
        assert_eq!(out.dtype(), DType::F64);
        let coefficients = random(99, out.dims());
        let value = |inputs: &[Tensor]| -> f64 {
            (f(inputs).unwrap() * &coefficients).unwrap().sum_all().unwrap().to_scalar().unwrap()
        };
        let grads = (out * &coefficients).unwrap().sum_all().unwrap().backward().unwrap();
        for (n, input) in inputs.iter().enumerate() {
            let grad =
                grads.get(&tensors[n]).unwrap_or_else(|| panic!("input {n} has no gradient"));
            let grad: Vec<f64> = grad.flatten_all().unwrap().to_vec1().unwrap();
            let flat: Vec<f64> = input.flatten_all().unwrap().to_vec1().unwrap();
            for i in 0..flat.len() {
                let moved = |h: f64| {
                    let mut flat = flat.clone();
                    flat[i] += h;
                    let mut all = inputs.to_vec();
                    all[n] = Tensor::from_vec(flat, input.dims(), &Device::Cpu).unwrap();
                    value(&all)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!(
                    (grad[i] - slope).abs() < 1e-7 * (1.0 + slope.abs()),
                    "input {n}[{i}]: {} against {slope}",
                    grad[i]
                );
            }
        }
    }

    /// A convolution over time with its epilogue.
    pub(crate) fn conv1d_then(
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        params: Conv1dParams,
        epilogue: Epilogue,
    ) -> crate::Result<Tensor> {
        let shape = params.shape(xs, weight, None)?;
        Convolution { shape, history: None, sections: None, epilogue }.apply(xs, weight, bias)
    }

    /// A convolution over images with its epilogue.
    pub(crate) fn conv2d_then(
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        params: Conv2dParams,
        epilogue: Epilogue,
    ) -> crate::Result<Tensor> {
        let shape = params.shape(xs, weight)?;
        Convolution { shape, history: None, sections: None, epilogue }.apply(xs, weight, bias)
    }

    pub(crate) fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
        assert_eq!(a.dims(), b.dims());
        let numbers = |t: &Tensor| -> candle_core::Result<Vec<f64>> {
            t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
        };
        let tolerance = Tolerance { atol: tolerance, rtol: tolerance };
        compare(&numbers(a).unwrap(), &numbers(b).unwrap(), tolerance).unwrap();
    }
}
