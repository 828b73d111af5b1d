//! State dicts of other projects under this crate's names.

mod carp;
mod locuslab;
mod pytorch_tcn;

pub use carp::ORIGINAL_CARP_VOCABULARY;

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ModelConfig;
use crate::{Error, Result};

/// A model made of another project's state dict.
#[derive(Debug, Clone)]
pub struct Converted {
    /// What the model is.
    pub config: ModelConfig,
    /// Its weights: those that it asks for, under its names.
    pub tensors: HashMap<String, Tensor>,
    /// Tensors that the model has no use for, in the order of their names.
    pub left_over: Vec<String>,
    /// Tensors that the model asks for and that are not there, in the order of their names.
    pub missing: Vec<String>,
}

/// Tensors by name, in the order of the names.
type Tensors = BTreeMap<String, Tensor>;

/// Makes a model of a state dict:
///
/// | state dict | told by | arguments | result |
/// |---|---|---|---|
/// | [locuslab/TCN](https://github.com/locuslab/TCN), language model | `encoder.weight` | may set `dropout`, `emb_dropout` | `tcn` |
/// | the same, plain network | `network.*` or `tcn.network.*`, perhaps `linear.*` | may set `dropout`, `output_activation`, `input_shape` | `temporal_conv_net` |
/// | pytorch-tcn's `TCN` | arguments with `num_inputs` | those of `TCN` | `pytorch_tcn` |
/// | pytorch-tcn's `TemporalConv1d`, `TemporalConvTranspose1d` | arguments with `in_channels` | those of the layer | `temporal_conv1d`, `temporal_conv_transpose1d` |
/// | ByteNet of protein-sequence-models | `embedder.layers.*`, arguments with `n_tokens` | those of `ByteNetLM` | `bytenet` |
/// | CARP as first published | `embedder.layers.*` | may set `r`, `activation` | `carp` |
///
/// The arguments are a JSON object of the arguments that made the network in Python, or one that holds it
/// as `kwargs` or `args` beside the name of the class as `module` or `class`. A class whose name ends in
/// `TemporalConvTranspose1d` is told apart by it, or by a state dict that holds a `buffer` of its own;
/// `poly_music.model.TCN` ends in a sigmoid.
///
/// Both of PyTorch's names of weight norm are understood (`weight_g`, `weight_v`; `parametrizations.weight.
/// original0`, `original1`), and names that all begin with `module.`, `model.`, `state_dict.` or
/// `model_state_dict.`. What no network needs is dropped without a word: streaming buffers, counts of
/// batches, the second names that locuslab's blocks give their convolutions (`net.0`, `net.4`), a
/// decoder that is the encoder's matrix, and `embedding_projection_2` where embeddings are added.
///
/// # Errors
/// [`Error::Invalid`] where the tensors are of none of these networks, or the arguments do not fit;
/// [`Error::Tensor`] where a tensor is of another shape than the network's. Tensors that are left over or
/// missing are no error: the result lists them.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::convert;
///
/// let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu);
/// let tensors = HashMap::from([
///     ("network.0.conv1.weight_g".to_string(), zeros(&[6, 1, 1])?),
///     ("network.0.conv1.weight_v".to_string(), zeros(&[6, 6, 3])?),
///     ("network.0.conv1.bias".to_string(), zeros(&[6])?),
///     ("network.0.conv2.weight_g".to_string(), zeros(&[6, 1, 1])?),
///     ("network.0.conv2.weight_v".to_string(), zeros(&[6, 6, 3])?),
///     ("critic.weight".to_string(), zeros(&[1, 6])?),
/// ]);
/// let converted = convert(tensors, None)?;
/// assert_eq!(converted.config.model_type(), "temporal_conv_net");
/// assert_eq!(converted.config.geometry()?.receptive_field()?.total, 5);
/// assert_eq!(converted.left_over, ["critic.weight"]);
/// assert_eq!(converted.missing, ["network.0.conv2.bias"]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn convert(tensors: HashMap<String, Tensor>, arguments: Option<&Value>) -> Result<Converted> {
    let arguments = Arguments::new(arguments)?;
    let tensors = plain_names(tensors);
    let has = |start: &str| tensors.keys().any(|name| name.starts_with(start));
    let plain = || has("network.0.") || has("tcn.network.0.");
    let of_locuslab = has("tcn.") || tensors.keys().any(|name| name.contains(".net."));
    let of_pytorch_tcn = tensors.keys().any(|name| is_buffer(name));
    let (config, tensors) = if has("embedder.") && arguments.has("n_tokens") {
        (arguments.config("bytenet")?, tensors)
    } else if has("embedder.") {
        carp::convert(tensors, &arguments)?
    } else if has("encoder.") {
        locuslab::language_model(tensors, &arguments)?
    } else if arguments.has("in_channels") {
        pytorch_tcn::layer(tensors, &arguments)?
    } else if arguments.has("num_inputs") && !of_locuslab {
        pytorch_tcn::network(tensors, &arguments)?
    } else if plain() && of_pytorch_tcn {
        return Err(Error::invalid(
            "arguments",
            "a JSON file with the arguments of pytorch-tcn's TCN, which its state dict does not hold",
            "none with num_inputs",
        ));
    } else if plain() {
        locuslab::plain(tensors, &arguments)?
    } else {
        let names: Vec<_> = tensors.keys().take(5).cloned().collect();
        return Err(Error::invalid(
            "state dict",
            "tensors of a locuslab/TCN, pytorch-tcn or CARP network (encoder.weight, network.0.…, \
             embedder.layers.0.…), or the arguments of a pytorch-tcn layer",
            format!("{} tensors: {} …", tensors.len(), names.join(", ")),
        ));
    };
    sort_out(config, tensors)
}

/// Those of the tensors that the model asks for, and the names of the others.
fn sort_out(config: ModelConfig, mut tensors: Tensors) -> Result<Converted> {
    let mut kept = HashMap::new();
    let mut missing = Vec::new();
    for (name, dims) in config.tensors()? {
        match tensors.remove(&name) {
            None => missing.push(name),
            Some(tensor) if tensor.dims() == dims => {
                kept.insert(name, tensor);
            }
            Some(tensor) => {
                let found = format!("{:?}", tensor.dims());
                let expected = format!("{dims:?}");
                return Err(Error::Tensor {
                    name,
                    expected,
                    found,
                });
            }
        }
    }
    missing.sort();
    Ok(Converted {
        config,
        tensors: kept,
        left_over: tensors
            .into_keys()
            .filter(|name| !is_buffer(name))
            .collect(),
        missing,
    })
}

/// What a layer of pytorch-tcn or a batch norm counts, beside its weights.
fn is_buffer(name: &str) -> bool {
    let last = name.rsplit('.').next();
    matches!(last, Some("buffer" | "num_batches_tracked"))
}

/// The tensors without what wraps all their names, and weight norm under its older names.
fn plain_names(tensors: HashMap<String, Tensor>) -> Tensors {
    let mut tensors: Tensors = tensors.into_iter().collect();
    let wrapper = |tensors: &Tensors| {
        let wrappers = ["module.", "model.", "state_dict.", "model_state_dict."];
        let wraps = |start: &&str| tensors.keys().all(|name| name.starts_with(start));
        wrappers.into_iter().find(wraps)
    };
    while let Some(start) = wrapper(&tensors).filter(|_| !tensors.is_empty()) {
        tensors = renamed(tensors, |name| name[start.len()..].to_string());
    }
    renamed(tensors, |name| {
        name.replace(".parametrizations.weight.original0", ".weight_g")
            .replace(".parametrizations.weight.original1", ".weight_v")
    })
}

fn renamed(tensors: Tensors, name: impl Fn(&str) -> String) -> Tensors {
    let renamed = tensors
        .into_iter()
        .map(|(old, tensor)| (name(&old), tensor));
    renamed.collect()
}

/// A size of a tensor, or an error that names it.
fn dim(tensors: &Tensors, name: &str, axis: usize) -> Result<usize> {
    let found = match tensors.get(name) {
        None => "no such tensor".to_string(),
        Some(tensor) => match tensor.dims().get(axis) {
            Some(&size) => return Ok(size),
            None => format!("{:?}", tensor.dims()),
        },
    };
    Err(Error::Tensor {
        name: name.into(),
        expected: format!("a tensor of at least {} axes", axis + 1),
        found,
    })
}

/// What a network was made with in Python.
struct Arguments {
    class: String,
    values: Map<String, Value>,
}

impl Arguments {
    fn new(json: Option<&Value>) -> Result<Self> {
        let values = match json {
            None => Map::new(),
            Some(Value::Object(values)) => values.clone(),
            Some(other) => {
                let expected = "a JSON object of a network's arguments";
                return Err(Error::invalid("arguments", expected, other));
            }
        };
        let nested = |name| values.get(name).and_then(Value::as_object).cloned();
        let text = |name| values.get(name).and_then(Value::as_str).map(String::from);
        Ok(Self {
            class: text("module").or(text("class")).unwrap_or_default(),
            values: nested("kwargs").or(nested("args")).unwrap_or(values),
        })
    }

    /// Without those of `names` that are `null`.
    fn without_nulls(&self, names: &[&str]) -> Self {
        let mut values = self.values.clone();
        values.retain(|name, value| !(value.is_null() && names.contains(&name.as_str())));
        Self {
            class: self.class.clone(),
            values,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of one argument; none where it is absent or `null`.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|e| Error::invalid(format!("arguments: {name}"), e.to_string(), value)),
        }
    }

    /// All arguments as the configuration of this type.
    fn config(&self, model_type: &str) -> Result<ModelConfig> {
        let mut values = self.values.clone();
        values.insert("model_type".into(), json!(model_type));
        config(Value::Object(values))
    }
}

/// A configuration that came about here.
fn config(json: Value) -> Result<ModelConfig> {
    let config: ModelConfig = serde_json::from_value(json.clone())
        .map_err(|e| Error::invalid("arguments", e.to_string(), json))?;
    config.validate()?;
    Ok(config)
}
