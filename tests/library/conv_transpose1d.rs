//! The transposed convolution: torch.nn.dilated_conv_transpose1d (tests/fixtures/conv_transpose1d), and causal layers
//! of any kernel in pieces of any length.

use crate::common;
use crate::common::{UnderTest, assert_close, random, rng, under};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::graph::{Graph, Network, Run};
use candle_tcn::nn::{
    Conv1dConfig, ConvTranspose1dConfig, PaddingMode, Params, TransposePadding,
    dilated_conv_transpose1d, dilated_conv1d,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    #[serde(default = "one")]
    stride: usize,
    #[serde(default)]
    padding: usize,
    #[serde(default)]
    output_padding: usize,
    #[serde(default = "one")]
    dilation: usize,
    #[serde(default = "one")]
    groups: usize,
}

fn one() -> usize {
    1
}

#[test]
fn every_case_equals_torch() -> Result<()> {
    let tensors = common::tensors("conv_transpose1d");
    let cases: Vec<Case> = common::json("conv_transpose1d");
    assert!(cases.len() > 10);
    for case in cases {
        let golden = under(&format!("{}.", case.name), &tensors);
        let cfg = ConvTranspose1dConfig {
            padding: TransposePadding::Explicit {
                padding: case.padding,
                output_padding: case.output_padding,
            },
            padding_mode: PaddingMode::Zeros,
            dilation: case.dilation,
            stride: case.stride,
            groups: case.groups,
            bias: golden.contains_key("bias"),
        };
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-5)] {
            let rows = |name: &str| golden[name].to_dtype(dtype)?.transpose(1, 2)?.contiguous();
            let params = Params::new(0, dtype, &Device::Cpu);
            let (from, to) = (case.in_channels, case.out_channels);
            let layer =
                dilated_conv_transpose1d(from, to, case.kernel_size, cfg, params.builder())?;
            params.load(&golden)?;
            let xs = Var::from_tensor(&rows("input")?)?;
            let ys = layer.forward_with(&xs, Run::eval())?;
            let what = format!("case {} {dtype:?}", case.name);
            assert_close(&what, &ys, &rows("output")?, tolerance)?;
            let grads = (ys * rows("grad_output")?)?.sum_all()?.backward()?;
            let found = grads.get(&xs).expect("a gradient of the input");
            assert_close(&what, found, &rows("grad_input")?, tolerance)?;
            for (name, var) in params.trainable() {
                let found = grads.get(&var).expect("a gradient of a parameter");
                let expected = &golden[&format!("grad_{name}")];
                assert_close(&format!("{what} {name}"), found, expected, tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn causal_layers_of_any_kernel_stream() -> Result<()> {
    let mut rng = rng(5);
    for (kernel_size, stride, dilation, groups) in [
        (1, 1, 1, 1),
        (1, 3, 1, 2),
        (2, 1, 1, 1),
        (4, 2, 1, 2),
        (5, 2, 1, 1),
        (3, 2, 5, 1),
        (9, 3, 1, 4),
    ] {
        let cfg =
            ConvTranspose1dConfig { dilation, groups, ..ConvTranspose1dConfig::causal(stride) };
        let params = Params::new(2, DType::F32, &Device::Cpu);
        let layer = dilated_conv_transpose1d(4, 8, kernel_size, cfg, params.builder())?;
        let xs = random(&mut rng, &[2, 11, 4], DType::F32)?;
        let whole = layer.forward_with(&xs, Run::eval())?;
        assert_eq!(whole.dims(), [2, 11 * stride, 8]);
        // the first steps of everything that the taps reach
        let everything = ConvTranspose1dConfig {
            padding: TransposePadding::Explicit { padding: 0, output_padding: 0 },
            ..cfg
        };
        let everything = dilated_conv_transpose1d(4, 8, kernel_size, everything, params.builder())?;
        let everything = everything.forward_with(&xs, Run::eval())?;
        let len = everything.dim(1)?.min(11 * stride);
        let (a, b) = (whole.narrow(1, 0, len)?, everything.narrow(1, 0, len)?);
        assert_close("causal", &a, &b, 1e-6)?;
        for chunks in [vec![1; 11], vec![4, 7], vec![1, 2, 8]] {
            let mut state = layer.init_state(2)?;
            let mut pieces = Vec::new();
            let mut start = 0;
            for len in chunks {
                let piece = xs.narrow(1, start, len)?;
                pieces.push(layer.forward_with(&piece, Run::eval().with_state(&mut state))?);
                start += len;
            }
            let what = format!("kernel {kernel_size} stride {stride} dilation {dilation}");
            assert_close(&what, &Tensor::cat(&pieces, 1)?, &whole, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_an_error() -> Result<()> {
    let layer = |kernel_size, cfg| {
        let params = Params::new(2, DType::F32, &Device::Cpu);
        dilated_conv_transpose1d(4, 6, kernel_size, cfg, params.builder())
    };
    let explicit = |padding, output_padding| ConvTranspose1dConfig {
        padding: TransposePadding::Explicit { padding, output_padding },
        ..ConvTranspose1dConfig::causal(2)
    };
    let error = layer(3, explicit(0, 2)).unwrap_err().to_string();
    assert!(error.starts_with("output_padding"), "{error}");
    let groups = ConvTranspose1dConfig { groups: 4, ..ConvTranspose1dConfig::causal(2) };
    assert!(layer(3, groups).unwrap_err().to_string().starts_with("groups"));

    let xs = Tensor::zeros((1, 2, 4), DType::F32, &Device::Cpu)?;
    let cropped = layer(3, explicit(3, 0))?;
    let error = cropped.forward_with(&xs, Run::eval()).unwrap_err();
    assert!(error.to_string().starts_with("padding"), "{error}");
    assert!(cropped.init_state(1).is_err());
    let mut state = layer(4, ConvTranspose1dConfig::causal(2))?.init_state(1)?;
    let run = Run::eval().with_state(&mut state);
    assert!(cropped.forward_with(&xs, run).is_err());
    Ok(())
}

/// One position of a sequence serves all rings of a state: what follows a stride needs its own.
#[test]
fn two_rates_need_two_states() -> Result<()> {
    let params = Params::new(2, DType::F32, &Device::Cpu);
    let vb = params.builder();
    let up = dilated_conv_transpose1d(2, 2, 4, ConvTranspose1dConfig::causal(2), vb.pp("up"))?;
    let conv = dilated_conv1d(2, 2, 3, Conv1dConfig::causal(), vb.pp("conv"))?;
    let xs = random(&mut rng(6), &[1, 6, 2], DType::F32)?;
    let whole = conv.forward(&up.forward(&xs)?)?;

    let (mut slow, mut fast) = (up.init_state(1)?, conv.init_state(1)?);
    let mut pieces = Vec::new();
    for t in 0..6 {
        let hs = up.forward_with(&xs.narrow(1, t, 1)?, Run::eval().with_state(&mut slow))?;
        pieces.push(conv.forward_with(&hs, Run::eval().with_state(&mut fast))?);
    }
    assert_close("two states", &Tensor::cat(&pieces, 1)?, &whole, 1e-5)?;

    let mut g = Graph::new();
    let xs = g.frames(2)?;
    let hs = g.conv_transpose1d("up", xs, 2, 4, ConvTranspose1dConfig::causal(2))?;
    let ys = g.conv1d("conv", hs, 2, 3, Conv1dConfig::causal())?;
    g.output(ys)?;
    let both = Network::new(g, vb)?.under_test();
    let error = both.init_state(1).unwrap_err().to_string();
    assert!(error.contains("a state of its own"), "{error}");
    Ok(())
}
