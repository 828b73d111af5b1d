//! Parts that the configurations of several architectures share: defaults, names of Hugging Face, fixed values.

use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer};

use crate::nn::Activation;
use crate::{Error, Result};

pub(super) fn yes() -> bool {
    true
}

pub(super) fn one() -> usize {
    1
}

/// Refuses a value that pytorch-tcn takes no other for than `allowed`.
pub(super) fn fixed(field: &str, value: usize, allowed: usize) -> Result<()> {
    let expected = match field {
        "lookahead" => "0, as pytorch-tcn 1.2.3 supports no other value".to_string(),
        _ => format!("{allowed}, the only value that pytorch-tcn takes here"),
    };
    Error::require(value == allowed, field, &expected, value)
}

/// An activation function by its name there: in small or capital letters, some with two names.
pub(super) fn activation<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Activation, D::Error> {
    let name = String::deserialize(deserializer)?.to_lowercase();
    let name = match name.as_str() {
        "swish" => "silu",
        "gelu_python" => "gelu",
        name => name,
    };
    Activation::deserialize(StrDeserializer::<D::Error>::new(name))
}
