//! Outputs and gradients of the 2-D dilated convolution equal PyTorch's, for every implementation.

use crate::common;
use crate::common::{Tensors, assert_close, assert_within, under};
use crate::convolution::{OF_GRADIENTS, TOLERANCE, check_types};
use candle_core::{DType, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::kernels::conv::{Axis, ConvShape};
use candle_tcn::ops::{Conv2dParams, conv2d, conv2d_primitives};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    dilation: (usize, usize),
    stride: (usize, usize),
    groups: usize,
    pad_top: usize,
    pad_bottom: usize,
    pad_left: usize,
    pad_right: usize,
    bias: bool,
}

type Convolution = fn(&Tensor, &Tensor, Option<&Tensor>, Conv2dParams) -> Result<Tensor>;

fn check(implementation: &str, convolution: Convolution) -> Result<()> {
    let tensors = common::tensors("conv/conv2d");
    let Cases { cases } = common::json("conv/cases2d");
    assert_eq!(cases.len(), 20);
    for case in cases {
        let golden = under(&format!("{}.", case.name), &tensors);
        assert_eq!(golden.contains_key("bias"), case.bias);
        for dtype in [DType::F64, DType::F32] {
            let what = format!("{implementation} {dtype:?} {}", case.name);
            check_case(&what, convolution, &case, &golden, dtype)?;
        }
    }
    Ok(())
}

fn check_case(
    what: &str,
    convolution: Convolution,
    case: &Case,
    golden: &Tensors,
    dtype: DType,
) -> Result<()> {
    // the fixtures are channels-first
    let pixels = |name: &str| -> Result<Tensor> {
        let pixels = golden[name].to_dtype(dtype)?.permute((0, 2, 3, 1))?;
        Ok(pixels.contiguous()?)
    };
    let var = |name: &str| Var::from_tensor(&golden[name].to_dtype(dtype)?);
    let params = Conv2dParams {
        dilation: case.dilation,
        stride: case.stride,
        groups: case.groups,
        pad_height: (case.pad_top, case.pad_bottom),
        pad_width: (case.pad_left, case.pad_right),
    };
    let xs = Var::from_tensor(&pixels("input")?)?;
    let weight = var("weight")?;
    let bias = case.bias.then(|| var("bias")).transpose()?;
    let ys = convolution(&xs, &weight, bias.as_deref(), params)?;
    let expected = pixels("output")?;
    assert_close(&format!("{what} output"), &ys, &expected, TOLERANCE)?;

    let grads = (ys * pixels("grad_output")?)?.sum_all()?.backward()?;
    let compare = |name: &str, var: &Var, expected: &Tensor| {
        let found = grads.get(var).unwrap_or_else(|| panic!("{what} {name}"));
        assert_within(&format!("{what} {name}"), found, expected, OF_GRADIENTS)
    };
    compare("grad_input", &xs, &pixels("grad_input")?)?;
    compare("grad_weight", &weight, &golden["grad_weight"])?;
    match &bias {
        Some(bias) => compare("grad_bias", bias, &golden["grad_bias"]),
        None => Ok(()),
    }
}

#[test]
fn every_kernel_equals_torch() -> Result<()> {
    let tensors = common::tensors("conv/conv2d");
    let Cases { cases } = common::json("conv/cases2d");
    for case in cases {
        let golden = under(&format!("{}.", case.name), &tensors);
        let (batch, in_channels, in_height, in_width) = golden["input"].dims4()?;
        let (_, out_channels, out_height, out_width) = golden["output"].dims4()?;
        let (_, _, kernel_height, kernel_width) = golden["weight"].dims4()?;
        let shape = ConvShape {
            batch,
            in_channels,
            out_channels,
            groups: case.groups,
            height: Axis {
                in_len: in_height,
                out_len: out_height,
                kernel_size: kernel_height,
                dilation: case.dilation.0,
                stride: case.stride.0,
                pad_before: case.pad_top,
            },
            width: Axis {
                in_len: in_width,
                out_len: out_width,
                kernel_size: kernel_width,
                dilation: case.dilation.1,
                stride: case.stride.1,
                pad_before: case.pad_left,
            },
            history: 0,
        };
        for kernel in common::available_kernels() {
            let what = format!("{} {}", kernel.name(), case.name);
            let pixels = |t: &Tensor| t.permute((0, 2, 3, 1))?.contiguous();
            check_types(&what, kernel, &shape, &golden, pixels)?;
        }
    }
    Ok(())
}

#[test]
fn operations_equal_torch() -> Result<()> {
    check("operation", conv2d)?;
    check("primitives", conv2d_primitives)
}
