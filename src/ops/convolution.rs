//! Convolution as an operation with gradients of its own, the same with one axis and with two.

use candle_core::{DType, Device, Result, Shape, Tensor, WithDType};
use half::bf16;

use super::dropout::{Dropout, check_probability};
use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, on_cpu, run};
use super::primitives::{over_sections, over_time, sum_over_taps};
use super::profile::{self, Part};
use super::sections::{self, SectionGroup, Sections};
use super::{DropoutKind, Epilogue, StoredElement, filled, tensor, zeros};
use crate::Error;
use crate::geometry::output_length;
use crate::kernels::conv::{self, Axis, ConvShape};
use crate::kernels::dropout::{self, DropoutMask};
use crate::kernels::elementwise::Activation;
use crate::kernels::{Kernel, Real, Stored, rows};

/// The epilogue of a convolution in primitives.
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

/// Refuses groups and channels that do not fit; `kernel` names the axes of the kernel.
pub(super) fn check_channels(
    weight: &Tensor,
    in_channels: usize,
    groups: usize,
    kernel: &str,
) -> crate::Result<()> {
    if groups == 0 {
        return Err(Error::invalid("groups", "a whole number of at least 1", 0));
    }
    let (out_channels, group_in) = (weight.dim(0)?, weight.dim(1)?);
    if group_in.checked_mul(groups) == Some(in_channels) && out_channels.is_multiple_of(groups) {
        return Ok(());
    }
    let expected = format!(
        "(out_channels, {in_channels} / groups {groups}, {kernel}), out_channels divisible by groups"
    );
    Err(Error::invalid("weight", expected, format!("{:?}", weight.dims())))
}

/// Refuses a bias that is not one number a channel.
pub(super) fn check_bias(bias: Option<&Tensor>, channels: usize) -> crate::Result<()> {
    match bias {
        Some(bias) if bias.dims() != [channels] => {
            Err(Error::invalid("bias", format!("({channels})"), format!("{:?}", bias.dims())))
        }
        _ => Ok(()),
    }
}

/// One axis of a convolution, where it fits.
pub(super) fn axis(
    in_len: usize,
    kernel_size: usize,
    (dilation, stride): (usize, usize),
    (before, after): (usize, usize),
) -> crate::Result<Axis> {
    let out_len = output_length(in_len, kernel_size, dilation, stride, before, after)?;
    Ok(Axis { in_len, out_len, kernel_size, dilation, stride, pad_before: before })
}

/// Of an input, a weight and perhaps a bias.
pub(crate) struct Convolution {
    pub shape: ConvShape,
    /// Rows before the input, constant.
    pub history: Option<Tensor>,
    /// Parts of the sequences that know nothing of each other.
    pub sections: Option<Sections>,
    pub epilogue: Epilogue,
}

/// Shape of activations beside others: of sequences or of images.
fn activations(
    beside: Arg,
    batch: usize,
    (height, width): (usize, usize),
    channels: usize,
) -> Shape {
    match beside.shape().rank() {
        4 => (batch, height, width, channels).into(),
        _ => (batch, height * width, channels).into(),
    }
}

/// Runs `work` on the elements of the history, where there is one.
fn with_history<T: WithDType, R>(
    history: Option<&Tensor>,
    work: impl FnOnce(&[T]) -> Result<R>,
) -> Result<R> {
    match history {
        None => work(&[]),
        Some(history) => on_cpu(&[history], |args| work(args[0].slice::<T>()?)),
    }
}

impl Convolution {
    pub(super) fn apply(
        self,
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> crate::Result<Tensor> {
        self.check(bias)?;
        Ok(match bias {
            None => apply(self, &[xs, weight])?,
            Some(bias) => apply(self, &[xs, weight, bias])?,
        })
    }

    /// Checks what the shape does not know.
    pub(crate) fn check(&self, bias: Option<&Tensor>) -> crate::Result<()> {
        if let Some((p, _)) = self.epilogue.dropout {
            check_probability(p)?;
        }
        sections::check(&self.shape, self.sections.as_ref())?;
        check_bias(bias, self.shape.out_channels)
    }

    fn output<X: StoredElement, Y: StoredElement<Real = X::Real>>(
        &self,
        kernel: Kernel,
        inputs: &[Arg],
    ) -> Computed {
        let (s, x) = (&self.shape, inputs[0]);
        let size = (s.height.out_len, s.width.out_len);
        let shape = activations(x, s.batch, size, s.out_channels);
        let (x, weight) = (x.slice::<X>()?, inputs[1].slice::<X::Real>()?);
        let bias = inputs.get(2).map(|bias| bias.slice::<X::Real>()).transpose()?;
        let mut y = zeros::<Y>(shape.elem_count());
        // what is dropped hangs on the place in the whole
        let later = self.epilogue.dropout.filter(|_| self.sections.is_some());
        let dropout = self.epilogue.dropout.filter(|_| later.is_none());
        let epilogue = conv::RowEpilogue { bias, relu: self.epilogue.relu, dropout };
        with_history(self.history.as_ref(), |history| {
            for group in self.groups() {
                let (x, history) =
                    (group.take(x, s.in_channels), group.history(history, s.in_channels));
                group.write(&mut y, s.out_channels, |y| {
                    conv::forward(kernel, &group.shape, &x, &history, weight, &epilogue, y)
                })?;
            }
            Ok(())
        })?;
        if let Some((p, key)) = later {
            dropout::apply_in_place(kernel, key, p, 0, &mut y);
        }
        Ok((Y::to_cpu_storage_owned(y), shape))
    }

    fn groups(&self) -> Vec<SectionGroup> {
        sections::groups(&self.shape, self.sections.as_ref())
    }

    /// Gradients of the sums, before the epilogue, and of the bias.
    fn undo_epilogue(
        &self,
        kernel: Kernel,
        y: &Tensor,
        dy: &Tensor,
        bias: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let dz = match (self.epilogue.relu, self.epilogue.dropout) {
            (false, None) => dy.clone(),
            (false, Some((p, key))) => {
                run(kernel, &Dropout { p, kind: DropoutKind::Element, key }, &[dy])?
            }
            (true, dropout) => {
                let scale = dropout.map_or(1.0, |(p, key)| DropoutMask::new(key, p).scale());
                return on_cpu(
                    &[y, dy],
                    |args| dispatch!(self.name(), dy.dtype(), T => relu_grad::<T>(kernel, args, scale, bias), bf16),
                );
            }
        };
        let db = bias.then(|| sum_rows(kernel, &dz)).transpose()?;
        Ok((dz, db))
    }
}

impl Op for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn keep(&self) -> Keep {
        if self.epilogue.relu { Keep::Both } else { Keep::Inputs }
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        match inputs[0].dtype() {
            DType::BF16 if self.epilogue.f32_output => self.output::<bf16, f32>(kernel, inputs),
            dtype => dispatch!(self.name(), dtype, T => self.output::<T, T>(kernel, inputs), bf16),
        }
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], y: &Tensor, dy: &Tensor) -> Grads {
        let (dz, db) = self.undo_epilogue(kernel, y, dy, inputs.len() > 2)?;
        let (xs, weight) = (&inputs[0], &inputs[1]);
        let groups = self.groups();
        let dx = grad_input(kernel, (&self.shape, &groups), &dz, weight, xs.dtype())?;
        let dw = grad_weight(kernel, (&self.shape, &groups), xs, self.history.as_ref(), &dz)?;
        Ok([Some(dx), Some(dw), db].into_iter().take(inputs.len()).collect())
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (xs, weight, bias) = (inputs[0], inputs[1], inputs.get(2).copied());
        let ys = match xs.rank() {
            4 => sum_over_taps(xs, weight, bias, &self.shape)?,
            _ => match &self.sections {
                None => over_time(xs, weight, bias, self.history.as_ref(), self.shape)?,
                Some(sections) => {
                    over_sections((xs, weight, bias), self.history.as_ref(), self.shape, sections)?
                }
            },
        };
        Ok(finish_primitives(ys, self.epilogue)?)
    }
}

fn relu_grad<T: StoredElement>(
    kernel: Kernel,
    args: &[Arg],
    scale: f64,
    bias: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (y, dy, scale) = (args[0].slice::<T>()?, args[1].slice::<T>()?, T::Real::of(scale));
    let mut db = None;
    let dz = filled::<T>(args[0].shape(), |dz| match bias {
        true => {
            let mut sums = zeros::<T::Real>(args[0].channels());
            rows::relu_grad_with_bias(kernel, y, dy, scale, dz, &mut sums);
            db = Some(sums);
        }
        false => rows::relu_grad(kernel, y, dy, scale, dz),
    });
    let db = db.map(|sums| Tensor::from_vec(sums, args[0].channels(), &Device::Cpu));
    Ok((tensor(dz), db.transpose()?))
}

/// Gradient of the input, in the type `dtype` of the input: that of `dz`, or bf16 beside f32.
pub(super) fn grad_input(
    kernel: Kernel,
    (s, groups): (&ConvShape, &[SectionGroup]),
    dz: &Tensor,
    weight: &Tensor,
    dtype: DType,
) -> Result<Tensor> {
    fn run<Y: StoredElement, X: StoredElement<Real = Y::Real>>(
        kernel: Kernel,
        (s, groups): (&ConvShape, &[SectionGroup]),
        args: &[Arg],
    ) -> Computed {
        let size = (s.height.in_len, s.width.in_len);
        let shape = activations(args[0], s.batch, size, s.in_channels);
        let (dz, weight) = (args[0].slice::<Y>()?, args[1].slice::<Y::Real>()?);
        let mut dx = zeros::<X>(shape.elem_count());
        for group in groups {
            let dz = group.take(dz, s.out_channels);
            group.write(&mut dx, s.in_channels, |dx| {
                conv::grad_input(kernel, &group.shape, &dz, weight, dx)
            })?;
        }
        Ok((X::to_cpu_storage_owned(dx), shape))
    }
    let _span = profile::span(Part::GradInput);
    let dx = on_cpu(&[dz, weight], |args| match (dz.dtype(), dtype) {
        (DType::F32, DType::BF16) => run::<f32, bf16>(kernel, (s, groups), args),
        (dz, _) => dispatch!("grad-input", dz, T => run::<T, T>(kernel, (s, groups), args), bf16),
    })?;
    Ok(tensor(dx))
}

/// Gradient of the weight; `dz` in the type of the input, or in f32 beside bf16.
pub(super) fn grad_weight(
    kernel: Kernel,
    (s, groups): (&ConvShape, &[SectionGroup]),
    xs: &Tensor,
    history: Option<&Tensor>,
    dz: &Tensor,
) -> Result<Tensor> {
    fn run<X: StoredElement, Y: StoredElement<Real = X::Real>>(
        kernel: Kernel,
        (s, groups): (&ConvShape, &[SectionGroup]),
        args: &[Arg],
        history: Option<&Tensor>,
    ) -> Computed {
        let shape: Shape = match args[0].shape().rank() {
            4 => (s.out_channels, s.group_in(), s.height.kernel_size, s.width.kernel_size).into(),
            _ => (s.out_channels, s.group_in(), s.taps()).into(),
        };
        let (x, dz) = (args[0].slice::<X>()?, args[1].slice::<Y>()?);
        let mut dw = zeros::<X::Real>(shape.elem_count());
        with_history(history, |history| {
            let mut more = zeros::<X::Real>(if groups.len() > 1 { dw.len() } else { 0 });
            for (i, group) in groups.iter().enumerate() {
                let (x, dz) = (group.take(x, s.in_channels), group.take(dz, s.out_channels));
                let history = group.history(history, s.in_channels);
                let sums = if i == 0 { &mut dw } else { &mut more };
                conv::grad_weight(kernel, &group.shape, &x, &history, &dz, sums)?;
                if i > 0 {
                    dw.iter_mut().zip(&more).for_each(|(dw, &more)| *dw += more);
                }
            }
            Ok(())
        })?;
        Ok((X::Real::to_cpu_storage_owned(dw), shape))
    }
    let _span = profile::span(Part::GradWeight);
    let dw = on_cpu(&[xs, dz], |args| match (xs.dtype(), dz.dtype()) {
        (DType::BF16, DType::F32) => run::<bf16, f32>(kernel, (s, groups), args, history),
        (x, _) => {
            dispatch!("grad-weight", x, T => run::<T, T>(kernel, (s, groups), args, history), bf16)
        }
    })?;
    Ok(tensor(dw))
}

/// Sum of all rows, in the type that sums have.
pub(super) fn sum_rows(kernel: Kernel, xs: &Tensor) -> Result<Tensor> {
    let sums = on_cpu(&[xs], |args| {
        let channels = args[0].channels();
        dispatch!("sum-rows", xs.dtype(), T => {
            let x = args[0].slice::<T>()?;
            Ok(filled::<<T as Stored>::Real>(&channels.into(), |sums| rows::sum_rows(kernel, x, sums)))
        }, bf16)
    })?;
    Ok(tensor(sums))
}
