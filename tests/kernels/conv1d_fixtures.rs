//! Outputs and gradients of the dilated convolution equal PyTorch's, for every implementation.

use crate::common;
use crate::common::{Tensors, Tolerance, assert_close, assert_within, under};
use candle_core::{DType, Tensor, Var};
use candle_tcn::Result;
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

const TOLERANCE: f64 = 1e-5;

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
        // a gradient near zero is what is left of sums of hundreds of terms
        let tolerance = Tolerance { atol: 3.0 * TOLERANCE, rtol: TOLERANCE };
        assert_within(&format!("{what} {name}"), found, expected, tolerance)
    };
    compare("grad_input", &xs, &rows("grad_input")?)?;
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
        check(kernel.name(), conv1d)?;
    }
    Ok(())
}

#[test]
fn primitives_equal_torch() -> Result<()> {
    let _alone = crate::alone();
    check("primitives", conv1d_primitives)
}
