//! The forward pass of pytorch-tcn's `TCN`.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use super::{EmbeddingMode, PytorchActivation, PytorchTcnConfig};
use crate::nn::{
    Conv1d, Conv1dConfig, DropoutKind, Gate, Norm, NormKind, Pass, RingShape, StepDtype,
};
use crate::ops::{self, Epilogue};
use crate::{Error, Result};

/// The network of pytorch-tcn 1.2.3.
///
/// A block is `act(dropout(act(norm2(conv2(dropout(inner(condition(norm1(conv1 x)))))))) + residual(x))`,
/// where `inner` is the activation or a gated linear unit, and the rest as the options say. As there:
///
/// - the skip sum leaves out the last block's inner branch and holds its final output instead;
/// - `softmax` and `log_softmax`, also as activations of the blocks, are over the batch;
/// - conditioning inputs may be left out altogether, and the blocks then go without;
/// - with `add`, `embedding_projection_2` is not used: it is not among the tensors here.
///
/// Unlike there, a batch of any size streams, and so does a kernel of one tap.
///
/// # Shapes
/// Frames (batch, time, num_inputs); conditioning inputs (batch, channels) or (batch, time, channels) by
/// [`Pass::with_embeddings`]; result (batch, time, output_projection or the last of num_channels).
///
/// Tensors: `network.{i}.conv{1,2}.*` (see [`Conv1d`]; weight norm as `weight_g` and `weight_v`),
/// `network.{i}.norm{1,2}.*`, `network.{i}.downsample.*`, `network.{i}.embedding_projection_{1,2}.*`,
/// `downsample_skip_connection.{i}.*`, `projection_out.*`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::{Model, ModelConfig};
/// use candle_tcn::nn::{Params, Pass};
///
/// let json = r#"{"model_type": "pytorch_tcn", "num_inputs": 3, "num_channels": [8, 8],
///                "embedding_shapes": [[5]], "output_projection": 2}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = Model::new(&config, params.builder())?;
/// let xs = Tensor::ones((1, 20, 3), DType::F32, &Device::Cpu)?;
/// let speaker = [Tensor::ones((1, 5), DType::F32, &Device::Cpu)?];
/// let ys = model.forward(&xs, &mut Pass::eval().with_embeddings(&speaker))?;
/// assert_eq!(ys.dims(), [1, 20, 2]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PytorchTcn {
    blocks: Vec<Block>,
    /// For every block but the last: its skip path, a 1×1 convolution where widths differ.
    skips: Option<Vec<Option<Conv1d>>>,
    projection: Option<Conv1d>,
    activation: PytorchActivation,
    output_activation: Option<PytorchActivation>,
    /// Channels of each conditioning input.
    embedding_channels: Vec<usize>,
    device: Device,
}

#[derive(Debug, Clone)]
struct Block {
    conv1: Conv1d,
    norm1: Norm,
    conv2: Conv1d,
    norm2: Norm,
    downsample: Option<Conv1d>,
    conditioning: Option<Conditioning>,
    activation: PytorchActivation,
    gate: bool,
    dropout: f64,
}

#[derive(Debug, Clone)]
struct Conditioning {
    of_embedding: Conv1d,
    /// Of the channels and the projected embedding, in `concat`; `add` adds them.
    of_both: Option<Conv1d>,
}

fn pointwise(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Conv1d> {
    Conv1d::new(in_channels, out_channels, 1, Conv1dConfig::causal(), vb)
}

impl Conditioning {
    fn new(cfg: &PytorchTcnConfig, width: usize, vb: VarBuilder) -> Result<Option<Self>> {
        let channels: usize = cfg.embedding_channels()?.into_iter().sum();
        if channels == 0 {
            return Ok(None);
        }
        let both = || pointwise(2 * width, width, vb.pp("embedding_projection_2"));
        Ok(Some(Self {
            of_embedding: pointwise(channels, width, vb.pp("embedding_projection_1"))?,
            of_both: (cfg.embedding_mode == EmbeddingMode::Concat).then(both).transpose()?,
        }))
    }

    fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let both = self.of_both.as_ref();
        Ok(Self {
            of_embedding: self.of_embedding.freeze_as(dtype)?,
            of_both: both.map(|conv| conv.freeze_as(dtype)).transpose()?,
        })
    }

    fn apply(&self, xs: &Tensor, embedding: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let embedding = self.of_embedding.forward(embedding, pass)?;
        match &self.of_both {
            None => ops::add(xs, &embedding),
            Some(conv) => conv.forward(&Tensor::cat(&[xs, &embedding], 2)?, pass),
        }
    }
}

impl Block {
    fn new(
        (in_channels, out_channels): (usize, usize),
        dilation: usize,
        cfg: &PytorchTcnConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        let conv_cfg = Conv1dConfig {
            padding: cfg.convolutions()?.padding(),
            dilation,
            weight_norm: cfg.norm() == NormKind::Weight,
            ..Conv1dConfig::causal()
        };
        let inner = out_channels * if cfg.use_gate { 2 } else { 1 };
        let conv =
            |from, to, name: &str| Conv1d::new(from, to, cfg.kernel_size, conv_cfg, vb.pp(name));
        let downsample = || pointwise(in_channels, out_channels, vb.pp("downsample"));
        Ok(Self {
            conv1: conv(in_channels, inner, "conv1")?,
            norm1: Norm::new(cfg.norm(), inner, vb.pp("norm1"))?,
            conv2: conv(out_channels, out_channels, "conv2")?,
            norm2: Norm::new(cfg.norm(), out_channels, vb.pp("norm2"))?,
            downsample: (in_channels != out_channels).then(downsample).transpose()?,
            conditioning: Conditioning::new(cfg, inner, vb.clone())?,
            activation: cfg.activation,
            gate: cfg.use_gate,
            dropout: cfg.dropout,
        })
    }

    fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let (downsample, conditioning) = (self.downsample.as_ref(), self.conditioning.as_ref());
        Ok(Self {
            conv1: self.conv1.freeze_as(dtype)?,
            conv2: self.conv2.freeze_as(dtype)?,
            downsample: downsample.map(|conv| conv.freeze_as(dtype)).transpose()?,
            conditioning: conditioning.map(|c| c.freeze(dtype)).transpose()?,
            ..self.clone()
        })
    }

    /// `activation(norm(conv xs))`.
    fn convolve(
        &self,
        (conv, norm): (&Conv1d, &Norm),
        xs: &Tensor,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        if self.activation == PytorchActivation::Relu && matches!(norm, Norm::Identity) {
            let epilogue = Epilogue { relu: true, ..Epilogue::default() };
            return conv.forward_then(xs, pass, epilogue);
        }
        self.activation.apply(&norm.forward(&conv.forward(xs, pass)?, pass)?)
    }

    /// The inner branch, before the residual is added.
    fn branch(&self, xs: &Tensor, embedding: Option<&Tensor>, pass: &mut Pass) -> Result<Tensor> {
        let conditioning = self.conditioning.as_ref().zip(embedding);
        let hs = if self.gate || conditioning.is_some() {
            let hs = self.norm1.forward(&self.conv1.forward(xs, pass)?, pass)?;
            let hs = match conditioning {
                None => hs,
                Some((conditioning, embedding)) => conditioning.apply(&hs, embedding, pass)?,
            };
            match self.gate {
                true => ops::gate(&hs, Gate::Glu)?,
                false => self.activation.apply(&hs)?,
            }
        } else {
            self.convolve((&self.conv1, &self.norm1), xs, pass)?
        };
        let hs = pass.dropout(hs, self.dropout, DropoutKind::Element)?;
        let hs = self.convolve((&self.conv2, &self.norm2), &hs, pass)?;
        pass.dropout(hs, self.dropout, DropoutKind::Element)
    }

    /// The block's output for its inner branch `hs`.
    fn finish(&self, hs: &Tensor, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match &self.downsample {
            None => self.activation.apply_sum(hs, xs),
            Some(conv) => self.activation.apply_sum(hs, &conv.forward(xs, pass)?),
        }
    }
}

impl PytorchTcn {
    pub(in super::super) fn new(cfg: &PytorchTcnConfig, vb: VarBuilder) -> Result<Self> {
        let dilations = cfg.convolutions()?.validate()?;
        let widths = &cfg.num_channels;
        let inputs = [cfg.num_inputs].into_iter().chain(widths.iter().copied());
        let sizes = inputs.zip(widths.iter().copied()).zip(dilations);
        let blocks = sizes.enumerate().map(|(i, (channels, dilation))| {
            Block::new(channels, dilation, cfg, vb.pp(format!("network.{i}")))
        });
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let last = widths.last().copied().unwrap_or(0);
        let skip = |(i, &width): (usize, &usize)| {
            let vb = vb.pp(format!("downsample_skip_connection.{i}"));
            (width != last).then(|| pointwise(width, last, vb)).transpose()
        };
        let others = &widths[..blocks.len() - 1];
        let skips = || others.iter().enumerate().map(skip).collect::<Result<_>>();
        let project = |channels| pointwise(last, channels, vb.pp("projection_out"));
        Ok(Self {
            blocks,
            skips: cfg.use_skip_connections.then(skips).transpose()?,
            projection: cfg.output_projection.map(project).transpose()?,
            activation: cfg.activation,
            output_activation: cfg.output_activation,
            embedding_channels: cfg.embedding_channels()?,
            device: vb.device().clone(),
        })
    }

    pub(in super::super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let freeze = |conv: &Option<Conv1d>| {
            let conv = conv.as_ref();
            conv.map(|conv| conv.freeze_as(dtype)).transpose()
        };
        let freeze_all = |skips: &Vec<_>| skips.iter().map(freeze).collect::<Result<_>>();
        let blocks = self.blocks.iter().map(|block| block.freeze(dtype));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            skips: self.skips.as_ref().map(freeze_all).transpose()?,
            projection: freeze(&self.projection)?,
            ..self.clone()
        })
    }

    pub(in super::super) fn rings(&self) -> Result<Vec<RingShape>> {
        let convs = self.blocks.iter().flat_map(|b| [&b.conv1, &b.conv2]);
        convs.filter_map(|conv| conv.ring().transpose()).collect()
    }

    pub(in super::super) fn device(&self) -> &Device {
        &self.device
    }

    /// The conditioning inputs side by side, (batch, time, channels of all); none where none are given.
    fn embedding(&self, xs: &Tensor, pass: &Pass) -> Result<Option<Tensor>> {
        let given = pass.embeddings();
        if given.is_empty() {
            return Ok(None);
        }
        if given.len() != self.embedding_channels.len() {
            let expected = match self.embedding_channels.len() {
                0 => "none, as embedding_shapes is not set".to_string(),
                n => format!("{n}, one for each of embedding_shapes, or none"),
            };
            return Err(Error::invalid("conditioning inputs", expected, given.len()));
        }
        let (batch, time, _) = xs.dims3()?;
        let rows = given.iter().zip(&self.embedding_channels).enumerate();
        let rows = rows.map(|(i, (embedding, &channels))| match embedding.dims() {
            [b, c] if (*b, *c) == (batch, channels) => {
                Ok(embedding.unsqueeze(1)?.broadcast_as((batch, time, channels))?)
            }
            [b, t, c] if (*b, *t, *c) == (batch, time, channels) => Ok(embedding.clone()),
            other => Err(Error::invalid(
                format!("embedding.{i}"),
                format!("{channels} channels, once for each of {batch} sequences or for each of their {time} steps"),
                format!("{other:?}"),
            )),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Some(Tensor::cat(&rows, 2)?.to_dtype(xs.dtype())?))
    }

    pub(in super::super) fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let embedding = self.embedding(xs, pass)?;
        let mut xs = xs.clone();
        let mut sum: Option<Tensor> = None;
        pass.note_hidden(0, &xs);
        for (i, block) in self.blocks.iter().enumerate() {
            let hs = block.branch(&xs, embedding.as_ref(), pass)?;
            xs = block.finish(&hs, &xs, pass)?;
            pass.note_hidden(i + 1, &xs);
            let Some(skip) = self.skips.as_ref().and_then(|skips| skips.get(i)) else {
                continue;
            };
            let hs = match skip {
                None => hs,
                Some(conv) => conv.forward(&hs, pass)?,
            };
            sum = Some(match sum {
                None => hs,
                Some(sum) => ops::add(&sum, &hs)?,
            });
        }
        let mut xs = match (&self.skips, sum) {
            (None, _) => xs,
            (Some(_), None) => self.activation.apply(&xs)?,
            (Some(_), Some(sum)) => self.activation.apply_sum(&sum, &xs)?,
        };
        if let Some(conv) = &self.projection {
            xs = conv.forward(&xs, pass)?;
        }
        match self.output_activation {
            None => Ok(xs),
            Some(activation) => activation.apply(&xs),
        }
    }
}
