//! JSON objects in which no name may stand twice; `serde_json` alone would keep the last.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use super::checked_file::shown;
use super::listing::MAX_TENSORS;

/// The names and values of an object, in order.
pub(super) struct UniqueNames<V> {
    pub entries: Vec<(String, V)>,
    /// The texts of `__metadata__`, which names no tensor.
    pub metadata: Vec<(String, String)>,
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueNames<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor(PhantomData))
    }
}

struct NamesVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for NamesVisitor<V> {
    type Value = UniqueNames<V>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with one entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut entries, mut metadata) = (Vec::new(), Vec::new());
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                let message = format!("tensor {} stands there twice", shown(&name));
                return Err(A::Error::custom(message));
            }
            if name != "__metadata__" {
                entries.push((name, map.next_value()?));
            } else if let Value::Object(texts) = map.next_value()? {
                let text = |(name, value)| match value {
                    Value::String(text) => Some((name, text)),
                    _ => None,
                };
                metadata.extend(texts.into_iter().filter_map(text));
            }
            if entries.len() > MAX_TENSORS {
                let message = format!("expected at most {MAX_TENSORS} tensors, found more");
                return Err(A::Error::custom(message));
            }
        }
        Ok(UniqueNames { entries, metadata })
    }
}
