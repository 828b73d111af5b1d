//! Outputs and gradients of the dilated convolution equal PyTorch's, for every implementation.

use crate::common;
use crate::common::{Tensors, assert_close, assert_within, under};
use crate::convolution::{OF_GRADIENTS, TOLERANCE, check_types};
use candle_core::{DType, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::kernels::conv::{Axis, ConvShape};
use candle_tcn::ops::{Conv1dParams, conv1d, conv1d_primitives};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    dilation: usize,
    stride: usize,
    groups: usize,
    pad_left: usize,
    pad_right: usize,
    bias: bool,
}

type Convolution =
    fn(&Tensor, &Tensor, Option<&Tensor>, Option<&Tensor>, Conv1dParams) -> Result<Tensor>;

fn check(implementation: &str, convolution: Convolution) -> Result<()> {
    let tensors = common::tensors("conv/conv1d");
    let Cases { cases } = common::json("conv/cases1d");
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
    let rows = |name: &str| -> Result<Tensor> {
        Ok(golden[name].to_dtype(dtype)?.transpose(1, 2)?.contiguous()?)
    };
    let var = |name: &str| Var::from_tensor(&golden[name].to_dtype(dtype)?);
    let params = Conv1dParams {
        dilation: case.dilation,
        stride: case.stride,
        groups: case.groups,
        pad_left: case.pad_left,
        pad_right: case.pad_right,
    };
    let xs = Var::from_tensor(&rows("input")?)?;
    let weight = var("weight")?;
    let bias = case.bias.then(|| var("bias")).transpose()?;
    let ys = convolution(&xs, &weight, bias.as_deref(), None, params)?;
    assert_close(&format!("{what} output"), &ys, &rows("output")?, TOLERANCE)?;

    let grads = (ys * rows("grad_output")?)?.sum_all()?.backward()?;
    let compare = |name: &str, var: &Var, expected: &Tensor| {
        let found = grads.get(var).unwrap_or_else(|| panic!("{what} {name}"));
        assert_within(&format!("{what} {name}"), found, expected, OF_GRADIENTS)
    };
    compare("grad_input", &xs, &rows("grad_input")?)?;
    compare("grad_weight", &weight, &golden["grad_weight"])?;
    match &bias {
        Some(bias) => compare("grad_bias", bias, &golden["grad_bias"]),
        None => Ok(()),
    }
}

#[test]
fn every_kernel_equals_torch() -> Result<()> {
    let tensors = common::tensors("conv/conv1d");
    let Cases { cases } = common::json("conv/cases1d");
    for case in cases {
        let golden = under(&format!("{}.", case.name), &tensors);
        let (batch, in_channels, in_len) = golden["input"].dims3()?;
        let (_, out_channels, out_len) = golden["output"].dims3()?;
        let width = Axis {
            in_len,
            out_len,
            kernel_size: golden["weight"].dim(2)?,
            dilation: case.dilation,
            stride: case.stride,
            pad_before: case.pad_left,
        };
        let (groups, height) = (case.groups, Axis::ONE);
        let shape =
            ConvShape { batch, in_channels, out_channels, groups, height, width, history: 0 };
        for kernel in common::available_kernels() {
            let what = format!("{} {}", kernel.name(), case.name);
            check_types(&what, kernel, &shape, &golden, |t| t.transpose(1, 2)?.contiguous())?;
        }
    }
    Ok(())
}

#[test]
fn operations_equal_torch() -> Result<()> {
    check("operation", conv1d)?;
    check("primitives", conv1d_primitives)
}
