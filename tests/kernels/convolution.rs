//! A convolution and its gradients by one kernel, beside those that PyTorch computed.

use candle_core::{DType, Tensor, WithDType};
use candle_tcn::Result;
use candle_tcn::kernels::conv::{self, ConvShape, RowEpilogue};
use candle_tcn::kernels::{Kernel, Real, rows};

use crate::common::{Tensors, Tolerance, close};

pub const TOLERANCE: f64 = 1e-5;

/// Gradients near zero are what is left of sums of hundreds of terms.
pub const OF_GRADIENTS: Tolerance = Tolerance { atol: 3.0 * TOLERANCE, rtol: TOLERANCE };

/// Compares output and gradients with the tensors of `golden`; `rows` makes rows of a tensor.
pub fn check<T: Real + WithDType>(
    what: &str,
    kernel: Kernel,
    shape: &ConvShape,
    golden: &Tensors,
    rows: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<()> {
    let all = |name: &str| -> Result<Vec<T>> {
        let tensor = match name {
            "input" | "grad_output" | "output" | "grad_input" => rows(&golden[name])?,
            _ => golden[name].clone(),
        };
        Ok(tensor.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1()?)
    };
    let compare = |name: &str, found: &[T], tolerance: Option<Tolerance>| -> Result<()> {
        let found: Vec<f64> = found.iter().map(|x| x.f64()).collect();
        let expected: Vec<f64> = all(name)?.into_iter().map(Real::f64).collect();
        let tolerance = tolerance.unwrap_or_else(|| Tolerance::relative(TOLERANCE, &expected));
        let agrees = close::compare(&found, &expected, tolerance);
        agrees.unwrap_or_else(|error| panic!("{what} {name}: {error}"));
        Ok(())
    };
    let (x, weight, dy) = (all("input")?, all("weight")?, all("grad_output")?);
    let bias = golden.contains_key("bias").then(|| all("bias")).transpose()?;
    let epilogue = RowEpilogue { bias: bias.as_deref(), relu: false, dropout: None };
    // not zero: everything must be overwritten
    let garbage = |len: usize| vec![T::of(77.0); len];
    let (mut y, mut dx, mut dw) = (garbage(dy.len()), garbage(x.len()), garbage(weight.len()));
    conv::forward(kernel, shape, &x, &[], &weight, &epilogue, &mut y)?;
    conv::grad_input(kernel, shape, &dy, &weight, &mut dx)?;
    conv::grad_weight(kernel, shape, &x, &[], &dy, &mut dw)?;
    compare("output", &y, None)?;
    compare("grad_input", &dx, Some(OF_GRADIENTS))?;
    compare("grad_weight", &dw, Some(OF_GRADIENTS))?;
    if let Some(bias) = &bias {
        let mut db = garbage(bias.len());
        rows::sum_rows(kernel, &dy, &mut db);
        compare("grad_bias", &db, Some(OF_GRADIENTS))?;
    }
    Ok(())
}

/// As [`check`], in single and in double precision.
pub fn check_types(
    what: &str,
    kernel: Kernel,
    shape: &ConvShape,
    golden: &Tensors,
    rows: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<()> {
    check::<f64>(&format!("{what} {:?}", DType::F64), kernel, shape, golden, &rows)?;
    check::<f32>(&format!("{what} {:?}", DType::F32), kernel, shape, golden, &rows)
}
