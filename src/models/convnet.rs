//! GPN, a masked language model of DNA, with the names of the Hub's songlab/gpn-brassicales (`ConvNet`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::Architecture;
use crate::geometry::Padding;
use crate::graph::{
    Conv1dConfig, Graph, MAX_CHANNELS, MAX_KERNEL, MAX_STACK_LAYERS, Masks, Value, in_range,
};
use crate::nn::{Activation, total_channels};
use crate::{Error, Result};

/// Of the layer norms; the original has no field for it.
const EPS: f64 = 1e-5;

/// Options of GPN as `ConvNetForMaskedLM`: the keys and defaults of gpn's `ConvNetConfig`. Tokens as unit vectors,
/// residual layers, a head of two matrices.
///
/// Per layer `x = x + LN(gelu(conv x))`, then `x = x + LN(gelu(ffn x))`; logits `decoder.3(LN(gelu(decoder.0 x)))`.
/// Padding tokens are ordinary inputs: it reads no mask, and a padded sequence gives other numbers than by itself.
///
/// Tensors: `model.encoder.{i}.conv.1.weight` (hidden, hidden, kernel_size), `model.encoder.{i}.ffn.0.weight` and
/// `cls.decoder.0.weight` (hidden, hidden), `cls.decoder.3.weight` (vocab, hidden), their `bias`, and the layer norms
/// `model.encoder.{i}.conv.4`, `model.encoder.{i}.ffn.2` and `cls.decoder.2`.
///
/// # Example
///
/// ```
/// use candle_tcn::models::ModelConfig;
/// let config = ModelConfig::from_json(r#"{"model_type": "ConvNet"}"#, "config.json")?;
/// assert_eq!(config.graph()?.parameter_count()?, 65_880_071);
/// assert_eq!(config.geometry()?.receptive_field()?.total, 2025);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Benegas, Batra & Song 2023, "DNA language models are powerful predictors of genome-wide variant effects".
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
    /// Factor of the dilation.
    pub dilation_base: usize,
    /// Columns of the input, behind those of the tokens, for other features; they stay 0 here.
    pub n_aux_features: usize,
    /// Everything else of the file: kept, and of no effect.
    #[serde(flatten)]
    pub other: Map<String, Json>,
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
    fn validate(&self) -> Result<()> {
        in_range("hidden_size", self.hidden_size, MAX_CHANNELS)?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        let columns = self.vocab_size.checked_add(self.n_aux_features);
        let allowed = columns.is_some_and(|columns| columns <= self.hidden_size);
        let expected = format!(
            "at least one column for each of vocab_size {} and n_aux_features {}",
            self.vocab_size, self.n_aux_features
        );
        Error::require(allowed, "hidden_size", &expected, self.hidden_size)?;
        let dilations = self.dilations()?;
        total_channels(dilations.iter().map(|_| self.hidden_size))
    }

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
}

/// `norm(gelu(xs))`, as every layer ends.
fn finish(g: &mut Graph, norm: &str, xs: Value) -> Result<Value> {
    let xs = g.activate(xs, Activation::Gelu)?;
    g.layer_norm(norm, xs, EPS)
}

impl Architecture for ConvNetConfig {
    fn graph(&self) -> Result<Graph> {
        self.validate()?;
        let mut g = Graph::new();
        g.set_masks(Masks::Unread);
        let ids = g.tokens(self.vocab_size)?;
        let hidden = self.hidden_size;
        let mut xs = g.one_hot(ids, hidden)?;
        g.label_hidden(0, xs);
        for (i, dilation) in self.dilations()?.into_iter().enumerate() {
            xs = g.scope(format!("model.encoder.{i}"), |g| {
                let padding = Padding::Same;
                let cfg = Conv1dConfig { padding, dilation, ..Conv1dConfig::causal() };
                let hs = g.conv1d("conv.1", xs, hidden, self.kernel_size, cfg)?;
                let hs = finish(g, "conv.4", hs)?;
                let xs = g.add(xs, hs)?;
                let hs = g.linear("ffn.0", xs, hidden)?;
                let hs = finish(g, "ffn.2", hs)?;
                g.add(xs, hs)
            })?;
            g.label_hidden(i + 1, xs);
        }
        let logits = g.scope("cls.decoder", |g| {
            let hs = g.linear("0", xs, hidden)?;
            let hs = finish(g, "2", hs)?;
            g.linear("3", hs, self.vocab_size)
        })?;
        g.output_logits(logits)?;
        Ok(g)
    }

    fn vocab_size(&mut self) -> Option<&mut usize> {
        Some(&mut self.vocab_size)
    }
}
