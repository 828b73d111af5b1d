//! The 1-D dilated convolution as an operation with its own gradients.

use candle_core::{CpuStorage, DType, Result, Shape, Tensor};

use super::tape::{self, Keep};
use super::{Arg, DropoutKind, Element, conv1d_primitives, cpu_op, output, slice};
use crate::Error;
use crate::kernels::conv1d::{self as kernel, Conv1dShape};
use crate::kernels::dropout::MaskKey;
use crate::kernels::elementwise::Activation;
use crate::kernels::rows;

/// How the taps of a convolution lie on its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dParams {
    /// Time steps between two taps.
    pub dilation: usize,
    /// Time steps between two outputs.
    pub stride: usize,
    /// Independent channel groups.
    pub groups: usize,
    /// Zero steps (or carried history) before the input.
    pub pad_left: usize,
    /// Zero steps after the input.
    pub pad_right: usize,
}

impl Default for Conv1dParams {
    fn default() -> Self {
        Self {
            dilation: 1,
            stride: 1,
            groups: 1,
            pad_left: 0,
            pad_right: 0,
        }
    }
}

impl Conv1dParams {
    /// The sizes of the product, or why the tensors do not fit together.
    pub(super) fn shape(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        history: Option<&Tensor>,
    ) -> crate::Result<Conv1dShape> {
        let (batch, in_len, in_channels) = xs.dims3()?;
        let (out_channels, group_in, kernel_size) = weight.dims3()?;
        for (field, value) in [
            ("dilation", self.dilation),
            ("stride", self.stride),
            ("groups", self.groups),
            ("kernel_size", kernel_size),
        ] {
            if value == 0 {
                return Err(Error::invalid(field, "a whole number of at least 1", value));
            }
        }
        if group_in * self.groups != in_channels || !out_channels.is_multiple_of(self.groups) {
            return Err(Error::invalid(
                "weight",
                format!(
                    "(out_channels, {in_channels} / groups {}, kernel_size), out_channels divisible by groups",
                    self.groups
                ),
                format!("{:?}", weight.dims()),
            ));
        }
        let history = match history {
            None => 0,
            Some(history) => {
                let (b, len, c) = history.dims3()?;
                if (b, c) != (batch, in_channels) {
                    return Err(Error::invalid(
                        "history",
                        format!("({batch}, any, {in_channels})"),
                        format!("{:?}", history.dims()),
                    ));
                }
                len
            }
        };
        let out_len = crate::geometry::output_length(
            in_len,
            kernel_size,
            self.dilation,
            self.stride,
            self.pad_left,
            self.pad_right,
        )?;
        Ok(Conv1dShape {
            batch,
            in_len,
            out_len,
            in_channels,
            out_channels,
            kernel_size,
            dilation: self.dilation,
            stride: self.stride,
            groups: self.groups,
            pad_left: self.pad_left,
            history,
        })
    }
}

/// Dilated 1-D convolution (cross-correlation, as in PyTorch) with right gradients.
///
/// `ys[b, r] = bias + Σ_tap W[.., tap] · xs[b, r·stride + tap·dilation − pad_left]`, where steps before
/// the first come from `history` (its last row is step −1) and are zero beyond it, and steps after the
/// last are zero.
///
/// # Shapes
/// `xs` (batch, time, in_channels); `weight` (out_channels, in_channels / groups, kernel_size); `bias`
/// (out_channels); `history` (batch, any, in_channels). Result (batch, out_time, out_channels) with
/// `out_time = ⌊(time + pad_left + pad_right − dilation·(kernel_size − 1) − 1) / stride⌋ + 1`.
///
/// # Numerics
/// `f32` or `f64`, accumulated in the same type. The history is a constant: no gradient flows into it.
///
/// # Errors
/// [`Error::Invalid`] where shapes do not fit or the padded input is shorter than the effective kernel.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{Conv1dParams, conv1d};
///
/// // kernel (1, 10) at dilation 2, causal: y[t] = x[t − 2] + 10·x[t]
/// let xs = Tensor::new(&[[[1f32], [2.], [3.], [4.]]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[[1f32, 10.]]], &Device::Cpu)?;
/// let params = Conv1dParams { dilation: 2, pad_left: 2, ..Default::default() };
/// let ys = conv1d(&xs, &weight, None, None, params)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [10., 20., 31., 42.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.conv1d`.
pub fn conv1d(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    history: Option<&Tensor>,
    params: Conv1dParams,
) -> crate::Result<Tensor> {
    if !xs.device().is_cpu() {
        return conv1d_primitives(xs, weight, bias, history, params);
    }
    let shape = params.shape(xs, weight, history)?;
    if let Some(bias) = bias {
        bias.dims1()
            .ok()
            .filter(|&n| n == shape.out_channels)
            .ok_or_else(|| {
                Error::invalid(
                    "bias",
                    format!("({})", shape.out_channels),
                    format!("{:?}", bias.dims()),
                )
            })?;
    }
    let op = Forward {
        shape,
        history: history
            .map(Tensor::detach)
            .map(|h| h.contiguous())
            .transpose()?,
    };
    let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
    Ok(match bias {
        None => tape::apply2(&xs, &weight, op, Keep::Inputs)?,
        Some(bias) => tape::apply3(&xs, &weight, &bias.contiguous()?, op, Keep::Inputs)?,
    })
}

/// What follows the sum of a convolution, done while its rows are at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue {
    /// `max(0, ·)`.
    pub relu: bool,
    /// Element dropout: probability and mask.
    pub dropout: Option<(f64, MaskKey)>,
    /// An `f32` result where the input is `bf16`.
    pub f32_output: bool,
}

/// [`conv1d`] followed by `epilogue`, in one operation where that saves passes over memory.
///
/// # Errors
/// As [`conv1d`].
pub fn conv1d_then(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    history: Option<&Tensor>,
    params: Conv1dParams,
    epilogue: Epilogue,
) -> crate::Result<Tensor> {
    let mut ys = conv1d(xs, weight, bias, history, params)?;
    if epilogue.relu {
        ys = super::activate(&ys, Activation::Relu)?;
    }
    if let Some((p, key)) = epilogue.dropout {
        ys = super::dropout(&ys, p, DropoutKind::Element, key)?;
    }
    if epilogue.f32_output && ys.dtype() == DType::BF16 {
        ys = ys.to_dtype(DType::F32)?;
    }
    Ok(ys)
}

/// The tensor a kernel reads beside its arguments: the history, as a slice.
fn with_history<T: Element, R>(
    history: Option<&Tensor>,
    run: impl FnOnce(&[T]) -> Result<R>,
) -> Result<R> {
    match history {
        None => run(&[]),
        Some(tensor) => {
            let (storage, layout) = tensor.storage_and_layout();
            match &*storage {
                candle_core::Storage::Cpu(storage) => run(slice::<T>((storage, layout))?),
                _ => Err(candle_core::Error::Msg(
                    "history: expected a tensor on the CPU".into(),
                )),
            }
        }
    }
}

struct Forward {
    shape: Conv1dShape,
    history: Option<Tensor>,
}

impl Forward {
    fn run2<T: Element>(&self, x: Arg, w: Arg) -> Result<(CpuStorage, Shape)> {
        self.run::<T>(x, w, None)
    }

    fn run3<T: Element>(&self, x: Arg, w: Arg, bias: Arg) -> Result<(CpuStorage, Shape)> {
        self.run::<T>(x, w, Some(bias))
    }

    fn run<T: Element>(&self, x: Arg, w: Arg, bias: Option<Arg>) -> Result<(CpuStorage, Shape)> {
        let bias = bias.map(slice::<T>).transpose()?;
        let (x, w) = (slice::<T>(x)?, slice::<T>(w)?);
        let s = &self.shape;
        let mut y = vec![<T as num_traits::Zero>::zero(); s.batch * s.out_len * s.out_channels];
        with_history(self.history.as_ref(), |history| {
            Ok(kernel::forward(s, x, history, w, bias, &mut y)?)
        })?;
        Ok((
            T::to_cpu_storage_owned(y),
            (s.batch, s.out_len, s.out_channels).into(),
        ))
    }

    fn gradients(&self, xs: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        let dy = dy.contiguous()?;
        let dx = dy.apply_op2_no_bwd(weight, &GradInput { shape: self.shape })?;
        let op = GradWeight {
            shape: self.shape,
            history: self.history.clone(),
        };
        Ok((dx, xs.apply_op2_no_bwd(&dy, &op)?))
    }
}

cpu_op!(CustomOp2 for Forward, "dilated-conv1d",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.gradients(xs, weight, dy)?;
        Ok((Some(dx), Some(dw)))
    }
);

cpu_op!(CustomOp3 for Forward, "dilated-conv1d",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.gradients(xs, weight, dy)?;
        let db = dy.contiguous()?.apply_op1_no_bwd(&SumRows)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
);

struct GradInput {
    shape: Conv1dShape,
}

impl GradInput {
    fn run2<T: Element>(&self, dy: Arg, w: Arg) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let mut dx = vec![<T as num_traits::Zero>::zero(); s.batch * s.in_len * s.in_channels];
        kernel::grad_input(s, slice::<T>(dy)?, slice::<T>(w)?, &mut dx)?;
        Ok((
            T::to_cpu_storage_owned(dx),
            (s.batch, s.in_len, s.in_channels).into(),
        ))
    }
}

cpu_op!(CustomOp2 for GradInput, "dilated-conv1d");

struct GradWeight {
    shape: Conv1dShape,
    history: Option<Tensor>,
}

impl GradWeight {
    fn run2<T: Element>(&self, x: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let shape = Shape::from((s.out_channels, s.group_in(), s.kernel_size));
        let mut dw = vec![<T as num_traits::Zero>::zero(); shape.elem_count()];
        let (x, dy) = (slice::<T>(x)?, slice::<T>(dy)?);
        with_history(self.history.as_ref(), |history| {
            Ok(kernel::grad_weight(s, x, history, dy, &mut dw)?)
        })?;
        Ok((T::to_cpu_storage_owned(dw), shape))
    }
}

cpu_op!(CustomOp2 for GradWeight, "dilated-conv1d");

struct SumRows;

impl SumRows {
    fn run1<T: Element>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let channels = x.1.dims()[x.1.dims().len() - 1];
        let x = slice::<T>(x)?;
        Ok(output::<T>(&channels.into(), |out| rows::sum_rows(x, out)))
    }
}

cpu_op!(CustomOp1 for SumRows, "sum-rows");

#[cfg(test)]
#[path = "conv1d_tests.rs"]
mod tests;
