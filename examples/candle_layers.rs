//! Our layers among candle's own: `Sequential`, `VarMap`, `AdamW` and losses of candle-nn.
//!
//! ```text
//! cargo run --release --example candle_layers
//! ```

use std::time::Instant;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use candle_tcn::graph::{Graph, Network, Run};
use candle_tcn::nn::{StepDtype, TcnConfig, mean_rows, temporal_conv_net};

type Result<T> = candle_tcn::Result<T>;

/// A sum of two tones, (1, time, 1), and the same a step later.
fn tones(time: usize) -> Result<[Tensor; 2]> {
    let value = |t: usize| (0.31 * t as f32).sin() + 0.5 * (0.17 * t as f32).cos();
    let all: Vec<f32> = (0..=time).map(value).collect();
    let part =
        |from: usize| Tensor::from_slice(&all[from..from + time], (1, time, 1), &Device::Cpu);
    Ok([part(0)?, part(1)?])
}

fn adamw(vars: &VarMap) -> Result<AdamW> {
    Ok(AdamW::new(vars.all_vars(), ParamsAdamW { lr: 5e-3, ..Default::default() })?)
}

/// Forecasts the next step; gives the mean squared error.
fn forecast(vars: &VarMap, config: &TcnConfig) -> Result<f32> {
    let vb = VarBuilder::from_varmap(vars, DType::F32, &Device::Cpu);
    let tcn = temporal_conv_net(1, config, vb.pp("tcn"))?;
    // a VarMap draws each tensor for itself
    tcn.init_weight_norm()?;
    let net = candle_nn::seq().add(tcn).add(candle_nn::linear(16, 1, vb.pp("head"))?);
    let ([xs, next], mut optimizer, mut last) = (tones(200)?, adamw(vars)?, f32::INFINITY);
    for _ in 0..150 {
        let loss = candle_nn::loss::mse(&net.forward(&xs)?, &next)?;
        optimizer.backward_step(&loss)?;
        last = loss.to_scalar()?;
    }
    Ok(last)
}

/// Tells rising from falling sequences of unequal lengths; gives the cross-entropy.
fn classify() -> Result<f32> {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let config = TcnConfig { causal: false, ..TcnConfig::new(vec![8, 8], 3) };
    let tcn = temporal_conv_net(1, &config, vb.pp("tcn"))?;
    tcn.init_weight_norm()?;
    let head = candle_nn::linear(8, 2, vb.pp("head"))?;
    let lengths = [20usize, 13, 9, 16];
    let slope = |i: usize| if i.is_multiple_of(2) { 0.1 } else { -0.1 };
    let value = |(i, t): (usize, usize)| if t < lengths[i] { slope(i) * t as f32 } else { 9.9 };
    let all = || (0..4).flat_map(|i| (0..20).map(move |t| (i, t)));
    let xs = Tensor::from_iter(all().map(value), &Device::Cpu)?.reshape((4, 20, 1))?;
    let mask = all().map(|(i, t)| u8::from(t < lengths[i]));
    let mask = Tensor::from_iter(mask, &Device::Cpu)?.reshape((4, 20))?;
    let targets = Tensor::new(&[0u32, 1, 0, 1], &Device::Cpu)?;
    let (mut optimizer, mut last) = (adamw(&vars)?, f32::INFINITY);
    for _ in 0..100 {
        let hs = tcn.forward_with(&xs, Run::eval().with_mask(&mask)?)?;
        let logits = head.forward(&mean_rows(&hs, Some(&mask))?)?;
        let loss = candle_nn::loss::cross_entropy(&logits, &targets)?;
        optimizer.backward_step(&loss)?;
        last = loss.to_scalar()?;
    }
    Ok(last)
}

/// The forecaster step by step, its head included; gives the largest distance from the whole sequence at once.
fn stream(vars: &VarMap, config: &TcnConfig) -> Result<f32> {
    let mut g = Graph::new();
    let xs = g.frames(1)?;
    let hs = g.scope("tcn", |g| config.append(g, xs))?;
    let ys = g.linear("head", hs, 1)?;
    g.output(ys)?;
    // the same names: the same tensors
    let net = Network::new(g, VarBuilder::from_varmap(vars, DType::F32, &Device::Cpu))?;
    let [xs, _] = tones(2000)?;
    let whole: Vec<f32> = net.forward(&xs)?.flatten_all()?.to_vec1()?;
    let (steps, xs) = (net.step_net(StepDtype::F32)?, xs.flatten_all()?.to_vec1::<f32>()?);
    let (mut state, mut worst, start) = (steps.init_state(1)?, 0f32, Instant::now());
    for (x, y) in xs.iter().zip(&whole) {
        worst = worst.max((steps.step(&[*x], &mut state)?[0] - y).abs());
    }
    println!("a step takes {:.1} µs", start.elapsed().as_secs_f64() * 1e6 / xs.len() as f64);
    Ok(worst)
}

/// Forecasts, classifies, streams.
pub fn main() -> Result<()> {
    let (vars, config) = (VarMap::new(), TcnConfig::new(vec![16, 16, 16], 3));
    let error = forecast(&vars, &config)?;
    println!("forecast: mean squared error {error:.4}");
    let loss = classify()?;
    println!("rising or falling: cross-entropy {loss:.4}");
    let distance = stream(&vars, &config)?;
    println!("steps differ from the whole sequence by {distance:.1e} at most");
    assert!(error < 0.05 && loss < 0.1 && distance < 1e-4);
    Ok(())
}
