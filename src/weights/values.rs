//! What a pickle makes: values, most of which are indices, and what these stand for.

use super::globals::Global;
use super::numbers::Kind;
use super::pickle::Pickle;

/// Bytes of the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

/// A value, or where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number beyond 64 bits, lowest byte first.
    Long(Span),
    Text(Span),
    /// A float, or bytes: nothing that weights need.
    Other,
    /// Index in [`Pickle::objects`].
    Object(u32),
}

/// What has parts, or was made by a global.
#[derive(Debug)]
pub(super) enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(StorageRef),
    /// Made by `_rebuild_tensor_v2` of these arguments.
    Tensor(Vec<Value>),
    /// Something that is no part of a state dict and does no harm.
    Inert,
}

/// Numbers that are stored beside the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    pub kind: Kind,
    pub key: Span,
    pub count: usize,
}

impl Span {
    pub(super) fn new(start: u32, len: u32) -> Self {
        Self { start, len }
    }
}

impl<'a> Pickle<'a> {
    /// What an index stands for.
    pub(super) fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.object(value) {
            Some(Object::Tuple(parts)) => Some(parts),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        &self.bytes[start..start + span.len as usize]
    }

    /// Text, where the value is that and valid.
    pub(super) fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(span) => std::str::from_utf8(self.bytes(span)).ok(),
            _ => None,
        }
    }

    /// The entry of a dict.
    pub(super) fn get(&self, dict: Value, key: &str) -> Option<Value> {
        let Some(Object::Dict(entries)) = self.object(dict) else {
            return None;
        };
        let is_key = |&&(found, _): &&(Value, Value)| match found {
            Value::Text(span) => self.bytes(span) == key.as_bytes(),
            _ => false,
        };
        // as in Python, the last one counts
        entries.iter().rev().find(is_key).map(|&(_, value)| value)
    }
}
