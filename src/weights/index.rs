//! The index of weights in several files: `{"weight_map": {tensor: file}}`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::json::Unique;
use super::source::{Source, shown};
use crate::Result;

/// An entry takes about a hundred bytes.
pub(crate) const MAX_INDEX_BYTES: u64 = 1 << 22;

/// Each of them is held open.
const MAX_SHARDS: usize = 256;

#[derive(Deserialize)]
struct Index {
    weight_map: Unique<String>,
}

/// The files of an index, each with the names of its tensors.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let source = Source::open(path)?;
    if source.len() > MAX_INDEX_BYTES {
        return Err(source.wrong(format!(
            "expected an index of weights of at most {MAX_INDEX_BYTES} bytes, found {}",
            source.len()
        )));
    }
    let json = source.bytes("the index", 0, source.len())?;
    let index: Index = serde_json::from_slice(&json).map_err(|error| {
        source.wrong(format!("expected an index of weights with a weight_map: {error}"))
    })?;
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map.entries {
        if !is_plain(&file) {
            return Err(source.wrong(format!(
                "weight_map: tensor {}: expected the name of a file in the same folder, found {}",
                shown(&tensor),
                shown(&file)
            )));
        }
        shards.entry(file).or_default().push(tensor);
    }
    match shards.len() {
        1..=MAX_SHARDS => Ok(shards),
        found => {
            Err(source
                .wrong(format!("weight_map: expected 1 to {MAX_SHARDS} files, found {found}")))
        }
    }
}

/// Whether a name leads nowhere else, on any system.
fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', ':', '\0'])
}
