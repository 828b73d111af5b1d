//! What `torch.save` writes: a zip archive with a pickle in it, or, until PyTorch 1.5, pickles with the
//! numbers behind them.

use std::collections::{HashMap, HashSet};

use super::numbers::{Entry, Listing, MAX_TENSORS, Storage};
use super::other;
use super::pickle::{MAX_VALUES, Pickle};
use super::source::{Source, shown};
use super::state_dict::state_dict;
use super::values::{Object, StorageRef, Value};
use super::zip::Archive;
use crate::Result;

/// A state dict's pickle takes about two hundred bytes for a tensor.
const MAX_PICKLE_BYTES: u64 = 1 << 24;

/// Views may overlap, as tied weights do; all together they are at most so many times their storages.
const MAX_OVERLAP: u64 = 4;

/// 0x1950a86a20f9469cfc6c, lowest byte first: the first value of the older format.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Values of the pickles before that of the tensors.
const FEW: usize = 1000;

pub(super) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK")
}

/// A pickle says its version first.
pub(super) fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

/// What an archive holds.
pub(super) fn list_zip(source: &Source, key: Option<&str>) -> Result<Listing> {
    let archive = Archive::open(source)?;
    let mut roots = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let root = match (roots.next(), roots.next()) {
        (Some(root), None) => root.to_string(),
        _ => {
            return Err(source.wrong(format!(
                "expected an archive that torch.save writes, with one data.pkl in it, found {}",
                other::recognize_archive(archive.names())
            )));
        }
    };
    if let Some(order) = archive.find(source, &format!("{root}byteorder"))? {
        let order = source.bytes("its byte order", order.start, order.len.min(16))?;
        check_order(source, order == b"little")?;
    }
    let name = format!("{root}data.pkl");
    let Some(pickle) = archive.find(source, &name)? else {
        return Err(source.wrong("the archive's data.pkl is gone"));
    };
    if pickle.len > MAX_PICKLE_BYTES {
        return Err(source.wrong(format!(
            "data.pkl: expected at most {MAX_PICKLE_BYTES} bytes, found {}",
            pickle.len
        )));
    }
    let bytes = source.bytes("data.pkl", pickle.start, pickle.len)?;
    if crc32fast::hash(&bytes) != pickle.crc {
        return Err(source.wrong("data.pkl is damaged: its checksum is another than the archive's"));
    }
    let (pickle, value, _) =
        Pickle::load(&bytes, MAX_VALUES).map_err(|message| source.wrong(message))?;
    list(source, &pickle, state_dict(source, &pickle, value, key)?, |key, storage| {
        let key = String::from_utf8_lossy(key);
        let found = archive.find(source, &format!("{root}data/{key}"))?;
        let key = shown(&key);
        let Some(found) = found else {
            return Err(
                source.wrong(format!("storage {key}: expected it in the archive, found none"))
            );
        };
        if found.len != bytes_of(storage) {
            return Err(source.wrong(format!(
                "storage {key}: expected {} bytes for {} numbers, found {}",
                bytes_of(storage),
                storage.count,
                found.len
            )));
        }
        Ok(Storage {
            kind: storage.kind,
            start: found.start,
            count: storage.count,
            crc: Some(found.crc),
        })
    })
}

/// What a file of the older format holds: magic number, version, machine, the object, its storages' keys,
/// each a pickle; then for each key the count of its numbers, and the numbers.
pub(super) fn list_pickles(source: &Source, key: Option<&str>) -> Result<Listing> {
    let wrong = |message: String| source.wrong(message);
    let bytes = source.bytes("its pickle", 0, source.len().min(MAX_PICKLE_BYTES))?;
    let mut at = 0;
    let mut next = |values| {
        let (pickle, value, len) = Pickle::load(&bytes[at..], values)?;
        at += len;
        Ok((pickle, value))
    };
    let (pickle, value) = next(FEW).map_err(wrong)?;
    match value {
        Value::Long(span) if pickle.bytes(span) == MAGIC => {}
        _ => return Err(source.wrong("a pickle, but not one that torch.save writes; save tensors with torch.save or safetensors")),
    }
    let (_, version) = next(FEW).map_err(wrong)?;
    if version != Value::Int(PROTOCOL) {
        return Err(source.wrong(format!(
            "expected version {PROTOCOL} of PyTorch's older format, found another"
        )));
    }
    let (pickle, machine) = next(FEW).map_err(wrong)?;
    check_order(source, pickle.get(machine, "little_endian") == Some(Value::Bool(true)))?;
    let (pickle, object) = next(MAX_VALUES).map_err(wrong)?;
    let (keys_pickle, keys) = next(2 * MAX_TENSORS).map_err(wrong)?;
    let starts = starts(source, &pickle, (&keys_pickle, keys), at as u64)?;
    list(source, &pickle, state_dict(source, &pickle, object, key)?, |key, storage| {
        match starts.get(key) {
            Some(&start) => {
                Ok(Storage { kind: storage.kind, start, count: storage.count, crc: None })
            }
            None => Err(source.wrong(format!(
                "storage {}: expected it behind the pickles, found none",
                shown(&String::from_utf8_lossy(key))
            ))),
        }
    })
}

/// Where the numbers of each storage of the older format start; the first one stands at `at`.
fn starts<'a>(
    source: &Source,
    pickle: &Pickle,
    (keys_pickle, keys): (&Pickle<'a>, Value),
    mut at: u64,
) -> Result<HashMap<&'a [u8], u64>> {
    let known: HashMap<&[u8], &StorageRef> =
        storages(pickle).map(|s| (pickle.bytes(s.key), s)).collect();
    let Some(Object::List(keys)) = keys_pickle.object(keys) else {
        return Err(source.wrong("expected a list of storages, found something else"));
    };
    let mut starts = HashMap::new();
    for &key in keys {
        let key = match key {
            Value::Text(span) => keys_pickle.bytes(span),
            _ => return Err(source.wrong("expected storages named by text, found something else")),
        };
        let name = shown(&String::from_utf8_lossy(key));
        let Some(storage) = known.get(key) else {
            return Err(source.wrong(format!(
                "storage {name}: no tensor belongs to it, so its size is not known"
            )));
        };
        let count = source.bytes(&format!("storage {name}"), at, 8)?;
        let count = count.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if count != storage.count as u64 {
            return Err(source.wrong(format!(
                "storage {name}: expected {} numbers, found {count}",
                storage.count
            )));
        }
        source.check_range(&format!("storage {name}"), at + 8, bytes_of(storage))?;
        if starts.insert(key, at + 8).is_some() {
            return Err(source.wrong(format!("storage {name} stands there twice")));
        }
        at += 8 + bytes_of(storage);
    }
    Ok(starts)
}

/// The tensors among the entries of a dict; `locate` finds a storage by its key.
fn list(
    source: &Source,
    pickle: &Pickle,
    state_dict: &[(Value, Value)],
    locate: impl Fn(&[u8], &StorageRef) -> Result<Storage>,
) -> Result<Listing> {
    check_storages(source, pickle)?;
    let mut listing = Listing::default();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut names = HashSet::new();
    for &(key, value) in state_dict {
        let Some(Object::Tensor(parts)) = pickle.object(value) else {
            continue;
        };
        let Some(name) = pickle.text(key) else {
            return Err(source.wrong("expected tensors named by text, found another name"));
        };
        let wrong = |message: String| source.wrong(format!("tensor {}: {message}", shown(name)));
        if !names.insert(name) {
            return Err(wrong("it stands there twice".into()));
        }
        if names.len() > MAX_TENSORS {
            return Err(source.wrong(format!("expected at most {MAX_TENSORS} tensors, found more")));
        }
        let (storage, view) = pickle.tensor(parts).map_err(wrong)?;
        if storage.kind.dtype().is_none() {
            return Err(wrong("complex and quantised numbers cannot be read".into()));
        }
        let key = pickle.bytes(storage.key);
        let place = match places.get(key) {
            Some(&place) => place,
            None => {
                listing.storages.push(locate(key, &storage)?);
                places.insert(key, listing.storages.len() - 1);
                listing.storages.len() - 1
            }
        };
        listing.entries.push(Entry { name: name.to_string(), storage: place, view });
    }
    check_sizes(source, &listing)?;
    Ok(listing)
}

fn storages<'p>(pickle: &'p Pickle) -> impl Iterator<Item = &'p StorageRef> {
    pickle.objects.iter().filter_map(|object| match object {
        Object::Storage(storage) => Some(storage),
        _ => None,
    })
}

/// Each storage has one type and one size.
fn check_storages(source: &Source, pickle: &Pickle) -> Result<()> {
    let mut known: HashMap<&[u8], &StorageRef> = HashMap::new();
    for storage in storages(pickle) {
        let key = pickle.bytes(storage.key);
        let before = known.entry(key).or_insert(storage);
        if (before.kind, before.count) != (storage.kind, storage.count) {
            return Err(source.wrong(format!(
                "storage {}: expected {} numbers {:?} as before, found {} {:?}",
                shown(&String::from_utf8_lossy(key)),
                before.count,
                before.kind,
                storage.count,
                storage.kind
            )));
        }
    }
    Ok(())
}

/// No file makes more of its bytes than a few tensors that share them.
fn check_sizes(source: &Source, listing: &Listing) -> Result<()> {
    let stored: u64 = listing.storages.iter().map(|s| s.count as u64 * s.kind.size() as u64).sum();
    if stored > source.len() {
        return Err(source.wrong(format!(
            "its storages overlap: they have {stored} bytes, the file {}",
            source.len()
        )));
    }
    let views: HashSet<_> =
        listing.entries.iter().map(|entry| (entry.storage, &entry.view)).collect();
    let mut left = stored.saturating_mul(MAX_OVERLAP);
    for (storage, view) in views {
        let bytes = (view.count() as u64).checked_mul(listing.storages[storage].kind.size() as u64);
        left = bytes.and_then(|bytes| left.checked_sub(bytes)).ok_or_else(|| {
            source.wrong(format!(
                "its tensors overlap: together they have more than {MAX_OVERLAP} times the {stored} bytes of their storages"
            ))
        })?;
    }
    Ok(())
}

fn check_order(source: &Source, little: bool) -> Result<()> {
    match little {
        true => Ok(()),
        false => Err(source.wrong("it was written by a machine with the highest byte first; load it there and save it as safetensors")),
    }
}

/// Saturates: no file is so long.
fn bytes_of(storage: &StorageRef) -> u64 {
    (storage.count as u64).saturating_mul(storage.kind.size() as u64)
}
