//! The effective receptive field: what was put into the weights.

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::models::ModelConfig;
use candle_tcn::nn::Params;
use candle_tcn::train::EffectiveField;
use rand::RngExt;

use crate::common::{UnderTest, rng, scatter};

const CONFIG: &str = r#"{"model_type": "tcn", "vocab_size": 11, "embedding_dim": 8, "network": {"num_channels": [8, 8, 8],
    "kernel_size": 3, "norm": "none", "activation": "leaky_relu"}}"#;

/// The field of a network in which the taps of dilation 4, but for the last, are `factor` times as large.
fn measured(factor: f64) -> Result<EffectiveField> {
    let mut rng = rng(5);
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model =
        ModelConfig::from_json(CONFIG, "config.json")?.build(params.builder())?.under_test();
    scatter(&params, &mut rng)?;
    for conv in ["conv1", "conv2"] {
        let var = params.get(&format!("tcn.network.2.{conv}.weight")).expect("a convolution");
        let taps = Tensor::new(&[factor as f32, factor as f32, 1.0], &Device::Cpu)?;
        var.set(&var.as_tensor().broadcast_mul(&taps)?)?;
    }
    let tokens: Vec<u32> = (0..400).map(|_| rng.random_range(0..11)).collect();
    EffectiveField::measure(&model, &tokens, 50)
}

#[test]
fn the_effective_field_is_what_was_put_in() -> Result<()> {
    let whole = measured(1.0)?;
    assert_eq!((whole.gradient.len(), whole.windows, whole.reach()), (29, 50, 28));
    let near = measured(0.0)?;
    // two convolutions of dilation 1, two of dilation 2
    assert_eq!((near.gradient.len(), near.reach()), (29, 2 * 2 * (1 + 2)));
    assert!(near.gradient[13..].iter().all(|&one| one == 0.0));
    assert!(near.within(0.5) < near.within(0.9) && near.within(1.0) <= 12);
    Ok(())
}

#[test]
fn a_document_ends_the_field() -> Result<()> {
    let json = CONFIG.replacen('{', r#"{"eos_token_id": 0, "#, 1);
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model = ModelConfig::from_json(&json, "config.json")?.build(params.builder())?.under_test();
    let tokens: Vec<u32> = (0..400).map(|i| i % 10).collect();
    assert!(EffectiveField::measure(&model, &tokens, 50)?.reach() <= 9);
    Ok(())
}

#[test]
fn what_cannot_be_measured_is_said() -> Result<()> {
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model =
        ModelConfig::from_json(CONFIG, "config.json")?.build(params.builder())?.under_test();
    let error = |tokens: &[u32], windows| {
        EffectiveField::measure(&model, tokens, windows).unwrap_err().to_string()
    };
    assert!(error(&[1; 29], 5).contains("at least 30"));
    assert!(error(&[1; 99], 0).contains("windows"));
    let carp =
        ModelConfig::from_json(r#"{"model_type": "carp", "num_hidden_layers": 1}"#, "config.json")?;
    let carp = carp.build(Params::new(1, DType::F32, &Device::Cpu).builder())?;
    assert!(EffectiveField::measure(&carp, &[6; 99], 5).is_err());
    Ok(())
}
