//! The options of the temporal convolutional network.

use serde::{Deserialize, Serialize};

use super::{
    Activation, DropoutKind, Gate, MAX_CHANNELS, MAX_KERNEL, NormKind, dropout_probability,
    in_range, total_channels,
};
use crate::geometry::{Block, Dilations, Growth, Layer, Padding, Stack};
use crate::{Error, Result};

/// The options of a [`TemporalConvNet`](super::TemporalConvNet), as they stand in a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcnConfig {
    /// Channels of each block's output; their number is the number of blocks.
    pub num_channels: Vec<usize>,
    /// Taps of each dilated convolution.
    pub kernel_size: usize,
    /// One dilation for each block; without it 1, 2, 4, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dilations: Option<Dilations>,
    /// Probability of dropping in training.
    #[serde(default)]
    pub dropout: f64,
    /// What dropout drops.
    #[serde(default)]
    pub dropout_kind: DropoutKind,
    /// Whether an output sees no later input; otherwise the field is centred.
    #[serde(default = "yes")]
    pub causal: bool,
    /// Normalisation.
    #[serde(default)]
    pub norm: NormKind,
    /// Activation after each convolution, and after the residual sum of a block that is not pre-norm.
    #[serde(default)]
    pub activation: Activation,
    /// Gate in place of the first activation: the first convolution then has twice the channels.
    /// `"none"` or absent for none.
    #[serde(default, deserialize_with = "gate_or_none", skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Normalise before the convolutions and leave the residual path free, as transformers do.
    #[serde(default)]
    pub pre_norm: bool,
    /// Add the inner branches of all blocks to the last block's output.
    #[serde(default)]
    pub skip_connections: bool,
}

fn gate_or_none<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Gate>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        None,
        Glu,
        TanhSigmoid,
    }
    Ok(match Option::deserialize(deserializer)? {
        Some(Name::Glu) => Some(Gate::Glu),
        Some(Name::TanhSigmoid) => Some(Gate::TanhSigmoid),
        Some(Name::None) | None => None,
    })
}

fn yes() -> bool {
    true
}

impl TcnConfig {
    /// The reference network: weight norm, ReLU, dilations 1, 2, 4, …
    pub fn new(num_channels: Vec<usize>, kernel_size: usize) -> Self {
        Self {
            num_channels,
            kernel_size,
            dilations: None,
            dropout: 0.0,
            dropout_kind: DropoutKind::Element,
            causal: true,
            norm: NormKind::Weight,
            activation: Activation::Relu,
            gate: None,
            pre_norm: false,
            skip_connections: false,
        }
    }

    /// Checks every field and gives each block's dilation.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    pub fn validate(&self) -> Result<Vec<usize>> {
        if self.num_channels.is_empty() {
            return Err(Error::invalid("num_channels", "at least one block", "an empty list"));
        }
        for (i, &channels) in self.num_channels.iter().enumerate() {
            // a gate doubles them
            in_range(format!("num_channels[{i}]"), channels, MAX_CHANNELS / 2)?;
        }
        total_channels(self.num_channels.iter().copied())?;
        in_range("kernel_size", self.kernel_size, MAX_KERNEL)?;
        dropout_probability("dropout", self.dropout)?;
        let blocks = self.num_channels.len();
        let dilations = match &self.dilations {
            Some(dilations) => dilations.expand()?,
            None => Dilations::Growth(Growth::new(2, blocks)).expand()?,
        };
        if dilations.len() != blocks {
            return Err(Error::invalid(
                "dilations",
                format!("{blocks}, one for each of num_channels"),
                dilations.len(),
            ));
        }
        Ok(dilations)
    }

    pub(crate) fn padding(&self) -> Padding {
        if self.causal { Padding::Causal } else { Padding::Same }
    }

    /// The convolutions that see time, for receptive-field arithmetic.
    ///
    /// # Errors
    /// As [`TcnConfig::validate`].
    pub fn geometry(&self) -> Result<Stack> {
        let padding = self.padding();
        let blocks = self.validate()?.into_iter().enumerate().map(|(i, dilation)| {
            let layer = |conv: &str| {
                Layer::new(format!("network.{i}.{conv}"), self.kernel_size, dilation, padding)
            };
            Ok(Block::residual(vec![layer("conv1")?, layer("conv2")?]))
        });
        Ok(Stack::new(blocks.collect::<Result<_>>()?))
    }
}
