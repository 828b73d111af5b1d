//! The trainable tensors of a network: named, ordered, initialised from a seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Named variables in the order of their names, for training.
///
/// candle's own `VarMap` draws initial values from a generator that cannot be seeded on a CPU and
/// iterates in hash order; here the same seed gives the same weights. A tensor is made when a layer
/// first asks [`Params::builder`] for it. A `weight_g` starts as the norm of the `weight_v` beside it,
/// so that weight norm changes nothing at the start, as in PyTorch.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::nn::{Conv1dConfig, Params, dilated_conv1d};
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// dilated_conv1d(4, 8, 3, Conv1dConfig::causal(), params.builder().pp("conv"))?;
/// let names: Vec<String> = params.all().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["conv.bias", "conv.weight"]);
/// assert_eq!(params.count(), 8 * 4 * 3 + 8);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Clone)]
pub struct Params {
    vars: Arc<Mutex<BTreeMap<String, Var>>>,
    seed: u64,
    dtype: DType,
    device: Device,
}

/// Names of the tensors that are not trained: what batch norm has seen.
const STATISTICS: [&str; 2] = ["running_mean", "running_var"];

impl Params {
    /// No variables yet; those to come are drawn from `seed`.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Self {
        Self { vars: Arc::default(), seed, dtype, device: device.clone() }
    }

    /// A builder that layers take their tensors from.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), self.dtype, self.device.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Var>> {
        self.vars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every variable, ordered by name.
    pub fn all(&self) -> Vec<(String, Var)> {
        self.lock().iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// `true` if an optimizer trains the tensor of this name: all but the statistics of batch norms.
    pub fn is_trained(name: &str) -> bool {
        !STATISTICS.iter().any(|statistic| name.ends_with(statistic))
    }

    /// The variables that an optimizer trains.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        let trained = |(name, _): &(String, Var)| Self::is_trained(name);
        self.all().into_iter().filter(trained).collect()
    }

    /// The number of trainable parameters.
    pub fn count(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// A copy of every tensor as it is now, for a checkpoint or a frozen network.
    ///
    /// # Errors
    /// Those of candle.
    pub fn snapshot(&self) -> Result<HashMap<String, Tensor>> {
        self.all().into_iter().map(|(name, var)| Ok((name, var.as_tensor().copy()?))).collect()
    }

    /// Sets every variable from `tensors`.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor that is missing or of another shape.
    pub fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, var) in self.all() {
            let expected = format!("{:?}", var.dims());
            let mismatch = |found: String| Error::Tensor {
                name: name.clone(),
                expected: expected.clone(),
                found,
            };
            let tensor = tensors.get(&name).ok_or_else(|| mismatch("no such tensor".into()))?;
            if tensor.dims() != var.dims() {
                return Err(mismatch(format!("{:?}", tensor.dims())));
            }
            var.set(&tensor.to_dtype(self.dtype)?.to_device(&self.device)?)?;
        }
        Ok(())
    }

    /// First values of the tensor of this name: drawn on the CPU from the seed and the name, then moved.
    fn initial(&self, shape: &Shape, init: Init, name: &str) -> candle_core::Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let hash = Sha256::digest(name);
        rng.set_stream(hash.iter().take(8).fold(0, |stream, &byte| stream << 8 | u64::from(byte)));
        let mut unit = || (f64::from(rng.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
        let mut draw = |init: Init| match init {
            Init::Const(value) => value,
            Init::Uniform { lo, up } => lo + (up - lo) * unit(),
            // Box and Muller
            Init::Randn { mean, stdev } => {
                let (radius, angle) = ((-2.0 * unit().ln()).sqrt(), std::f64::consts::TAU * unit());
                mean + stdev * radius * angle.cos()
            }
            Init::Kaiming { .. } => f64::NAN,
        };
        let init = match init {
            Init::Kaiming { dist, fan, non_linearity } => {
                let stdev = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                let bound = 3f64.sqrt() * stdev;
                match dist {
                    NormalOrUniform::Normal => Init::Randn { mean: 0.0, stdev },
                    NormalOrUniform::Uniform => Init::Uniform { lo: -bound, up: bound },
                }
            }
            plain => plain,
        };
        let data: Vec<f64> = (0..shape.elem_count()).map(|_| draw(init)).collect();
        Tensor::from_vec(data, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)
    }

    /// The variable of this name.
    pub fn get(&self, name: &str) -> Option<Var> {
        self.lock().get(name).cloned()
    }
}

impl SimpleBackend for Params {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut vars = self.lock();
        if let Some(var) = vars.get(name) {
            if var.shape() != &shape {
                return Err(candle_core::Error::UnexpectedShape {
                    msg: format!("tensor {name}"),
                    expected: shape,
                    got: var.shape().clone(),
                }
                .bt());
            }
            return Ok(var.as_tensor().clone());
        }
        let direction =
            name.strip_suffix("weight_g").and_then(|stem| vars.get(&format!("{stem}weight_v")));
        let value = match direction {
            Some(v) => v.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?.detach().reshape(&shape)?,
            None => self.initial(&shape, init, name)?,
        };
        let var = Var::from_tensor(&value)?;
        vars.insert(name.to_string(), var.clone());
        Ok(var.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.lock().get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => Err(candle_core::Error::CannotFindTensor { path: name.to_string() }.bt()),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Conv1dConfig, dilated_conv1d};

    fn weights(seed: u64) -> Vec<f32> {
        let params = Params::new(seed, DType::F32, &Device::Cpu);
        let cfg = Conv1dConfig { weight_norm: true, ..Conv1dConfig::causal() };
        dilated_conv1d(3, 2, 2, cfg, params.builder()).unwrap();
        let snapshot = params.snapshot().unwrap();
        snapshot["weight_v"].flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_seed_decides_and_values_lie_in_pytorchs_range() {
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
        // U(±1/√fan_in), fan_in = 3 channels × 2 taps
        assert!(weights(3).iter().all(|w| w.abs() <= 1.0 / 6f32.sqrt()));
    }

    #[test]
    fn candle_nns_own_layers_start_from_the_seed() -> candle_core::Result<()> {
        let first = |seed| -> candle_core::Result<Vec<f64>> {
            let params = Params::new(seed, DType::F64, &Device::Cpu);
            let vb = params.builder();
            candle_nn::linear(40, 30, vb.pp("linear"))?;
            candle_nn::embedding(50, 60, vb.pp("embedding"))?;
            candle_nn::conv1d(8, 8, 3, Default::default(), vb.pp("conv"))?;
            candle_nn::lstm(4, 4, Default::default(), vb.pp("lstm"))?;
            let table = params.get("embedding.weight").expect("a table");
            // drawn from the standard normal distribution
            let mean = table.mean_all()?.to_scalar::<f64>()?;
            let var = table.sqr()?.mean_all()?.to_scalar::<f64>()?;
            assert!(mean.abs() < 0.05 && (var - 1.0).abs() < 0.1, "{mean} {var}");
            params.get("linear.weight").expect("a weight").flatten_all()?.to_vec1()
        };
        assert_eq!(first(3)?, first(3)?);
        assert_ne!(first(3)?, first(4)?);
        // Kaiming: uniform of variance 2 / fan_in
        let var = first(3)?.iter().map(|w| w * w).sum::<f64>() / 1200.0;
        assert!((var * 20.0 - 1.0).abs() < 0.15, "{var}");
        Ok(())
    }

    #[test]
    fn a_name_decides_where_other_tensors_do_not() {
        let params = |others: bool| {
            let params = Params::new(1, DType::F32, &Device::Cpu);
            if others {
                params
                    .builder()
                    .get_with_hints(7, "a", Init::Uniform { lo: 0.0, up: 1.0 })
                    .unwrap();
            }
            let init = Init::Uniform { lo: 0.0, up: 1.0 };
            let b = params.builder().get_with_hints(7, "b", init).unwrap();
            b.to_vec1::<f32>().unwrap()
        };
        assert_eq!(params(false), params(true));
    }

    #[test]
    fn loading_names_the_tensor_that_does_not_fit() {
        let params = Params::new(1, DType::F32, &Device::Cpu);
        dilated_conv1d(3, 2, 2, Conv1dConfig::causal(), params.builder()).unwrap();
        let mut tensors = params.snapshot().unwrap();
        tensors.insert("bias".into(), Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap());
        let error = params.load(&tensors).unwrap_err();
        assert_eq!(error.to_string(), "tensor bias: expected [2], found [5]");
    }
}
