//! Convolutions in a forward walk: masks, padding, rows of a state.

use std::sync::Arc;

use candle_core::Tensor;

use super::forward::{Known, Walk, lost};
use super::operation::{Conv, ConvTranspose, Weight};
use super::program::Group;
use super::reverse::GradientSlot;
use super::{State, TransposePadding};
use crate::kernels::elementwise::Activation;
use crate::ops::conv_transpose1d::Transposed;
use crate::ops::convolution::Convolution;
use crate::ops::gather::Gather;
use crate::ops::norm::WeightNorm;
use crate::ops::scale::ScaleRows;
use crate::ops::{
    self, Conv1dParams, Conv2dParams, ConvTranspose1dParams, DropoutKind, Epilogue, PaddingMode,
};
use crate::{Error, Result};

impl Walk<'_> {
    fn weight(&mut self, weight: Weight) -> Result<Known> {
        match weight {
            Weight::Plain(param) => self.parameter(param),
            Weight::Norm { v, g } => {
                let (v, g, slot) = (self.parameter(v)?, self.parameter(g)?, self.new_slot());
                self.apply(WeightNorm, vec![v, g], slot)
            }
        }
    }

    pub(super) fn conv(
        &mut self,
        conv: &Conv,
        group: &Group,
        mut xs: Known,
        state: Option<&State>,
        out: GradientSlot,
    ) -> Result<Known> {
        let mut weight = self.weight(conv.weight)?;
        if weight.tensor.rank() == 2 {
            weight.tensor = weight.tensor.unsqueeze(2)?;
        }
        let span = conv.span();
        if !conv.is_pointwise() && self.net.graph().takes_mask() {
            xs = self.masked(xs)?;
        }
        let streams = state.is_some() && span > 0;
        let history = match state {
            Some(state) if span > 0 => Some(self.history(state, &xs.tensor, span)?),
            _ => None,
        };
        let mut padding = conv.padding;
        if conv.padding_mode != PaddingMode::Zeros && !streams {
            let expected = "zeros, where sequences begin anew within a run";
            let is_whole = self.sections.is_none();
            Error::require(is_whole, "padding_mode", expected, format!("{:?}", conv.padding_mode))?;
            let slot = self.new_slot();
            xs = self.pad(conv, xs, slot)?;
            padding = [(0, 0); 2];
        }
        let shape = match xs.tensor.rank() {
            4 => conv.images(padding).shape(&xs.tensor, &weight.tensor)?,
            _ => conv.over_time(padding).shape(&xs.tensor, &weight.tensor, history.as_ref())?,
        };
        let rows = shape.height.out_len * shape.width.out_len;
        let draws = DropoutKind::Element.draws(rows, shape.out_channels);
        let epilogue = Epilogue {
            relu: group.then == Some(Activation::Relu),
            dropout: group.dropout.and_then(|(p, number)| Some((p, self.run.key(number, draws)?))),
            f32_output: conv.to_f32,
        };
        let sections = self.sections.clone().filter(|_| span > 0);
        let op = Convolution { shape, history, sections, epilogue };
        let bias = conv.bias.map(|bias| self.parameter(bias)).transpose()?;
        op.check(bias.as_ref().map(|bias| &bias.tensor))?;
        self.apply(op, [xs, weight].into_iter().chain(bias).collect(), out)
    }

    fn pad(&mut self, conv: &Conv, xs: Known, slot: GradientSlot) -> Result<Known> {
        let ([above, along], mode) = (conv.padding, conv.padding_mode);
        if xs.tensor.rank() == 3 {
            return match ops::pad::steps(xs.tensor.dim(1)?, along.0, along.1, mode)? {
                None => Ok(xs),
                Some(steps) => {
                    let op = Gather::steps(&xs.tensor, &steps)?;
                    self.apply(op, vec![xs], slot)
                }
            };
        }
        self.apply_primitive(vec![xs], slot, move |xs| Ok(ops::pad2d(xs[0], above, along, mode)?))
    }

    pub(super) fn transposed(
        &mut self,
        conv: &ConvTranspose,
        mut xs: Known,
        state: Option<&State>,
        out: GradientSlot,
    ) -> Result<Known> {
        let (cfg, span, len) = (conv.config, conv.span(), xs.tensor.dim(1)?);
        let mut crop_left = 0;
        match cfg.padding {
            TransposePadding::Causal => {
                if let Some(state) = state.filter(|_| span > 0) {
                    let history = self.history(state, &xs.tensor, span)?;
                    let slot = self.new_slot();
                    let join = move |xs: &[&Tensor]| Tensor::cat(&[&history, xs[0]], 1);
                    xs = self.apply_primitive(vec![xs], slot, join)?;
                    crop_left = span * cfg.stride;
                } else if cfg.padding_mode != PaddingMode::Zeros && state.is_none() {
                    let slot = self.new_slot();
                    if let Some(steps) = ops::pad::steps(len, span, 0, cfg.padding_mode)? {
                        let op = Gather::steps(&xs.tensor, &steps)?;
                        xs = self.apply(op, vec![xs], slot)?;
                    }
                    crop_left = span * cfg.stride;
                }
            }
            TransposePadding::Same => {
                crop_left = conv.effective().saturating_sub(cfg.stride) / 2;
            }
            TransposePadding::Explicit { padding, .. } => crop_left = padding,
        }
        let params = ConvTranspose1dParams {
            dilation: cfg.dilation,
            stride: cfg.stride,
            groups: cfg.groups,
            crop_left,
            out_len: conv.out_len(len)?,
        };
        let weight = self.parameter(conv.weight)?;
        let bias = conv.bias.map(|bias| self.parameter(bias)).transpose()?;
        let of_bias = bias.as_ref().map(|bias| &bias.tensor);
        let op = Transposed::new(&xs.tensor, &weight.tensor, of_bias, params)?;
        self.apply(op, [xs, weight].into_iter().chain(bias).collect(), out)
    }

    /// The mask's factor of each row of `xs`, where it hides one.
    pub fn counted_rows(&self, xs: &Tensor) -> Result<Option<Arc<[f32]>>> {
        let factors = self.mask.as_ref().and_then(|mask| mask.factors.clone());
        if factors
            .as_ref()
            .is_some_and(|factors| factors.len() * xs.dims()[xs.rank() - 1] != xs.elem_count())
        {
            let found = format!("{:?}", xs.dims());
            return Err(Error::invalid("mask", "steps of the input's rate", found));
        }
        Ok(factors)
    }

    /// Steps multiplied by those of the mask.
    fn masked(&mut self, xs: Known) -> Result<Known> {
        let Some(factors) = self.counted_rows(&xs.tensor)? else {
            return Ok(xs);
        };
        let slot = self.new_slot();
        self.apply(ScaleRows(factors), vec![xs], slot)
    }

    /// Rows before those of `xs`, which are noted for the state.
    fn history(&mut self, state: &State, xs: &Tensor, span: usize) -> Result<Tensor> {
        match &mut self.pieces {
            Some(pieces) => pieces.history(state, xs, span),
            None => Err(lost("state")),
        }
    }
}

impl Conv {
    fn over_time(&self, [_, (pad_left, pad_right)]: [(usize, usize); 2]) -> Conv1dParams {
        Conv1dParams {
            dilation: self.dilation[1],
            stride: self.stride[1],
            groups: self.groups,
            pad_left,
            pad_right,
        }
    }

    fn images(&self, [pad_height, pad_width]: [(usize, usize); 2]) -> Conv2dParams {
        Conv2dParams {
            dilation: self.dilation.into(),
            stride: self.stride.into(),
            groups: self.groups,
            pad_height,
            pad_width,
        }
    }
}

impl ConvTranspose {
    /// Output steps for `len` input steps.
    fn out_len(&self, len: usize) -> Result<usize> {
        let cfg = &self.config;
        let too_large = || {
            Error::too_large(
                "the output of a transposed convolution",
                format!("{len} steps at stride {} overflow", cfg.stride),
            )
        };
        let TransposePadding::Explicit { padding, output_padding } = cfg.padding else {
            return len.checked_mul(cfg.stride).ok_or_else(too_large);
        };
        let whole = len
            .saturating_sub(1)
            .checked_mul(cfg.stride)
            .and_then(|n| n.checked_add(self.effective())?.checked_add(output_padding))
            .ok_or_else(too_large)?;
        let left = padding.checked_mul(2).and_then(|cut| whole.checked_sub(cut));
        left.filter(|&left| left > 0 && len > 0).ok_or_else(|| {
            Error::invalid(
                "padding",
                format!("less than half of the {whole} steps that {len} input steps make"),
                padding,
            )
        })
    }
}
