//! The WaveNet language model: logits, loss and every gradient equal PyTorch's (tests/fixtures/wavenet,
//! made by scripts/make_training_fixtures.py).

use crate::common;
use crate::common::{UnderTest, assert_close, assert_gradients, ids, under};
use candle_core::{DType, Device};
use candle_tcn::Result;
use candle_tcn::geometry::Dilations;
use candle_tcn::graph::Run;
use candle_tcn::models::{ModelConfig, WaveNetConfig};
use candle_tcn::nn::{Params, WaveNetStackConfig};
use candle_tcn::ops;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    vocab_size: usize,
    residual_channels: usize,
    dilated_channels: usize,
    skip_channels: usize,
    kernel_size: usize,
    dilations: Vec<usize>,
}

#[test]
fn logits_loss_and_every_gradient_equal_torch() -> Result<()> {
    let golden = common::tensors("wavenet");
    let fixture: Fixture = common::json("wavenet");
    let config = ModelConfig::WaveNet(WaveNetConfig {
        eos_token_id: None,
        vocab_size: fixture.vocab_size,
        network: WaveNetStackConfig {
            residual_channels: fixture.residual_channels,
            gate_channels: fixture.dilated_channels,
            skip_channels: fixture.skip_channels,
            kernel_size: fixture.kernel_size,
            dilations: Dilations::List(fixture.dilations),
            dropout: 0.0,
        },
    });
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let what = format!("{dtype:?}");
        let params = Params::new(0, dtype, &Device::Cpu);
        let model = config.build(params.builder())?.under_test();
        common::load(&params, &under("param.", &golden))?;
        let input = golden["input"].to_dtype(DType::U32)?;
        let logits = model.forward_with(&input, Run::train(0, 0))?;
        assert_close(&what, &logits, &golden["logits"], tolerance)?;
        let loss = ops::cross_entropy(&logits, &ids(&golden["target"])?)?.reshape(1)?;
        assert_close(&what, &loss, &golden["loss"], tolerance)?;
        let expected = under("grad.", &golden);
        assert_gradients(&what, &loss.backward()?, &params, &expected, tolerance)?;
    }
    Ok(())
}
