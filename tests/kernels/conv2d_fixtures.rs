//! Outputs and gradients of the 2-D dilated convolution equal PyTorch's, for every implementation.

use crate::common;
use crate::common::{Tensors, Tolerance, assert_close, assert_within, under};
use candle_core::{DType, Tensor, Var};
use candle_tcn::Result;
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

const TOLERANCE: f64 = 1e-5;

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
        // a gradient near zero is what is left of sums of hundreds of terms
        let tolerance = Tolerance { atol: 3.0 * TOLERANCE, rtol: TOLERANCE };
        assert_within(&format!("{what} {name}"), found, expected, tolerance)
    };
    compare("grad_input", &xs, &pixels("grad_input")?)?;
    compare("grad_weight", &weight, &golden["grad_weight"])?;
    match &bias {
        Some(bias) => compare("grad_bias", bias, &golden["grad_bias"]),
        None => Ok(()),
    }
}

/// One test, not one for each kernel: the choice holds for the whole process.
#[test]
fn every_kernel_equals_torch() -> Result<()> {
    let _alone = crate::alone();
    for kernel in common::available_kernels() {
        kernel.select().unwrap();
        check(kernel.name(), conv2d)?;
    }
    Ok(())
}

#[test]
fn primitives_equal_torch() -> Result<()> {
    let _alone = crate::alone();
    check("primitives", conv2d_primitives)
}
