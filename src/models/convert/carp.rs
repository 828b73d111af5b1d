//! CARP as first published (microsoft/protein-sequence-models), under the names of the Hub.

use serde_json::json;

use super::{Arguments, Tensors, config, dim, locate};
use crate::models::ModelConfig;
use crate::{Error, Result};

/// The tokens of the models as first published, one character each, in the order of their ids: `-` pads
/// and `#` is the mask.
pub const ORIGINAL_CARP_VOCABULARY: &str = "ACDEFGHIKLMNPQRSTVWYBZXJOU*-#@";

/// The name on the Hub.
///
/// There, as here: embedding and its projection, blocks of `sequence1` (norm, activation, projection,
/// norm, activation), convolution and `sequence2` (norm, activation, projection), last norm, decoder.
fn name(original: &str) -> Option<String> {
    let (part, kind) = original.rsplit_once('.')?;
    let known = |names: &[(&str, &'static str)], part: &str| {
        names.iter().find(|(original, _)| *original == part).map(|(_, name)| *name)
    };
    let Some(rest) = part.strip_prefix("embedder.layers.") else {
        return Some(format!("{}.{kind}", known(&PARTS, part)?));
    };
    let (layer, part) = rest.split_once('.')?;
    Some(format!("model.encoder.layer.{layer}.{}.{kind}", known(&LAYER_PARTS, part)?))
}

const PARTS: [(&str, &str); 4] = [
    ("embedder.embedder", "model.embeddings.word_embeddings"),
    ("embedder.up_embedder.conv", "model.embeddings.projection"),
    ("last_norm", "lm_head.layer_norm"),
    ("decoder.conv", "lm_head.decoder"),
];

const LAYER_PARTS: [(&str, &str); 6] = [
    ("sequence1.0", "layer_norm1"),
    ("sequence1.2.conv", "intermediate"),
    ("sequence1.3", "layer_norm2"),
    ("conv", "convolution"),
    ("sequence2.0", "layer_norm3"),
    ("sequence2.2.conv", "output"),
];

/// The tensors under the names of the Hub, which keeps the decoder as a matrix; what has no name there
/// keeps its own.
fn renamed(tensors: Tensors) -> Result<Tensors> {
    let renamed = |original: &str| name(original).unwrap_or_else(|| original.into());
    let mut tensors = locate::renamed(tensors, renamed)?;
    if let Some(decoder) = tensors.get_mut("lm_head.decoder.weight")
        && let [_, _, 1] = decoder.dims()
    {
        *decoder = decoder.squeeze(2)?;
    }
    Ok(tensors)
}

/// The configuration that the shapes and the arguments tell.
fn description(tensors: &Tensors, arguments: &Arguments) -> Result<serde_json::Value> {
    let embedding = "model.embeddings.word_embeddings.weight";
    let convolution = |layer: usize| format!("model.encoder.layer.{layer}.convolution.weight");
    let layers = (0..).take_while(|&layer| tensors.contains_key(&convolution(layer)));
    let vocab_size = dim(tensors, embedding, 0)?;
    let hidden_size = dim(tensors, "model.embeddings.projection.weight", 0)?;
    let intermediate_size = dim(tensors, &convolution(0), 0)?;
    // 2^(layer mod (⌊log2 r⌋ + 1)): all powers of two up to r
    let r: usize = arguments.get("r")?.unwrap_or(128);
    Error::require(r > 0, "r", "at least 1", r)?;
    let id = |token| ORIGINAL_CARP_VOCABULARY.find(token);
    Ok(json!({
        "model_type": "carp",
        "architectures": ["CarpForMaskedLM"],
        "vocab_size": vocab_size,
        "embedding_size": dim(tensors, embedding, 1)?,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": layers.count(),
        "kernel_size": dim(tensors, &convolution(0), 2)?,
        "max_dilation": 1usize << r.ilog2(),
        "slim": intermediate_size != hidden_size,
        "hidden_act": arguments.get("activation")?.unwrap_or_else(|| "gelu".to_string()),
        "layer_norm_eps": 1e-5,
        "pad_token_id": id('-'),
        "mask_token_id": id('#'),
        "tie_word_embeddings": false,
    }))
}

/// `ByteNetLM` with a last norm.
pub(super) fn convert(tensors: Tensors, arguments: &Arguments) -> Result<(ModelConfig, Tensors)> {
    let tensors = renamed(tensors)?;
    Ok((config(description(&tensors, arguments)?)?, tensors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    /// Two layers of `ByteNetLM(30, 8, 32, 2, 5, r, final_ln=True, slim=True)`.
    fn state_dict() -> Tensors {
        let mut shapes = vec![
            ("embedder.embedder.weight".to_string(), vec![30, 8]),
            ("embedder.up_embedder.conv.weight".to_string(), vec![32, 8, 1]),
            ("embedder.up_embedder.conv.bias".to_string(), vec![32]),
            ("decoder.conv.weight".to_string(), vec![30, 32, 1]),
            ("decoder.conv.bias".to_string(), vec![30]),
            ("last_norm.weight".to_string(), vec![32]),
            ("last_norm.bias".to_string(), vec![32]),
        ];
        for layer in 0..2 {
            for (part, weight) in [
                ("sequence1.0", vec![32]),
                ("sequence1.2.conv", vec![16, 32, 1]),
                ("sequence1.3", vec![16]),
                ("conv", vec![16, 16, 5]),
                ("sequence2.0", vec![16]),
                ("sequence2.2.conv", vec![32, 16, 1]),
            ] {
                let name = |kind| format!("embedder.layers.{layer}.{part}.{kind}");
                shapes.push((name("bias"), vec![weight[0]]));
                shapes.push((name("weight"), weight));
            }
        }
        let zeros = |dims: Vec<usize>| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        let tensors = shapes.into_iter().map(|(name, dims)| (name, zeros(dims)));
        tensors.collect()
    }

    #[test]
    fn every_tensor_gets_the_name_and_shape_of_the_hub() {
        let original = state_dict();
        let tensors = renamed(original.clone()).unwrap();
        assert_eq!(tensors.len(), original.len());
        let known = ["model.embeddings.", "model.encoder.layer.", "lm_head."];
        for name in tensors.keys() {
            assert!(known.iter().any(|start| name.starts_with(start)), "{name}");
        }
        let dims = |name: &str| tensors[name].dims().to_vec();
        assert_eq!(dims("lm_head.decoder.weight"), [30, 32]);
        assert_eq!(dims("model.encoder.layer.1.intermediate.weight"), [16, 32, 1]);
        assert_eq!(dims("model.encoder.layer.1.layer_norm2.bias"), [16]);
        assert_eq!(dims("model.encoder.layer.0.output.weight"), [32, 16, 1]);
    }

    #[test]
    fn the_shapes_tell_the_configuration() {
        let tensors = renamed(state_dict()).unwrap();
        let arguments = Arguments::new(Some(&json!({"r": 100, "activation": "relu"}))).unwrap();
        let config = description(&tensors, &arguments).unwrap();
        for (field, value) in [
            ("vocab_size", json!(30)),
            ("embedding_size", json!(8)),
            ("hidden_size", json!(32)),
            ("intermediate_size", json!(16)),
            ("num_hidden_layers", json!(2)),
            ("kernel_size", json!(5)),
            // 1, 2, …, 64, and then again from 1
            ("max_dilation", json!(64)),
            ("slim", json!(true)),
            ("hidden_act", json!("relu")),
            ("pad_token_id", json!(27)),
            ("mask_token_id", json!(28)),
        ] {
            assert_eq!(config[field], value, "{field}");
        }
    }
}
