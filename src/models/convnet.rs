//! GPN, a masked language model of DNA, with the names of the Hub's songlab/gpn-brassicales (`ConvNet`).

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::geometry::{Block, Layer, Padding, Stack};
use crate::nn::{
    Activation, Conv1d, Conv1dConfig, MAX_CHANNELS, MAX_KERNEL, MAX_STACK_LAYERS, Norm, Pass,
    StepDtype, in_range, linear, total_channels,
};
use crate::ops::{self, Epilogue};
use crate::{Error, Result};

/// Of the layer norms; the original has no field for it.
const EPS: f64 = 1e-5;

/// The options of a [`ConvNet`]: the keys and defaults of gpn's `ConvNetConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConvNetConfig {
    /// Token ids.
    pub vocab_size: usize,
    /// Channels of every layer.
    pub hidden_size: usize,
    /// Residual layers.
    pub n_layers: usize,
    /// Taps of each dilated convolution.
    pub kernel_size: usize,
    /// So many layers share a power of the base.
    pub dilation_double_every: usize,
    /// The largest dilation; greater powers are cut to it.
    pub dilation_max: usize,
    /// After so many layers the dilation begins again at 1.
    pub dilation_cycle: usize,
    /// What the dilation is multiplied by.
    pub dilation_base: usize,
    /// Columns of the input, behind those of the tokens, for other features; they stay 0 here.
    pub n_aux_features: usize,
    /// Everything else of the file: kept, and of no effect.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for ConvNetConfig {
    fn default() -> Self {
        Self {
            vocab_size: 7,
            hidden_size: 512,
            n_layers: 25,
            kernel_size: 9,
            dilation_double_every: 1,
            dilation_max: 32,
            dilation_cycle: 6,
            dilation_base: 2,
            n_aux_features: 0,
            other: Map::new(),
        }
    }
}

impl ConvNetConfig {
    pub(super) fn validate(&self) -> Result<()> {
        in_range("hidden_size", self.hidden_size, MAX_CHANNELS)?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        let columns = self.vocab_size.checked_add(self.n_aux_features);
        if columns.is_none_or(|columns| columns > self.hidden_size) {
            let expected = format!(
                "at least one column for each of vocab_size {} and n_aux_features {}",
                self.vocab_size, self.n_aux_features
            );
            return Err(Error::invalid("hidden_size", expected, self.hidden_size));
        }
        let dilations = self.dilations()?;
        total_channels(dilations.iter().map(|_| self.hidden_size))
    }

    /// `min(dilation_max, dilation_base ^ ((i mod dilation_cycle) / dilation_double_every))`
    fn dilations(&self) -> Result<Vec<usize>> {
        let positive = |field, value| in_range(field, value, 1 << 31);
        let layers = in_range("n_layers", self.n_layers, MAX_STACK_LAYERS)?;
        let most = positive("dilation_max", self.dilation_max)?;
        let cycle = positive("dilation_cycle", self.dilation_cycle)?;
        let base = positive("dilation_base", self.dilation_base)?;
        let every = positive("dilation_double_every", self.dilation_double_every)?;
        let dilation = |i: usize| base.saturating_pow(((i % cycle) / every) as u32).min(most);
        Ok((0..layers).map(dilation).collect())
    }

    pub(super) fn geometry(&self) -> Result<Stack> {
        self.validate()?;
        let block = |(i, dilation)| {
            let name = format!("model.encoder.{i}.conv.1");
            let layer = Layer::new(name, self.kernel_size, dilation, Padding::Same)?;
            Ok(Block::residual(vec![layer]))
        };
        let blocks = self.dilations()?.into_iter().enumerate().map(block);
        Ok(Stack::new(blocks.collect::<Result<_>>()?))
    }
}

/// `x + norm(gelu(layer x))`, of a dilated convolution or of a matrix.
#[derive(Debug, Clone)]
struct Residual {
    layer: Conv1d,
    norm: Norm,
}

impl Residual {
    fn forward(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        ops::add(xs, &self.branch(xs, pass)?)
    }

    fn branch(&self, xs: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let hs = ops::activate(&self.layer.forward(xs, pass)?, Activation::Gelu)?;
        self.norm.forward(&hs, pass)
    }

    fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        Ok(Self { layer: self.layer.freeze_as(dtype)?, norm: self.norm.clone() })
    }
}

/// GPN as `ConvNetForMaskedLM`: tokens as unit vectors, residual layers, a head of two matrices.
///
/// Per layer `x = x + LN(gelu(conv x))`, then `x = x + LN(gelu(ffn x))`; logits
/// `decoder.3(LN(gelu(decoder.0 x)))`. Padding tokens are ordinary inputs: it does not read a
/// [mask](Pass::with_mask), and a padded sequence gives other numbers than by itself.
///
/// # Shapes
/// Tensors: `model.encoder.{i}.conv.1.weight` (hidden, hidden, kernel_size), `model.encoder.{i}.ffn.0.weight`
/// and `cls.decoder.0.weight` (hidden, hidden), `cls.decoder.3.weight` (vocab, hidden), their `bias`, and the
/// layer norms `model.encoder.{i}.conv.4`, `model.encoder.{i}.ffn.2` and `cls.decoder.2`.
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let config = ModelConfig::from_json(r#"{"model_type": "ConvNet"}"#, "config.json")?;
/// assert_eq!(config.parameters()?, 65_880_071);
/// assert_eq!(config.geometry()?.receptive_field()?.total, 2025);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Benegas, Batra & Song 2023, "DNA language models are powerful predictors of genome-wide variant effects".
#[derive(Debug, Clone)]
pub struct ConvNet {
    layers: Vec<[Residual; 2]>,
    transform: Residual,
    decoder: Conv1d,
    sizes: (usize, usize),
    device: Device,
}

impl ConvNet {
    pub(super) fn new(cfg: &ConvNetConfig, vb: VarBuilder) -> Result<Self> {
        let hidden = cfg.hidden_size;
        let dense = |vb: VarBuilder, norm| {
            Ok::<_, Error>(Residual {
                layer: linear(hidden, hidden, vb.pp("0"))?,
                norm: Norm::layer(hidden, EPS, vb.pp(norm))?,
            })
        };
        let layer = |(i, dilation)| {
            let vb = vb.pp("model.encoder").pp(i);
            let conv_cfg =
                Conv1dConfig { padding: Padding::Same, dilation, ..Conv1dConfig::causal() };
            let conv = vb.pp("conv");
            let dilated = Residual {
                layer: Conv1d::new(hidden, hidden, cfg.kernel_size, conv_cfg, conv.pp("1"))?,
                norm: Norm::layer(hidden, EPS, conv.pp("4"))?,
            };
            Ok([dilated, dense(vb.pp("ffn"), "2")?])
        };
        let head = vb.pp("cls.decoder");
        let layers = cfg.dilations()?.into_iter().enumerate().map(layer);
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            transform: dense(head.clone(), "2")?,
            decoder: linear(hidden, cfg.vocab_size, head.pp("3"))?,
            sizes: (cfg.vocab_size, hidden),
            device: vb.device().clone(),
        })
    }

    pub(super) fn freeze(&self, dtype: StepDtype) -> Result<Self> {
        let freeze = |[conv, ffn]: &[Residual; 2]| Ok([conv.freeze(dtype)?, ffn.freeze(dtype)?]);
        Ok(Self {
            layers: self.layers.iter().map(freeze).collect::<Result<_>>()?,
            transform: self.transform.freeze(dtype)?,
            decoder: self.decoder.freeze_as(dtype)?,
            ..self.clone()
        })
    }

    pub(super) fn forward(&self, ids: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.refuse_mask("a ConvNet (GPN)", ids)?;
        let (vocab, hidden) = self.sizes;
        let dtype = pass.dtype(&self.decoder.weight()?);
        let mut xs = ops::one_hot(ids, vocab, hidden, dtype)?;
        pass.note_hidden(0, &xs);
        for (i, [conv, ffn]) in self.layers.iter().enumerate() {
            xs = conv.forward(&xs, pass)?;
            xs = ffn.forward(&xs, pass)?;
            pass.note_hidden(i + 1, &xs);
        }
        let hs = self.transform.branch(&xs, pass)?;
        self.decoder.forward_then(&hs, pass, Epilogue::to_f32())
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }
}
