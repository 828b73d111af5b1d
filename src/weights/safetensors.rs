//! The header of a safetensors file.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::json::Unique;
use super::numbers::{Entry, Kind, Listing, MAX_RANK, Storage, View};
use super::source::{Source, shown};
use crate::Result;

/// Describing a tensor takes about a hundred bytes.
const MAX_HEADER_BYTES: u64 = 1 << 22;

/// Whether a file that starts so is meant to be a safetensors file: a length, then a JSON object.
pub(super) fn is_start(start: &[u8]) -> bool {
    start.get(8) == Some(&b'{')
}

/// What the file says that it holds, checked against its length.
pub(super) fn list(source: &Source) -> Result<Listing> {
    let cut = "not a whole safetensors file";
    let length = source.bytes(cut, 0, 8)?;
    let length = length.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if !(2..=MAX_HEADER_BYTES).contains(&length) {
        return Err(source.wrong(format!(
            "{cut}: expected a header of 2 to {MAX_HEADER_BYTES} bytes, found one of {length}"
        )));
    }
    let header = source.bytes(&format!("{cut}: its header"), 8, length)?;
    let described: Unique<TensorInfo> = serde_json::from_slice(&header)
        .map_err(|error| source.wrong(format!("{cut}: its header: {error}")))?;
    let shared = described.metadata;
    let mut described = described.entries;
    described.sort_by_key(|(_, info)| info.data_offsets);
    let names: Vec<String> = described.iter().map(|(name, _)| name.clone()).collect();
    let checked =
        Metadata::new(None, described).map_err(|error| source.wrong(format!("{cut}: {error}")))?;
    let end = (8 + length).checked_add(checked.data_len() as u64);
    if end != Some(source.len()) {
        return Err(source.wrong(format!(
            "{cut}: expected 8 + {length} + {} bytes, found {}",
            checked.data_len(),
            source.len()
        )));
    }
    let mut listing = Listing::default();
    for name in names {
        let Some(info) = checked.info(&name) else {
            continue;
        };
        let (storage, view) = located(info, 8 + length)
            .map_err(|message| source.wrong(format!("tensor {}: {message}", shown(&name))))?;
        listing.entries.push(Entry { name, storage: listing.storages.len(), view });
        listing.storages.push(storage);
    }
    add_shared(&mut listing, shared);
    Ok(listing)
}

/// Adds the names that `safetensors.torch.save_model` leaves out: of tensors that are shared it keeps one, and
/// the metadata say which one stands for another.
fn add_shared(listing: &mut Listing, shared: Vec<(String, String)>) {
    let kept = listing.entries.iter().enumerate();
    let kept: HashMap<String, usize> = kept.map(|(i, entry)| (entry.name.clone(), i)).collect();
    for (name, stands_for_it) in shared {
        if let (false, Some(&i)) = (kept.contains_key(&name), kept.get(&stands_for_it)) {
            let Entry { storage, ref view, .. } = listing.entries[i];
            let view = view.clone();
            listing.entries.push(Entry { name, storage, view });
        }
    }
}

fn located(info: &TensorInfo, data: u64) -> Result<(Storage, View), String> {
    let kind = kind(info.dtype)
        .ok_or_else(|| format!("expected floats or whole numbers, found {:?}", info.dtype))?;
    if info.shape.len() > MAX_RANK {
        return Err(format!("expected at most {MAX_RANK} axes, found {}", info.shape.len()));
    }
    let (start, end) = info.data_offsets;
    let count = (end - start) / kind.size();
    let storage = Storage { kind, start: data + start as u64, count, crc: None };
    Ok((storage, View::whole(info.shape.clone(), count)?))
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::U8,
        Dtype::I8 => Kind::I8,
        Dtype::I16 => Kind::I16,
        Dtype::U16 => Kind::U16,
        Dtype::I32 => Kind::I32,
        Dtype::U32 => Kind::U32,
        Dtype::I64 => Kind::I64,
        Dtype::BF16 => Kind::BF16,
        Dtype::F16 => Kind::F16,
        Dtype::F32 => Kind::F32,
        Dtype::F64 => Kind::F64,
        _ => return None,
    })
}
