//! The index of weights in several files: `{"weight_map": {tensor: file}}`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::checked_file::{read_small, shown};
use super::names::MAX_INDEX_BYTES;
use super::unique_names::UniqueNames;
use crate::{Error, Result};

/// Each of them is held open.
const MAX_SHARDS: usize = 256;

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: UniqueNames<String>,
}

/// Reads the files of an index, each with the names of its tensors.
pub(crate) fn read_index(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let wrong = |message: String| Error::file(path, message);
    let json = read_small(path, "an index of weights", MAX_INDEX_BYTES)?;
    let index: ShardIndex = serde_json::from_slice(&json).map_err(|error| {
        wrong(format!("expected an index of weights with a weight_map: {error}"))
    })?;
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map.entries {
        // on any system, such a name leads nowhere else
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
            return Err(wrong(format!(
                "weight_map: tensor {}: expected the name of a file in the same folder, found {}",
                shown(&tensor),
                shown(&file)
            )));
        }
        shards.entry(file).or_default().push(tensor);
    }
    match shards.len() {
        1..=MAX_SHARDS => Ok(shards),
        found => Err(wrong(format!("weight_map: expected 1 to {MAX_SHARDS} files, found {found}"))),
    }
}
