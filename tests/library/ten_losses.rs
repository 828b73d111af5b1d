//! Ten training losses of a small tied language model equal PyTorch's from the same weights, for every
//! optimizer, gradients clipped (tests/fixtures/ten_losses, made by scripts/make_training_fixtures.py).

use crate::common;
use crate::common::{Tensors, UnderTest, ids, under};
use candle_core::{DType, Device};
use candle_tcn::Result;
use candle_tcn::geometry::Dilations;
use candle_tcn::graph;
use candle_tcn::models::{ModelConfig, TcnLmConfig};
use candle_tcn::nn::{Params, TcnConfig};
use candle_tcn::ops;
use candle_tcn::train::optim::{Gradients, NamedOptimizer, OptimizerConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    vocab_size: usize,
    embedding_dim: usize,
    tied: bool,
    clip: f64,
    network: Network,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Network {
    num_channels: Vec<usize>,
    kernel_size: usize,
    dilations: Vec<usize>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    optimizer: OptimizerConfig,
    lr: f64,
}

impl Fixture {
    fn model(&self) -> ModelConfig {
        let net = &self.network;
        ModelConfig::Tcn(TcnLmConfig {
            eos_token_id: None,
            vocab_size: self.vocab_size,
            embedding_dim: self.embedding_dim,
            tie_weights: self.tied,
            embedding_dropout: 0.0,
            network: TcnConfig {
                dilations: Some(Dilations::List(net.dilations.clone())),
                ..TcnConfig::new(net.num_channels.clone(), net.kernel_size)
            },
        })
    }

    fn losses(&self, run: &Run, golden: &Tensors, dtype: DType) -> Result<Vec<f64>> {
        let params = Params::new(0, dtype, &Device::Cpu);
        let model = self.model().build(params.builder())?.under_test();
        common::load(&params, &under("init.", golden))?;
        let mut optimizer = NamedOptimizer::new(run.optimizer.clone(), params.trainable())?;
        let (inputs, targets) = (&golden["input"], &golden["target"]);
        let step = |step| {
            let input = inputs.get(step)?.to_dtype(DType::U32)?;
            let logits = model.forward_with(&input, graph::Run::train(0, step as u64))?;
            let loss = ops::cross_entropy(&logits, &ids(&targets.get(step)?)?)?;
            let mut grads = Gradients::from_store(&loss.backward()?, optimizer.params());
            grads.clip(self.clip)?;
            optimizer.step(&grads, run.lr)?;
            Ok(loss.to_dtype(DType::F64)?.to_scalar()?)
        };
        (0..inputs.dim(0)?).map(step).collect()
    }
}

#[test]
fn ten_losses_equal_torch() -> Result<()> {
    let golden = common::tensors("ten_losses");
    let fixture: Fixture = common::json("ten_losses");
    for run in &fixture.runs {
        for (dtype, name, tolerance) in
            [(DType::F64, "losses", 1e-9), (DType::F32, "losses_f32", 1e-5)]
        {
            let expected: Vec<f64> = golden[&format!("{name}.{}", run.name)].to_vec1()?;
            let found = fixture.losses(run, &golden, dtype)?;
            assert_eq!((found.len(), expected.len()), (10, 10));
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = (found / expected - 1.0).abs();
                assert!(
                    error <= tolerance,
                    "{} {dtype:?} step {step}: {found} against {expected}, {error:.1e}",
                    run.name
                );
            }
        }
    }
    Ok(())
}
