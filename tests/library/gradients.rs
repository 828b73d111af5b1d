//! Gradients of whole layers against central differences in double precision: every component of
//! every parameter and of the input, at batch 1 and 3.

use crate::common::{Tolerance, UnderTest, assert_within, random, rng, scatter};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::geometry::Padding;
use candle_tcn::graph::Run;
use candle_tcn::nn::{
    Activation, Conv1dConfig, Gate, NormKind, PaddingMode, Params, TcnConfig, dilated_conv1d,
    temporal_conv_net,
};

const H: f64 = 1e-6;

/// Slopes of `value` along every component of `var`.
fn slopes(var: &Var, value: &impl Fn() -> Result<f64>) -> Result<Tensor> {
    let original = var.as_detached_tensor().copy()?;
    let mut flat: Vec<f64> = original.flatten_all()?.to_vec1()?;
    let mut slopes = Vec::with_capacity(flat.len());
    for i in 0..flat.len() {
        let x = flat[i];
        let mut at = |moved: f64| -> Result<f64> {
            flat[i] = moved;
            var.set(&Tensor::from_slice(&flat, original.shape(), &Device::Cpu)?)?;
            value()
        };
        slopes.push((at(x + H)? - at(x - H)?) / (2.0 * H));
        flat[i] = x;
    }
    var.set(&original)?;
    Ok(Tensor::from_vec(slopes, original.shape(), &Device::Cpu)?)
}

/// Compares the gradients of `Σ forward(xs)·coefficients` with its slopes.
fn check(
    what: &str,
    params: &Params,
    xs: &Var,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let ys = forward(xs)?;
    let coefficients = random(&mut rng(99), ys.dims(), DType::F64)?;
    let grads: GradStore = (ys * &coefficients)?.sum_all()?.backward()?;
    let value = || {
        let ys = forward(&xs.as_detached_tensor())?;
        Ok((ys * &coefficients)?.sum_all()?.to_scalar::<f64>()?)
    };
    let mut vars = params.trainable();
    vars.push(("input".to_string(), xs.clone()));
    for (name, var) in vars {
        let found = grads.get(&var);
        let found = found.unwrap_or_else(|| panic!("{what}: no gradient of {name}"));
        let expected = slopes(&var, &value)?;
        // a slope is as exact as the value that it is made of, not as itself
        let tolerance = Tolerance { atol: 1e-8, rtol: 1e-6 };
        assert_within(&format!("{what} {name}"), found, &expected, tolerance)?;
    }
    Ok(())
}

const MODES: [PaddingMode; 4] =
    [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular];

const PADDINGS: [Padding; 4] =
    [Padding::Causal, Padding::Same, Padding::Valid, Padding::Explicit { left: 1, right: 4 }];

/// Every combination of a convolution's options.
fn convolutions() -> Vec<Conv1dConfig> {
    let mut all = Vec::new();
    for padding_mode in MODES {
        for padding in PADDINGS {
            for (stride, dilation) in [(1, 1), (1, 3), (2, 1), (2, 3)] {
                for groups in [1, 2, 4] {
                    for (bias, weight_norm) in
                        [(true, true), (true, false), (false, true), (false, false)]
                    {
                        all.push(Conv1dConfig {
                            padding,
                            padding_mode,
                            dilation,
                            stride,
                            groups,
                            bias,
                            weight_norm,
                        });
                    }
                }
            }
        }
    }
    all
}

#[test]
fn convolutions_with_every_padding_stride_dilation_and_group() -> Result<()> {
    const IN: usize = 4;
    let mut rng = rng(1);
    for cfg in convolutions() {
        for batch in [1, 3] {
            let params = Params::new(1, DType::F64, &Device::Cpu);
            // as many groups as inputs: depthwise
            let conv = dilated_conv1d(IN, 4, 2, cfg, params.builder())?;
            scatter(&params, &mut rng)?;
            let xs = Var::from_tensor(&random(&mut rng, &[batch, 5, IN], DType::F64)?)?;
            check(&format!("{cfg:?} batch {batch}"), &params, &xs, |xs| {
                conv.forward_with(xs, Run::eval())
            })?;
        }
    }
    Ok(())
}

const NORMS: [NormKind; 5] =
    [NormKind::Weight, NormKind::Layer, NormKind::Batch, NormKind::Rms, NormKind::None];

#[test]
fn networks_with_every_norm_gate_and_order() -> Result<()> {
    let mut rng = rng(2);
    for norm in NORMS {
        for gate in [None, Some(Gate::Glu), Some(Gate::TanhSigmoid)] {
            for (pre_norm, skip_connections) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let cfg = TcnConfig {
                    norm,
                    gate,
                    pre_norm,
                    skip_connections,
                    // smooth, so that no difference straddles a kink
                    activation: Activation::Silu,
                    ..TcnConfig::new(vec![4, 3], 2)
                };
                for (batch, training) in [(1, false), (1, true), (3, false), (3, true)] {
                    let params = Params::new(1, DType::F64, &Device::Cpu);
                    let net = temporal_conv_net(3, &cfg, params.builder())?.under_test();
                    scatter(&params, &mut rng)?;
                    let xs = Var::from_tensor(&random(&mut rng, &[batch, 5, 3], DType::F64)?)?;
                    let what = format!("{cfg:?} batch {batch} training {training}");
                    check(&what, &params, &xs, |xs| {
                        let run = match training {
                            true => Run::train(0, 0),
                            false => Run::eval(),
                        };
                        net.forward_with(xs, run)
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// A window that goes on from another: what came before is a constant.
#[test]
fn networks_that_carry_a_state() -> Result<()> {
    let mut rng = rng(3);
    for batch in [1, 3] {
        let cfg = TcnConfig { activation: Activation::Silu, ..TcnConfig::new(vec![4, 3], 3) };
        let params = Params::new(1, DType::F64, &Device::Cpu);
        let net = temporal_conv_net(3, &cfg, params.builder())?.under_test();
        scatter(&params, &mut rng)?;
        let mut state = net.init_state(batch)?;
        let past = random(&mut rng, &[batch, 4, 3], DType::F64)?;
        net.forward_with(&past, Run::eval().with_state(&mut state))?;
        // shorter than the reach of the second block, and longer
        for time in [1, 2, 7] {
            let xs = Var::from_tensor(&random(&mut rng, &[batch, time, 3], DType::F64)?)?;
            check(&format!("batch {batch} time {time}"), &params, &xs, |xs| {
                net.forward_with(xs, Run::train(0, 0).with_state(&mut state.clone()))
            })?;
        }
    }
    Ok(())
}
