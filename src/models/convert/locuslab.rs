//! Networks of locuslab/TCN. Shapes tell their sizes; dilations are 1, 2, 4, … unless the arguments say others,
//! and what follows a linear layer (a sigmoid, the last step alone, a log-softmax) stands in neither.

use serde_json::json;

use super::locate::{renamed, same_numbers};
use super::{Arguments, Tensors, dim};
use crate::geometry::Dilations;
use crate::models::{FrameLayout, ModelConfig, TcnLmConfig, TemporalConvNetConfig};
use crate::nn::{Activation, NormKind, TcnConfig};
use crate::{Error, Result};

/// The network under `prefix`, and the width of its input.
fn network(tensors: &Tensors, prefix: &str, arguments: &Arguments) -> Result<(usize, TcnConfig)> {
    let plain = format!("{prefix}network.0.conv1.weight");
    let (weight, norm) = match tensors.contains_key(&plain) {
        true => ("weight", NormKind::None),
        false => ("weight_v", NormKind::Weight),
    };
    let name = |block: usize| format!("{prefix}network.{block}.conv1.{weight}");
    let kernel_size = dim(tensors, &name(0), 2)?;
    let num_inputs = dim(tensors, &name(0), 1)?;
    let blocks = (0..).map(name).take_while(|name| tensors.contains_key(name));
    let num_channels = blocks.map(|name| dim(tensors, &name, 0)).collect::<Result<_>>()?;
    let network = TcnConfig {
        norm,
        dropout: arguments.get("dropout")?.unwrap_or(0.0),
        dilations: arguments.get("dilations")?.map(Dilations::List),
        ..TcnConfig::new(num_channels, kernel_size)
    };
    Ok((num_inputs, network))
}

/// Without the second names that a block gives its convolutions: it holds them in a sequence, too.
fn without_duplicates(tensors: Tensors) -> Result<Tensors> {
    renamed(tensors, |name| name.replace(".net.0.", ".conv1.").replace(".net.4.", ".conv2."))
}

/// `encoder`, `tcn`, `decoder`.
pub(super) fn language_model(
    tensors: Tensors,
    arguments: &Arguments,
) -> Result<(ModelConfig, Tensors)> {
    let mut tensors = without_duplicates(tensors)?;
    let vocab_size = dim(&tensors, "encoder.weight", 0)?;
    let embedding_dim = dim(&tensors, "encoder.weight", 1)?;
    let (num_inputs, network) = network(&tensors, "tcn.", arguments)?;
    if num_inputs != embedding_dim {
        let expected = format!("[any, {num_inputs}], the width of the first convolution");
        let found = format!("[{vocab_size}, {embedding_dim}]");
        return Err(Error::tensor("encoder.weight", expected, found));
    }
    let tie_weights = match tensors.get("decoder.weight") {
        None => true,
        Some(decoder) => same_numbers(decoder, &tensors["encoder.weight"])?,
    };
    if tie_weights {
        tensors.remove("decoder.weight");
    }
    if arguments.get("tied_weights")? == Some(true) && !tie_weights {
        let expected = "the numbers of encoder.weight, as the argument tied_weights says";
        return Err(Error::tensor("decoder.weight", expected, "others"));
    }
    let told = [
        ("input_size", json!(embedding_dim)),
        ("output_size", json!(vocab_size)),
        ("num_channels", json!(network.num_channels)),
        ("kernel_size", json!(network.kernel_size)),
    ];
    arguments.agree(&told, &["dropout", "emb_dropout", "tied_weights", "dilations"])?;
    let config = TcnLmConfig {
        eos_token_id: None,
        vocab_size,
        embedding_dim,
        tie_weights,
        embedding_dropout: arguments.get("emb_dropout")?.unwrap_or(0.0),
        network,
    };
    Ok((ModelConfig::Tcn(config), tensors))
}

/// `network` or `tcn.network`, perhaps `linear`.
pub(super) fn plain(tensors: Tensors, arguments: &Arguments) -> Result<(ModelConfig, Tensors)> {
    let tensors = without_duplicates(tensors)?;
    let tensors = renamed(tensors, |name| name.strip_prefix("tcn.").unwrap_or(name).into())?;
    let (num_inputs, network) = network(&tensors, "", arguments)?;
    let linear = tensors.contains_key("linear.weight");
    let sigmoid = arguments.class.contains("poly_music");
    // the network alone takes channels first; what has a linear layer is given and gives frames
    let (layout, num_outputs) = match linear {
        true => (FrameLayout::ChannelsLast, Some(dim(&tensors, "linear.weight", 0)?)),
        false => (FrameLayout::ChannelsFirst, None),
    };
    let mut told = vec![
        ("num_inputs", json!(num_inputs)),
        ("input_size", json!(num_inputs)),
        ("num_channels", json!(network.num_channels)),
        ("kernel_size", json!(network.kernel_size)),
    ];
    told.extend(num_outputs.map(|outputs| ("output_size", json!(outputs))));
    let free = ["dropout", "dilations", "output_activation", "input_shape"];
    arguments.agree(&told, &free)?;
    let config = TemporalConvNetConfig {
        pool: None,
        num_inputs,
        network,
        num_outputs,
        output_activation: match arguments.get("output_activation")? {
            None => sigmoid.then_some(Activation::Sigmoid),
            some => some,
        },
        input_shape: arguments.get("input_shape")?.unwrap_or(layout),
    };
    Ok((ModelConfig::TemporalConvNet(config), tensors))
}
