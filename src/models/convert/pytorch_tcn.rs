//! Networks and layers of pytorch-tcn, whose arguments are the configuration.

use super::{Arguments, Tensors};
use crate::Result;
use crate::models::{EmbeddingMode, ModelConfig};

/// `TCN`.
pub(super) fn network(
    mut tensors: Tensors,
    arguments: &Arguments,
) -> Result<(ModelConfig, Tensors)> {
    let config = arguments.config("pytorch_tcn")?;
    if let ModelConfig::PytorchTcn(cfg) = &config
        && cfg.embedding_shapes.is_some()
        && cfg.embedding_mode == EmbeddingMode::Add
    {
        // made there and never used
        tensors.retain(|name, _| !name.contains(".embedding_projection_2."));
    }
    Ok((config, tensors))
}

/// `TemporalConv1d` or `TemporalConvTranspose1d`.
pub(super) fn layer(tensors: Tensors, arguments: &Arguments) -> Result<(ModelConfig, Tensors)> {
    // only the transposed layer keeps the buffer of older versions beside that of its padding
    let old_buffer = tensors.contains_key("buffer") && tensors.contains_key("padder.buffer");
    let transposed = old_buffer || arguments.class.ends_with("ConvTranspose1d");
    let model_type = match transposed {
        true => "temporal_conv_transpose1d",
        false => "temporal_conv1d",
    };
    // arguments that say nothing about the layer; a stream begins with zeros
    let arguments = arguments.without_nulls(&["device", "dtype", "buffer"]);
    Ok((arguments.config(model_type)?, tensors))
}
