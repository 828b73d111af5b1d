//! The tape's gradients of whole models against candle's, for every option there is.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::geometry::{Dilations, Growth};
use crate::nn::Params;
use crate::nn::{Activation, DropoutKind, Gate, NormKind, TcnConfig, WaveNetStackConfig};
use crate::ops;
use crate::ops::check::assert_close;
use crate::ops::tape::Tape;

const VOCAB: usize = 7;
const BATCH: usize = 2;
const TIME: usize = 9;

/// How a model is run.
#[derive(Debug, Clone, Copy)]
struct Run {
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

fn loss(model: &Model, state: &State, run: Run) -> Result<Tensor> {
    let inputs = Tensor::new(ids(1), &Device::Cpu)?.reshape((BATCH, TIME))?;
    let mut state = state.clone();
    let mut pass = Pass::train(5, 3);
    if let Some(dtype) = run.activations {
        pass = pass.with_dtype(dtype);
    }
    if run.carried {
        pass = pass.with_state(&mut state);
    }
    let logits = model.forward(&inputs, &mut pass)?;
    let (from, targets) = (run.scored_from, ids(2));
    let logits = ops::narrow_time(&logits, from, TIME - from)?;
    let rows = targets.chunks_exact(TIME).flat_map(|row| &row[from..]);
    ops::cross_entropy(&logits, &rows.copied().collect::<Vec<_>>())
}

fn agree(config: &ModelConfig, run: Run) -> Result<()> {
    let params = Params::new(1, run.dtype, &Device::Cpu);
    let model = Model::new(config, params.builder())?;
    let mut state = model.init_state(BATCH)?;
    if run.carried {
        let before = Tensor::new(ids(3), &Device::Cpu)?.reshape((BATCH, TIME))?;
        model.forward(&before, &mut Pass::train(5, 2).with_state(&mut state))?;
    }
    let trained = params.trainable();
    let (value, tape) = Tape::record(|| loss(&model, &state, run))?;
    let ours = tape.backward(value, trained.iter().map(|(_, var)| &**var))?;
    let plain = loss(&model, &state, run)?.backward()?;
    // candle adds the same numbers in another order
    let tolerance = if run.dtype == DType::F64 { 1e-13 } else { 1e-5 };
    for ((name, var), grad) in trained.iter().zip(ours) {
        let what = format!("{config:?} {run:?}: {name}");
        let grad = grad.unwrap_or_else(|| panic!("no gradient of {what}"));
        let plain = plain.get(var).unwrap_or_else(|| panic!("none of candle: {what}"));
        assert_close(&grad, plain, tolerance);
    }
    Ok(())
}

fn everywhere(config: &ModelConfig) -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        for (carried, scored_from) in [(false, 0), (true, 0), (false, 4)] {
            let run = Run { dtype, carried, scored_from, activations: None };
            agree(config, run)?;
        }
    }
    Ok(())
}

/// The gradients of a run by the tape, flat and one after the other, in double precision.
fn taped(config: &ModelConfig, run: Run) -> Result<Vec<f64>> {
    let params = Params::new(1, run.dtype, &Device::Cpu);
    let model = Model::new(config, params.builder())?;
    let mut state = model.init_state(BATCH)?;
    let before = Tensor::new(ids(3), &Device::Cpu)?.reshape((BATCH, TIME))?;
    model.prefill(&before, &mut state)?;
    let trained = params.trainable();
    for (_, var) in trained.iter().filter(|(name, _)| name == "encoder.weight") {
        // as wide as the biases: a batch norm would blow up what they cost it of its few bits
        var.set(&(var.as_detached_tensor() * 10.0)?)?;
    }
    let (value, tape) = Tape::record(|| loss(&model, &state, run))?;
    assert_eq!(value.dtype(), run.dtype);
    let grads = tape.backward(value, trained.iter().map(|(_, var)| &**var))?;
    let mut all = Vec::new();
    for grad in grads.into_iter().flatten() {
        assert_eq!(grad.dtype(), run.dtype);
        let grad = grad.flatten_all()?.to_dtype(DType::F64)?;
        all.extend(grad.to_vec1::<f64>()?);
    }
    Ok(all)
}

/// Gradients over activations of bf16 point about where those over f32 point; networks as small as these
/// have kinks everywhere.
fn bf16_is_near(config: &ModelConfig) -> Result<()> {
    let run = |activations| Run { dtype: DType::F32, carried: true, scored_from: 2, activations };
    let (exact, rounded) = (taped(config, run(None))?, taped(config, run(Some(DType::BF16)))?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(&exact, &exact) * dot(&rounded, &rounded)).sqrt();
    let cosine = dot(&exact, &rounded) / lengths;
    // a batch norm of a few numbers divides by what rounding leaves of their differences
    let least = match config {
        ModelConfig::Tcn(TcnLmConfig { network, .. }) if network.norm == NormKind::Batch => 0.93,
        _ => 0.98,
    };
    assert!(exact.len() == rounded.len() && cosine > least, "{config:?}: {cosine}");
    Ok(())
}

fn tcn(tie_weights: bool, network: TcnConfig) -> ModelConfig {
    ModelConfig::Tcn(TcnLmConfig {
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
