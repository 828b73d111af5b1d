//! The transposed convolution: the input gradient of a convolution as an operation of its own.

use candle_core::{IndexOp, Result, Shape, Tensor};

use super::convolution::{Convolution, check_bias, grad_weight, sum_rows};
use super::op::{Arg, Computed, Grads, Keep, Op, apply, dispatch, run};
use super::{Conv1dParams, Epilogue, StoredElement, conv1d_primitives, sections, zeros};
use crate::Error;
use crate::kernels::conv::{self, Axis, ConvShape};
use crate::kernels::{Kernel, pieces};

/// Places of the taps of a transposed convolution on its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose1dParams {
    /// Output steps between two taps.
    pub dilation: usize,
    /// Output steps between the first taps of two input steps.
    pub stride: usize,
    /// Independent channel groups.
    pub groups: usize,
    /// Steps cut off before the output.
    pub crop_left: usize,
    /// Output steps; those that no tap reaches hold the bias alone.
    pub out_len: usize,
}

impl ConvTranspose1dParams {
    /// The sizes of the convolution whose input gradient this is.
    fn shape(&self, xs: &Tensor, weight: &Tensor) -> crate::Result<ConvShape> {
        let (batch, in_len, in_channels) = xs.dims3()?;
        let (rows, group_out, kernel_size) = weight.dims3()?;
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
        if rows != in_channels || !in_channels.is_multiple_of(self.groups) {
            return Err(Error::invalid(
                "weight",
                format!(
                    "({in_channels}, out_channels / groups {}, kernel_size), groups dividing {in_channels}",
                    self.groups
                ),
                format!("{:?}", weight.dims()),
            ));
        }
        Ok(ConvShape {
            batch,
            in_channels: group_out * self.groups,
            out_channels: in_channels,
            groups: self.groups,
            height: Axis::ONE,
            width: Axis {
                in_len: self.out_len,
                out_len: in_len,
                kernel_size,
                dilation: self.dilation,
                stride: self.stride,
                pad_before: self.crop_left,
            },
            history: 0,
        })
    }
}

/// Transposed 1-D convolution with correct gradients: every input step adds its taps to the output.
///
/// `ys[b, t] = bias + Σ W[.., tap]ᵀ · xs[b, i]` over all `i` and `tap` with
/// `i·stride + tap·dilation − crop_left = t`.
///
/// # Shapes
/// `xs` (batch, time, in_channels); `weight` (in_channels, out_channels / groups, kernel_size); `bias`
/// (out_channels). Result (batch, out_len, out_channels).
///
/// # Numerics
/// As [`conv1d`](super::conv1d), whose input gradient it is: `f32`, `f64`, or `xs` of `bf16` with `f32` weights.
///
/// # Errors
/// [`Error::Invalid`] where shapes do not fit, [`Error::TooLarge`] where they overflow.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::{ConvTranspose1dParams, conv_transpose1d};
///
/// // each step puts (1, 10, 100) times itself at two output steps per input step
/// let xs = Tensor::new(&[[[1f32], [2.]]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[[1f32, 10., 100.]]], &Device::Cpu)?;
/// let params = ConvTranspose1dParams { dilation: 1, stride: 2, groups: 1, crop_left: 0, out_len: 5 };
/// let ys = conv_transpose1d(&xs, &weight, None, params)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [1., 10., 102., 20., 200.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.conv_transpose1d`.
pub fn conv_transpose1d(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: ConvTranspose1dParams,
) -> crate::Result<Tensor> {
    let op = Transposed::new(xs, weight, bias, params)?;
    Ok(match bias {
        None => apply(op, &[xs, weight])?,
        Some(bias) => apply(op, &[xs, weight, bias])?,
    })
}

/// Of an input, a weight and perhaps a bias.
pub(crate) struct Transposed {
    /// Of the convolution whose input is the output here.
    shape: ConvShape,
}

impl Transposed {
    pub fn new(
        xs: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        params: ConvTranspose1dParams,
    ) -> crate::Result<Self> {
        let shape = params.shape(xs, weight)?;
        check_bias(bias, shape.in_channels)?;
        Ok(Self { shape })
    }

    fn output<T: StoredElement>(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let s = &self.shape;
        let shape: Shape = (s.batch, s.width.in_len, s.in_channels).into();
        let mut ys = zeros::<T>(shape.elem_count());
        let (xs, weight) = (inputs[0].slice::<T>()?, inputs[1].slice::<T::Real>()?);
        conv::grad_input(kernel, s, xs, weight, &mut ys)?;
        if let Some(bias) = inputs.get(2) {
            let bias = bias.slice::<T::Real>()?;
            let rows = pieces::whole_rows(bias.len());
            pieces::each_piece(
                kernel,
                ys.chunks_mut(rows),
                #[inline(always)]
                |rows| {
                    for row in rows.chunks_exact_mut(bias.len().max(1)) {
                        for (y, &bias) in row.iter_mut().zip(bias) {
                            *y = T::store(y.load() + bias);
                        }
                    }
                },
            );
        }
        Ok((T::to_cpu_storage_owned(ys), shape))
    }
}

impl Op for Transposed {
    fn name(&self) -> &'static str {
        "conv-transpose1d"
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        dispatch!(self.name(), inputs[0].dtype(), T => self.output::<T>(kernel, inputs), bf16)
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let (xs, weight, epilogue) = (&inputs[0], &inputs[1], Epilogue::default());
        let forward = Convolution { shape: self.shape, history: None, sections: None, epilogue };
        let mut grads = vec![
            Some(run(kernel, &forward, &[dy, weight])?),
            Some(grad_weight(
                kernel,
                (&self.shape, &sections::groups(&self.shape, None)),
                dy,
                None,
                xs,
            )?),
        ];
        if inputs.len() > 2 {
            grads.push(Some(sum_rows(kernel, dy)?));
        }
        Ok(grads)
    }

    /// An input spread out by zeros, convolved with the taps in reverse.
    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (xs, weight, s) = (inputs[0], inputs[1], &self.shape);
        let (batch, len, channels) = xs.dims3()?;
        let spread = xs.unsqueeze(2)?.pad_with_zeros(2, 0, s.width.stride - 1)?.reshape((
            batch,
            len * s.width.stride,
            channels,
        ))?;
        let taps: Vec<u32> = (0..s.width.kernel_size as u32).rev().collect();
        // of a group (in, out, taps) as a convolution wants it, (out, in, taps)
        let weight = weight
            .index_select(&Tensor::new(taps, xs.device())?, 2)?
            .reshape((s.groups, s.group_out(), s.group_in(), s.width.kernel_size))?
            .transpose(1, 2)?
            .contiguous()?
            .reshape((s.in_channels, s.group_out(), s.width.kernel_size))?;
        let wanted = s.width.pad_before + s.width.in_len;
        let params = Conv1dParams {
            dilation: s.width.dilation,
            groups: s.groups,
            pad_left: (s.width.kernel_size - 1) * s.width.dilation,
            pad_right: wanted.saturating_sub(len * s.width.stride),
            ..Conv1dParams::default()
        };
        let ys = conv1d_primitives(&spread, &weight, inputs.get(2).copied(), None, params)?;
        ys.i((.., s.width.pad_before..wanted, ..))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::DType;

    /// Channels in and out, taps, and the rest.
    fn cases() -> Vec<(usize, usize, usize, ConvTranspose1dParams)> {
        let params = |(dilation, stride, groups), crop_left, out_len| ConvTranspose1dParams {
            dilation,
            stride,
            groups,
            crop_left,
            out_len,
        };
        vec![
            (2, 3, 4, params((1, 2, 1), 0, 10)),
            (2, 3, 4, params((1, 2, 1), 2, 8)),
            (4, 6, 3, params((2, 3, 2), 1, 13)),
            (3, 3, 2, params((1, 1, 3), 1, 3)),
            (1, 2, 1, params((1, 4, 1), 0, 16)),
            (18, 20, 6, params((1, 3, 1), 1, 12)),
        ]
    }

    #[test]
    fn gradients_agree_with_differences() {
        for (c_in, c_out, kernel_size, params) in cases() {
            if c_in > 8 {
                continue; // many numbers, nothing new
            }
            for batch in [1, 3] {
                let xs = random(1, &[batch, 4, c_in]);
                let weight = random(2, &[c_in, c_out / params.groups, kernel_size]);
                let inputs = [xs, weight, random(3, &[c_out])];
                gradients(&inputs, |t| Ok(conv_transpose1d(&t[0], &t[1], Some(&t[2]), params)?));
                gradients(&inputs[..2], |t| Ok(conv_transpose1d(&t[0], &t[1], None, params)?));
            }
        }
    }

    #[test]
    fn primitives_agree() {
        for (c_in, c_out, kernel_size, params) in cases() {
            for (dtype, tolerance) in
                [(DType::F64, 1e-12), (DType::F32, 1e-5), (DType::BF16, 1. / 64.)]
            {
                let weights = if dtype == DType::F64 { dtype } else { DType::F32 };
                let xs = random(1, &[2, 4, c_in]).to_dtype(dtype).unwrap();
                let weight = random(2, &[c_in, c_out / params.groups, kernel_size]);
                let (weight, bias) = (weight.to_dtype(weights), random(3, &[c_out]));
                let (weight, bias) = (weight.unwrap(), bias.to_dtype(weights).unwrap());
                let ys = conv_transpose1d(&xs, &weight, Some(&bias), params).unwrap();
                assert_eq!(ys.dtype(), dtype);
                let op = Transposed::new(&xs, &weight, Some(&bias), params).unwrap();
                let plain = op.primitives(&[&xs, &weight, &bias]).unwrap();
                assert_close(&ys, &plain, tolerance);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (xs, weight) = (random(1, &[1, 4, 2]), random(2, &[2, 3, 2]));
        let params =
            ConvTranspose1dParams { dilation: 1, stride: 2, groups: 1, crop_left: 0, out_len: 8 };
        let run = |weight: &Tensor, bias: &Tensor, params| {
            conv_transpose1d(&xs, weight, Some(bias), params).map_err(|e| e.to_string())
        };
        let stride = ConvTranspose1dParams { stride: 0, ..params };
        assert!(run(&weight, &random(3, &[3]), stride).is_err());
        assert!(run(&random(2, &[3, 3, 2]), &random(3, &[3]), params).is_err());
        let error = run(&weight, &random(3, &[4]), params).unwrap_err();
        assert_eq!(error, "bias: expected (3), found [4]");
    }
}
