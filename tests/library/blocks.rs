//! Residual blocks with every option: outputs, all gradients and what batch norm has seen equal
//! PyTorch's (tests/fixtures/blocks, made by scripts/make_training_fixtures.py).

use crate::common;
use crate::common::{UnderTest, assert_close, max_abs, under};
use candle_core::{DType, Device, Var};
use candle_tcn::Result;
use candle_tcn::geometry::Dilations;
use candle_tcn::graph::Run;
use candle_tcn::nn::{Activation, Gate, NormKind, Params, TcnConfig, temporal_conv_net};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    norm: NormKind,
    activation: Activation,
    gate: String,
    pre_norm: bool,
    causal: bool,
    skip_connections: bool,
    kernel_size: usize,
    dilations: Vec<usize>,
    num_inputs: usize,
    num_channels: Vec<usize>,
    training: bool,
}

impl Case {
    fn config(&self) -> TcnConfig {
        TcnConfig {
            dilations: Some(Dilations::List(self.dilations.clone())),
            causal: self.causal,
            norm: self.norm,
            activation: self.activation,
            gate: match self.gate.as_str() {
                "none" => None,
                "glu" => Some(Gate::Glu),
                "tanh_sigmoid" => Some(Gate::TanhSigmoid),
                other => panic!("gate {other}"),
            },
            pre_norm: self.pre_norm,
            skip_connections: self.skip_connections,
            ..TcnConfig::new(self.num_channels.clone(), self.kernel_size)
        }
    }

    /// A shift before a batch norm in training has no effect; its gradient is rounding noise around 0.
    fn has_no_gradient(&self, parameter: &str) -> bool {
        let batch_norm_follows = self.norm == NormKind::Batch && !self.pre_norm && self.training;
        batch_norm_follows && parameter.contains(".conv") && parameter.ends_with("bias")
    }
}

#[test]
fn every_option_equals_torch() -> Result<()> {
    let tensors = common::tensors("blocks");
    let Fixture { cases } = common::json("blocks");
    for case in cases {
        let name = &case.name;
        let golden = under(&format!("{name}."), &tensors);
        let params = Params::new(0, DType::F64, &Device::Cpu);
        let net =
            temporal_conv_net(case.num_inputs, &case.config(), params.builder())?.under_test();
        common::load(&params, &under("param.", &golden))?;

        let xs = Var::from_tensor(&golden["input"])?;
        let run = match case.training {
            true => Run::train(0, 0),
            false => Run::eval(),
        };
        let ys = net.forward_with(&xs, run)?;
        assert_close(&format!("{name} output"), &ys, &golden["output"], TOLERANCE)?;

        let grads = (ys * &golden["coef"])?.sum_all()?.backward()?;
        let found = grads.get(&xs).expect("a gradient of the input");
        let expected = &golden["grad_input"];
        assert_close(&format!("{name} input"), found, expected, TOLERANCE)?;
        let expected = under("grad.", &golden);
        assert_eq!(expected.len(), params.trainable().len());
        for (parameter, var) in params.trainable() {
            let what = format!("{name} grad {parameter}");
            let found = grads.get(&var).unwrap_or_else(|| panic!("no {what}"));
            if case.has_no_gradient(&parameter) {
                assert!(max_abs(found)? < 1e-12, "{what}");
            } else {
                assert_close(&what, found, &expected[&parameter], TOLERANCE)?;
            }
        }
        for (statistic, expected) in under("updated.", &golden) {
            let all = params.all();
            let found = all.iter().find(|(name, _)| *name == statistic);
            let (_, found) = found.unwrap_or_else(|| panic!("no {statistic}"));
            let what = format!("{name} updated {statistic}");
            assert_close(&what, found, &expected, TOLERANCE)?;
        }
    }
    Ok(())
}
