//! Networks and layers of pytorch-tcn, whose arguments are the configuration.

use super::{Arguments, Tensors};
use crate::models::{EmbeddingMode, ModelConfig, PytorchTcnConfig};
use crate::{Error, Result};

/// `TCN`.
pub(super) fn network(
    mut tensors: Tensors,
    arguments: &Arguments,
) -> Result<(ModelConfig, Tensors)> {
    let mut config = arguments.config("pytorch_tcn")?;
    if let ModelConfig::PytorchTcn(cfg) = &mut config {
        if cfg.embedding_shapes.is_some() && cfg.embedding_mode == EmbeddingMode::Add {
            // made there and never used
            tensors.retain(|name, _| !name.contains(".embedding_projection_2."));
        }
        let told = cfg.dilations.is_some() || cfg.dilation_reset.is_some();
        let expected = cfg.block_dilations()?;
        match dilations(&tensors, cfg)?.filter(|found| *found != expected) {
            Some(found) if told => {
                let told = format!("{expected:?}");
                let expected =
                    format!("{found:?}, as the streaming buffers of the state dict tell");
                return Err(Error::invalid("arguments: dilations", expected, told));
            }
            Some(found) => cfg.dilations = Some(found),
            None => {}
        }
    }
    Ok((config, tensors))
}

/// Dilation of each block, by the lengths of its streaming buffers, `(kernel_size − 1) · dilation`; none where a
/// buffer is not there or a kernel of one tap needs none.
fn dilations(tensors: &Tensors, cfg: &PytorchTcnConfig) -> Result<Option<Vec<usize>>> {
    let dilation = |block: usize, conv: usize| {
        let name = format!("network.{block}.conv{conv}.padder.buffer");
        buffer_dilation(tensors, &name, cfg.kernel_size)
    };
    let of_block = |block: usize| {
        let (Some(first), Some(second)) = (dilation(block, 1)?, dilation(block, 2)?) else {
            return Ok(None);
        };
        if first != second {
            let name = format!("network.{block}.conv2.padder.buffer");
            let expected = format!("the dilation of the block's first convolution, {first}");
            return Err(Error::tensor(name, expected, second));
        }
        Ok(Some(first))
    };
    (0..cfg.num_channels.len()).map(of_block).collect()
}

fn buffer_dilation(tensors: &Tensors, name: &str, kernel_size: usize) -> Result<Option<usize>> {
    let (Some(buffer), Some(steps @ 1..)) = (tensors.get(name), kernel_size.checked_sub(1)) else {
        return Ok(None);
    };
    match buffer.dims() {
        [1, _, length] if *length > 0 && length.is_multiple_of(steps) => Ok(Some(length / steps)),
        other => {
            let expected = format!("[1, channels, a multiple of kernel_size − 1 = {steps}]");
            Err(Error::tensor(name, expected, format!("{other:?}")))
        }
    }
}

/// `TemporalConv1d` or `TemporalConvTranspose1d`.
pub(super) fn layer(tensors: Tensors, mut arguments: Arguments) -> Result<(ModelConfig, Tensors)> {
    // only the transposed layer keeps the buffer of older versions beside that of its padding
    let old_buffer = tensors.contains_key("buffer") && tensors.contains_key("padder.buffer");
    let transposed = old_buffer || arguments.class.ends_with("ConvTranspose1d");
    let model_type = if transposed { "temporal_conv_transpose1d" } else { "temporal_conv1d" };
    // arguments that say nothing about the layer; a stream begins with zeros
    let silent = |name: &str| ["device", "dtype", "buffer"].contains(&name);
    arguments.values.retain(|name, value| !(value.is_null() && silent(name)));
    if let (false, Some(kernel_size)) = (transposed, arguments.get("kernel_size")?)
        && let Some(found) = buffer_dilation(&tensors, "padder.buffer", kernel_size)?
    {
        let told = arguments.get::<usize>("dilation")?.unwrap_or(found);
        let expected = format!("{found}, as padder.buffer tells");
        Error::require(told == found, "arguments: dilation", &expected, told)?;
        arguments.values.insert("dilation".into(), found.into());
    }
    Ok((arguments.config(model_type)?, tensors))
}
