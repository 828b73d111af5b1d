//! Objects of JSON.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value that comes as an object. Without this, serde also takes a list of the fields in their order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: u8,
    }

    #[test]
    fn a_list_is_no_object() {
        let read = |json| serde_json::from_str::<Object<Point>>(json).map(|point| point.0.x);
        assert_eq!(read(r#"{"x": 3}"#).unwrap(), 3);
        let error = |json| read(json).unwrap_err().to_string();
        assert!(error("[3]").starts_with("invalid type: sequence, expected an object"));
        assert!(error("3").contains("expected an object"));
        assert!(error(r#"{"y": 3}"#).contains("unknown field `y`"));
    }
}
