//! Values that a pickle has made: plain ones, and indices of objects.

use safetensors::Dtype;

use super::globals::Global;

/// Result of reading a part of a pickle; the caller adds the file's name to the message.
pub(super) type Parsed<T> = Result<T, String>;

/// A range of the pickle's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSpan {
    pub start: u32,
    pub len: u32,
}

/// A value, or the index of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number beyond 64 bits, lowest byte first.
    Long(ByteSpan),
    Text(ByteSpan),
    /// A float, or bytes: nothing that weights need.
    Other,
    /// Index in [`Pickle::objects`].
    Object(u32),
}

/// An entry of a dict.
pub(super) type PicklePair = [PickleValue; 2];

/// A value with parts, or one that a global made.
#[derive(Debug)]
pub(super) enum PickleObject {
    Tuple(Vec<PickleValue>),
    List(Vec<PickleValue>),
    Dict(Vec<PicklePair>),
    Global(Global),
    Storage(StorageRef),
    /// Made by `_rebuild_tensor_v2` of these arguments.
    Tensor(Box<[PickleValue; 4]>),
    /// No part of a state dict, and harmless.
    Inert,
}

/// Numbers that are stored beside the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    /// `None` for complex and quantised numbers, which cannot be read.
    pub dtype: Option<Dtype>,
    pub key: ByteSpan,
    pub count: usize,
}

/// Beginning of the names of storages.
pub(super) const STORAGE: &str = "storage ";

/// A pickle and the values it has made.
pub(super) struct Pickle<'a> {
    pub bytes: &'a [u8],
    pub objects: Vec<PickleObject>,
    /// Values that it may still make.
    pub left: usize,
}

impl<'a> Pickle<'a> {
    /// A value for something new.
    pub(super) fn new_object(&mut self, object: PickleObject) -> PickleValue {
        self.objects.push(object);
        // there are at most as many as values, a million
        PickleValue::Object((self.objects.len() - 1) as u32)
    }

    /// Makes room for one more value.
    pub(super) fn count(&mut self) -> Parsed<()> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or("it has more values than the tensors of a model need")?;
        Ok(())
    }

    /// The object of an index.
    pub(super) fn object(&self, value: PickleValue) -> Option<&PickleObject> {
        match value {
            PickleValue::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: PickleValue) -> Option<&[PickleValue]> {
        match self.object(value) {
            Some(PickleObject::Tuple(parts)) => Some(parts),
            _ => None,
        }
    }

    /// The parts of a list or a tuple.
    pub(super) fn parts(&self, value: PickleValue) -> Option<&[PickleValue]> {
        match self.object(value) {
            Some(PickleObject::List(parts) | PickleObject::Tuple(parts)) => Some(parts),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, span: ByteSpan) -> &'a [u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }

    /// The name of a storage, for messages too.
    pub(super) fn storage_name(&self, key: ByteSpan) -> String {
        format!("{STORAGE}{}", String::from_utf8_lossy(self.bytes(key)))
    }

    /// Text, where the value is that and valid.
    pub(super) fn text(&self, value: PickleValue) -> Option<&'a str> {
        match value {
            PickleValue::Text(span) => std::str::from_utf8(self.bytes(span)).ok(),
            _ => None,
        }
    }

    /// The entry of a dict.
    pub(super) fn get(&self, dict: PickleValue, key: &str) -> Option<PickleValue> {
        let Some(PickleObject::Dict(entries)) = self.object(dict) else {
            return None;
        };
        // as in Python, the last one counts
        let found = entries.iter().rev().find(|[found, _]| self.text(*found) == Some(key));
        found.map(|&[_, value]| value)
    }
}

/// The entries of keys and values that alternate.
pub(super) fn pairs(parts: &[PickleValue]) -> Option<Vec<PicklePair>> {
    let (pairs, rest) = parts.as_chunks();
    rest.is_empty().then(|| pairs.to_vec())
}
