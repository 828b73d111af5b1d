//! How Hugging Face writes what our configurations say otherwise.

use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer};

use crate::nn::Activation;

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
