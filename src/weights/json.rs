//! JSON objects in which no name may stand twice; `serde_json` alone would keep the last.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::numbers::MAX_TENSORS;
use super::source::shown;

/// The names and values of an object, in order.
pub(super) struct Unique<V> {
    pub entries: Vec<(String, V)>,
    /// The texts of `__metadata__`, which names no tensor.
    pub metadata: Vec<(String, String)>,
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names(PhantomData))
    }
}

struct Names<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Names<V> {
    type Value = Unique<V>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with one entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut metadata = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!(
                    "tensor {} stands there twice",
                    shown(&name)
                )));
            }
            match name.as_str() {
                "__metadata__" => {
                    if let serde_json::Value::Object(texts) = map.next_value()? {
                        let text = |(name, value)| match value {
                            serde_json::Value::String(text) => Some((name, text)),
                            _ => None,
                        };
                        metadata.extend(texts.into_iter().filter_map(text));
                    }
                }
                _ => entries.push((name, map.next_value()?)),
            }
            if entries.len() > MAX_TENSORS {
                return Err(A::Error::custom(format!(
                    "expected at most {MAX_TENSORS} tensors, found more"
                )));
            }
        }
        Ok(Unique { entries, metadata })
    }
}
