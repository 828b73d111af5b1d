//! State dicts of other projects under this crate's names.

mod carp;
mod locate;
mod locuslab;
mod pytorch_tcn;

pub use carp::ORIGINAL_CARP_VOCABULARY;

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ModelConfig;
use crate::files::shown;
use crate::{Error, Result};

/// A model made of another project's state dict.
#[derive(Debug, Clone)]
pub struct Converted {
    /// Configuration of the model.
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
/// | [locuslab/TCN](https://github.com/locuslab/TCN), language model | `encoder.weight` | may set `dropout`, `emb_dropout`, `dilations` | `tcn` |
/// | the same, plain network | `network.*` or `tcn.network.*`, perhaps `linear.*` | may set `dropout`, `dilations`, `output_activation`, `input_shape` | `temporal_conv_net` |
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
/// original0`, `original1`). The network may stand under a prefix, such as `module.`, `_orig_mod.` or
/// `model.tcn.`: of all places where one stands, that is taken which leaves the fewest tensors over, of several
/// the one with the shortest prefix; see also [`convert_under`]. What no network needs is dropped without a word:
/// streaming buffers (their lengths tell pytorch-tcn's dilations), counts of
/// batches, the second names that locuslab's blocks give their convolutions (`net.0`, `net.4`), a
/// decoder that is the encoder's matrix, and `embedding_projection_2` where embeddings are added.
///
/// # Errors
/// [`Error::Invalid`] where the tensors are of none of these networks, or an argument is unknown or contradicts
/// the tensors; [`Error::Tensor`] where a tensor is of another shape than the network's, or has two names with
/// different numbers. Tensors that are left over or
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
    let tensors = locate::plain_names(tensors)?;
    let places = locate::places(&tensors, &arguments).into_iter();
    let (found, failed): (Vec<_>, Vec<_>) =
        places.map(|place| convert_at(&tensors, &place, &arguments)).partition(Result::is_ok);
    // the first of the best, else the first failure
    let best =
        found.into_iter().flatten().min_by_key(|new| (new.left_over.len(), new.missing.len()));
    let failure = failed.into_iter().find_map(Result::err);
    best.ok_or_else(|| failure.unwrap_or_else(|| unknown(&tensors)))
}

/// As [`convert`], for the network whose names all begin with `prefix`, such as `model`; the others are left
/// over.
///
/// # Errors
/// As [`convert`].
pub fn convert_under(
    tensors: HashMap<String, Tensor>,
    prefix: &str,
    arguments: Option<&Value>,
) -> Result<Converted> {
    let prefix = prefix.trim_end_matches('.');
    let place = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
    convert_at(&locate::plain_names(tensors)?, &place, &Arguments::new(arguments)?)
}

fn convert_at(tensors: &Tensors, place: &str, arguments: &Arguments) -> Result<Converted> {
    let (inside, outside) = locate::under(tensors, place);
    let (config, inside) = network(inside, arguments)?;
    let mut converted = sort_out(config, inside)?;
    let inside = converted.left_over.into_iter().map(|name| format!("{place}{name}"));
    converted.left_over = inside.chain(outside).filter(|name| !is_buffer(name)).collect();
    converted.left_over.sort();
    Ok(converted)
}

/// The network of a state dict, and its tensors under our names.
fn network(tensors: Tensors, arguments: &Arguments) -> Result<(ModelConfig, Tensors)> {
    let has = |start: &str| tensors.keys().any(|name| name.starts_with(start));
    let of_locuslab =
        has("tcn.") || has("linear.") || tensors.keys().any(|name| name.contains(".net."));
    let of_pytorch_tcn = tensors.keys().any(|name| is_buffer(name));
    if has("embedder.") && arguments.has("n_tokens") {
        Ok((arguments.config("bytenet")?, tensors))
    } else if has("embedder.") {
        carp::convert(tensors, arguments)
    } else if has("encoder.weight") {
        locuslab::language_model(tensors, arguments)
    } else if arguments.has("in_channels") {
        pytorch_tcn::layer(tensors, arguments.clone())
    } else if has("network.0.") && arguments.has("num_inputs") && (of_pytorch_tcn || !of_locuslab) {
        pytorch_tcn::network(tensors, arguments)
    } else if of_pytorch_tcn && (has("network.0.") || has("tcn.network.0.")) {
        let expected = "a JSON file with the arguments of pytorch-tcn's TCN, which its state dict does not hold";
        Err(Error::invalid("arguments", expected, "none with num_inputs"))
    } else if has("network.0.") || has("tcn.network.0.") {
        locuslab::plain(tensors, arguments)
    } else {
        Err(unknown(&tensors))
    }
}

fn unknown(tensors: &Tensors) -> Error {
    let names: Vec<_> = tensors.keys().take(5).map(|name| shown(name)).collect();
    let found = format!("{} tensors: {} …", tensors.len(), names.join(", "));
    let expected = "tensors of a locuslab/TCN, pytorch-tcn or CARP network (encoder.weight, network.0.…, \
                    embedder.layers.0.…), or the arguments of a pytorch-tcn layer";
    Error::invalid("state dict", expected, found)
}

/// Those of the tensors that the model asks for, and the names of the others.
fn sort_out(config: ModelConfig, mut tensors: Tensors) -> Result<Converted> {
    let mut kept = HashMap::new();
    let mut missing = Vec::new();
    for parameter in config.graph()?.parameters() {
        let (name, dims) = (parameter.name.clone(), &parameter.shape[..]);
        match tensors.remove(&name) {
            None => missing.push(name),
            Some(tensor) if tensor.dims() == dims => {
                kept.insert(name, tensor);
            }
            Some(tensor) => {
                let found = format!("{:?}", tensor.dims());
                return Err(Error::tensor(name, format!("{dims:?}"), found));
            }
        }
    }
    missing.sort();
    Ok(Converted { config, tensors: kept, left_over: tensors.into_keys().collect(), missing })
}

/// Counters of a layer of pytorch-tcn or a batch norm, beside its weights.
fn is_buffer(name: &str) -> bool {
    let last = name.rsplit('.').next();
    matches!(last, Some("buffer" | "num_batches_tracked"))
}

/// A size of a tensor, or an error that names it.
fn dim(tensors: &Tensors, name: &str, axis: usize) -> Result<usize> {
    let dims = tensors.get(name).map(|tensor| tensor.dims());
    let size = dims.and_then(|dims| dims.get(axis).copied());
    size.ok_or_else(|| {
        let found = dims.map_or("no such tensor".into(), |dims| format!("{dims:?}"));
        Error::tensor(name, format!("a tensor of at least {} axes", axis + 1), found)
    })
}

/// Arguments that a network was made with in Python.
#[derive(Clone)]
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
        let class = text("module").or(text("class")).unwrap_or_default();
        let values = nested("kwargs").or(nested("args")).unwrap_or_else(|| {
            let named = values.into_iter().filter(|(name, _)| name != "module" && name != "class");
            named.collect()
        });
        Ok(Self { class, values })
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of one argument; none where it is absent or `null`.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.values.get(name) {
            None => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| Error::invalid(format!("arguments: {name}"), e.to_string(), value)),
        }
    }

    /// Compares arguments with what the tensors tell; `free` are those that they do not.
    fn agree(&self, told: &[(&str, Value)], free: &[&str]) -> Result<()> {
        for (name, value) in &self.values {
            if let Some((_, told)) = told.iter().find(|(known, _)| known == name) {
                let expected = format!("{told}, as the tensors tell");
                let allowed = told == value || value.is_null();
                Error::require(allowed, &format!("arguments: {name}"), &expected, value)?;
            } else {
                let names: Vec<_> =
                    told.iter().map(|(name, _)| name).chain(free).copied().collect();
                let expected = format!("one of {}", names.join(", "));
                let allowed = free.contains(&name.as_str());
                Error::require(allowed, "arguments", &expected, shown(name))?;
            }
        }
        Ok(())
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
    config.graph()?;
    Ok(config)
}
