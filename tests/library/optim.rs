//! Optimizers and gradient clipping against PyTorch (tests/fixtures/optim.*, made by
//! scripts/make_training_fixtures.py), resumption, and independence of the number of threads.

use std::collections::HashMap;

use crate::common::assert_close;
use candle_core::{DType, Device, Tensor, Var};
use candle_tcn::train::optim::{Gradients, NamedOptimizer, OptimizerConfig};
use candle_tcn::{Error, Result};

type Params = Vec<(String, Var)>;

struct Fixture {
    tensors: HashMap<String, Tensor>,
    json: serde_json::Value,
    dtype: DType,
}

impl Fixture {
    fn load(dtype: DType) -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optim");
        let json = std::fs::read_to_string(format!("{path}.json")).expect("fixture");
        Ok(Self {
            tensors: candle_core::safetensors::load(format!("{path}.safetensors"), &Device::Cpu)?,
            json: serde_json::from_str(&json).expect("fixture"),
            dtype,
        })
    }

    fn tensor(&self, name: String) -> Result<Tensor> {
        Ok(self.tensors[&name].to_dtype(self.dtype)?)
    }

    fn names(&self) -> Vec<String> {
        serde_json::from_value(self.json["parameters"].clone()).expect("fixture")
    }

    fn cases(&self) -> Vec<(String, OptimizerConfig)> {
        let cases = self.json["cases"].as_array().expect("fixture");
        let parse = |case: &serde_json::Value| {
            let config = serde_json::from_value(case["optimizer"].clone()).expect("a valid config");
            (case["name"].as_str().expect("fixture").to_string(), config)
        };
        cases.iter().map(parse).collect()
    }

    fn params(&self) -> Result<Params> {
        let init = |name: String| {
            let var = Var::from_tensor(&self.tensor(format!("init.{name}"))?)?;
            Ok((name, var))
        };
        self.names().into_iter().map(init).collect()
    }

    fn lr(&self) -> Result<Vec<f64>> {
        Ok(self.tensors["lr"].to_vec1()?)
    }

    fn grads(&self, step: usize) -> Result<Gradients> {
        let grad = |name: String| Ok(Some(self.tensor(format!("grad.{name}"))?.get(step)?));
        let grads = self.names().into_iter().map(grad);
        Ok(Gradients::new(grads.collect::<Result<_>>()?))
    }
}

fn bits(t: &Tensor) -> Result<Vec<u64>> {
    let values = t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(values.into_iter().map(f64::to_bits).collect())
}

#[test]
fn every_step_of_every_optimizer_equals_torch() -> Result<()> {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
        let fixture = Fixture::load(dtype)?;
        for (case, config) in fixture.cases() {
            let params = fixture.params()?;
            let mut optimizer = NamedOptimizer::new(config, params.clone())?;
            for (step, lr) in fixture.lr()?.into_iter().enumerate() {
                optimizer.step(&fixture.grads(step)?, lr)?;
                for (name, param) in &params {
                    let expected = fixture.tensors[&format!("{case}.{name}")].get(step)?;
                    let what = format!("{case} {dtype:?} step {step} {name}");
                    assert_close(&what, param, &expected, tolerance)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn clipping_equals_torch() -> Result<()> {
    let fixture = Fixture::load(DType::F64)?;
    let max_norm = fixture.json["clip"]["max_norm"].as_f64().expect("fixture");
    let norms = fixture.tensors["clip.norm"].to_vec1::<f64>()?;
    for (step, norm) in norms.into_iter().enumerate() {
        let mut grads = fixture.grads(step)?;
        grads.scale(0.1 + 0.15 * step as f64)?;
        let found = grads.clip(max_norm)?;
        assert!((found / norm - 1.).abs() < 1e-12, "{found} instead of {norm}");
        for (name, grad) in fixture.names().iter().zip(grads.tensors()?) {
            let grad = grad.as_ref().expect("every parameter has a gradient");
            let expected = fixture.tensors[&format!("clip.{name}")].get(step)?;
            assert_close(&format!("step {step} {name}"), grad, &expected, 1e-12)?;
        }
    }
    Ok(())
}

#[test]
fn saved_and_loaded_state_continues_exactly() -> Result<()> {
    let folder = tempfile::tempdir().expect("temporary folder");
    for dtype in [DType::F64, DType::F32] {
        let fixture = Fixture::load(dtype)?;
        let lr = fixture.lr()?;
        for (case, config) in fixture.cases() {
            let whole = fixture.params()?;
            let mut optimizer = NamedOptimizer::new(config.clone(), whole.clone())?;
            for (step, &lr) in lr[..5].iter().enumerate() {
                optimizer.step(&fixture.grads(step)?, lr)?;
            }
            let path = folder.path().join(format!("{case}.safetensors"));
            let state: HashMap<_, _> = optimizer.state()?.into_iter().collect();
            candle_core::safetensors::save(&state, &path)?;
            let copy = |(name, var): &(String, Var)| {
                let tensor = var.as_detached_tensor().copy()?;
                Ok((name.clone(), Var::from_tensor(&tensor)?))
            };
            let resumed = whole.iter().map(copy).collect::<Result<Params>>()?;
            // the uninterrupted run goes on first: what was saved must not change with it
            for (step, &lr) in lr.iter().enumerate().skip(5) {
                optimizer.step(&fixture.grads(step)?, lr)?;
            }
            let mut optimizer = NamedOptimizer::new(config, resumed.clone())?;
            optimizer.load_state(&candle_core::safetensors::load(&path, &Device::Cpu)?)?;
            assert_eq!(optimizer.steps_done(), 5);
            for (step, &lr) in lr.iter().enumerate().skip(5) {
                optimizer.step(&fixture.grads(step)?, lr)?;
            }
            for ((name, whole), (_, resumed)) in whole.iter().zip(&resumed) {
                assert_eq!(bits(whole)?, bits(resumed)?, "{case} {name}");
            }
        }
    }
    Ok(())
}

/// Parameters of uneven sizes, and gradients that look random but need no generator.
fn uneven(dtype: DType) -> Result<(Params, Gradients)> {
    let (mut params, mut grads) = (Vec::new(), Vec::new());
    for i in 0..24usize {
        let shape = (1 + 7 * i % 13, 1 + 31 * i % 97);
        let count = (shape.0 * shape.1) as f64;
        let xs = Tensor::arange(0f64, count, &Device::Cpu)?.reshape(shape)?;
        let xs = xs.affine(0.7 + i as f64, 0.3)?;
        let param = Var::from_tensor(&xs.sin()?.to_dtype(dtype)?)?;
        params.push((format!("p{i:02}"), param));
        grads.push(Some(xs.cos()?.to_dtype(dtype)?));
    }
    Ok((params, Gradients::new(grads)))
}

#[test]
fn number_of_threads_changes_no_bit() -> Result<()> {
    let run = |threads: usize, config: &OptimizerConfig, dtype| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("thread pool").install(|| {
            let (params, grads) = uneven(dtype)?;
            let mut optimizer = NamedOptimizer::new(config.clone(), params.clone())?;
            let mut all = Vec::new();
            for _ in 0..3 {
                let mut grads = grads.clone();
                grads.accumulate(&uneven(dtype)?.1)?;
                all.push(grads.clip(1.5)?.to_bits());
                optimizer.step(&grads, 0.01)?;
            }
            for (_, param) in &params {
                all.extend(bits(param)?);
            }
            Ok::<_, Error>(all)
        })
    };
    for dtype in [DType::F32, DType::F64] {
        for (case, config) in Fixture::load(dtype)?.cases() {
            let one = run(1, &config, dtype)?;
            assert_eq!(one, run(2, &config, dtype)?, "{case}, 2 threads");
            assert_eq!(one, run(3, &config, dtype)?, "{case}, 3 threads");
        }
    }
    Ok(())
}

#[test]
fn a_wrong_state_is_refused_and_changes_nothing() -> Result<()> {
    let (params, grads) = uneven(DType::F32)?;
    let mut optimizer = NamedOptimizer::new(OptimizerConfig::default(), params)?;
    optimizer.step(&grads, 0.01)?;
    let good: HashMap<_, _> = optimizer.state()?.into_iter().collect();
    let mut refused = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut state = good.clone();
        for (name, tensor) in &mut state {
            if name != "adamw.step" {
                *tensor = tensor.ones_like().expect("ones");
            }
        }
        change(&mut state);
        let error = optimizer.load_state(&state).expect_err("a wrong state");
        let now: HashMap<_, _> = optimizer.state().expect("state").into_iter().collect();
        for (name, tensor) in &good {
            assert_eq!(bits(tensor).ok(), bits(&now[name]).ok(), "{name}");
        }
        error.to_string()
    };
    let message = refused(&|state| {
        state.remove("adamw.v.p07");
    });
    let expected =
        "tensor adamw.v.p07: expected part of the optimizer's state, found no such tensor";
    assert_eq!(message, expected);
    let scalar = Tensor::new(1f32, &Device::Cpu)?;
    let message = refused(&|state| {
        state.insert("adamw.m.p23".to_string(), scalar.clone());
    });
    // p23 is 1 + 161 % 13 = 6 by 1 + 713 % 97 = 35
    assert_eq!(message, "tensor adamw.m.p23: expected [6, 35] of f32, found [] of f32");
    let negative = Tensor::new(-1i64, &Device::Cpu)?;
    let message = refused(&|state| {
        state.insert("adamw.step".to_string(), negative.clone());
    });
    assert_eq!(message, "tensor adamw.step: expected a count of steps, found -1");
    Ok(())
}
