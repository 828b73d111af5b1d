//! Gradients by the reverse walk of whole models against candle's, for every option there is.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::Result;
use crate::geometry::{Dilations, Growth};
use crate::graph::{Network, Run, State};
use crate::nn::Params;
use crate::nn::{Activation, DropoutKind, Gate, NormKind, TcnConfig, WaveNetStackConfig};
use crate::ops;
use crate::ops::check::assert_close;

const VOCAB: usize = 7;
const BATCH: usize = 2;
const TIME: usize = 9;

/// Setting of a run.
#[derive(Debug, Clone, Copy)]
struct Setting {
    dtype: DType,
    carried: bool,
    scored_from: usize,
    /// Of the activations, where not that of the parameters.
    activations: Option<DType>,
}

fn ids(seed: u32) -> Vec<u32> {
    let len = (BATCH * TIME) as u32;
    (0..len).map(|i| (i * i + seed) % VOCAB as u32).collect()
}

/// A run over the inputs, which goes on from `state`.
fn inputs(setting: Setting, state: &mut State) -> Result<(Tensor, Run<'_>)> {
    let inputs = Tensor::new(ids(1), &Device::Cpu)?.reshape((BATCH, TIME))?;
    let mut run = Run::train(5, 3);
    if let Some(dtype) = setting.activations {
        run = run.with_dtype(dtype);
    }
    if setting.carried {
        run = run.with_state(state);
    }
    Ok((inputs, run))
}

fn targets(setting: Setting) -> Vec<u32> {
    let targets = ids(2);
    let rows = targets.chunks_exact(TIME).flat_map(|row| &row[setting.scored_from..]);
    rows.copied().collect()
}

/// The loss as candle differentiates it.
fn loss(model: &Network, state: &State, setting: Setting) -> Result<Tensor> {
    let mut state = state.clone();
    let (inputs, run) = inputs(setting, &mut state)?;
    let logits = model.forward_with(&inputs, run)?;
    let from = setting.scored_from;
    let logits = ops::narrow_time(&logits, from, TIME - from)?;
    ops::cross_entropy(&logits, &targets(setting))
}

/// The gradients by the reverse walk, in the order of the graph's parameters.
fn gradients(model: &Network, state: &State, setting: Setting) -> Result<Vec<Option<Tensor>>> {
    let mut state = state.clone();
    let (inputs, run) = inputs(setting, &mut state)?;
    let (outputs, tape) = model.trace(&[&inputs], run)?;
    let from = setting.scored_from;
    let logits = outputs.into_first()?.narrow(1, from, TIME - from)?;
    let (_, grad) = ops::cross_entropy_with_gradient(&logits, &targets(setting))?;
    tape.backward(vec![grad.pad_with_zeros(1, from, 0)?])
}

fn agree(config: &ModelConfig, setting: Setting) -> Result<()> {
    let params = Params::new(1, setting.dtype, &Device::Cpu);
    let model = config.build(params.builder())?;
    let mut state = model.init_state(BATCH)?;
    if setting.carried {
        let before = Tensor::new(ids(3), &Device::Cpu)?.reshape((BATCH, TIME))?;
        model.forward_with(&before, Run::train(5, 2).with_state(&mut state))?;
    }
    let ours = gradients(&model, &state, setting)?;
    let plain = loss(&model, &state, setting)?.backward()?;
    // candle adds the same numbers in another order
    let tolerance = if setting.dtype == DType::F64 { 1e-13 } else { 1e-5 };
    let mut compared = 0;
    for ((name, tensor), grad) in model.parameters().zip(ours) {
        let what = format!("{config:?} {setting:?}: {name}");
        if !Params::is_trained(name) {
            continue;
        }
        let grad = grad.unwrap_or_else(|| panic!("no gradient of {what}"));
        let plain = plain.get(tensor).unwrap_or_else(|| panic!("none of candle: {what}"));
        assert_close(&grad, plain, tolerance);
        compared += 1;
    }
    assert_eq!(compared, params.trainable().len());
    Ok(())
}

fn everywhere(config: &ModelConfig) -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        for (carried, scored_from) in [(false, 0), (true, 0), (false, 4)] {
            let setting = Setting { dtype, carried, scored_from, activations: None };
            agree(config, setting)?;
        }
    }
    Ok(())
}

/// The gradients by the reverse walk, flat and one after the other, in double precision.
fn flat(config: &ModelConfig, seed: u64, setting: Setting) -> Result<Vec<f64>> {
    let params = Params::new(seed, setting.dtype, &Device::Cpu);
    let model = config.build(params.builder())?;
    let mut state = model.init_state(BATCH)?;
    let before = Tensor::new(ids(3), &Device::Cpu)?.reshape((BATCH, TIME))?;
    model.prefill(&before, &mut state)?;
    let trained = params.trainable();
    for (_, var) in trained.iter().filter(|(name, _)| name == "encoder.weight") {
        // as wide as the biases: a batch norm would blow up what they cost it of its few bits
        var.set(&(var.as_detached_tensor() * 10.0)?)?;
    }
    let mut all = Vec::new();
    for grad in gradients(&model, &state, setting)?.into_iter().flatten() {
        assert_eq!(grad.dtype(), setting.dtype);
        let grad = grad.flatten_all()?.to_dtype(DType::F64)?;
        all.extend(grad.to_vec1::<f64>()?);
    }
    Ok(all)
}

/// Gradients over activations of bf16 point about where those over f32 point; networks as small as these
/// have kinks everywhere.
fn bf16_is_near(config: &ModelConfig) -> Result<()> {
    let setting =
        |activations| Setting { dtype: DType::F32, carried: true, scored_from: 2, activations };
    let cosine = |seed| -> Result<f64> {
        let exact = flat(config, seed, setting(None))?;
        let rounded = flat(config, seed, setting(Some(DType::BF16)))?;
        assert_eq!(exact.len(), rounded.len());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        Ok(dot(&exact, &rounded) / (dot(&exact, &exact) * dot(&rounded, &rounded)).sqrt())
    };
    // a row of almost equal numbers, which a norm blows up, is rare: of five networks most have none
    let mut cosines = (1..=5).map(cosine).collect::<Result<Vec<_>>>()?;
    cosines.sort_by(f64::total_cmp);
    let cosine = cosines[2];
    // a norm of a few numbers divides by what rounding leaves of their differences
    let least = match config {
        ModelConfig::Tcn(TcnLmConfig { network, .. }) => match network.norm {
            NormKind::Batch => 0.93,
            NormKind::Layer => 0.95,
            _ => 0.98,
        },
        _ => 0.98,
    };
    assert!(cosine > least, "{config:?}: {cosines:?}");
    Ok(())
}

fn tcn(tie_weights: bool, network: TcnConfig) -> ModelConfig {
    ModelConfig::Tcn(TcnLmConfig {
        eos_token_id: None,
        vocab_size: VOCAB,
        embedding_dim: 4,
        tie_weights,
        embedding_dropout: 0.2,
        network,
    })
}

#[test]
fn of_every_norm_gate_and_order() -> Result<()> {
    use NormKind::{Batch, Layer, None as Without, Rms, Weight};
    for norm in [Weight, Layer, Batch, Rms, Without] {
        for gate in [None, Some(Gate::Glu), Some(Gate::TanhSigmoid)] {
            for (pre_norm, skip_connections) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let network = TcnConfig {
                    norm,
                    gate,
                    pre_norm,
                    skip_connections,
                    dropout: 0.3,
                    ..TcnConfig::new(vec![4, 6, 4], 2)
                };
                let config = tcn(false, network);
                everywhere(&config)?;
                bf16_is_near(&config)?;
            }
        }
    }
    Ok(())
}

#[test]
fn of_second_convolutions_with_taps_of_their_own() -> Result<()> {
    for pre_norm in [false, true] {
        let network = TcnConfig {
            second_kernel_size: Some(3),
            second_dilation: Some(1),
            norm: NormKind::Rms,
            gate: Some(Gate::Glu),
            pre_norm,
            ..TcnConfig::new(vec![4, 6, 4], 2)
        };
        let config = tcn(false, network);
        // a row, dilations 1, 2 and 4, and two rows of each second convolution
        assert_eq!(config.geometry()?.receptive_field()?.total, 1 + 7 + 3 * 2);
        everywhere(&config)?;
        bf16_is_near(&config)?;
    }
    Ok(())
}

#[test]
fn of_every_activation_and_dropout_tied_and_not() -> Result<()> {
    use Activation::{Elu, Gelu, LeakyRelu, Mish, Relu, Selu, Sigmoid, Silu, Tanh};
    for activation in [Relu, Gelu, Silu, Elu, LeakyRelu, Selu, Tanh, Sigmoid, Mish] {
        for dropout_kind in [DropoutKind::Element, DropoutKind::Channel] {
            for pre_norm in [false, true] {
                let network = TcnConfig {
                    activation,
                    dropout_kind,
                    pre_norm,
                    dropout: 0.3,
                    ..TcnConfig::new(vec![5, 4], 3)
                };
                for tied in [false, true] {
                    let config = tcn(tied, network.clone());
                    everywhere(&config)?;
                    bf16_is_near(&config)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn of_wavenet() -> Result<()> {
    for dropout in [0.0, 0.3] {
        let config = ModelConfig::WaveNet(WaveNetConfig {
            eos_token_id: None,
            vocab_size: VOCAB,
            network: WaveNetStackConfig {
                residual_channels: 4,
                gate_channels: 3,
                skip_channels: 5,
                kernel_size: 2,
                dilations: Dilations::Growth(Growth::new(2, 3)),
                dropout,
            },
        });
        everywhere(&config)?;
        bf16_is_near(&config)?;
    }
    Ok(())
}

#[test]
fn of_bytenet() -> Result<()> {
    for (tied, dropout) in [(false, 0.0), (true, 0.3)] {
        let json = format!(
            r#"{{"model_type": "bytenet", "n_tokens": {VOCAB}, "d_embedding": 6, "d_model": 6, "n_layers": 3,
                "kernel_size": 2, "r": 4, "causal": true, "padding_idx": 2, "final_ln": {tied},
                "activation": "gelu", "tie_weights": {tied}, "dropout": {dropout}}}"#
        );
        let config = ModelConfig::from_json(&json, "config.json")?;
        everywhere(&config)?;
        bf16_is_near(&config)?;
    }
    Ok(())
}
