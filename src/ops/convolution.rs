//! Convolution as operations with gradients of their own, the same with one axis and with two.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, D, DType, Result, Shape, Tensor, WithDType};
use half::bf16;

use super::dropout::check_probability;
use super::tape::{self, Keep};
use super::{
    Arg, DropoutKind, Epilogue, StoredElement, argument, cpu_op, dispatch, output, slice, zeros,
};
use crate::Error;
use crate::kernels::conv::{self as kernel, ConvShape};
use crate::kernels::dropout::Mask;
use crate::kernels::elementwise::Activation;
use crate::kernels::{Real, rows};

pub(super) fn finish_primitives(mut ys: Tensor, epilogue: Epilogue) -> crate::Result<Tensor> {
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

/// The convolution of tensors with a time axis, or with a height and a width: their rank says which.
pub(super) struct Forward {
    pub(super) shape: ConvShape,
    pub(super) history: Option<Tensor>,
    pub(super) epilogue: Epilogue,
}

/// (batch, time, channels), or (batch, height, width, channels) beside a tensor of rank 4.
fn activations(
    beside: Arg,
    batch: usize,
    (height, width): (usize, usize),
    channels: usize,
) -> Shape {
    match beside.1.dims().len() {
        4 => (batch, height, width, channels).into(),
        _ => (batch, height * width, channels).into(),
    }
}

impl Forward {
    /// The result for tensors that fit `shape`, but for the bias, which is checked here.
    pub(super) fn apply(
        self,
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> crate::Result<Tensor> {
        let (shape, epilogue) = (&self.shape, self.epilogue);
        if let Some((p, _)) = epilogue.dropout {
            check_probability(p)?;
        }
        let keep = match epilogue.relu {
            true => Keep::Both,
            false => Keep::Inputs,
        };
        let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
        let Some(bias) = bias else {
            return Ok(tape::apply2(&xs, &weight, self, keep)?);
        };
        if bias.dims() != [shape.out_channels] {
            return Err(Error::invalid(
                "bias",
                format!("({})", shape.out_channels),
                format!("{:?}", bias.dims()),
            ));
        }
        let bias = bias.contiguous()?;
        Ok(tape::apply3(&xs, &weight, &bias, self, keep)?)
    }

    fn run2<X: StoredElement>(&self, x: Arg, w: Arg) -> Result<(CpuStorage, Shape)> {
        self.run::<X>(x, w, None)
    }

    fn run3<X: StoredElement>(&self, x: Arg, w: Arg, bias: Arg) -> Result<(CpuStorage, Shape)> {
        self.run::<X>(x, w, Some(bias))
    }

    fn run<X: StoredElement>(
        &self,
        x: Arg,
        w: Arg,
        bias: Option<Arg>,
    ) -> Result<(CpuStorage, Shape)> {
        if self.epilogue.f32_output && X::DTYPE == DType::BF16 {
            self.output::<bf16, f32>(x, w, bias)
        } else {
            self.output::<X, X>(x, w, bias)
        }
    }

    fn output<X: StoredElement, Y: StoredElement<Real = X::Real>>(
        &self,
        x: Arg,
        w: Arg,
        bias: Option<Arg>,
    ) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let size = (s.height.out_len, s.width.out_len);
        let shape = activations(x, s.batch, size, s.out_channels);
        let (x, w) = (slice::<X>(x)?, slice::<X::Real>(w)?);
        let epilogue = kernel::Epilogue {
            bias: bias.map(slice::<X::Real>).transpose()?,
            relu: self.epilogue.relu,
            dropout: self.epilogue.dropout,
        };
        let held = self.history.as_ref().map(Tensor::storage_and_layout);
        let history = held.as_ref().map_or(Ok(&[][..]), |h| slice::<X>(argument(h)?))?;
        let mut y = zeros::<Y>(shape.elem_count());
        kernel::forward(s, x, history, w, &epilogue, &mut y)?;
        Ok((Y::to_cpu_storage_owned(y), shape))
    }

    /// The gradient of the sum and, where there is one, that of the bias, from the output and its
    /// gradient.
    fn undo_epilogue(
        &self,
        ys: &Tensor,
        dy: &Tensor,
        bias: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let dz = match (self.epilogue.relu, self.epilogue.dropout) {
            (false, None) => dy,
            (false, Some((p, key))) => super::dropout(&dy, p, DropoutKind::Element, key)?,
            (true, dropout) => {
                let scale = dropout.map_or(1.0, |(p, key)| Mask::new(key, p).scale());
                return dispatch!("dilated-conv1d", ys.dtype(), T => relu_grad::<T>(ys, &dy, scale, bias), bf16);
            }
        };
        let db = bias.then(|| dz.apply_op1_no_bwd(&SumRows)).transpose()?;
        Ok((dz, db))
    }

    fn gradients(&self, xs: &Tensor, weight: &Tensor, dz: &Tensor) -> Result<(Tensor, Tensor)> {
        let op = GradInput { shape: self.shape, dtype: xs.dtype() };
        let dx = dz.apply_op2_no_bwd(weight, &op)?;
        let op = GradWeight { shape: self.shape, history: self.history.clone() };
        Ok((dx, xs.apply_op2_no_bwd(dz, &op)?))
    }
}

cpu_op!(CustomOp2 + bf16 for Forward, "dilated-conv1d",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        ys: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dz, _) = self.undo_epilogue(ys, dy, false)?;
        let (dx, dw) = self.gradients(xs, weight, &dz)?;
        Ok((Some(dx), Some(dw)))
    }
);

cpu_op!(CustomOp3 + bf16 for Forward, "dilated-conv1d",
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        ys: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dz, db) = self.undo_epilogue(ys, dy, true)?;
        let (dx, dw) = self.gradients(xs, weight, &dz)?;
        Ok((Some(dx), Some(dw), db))
    }
);

/// `dz = scale·dy` where the output is not zero (behind a ReLU and dropout, zeros pass nothing on), and
/// the sum of its rows for a bias.
fn relu_grad<Y: StoredElement>(
    ys: &Tensor,
    dy: &Tensor,
    scale: f64,
    bias: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (channels, device, scale) = (ys.dim(D::Minus1)?, ys.device(), Y::Real::of(scale));
    let mut dz = zeros::<Y>(ys.elem_count());
    let held = [ys, dy].map(Tensor::storage_and_layout);
    let y = slice::<Y>(argument(&held[0])?)?;
    let dy = slice::<Y>(argument(&held[1])?)?;
    let db = if bias {
        let mut db = zeros::<Y::Real>(channels);
        rows::relu_grad_with_bias(y, dy, scale, &mut dz, &mut db);
        Some(Tensor::from_vec(db, channels, device)?)
    } else {
        rows::relu_grad(y, dy, scale, &mut dz);
        None
    };
    Ok((Tensor::from_vec(dz, ys.shape(), device)?, db))
}

struct GradInput {
    shape: ConvShape,
    /// Of the input; with bf16, the output gradient may be f32.
    dtype: DType,
}

impl GradInput {
    fn run2<Y: StoredElement>(&self, dy: Arg, w: Arg) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let size = (s.height.in_len, s.width.in_len);
        let shape = activations(dy, s.batch, size, s.in_channels);
        let len = shape.elem_count();
        let dx = if self.dtype == Y::DTYPE {
            let mut dx = zeros::<Y>(len);
            kernel::grad_input(s, slice::<Y>(dy)?, slice::<Y::Real>(w)?, &mut dx)?;
            Y::to_cpu_storage_owned(dx)
        } else {
            let mut dx = zeros::<bf16>(len);
            kernel::grad_input(s, slice::<f32>(dy)?, slice::<f32>(w)?, &mut dx)?;
            CpuStorage::BF16(dx)
        };
        Ok((dx, shape))
    }
}

cpu_op!(CustomOp2 + bf16 for GradInput, "dilated-conv1d-grad-input");

pub(super) struct GradWeight {
    pub(super) shape: ConvShape,
    pub(super) history: Option<Tensor>,
}

impl GradWeight {
    fn run2<X: StoredElement>(&self, x: Arg, dy: Arg) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let (kernel_height, kernel_width) = (s.height.kernel_size, s.width.kernel_size);
        let shape: Shape = match x.1.dims().len() {
            4 => (s.out_channels, s.group_in(), kernel_height, kernel_width).into(),
            _ => (s.out_channels, s.group_in(), s.taps()).into(),
        };
        let mut dw = zeros::<X::Real>(shape.elem_count());
        let x = slice::<X>(x)?;
        let held = self.history.as_ref().map(Tensor::storage_and_layout);
        let history = held.as_ref().map_or(Ok(&[][..]), |h| slice::<X>(argument(h)?))?;
        if dy.0.dtype() == X::DTYPE {
            kernel::grad_weight(s, x, history, slice::<X>(dy)?, &mut dw)?;
        } else {
            kernel::grad_weight(s, x, history, slice::<X::Real>(dy)?, &mut dw)?;
        }
        Ok((X::Real::to_cpu_storage_owned(dw), shape))
    }
}

cpu_op!(CustomOp2 + bf16 for GradWeight, "dilated-conv1d-grad-weight");

pub(super) struct SumRows;

impl SumRows {
    fn run1<T: StoredElement>(&self, x: Arg) -> Result<(CpuStorage, Shape)> {
        let channels = x.1.dims()[x.1.dims().len() - 1];
        let x = slice::<T>(x)?;
        Ok(output::<T::Real>(&channels.into(), |out| rows::sum_rows(x, out)))
    }
}

cpu_op!(CustomOp1 + bf16 for SumRows, "sum-rows");
