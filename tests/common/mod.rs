//! Shared by the integration tests: fixtures, relative errors, seeded numbers, the kernel under test.

// every test file compiles this module for itself and uses a part of it
#![allow(dead_code)]

pub mod close;
pub mod kernels;
pub mod masked;
pub mod runs;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use candle_tcn::kernels::Kernel;
use candle_tcn::models::{ModelConfig, Network, RunOptions};
use candle_tcn::nn::Params;
use candle_tcn::train::Trainer;
use candle_tcn::{LoadedModel, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use close::Tolerance;

pub type Tensors = HashMap<String, Tensor>;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", name].iter().collect()
}

/// The tensors of `tests/fixtures/NAME.safetensors`.
pub fn tensors(name: &str) -> Tensors {
    candle_core::safetensors::load(fixture(&format!("{name}.safetensors")), &Device::Cpu)
        .unwrap_or_else(|e| panic!("fixture {name}: {e}"))
}

/// The content of `tests/fixtures/NAME.json`.
pub fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read(fixture(&format!("{name}.json"))).expect(name);
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("fixture {name}: {e}"))
}

/// The tensors whose name starts with `prefix`, named by the rest.
pub fn under(prefix: &str, tensors: &Tensors) -> Tensors {
    let rest =
        |(name, t): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_string(), t.clone()));
    tensors.iter().filter_map(rest).collect()
}

/// Token ids of an integer tensor, row after row.
pub fn ids(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.to_dtype(DType::U32)?.flatten_all()?.to_vec1()?)
}

/// Loads `weights` into a network's parameters: exactly those tensors, no more and no fewer.
pub fn load(params: &Params, weights: &Tensors) -> Result<()> {
    let found: BTreeSet<_> = weights.keys().cloned().collect();
    let expected: BTreeSet<_> = params.all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, expected, "names of the tensors");
    params.load(weights)
}

/// Every number, row after row.
pub fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// The largest absolute value; NaN if there is one.
pub fn max_abs(t: &Tensor) -> Result<f64> {
    let larger = |max: f64, x: &f64| {
        if max.is_nan() || max >= x.abs() { max } else { x.abs() }
    };
    Ok(numbers(t)?.iter().fold(0.0, larger))
}

/// Compares every number, relative to itself or, where it is near zero, to the usual one.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) -> Result<()> {
    let tolerance = Tolerance::relative(tolerance, &numbers(expected)?);
    assert_within(what, found, expected, tolerance)
}

/// Compares every number with a tolerance of the caller's.
pub fn assert_within(
    what: &str,
    found: &Tensor,
    expected: &Tensor,
    tolerance: Tolerance,
) -> Result<()> {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    if let Err(message) = close::compare(&numbers(found)?, &numbers(expected)?, tolerance) {
        panic!("{what}: {message}");
    }
    Ok(())
}

/// The kernels that this processor has; see [`kernels::available`].
pub fn available_kernels() -> Vec<Kernel> {
    kernels::available(Kernel::ALL, Kernel::name, Kernel::is_available)
}

/// The kernel that `TCN_KERNEL` names; the fastest where it names none.
pub fn kernel() -> Kernel {
    match std::env::var("TCN_KERNEL") {
        Ok(name) => name.parse::<Kernel>().and_then(Kernel::available).expect("TCN_KERNEL"),
        Err(_) => Kernel::best(),
    }
}

/// `true` if networks compute with our kernels; otherwise says that `test` does not apply.
pub fn has_kernels(test: &'static str) -> bool {
    if kernel() == Kernel::Candle {
        kernels::tell(format!("does not apply to candle's operations: {test}"));
    }
    kernel() != Kernel::Candle
}

/// A network that computes with the [`kernel`] under test.
pub trait UnderTest {
    fn under_test(self) -> Self;
}

impl UnderTest for Network {
    fn under_test(self) -> Self {
        self.with_kernel(kernel()).expect("an available kernel")
    }
}

impl UnderTest for LoadedModel {
    fn under_test(self) -> Self {
        self.with_kernel(kernel()).expect("an available kernel")
    }
}

impl UnderTest for Trainer {
    fn under_test(self) -> Self {
        self.with_kernel(kernel()).expect("an available kernel")
    }
}

/// Compares the gradient of every trainable parameter, and requires one for each.
pub fn assert_gradients(
    what: &str,
    grads: &GradStore,
    params: &Params,
    expected: &Tensors,
    tolerance: f64,
) -> Result<()> {
    let trainable = params.trainable();
    assert_eq!(trainable.len(), expected.len(), "{what}: gradients");
    for (name, var) in trainable {
        let found = grads.get(&var).unwrap_or_else(|| panic!("{what} {name}"));
        let expected = &expected[&name];
        assert_close(&format!("{what} grad {name}"), found, expected, tolerance)?;
    }
    Ok(())
}

/// The bits of every number, for comparisons that allow no difference at all.
pub fn bits(t: &Tensor) -> Result<Vec<u64>> {
    let values: Vec<f64> = t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok(values.into_iter().map(f64::to_bits).collect())
}

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A tensor uniform in −1..1.
pub fn random(rng: &mut ChaCha8Rng, dims: &[usize], dtype: DType) -> Result<Tensor> {
    let len = dims.iter().product();
    let data: Vec<f64> = (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
    Ok(Tensor::from_vec(data, dims, &Device::Cpu)?.to_dtype(dtype)?)
}

/// Token ids (batch, time) below `vocab`.
pub fn random_ids(rng: &mut ChaCha8Rng, dims: (usize, usize), vocab: u32) -> Result<Tensor> {
    let data: Vec<u32> = (0..dims.0 * dims.1).map(|_| rng.random_range(0..vocab)).collect();
    Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
}

/// Moves every parameter off its initial value, so that a gain of one or a bias of zero hides nothing.
pub fn scatter(params: &Params, rng: &mut ChaCha8Rng) -> Result<()> {
    for (name, var) in params.all() {
        let noise = random(rng, var.dims(), var.dtype())?;
        let positive = name.ends_with("running_var") || name.ends_with("weight_g");
        let value = match positive {
            true => (noise.affine(0.4, 1.0))?,
            false => (var.as_detached_tensor() + noise * 0.3)?,
        };
        var.set(&value)?;
    }
    Ok(())
}

/// The output of a model for the tensors of a file, whole or in chunks.
pub fn output(
    model: &Network,
    config: &ModelConfig,
    inputs: &Tensors,
    chunk: Option<usize>,
) -> Result<Tensor> {
    let options = RunOptions { chunk, ..Default::default() };
    let mut results = candle_tcn::models::run(model, config, inputs, &options)?;
    Ok(results.remove("output").expect("an output"))
}
