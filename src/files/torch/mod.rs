//! Files of `torch.save`: a zip archive with a pickle in it, or, until PyTorch 1.5, pickles with the
//! numbers behind them.

mod calls;
mod globals;
mod objects;
mod state_dict;
mod unpickler;
mod zip;

use std::collections::{HashMap, HashSet};

use super::checked_file::{CheckedFile, little_endian, shown};
use super::listing::{ListedTensor, Listing, MAX_TENSORS, Storage, StridedView, bytes_of};
use super::names::MAX_PICKLE_BYTES;
use super::not_weights;
use crate::{Error, Result};
use objects::{Pickle, PickleObject, PickleValue, STORAGE, StorageRef};
use state_dict::{DictEntries, state_dict};
use unpickler::{MAX_VALUES, load};
use zip::Archive;

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

/// Lists the tensors of an archive.
pub(super) fn list_zip(file: &CheckedFile, key: Option<&str>) -> Result<Listing> {
    let archive = Archive::open(file)?;
    let mut roots = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let (Some(root), None) = (roots.next(), roots.next()) else {
        return Err(file.wrong(format!(
            "expected an archive that torch.save writes, with one data.pkl in it, found {}",
            not_weights::recognize_archive(archive.names())
        )));
    };
    let find = |name: &str| archive.find(file, &format!("{root}{name}"));
    if let Some(order) = find("byteorder")? {
        let order = file.bytes("its byte order", order.start, order.len.min(16))?;
        check_order(file, order == b"little")?;
    }
    let pickle = find("data.pkl")?.ok_or_else(|| file.wrong("the archive's data.pkl is gone"))?;
    file.require(pickle.len <= MAX_PICKLE_BYTES, || {
        format!("data.pkl: expected at most {MAX_PICKLE_BYTES} bytes, found {}", pickle.len)
    })?;
    let bytes = file.bytes("data.pkl", pickle.start, pickle.len)?;
    file.require(crc32fast::hash(&bytes) == pickle.crc, || {
        "data.pkl is damaged: its checksum is another than the archive's".into()
    })?;
    let (pickle, value, _) = load(file, &bytes, MAX_VALUES)?;
    list(file, &pickle, state_dict(file, &pickle, value, key)?, |name, storage| {
        let key = name.strip_prefix(STORAGE).unwrap_or_default();
        let found = find(&format!("data/{key}"))?;
        let found = found.ok_or_else(|| {
            file.wrong(format!("{}: expected it in the archive, found none", shown(name)))
        })?;
        let (bytes, count) = (storage.bytes(), storage.count);
        file.require(found.len == bytes, || {
            let name = shown(name);
            format!("{name}: expected {bytes} bytes for {count} numbers, found {}", found.len)
        })?;
        Ok(Storage { start: found.start, crc: Some(found.crc), ..storage })
    })
}

/// Lists the tensors of a file of the older format: magic number, version, machine, the object, its storages'
/// keys, each a pickle; then for each key the count of its numbers, and the numbers.
pub(super) fn list_pickles(file: &CheckedFile, key: Option<&str>) -> Result<Listing> {
    let bytes = file.bytes("its pickle", 0, file.len().min(MAX_PICKLE_BYTES))?;
    let mut at = 0;
    let mut next = |values| {
        let (pickle, value, len) = load(file, &bytes[at..], values)?;
        at += len;
        Ok::<_, Error>((pickle, value))
    };
    let (pickle, value) = next(FEW)?;
    let is_magic = matches!(value, PickleValue::Long(span) if pickle.bytes(span) == MAGIC);
    file.require(is_magic, || {
        "a pickle, but not one that torch.save writes; save tensors with torch.save or safetensors"
            .into()
    })?;
    let is_known = next(FEW)?.1 == PickleValue::Int(PROTOCOL);
    file.require(is_known, || {
        format!("expected version {PROTOCOL} of PyTorch's older format, found another")
    })?;
    let (pickle, machine) = next(FEW)?;
    check_order(file, pickle.get(machine, "little_endian") == Some(PickleValue::Bool(true)))?;
    let (pickle, object) = next(MAX_VALUES)?;
    let (keys_pickle, keys) = next(2 * MAX_TENSORS)?;
    let starts = starts(file, &pickle, (&keys_pickle, keys), at as u64)?;
    list(file, &pickle, state_dict(file, &pickle, object, key)?, |name, storage| {
        let start = starts.get(name).ok_or_else(|| {
            file.wrong(format!("{}: expected it behind the pickles, found none", shown(name)))
        })?;
        Ok(Storage { start: *start, ..storage })
    })
}

/// The first byte of the numbers of each storage of the older format; the first storage stands at `at`.
fn starts(
    file: &CheckedFile,
    pickle: &Pickle,
    (keys_pickle, keys): (&Pickle, PickleValue),
    mut at: u64,
) -> Result<HashMap<String, u64>> {
    let known = storages(file, pickle)?;
    let Some(PickleObject::List(keys)) = keys_pickle.object(keys) else {
        return Err(file.wrong("expected a list of storages, found something else"));
    };
    let mut starts = HashMap::new();
    for &key in keys {
        let PickleValue::Text(span) = key else {
            return Err(file.wrong("expected storages named by text, found something else"));
        };
        let name = keys_pickle.storage_name(span);
        let what = shown(&name);
        let wrong = |message: String| file.wrong(format!("{what}{message}"));
        let storage = known
            .get(&name)
            .ok_or_else(|| wrong(": no tensor belongs to it, so its size is not known".into()))?;
        let dtype = storage.dtype.ok_or_else(|| wrong(format!(": {UNREADABLE}")))?;
        let (count, expected) = (little_endian(&file.bytes(&what, at, 8)?), storage.count);
        if count != expected as u64 {
            return Err(wrong(format!(": expected {expected} numbers, found {count}")));
        }
        let bytes = bytes_of(dtype, expected);
        file.check_range(&what, at + 8, bytes)?;
        file.require(starts.insert(name, at + 8).is_none(), || {
            format!("{what} stands there twice")
        })?;
        at += 8 + bytes;
    }
    Ok(starts)
}

const UNREADABLE: &str = "complex and quantised numbers cannot be read";

/// Lists the tensors among the entries of a dict; `locate` finds a storage by its name, and sets its
/// first byte and its checksum.
fn list(
    file: &CheckedFile,
    pickle: &Pickle,
    state_dict: &DictEntries,
    locate: impl Fn(&str, Storage) -> Result<Storage>,
) -> Result<Listing> {
    storages(file, pickle)?;
    let mut listing = Listing::default();
    let mut places = HashMap::new();
    let mut names = HashSet::new();
    for &[key, value] in state_dict {
        let Some(PickleObject::Tensor(parts)) = pickle.object(value) else {
            continue;
        };
        let Some(name) = pickle.text(key) else {
            return Err(file.wrong("expected tensors named by text, found another name"));
        };
        let wrong = |message: String| file.wrong(format!("tensor {}: {message}", shown(name)));
        if !names.insert(name) {
            return Err(wrong("it stands there twice".into()));
        }
        file.require(names.len() <= MAX_TENSORS, || {
            format!("expected at most {MAX_TENSORS} tensors, found more")
        })?;
        let (StorageRef { dtype, key, count }, view) = pickle.tensor(parts).map_err(wrong)?;
        let dtype = dtype.ok_or_else(|| wrong(UNREADABLE.into()))?;
        let storage = *places.entry(pickle.bytes(key)).or_insert(listing.storages.len());
        if storage == listing.storages.len() {
            let storage = Storage { dtype, start: 0, count, crc: None };
            listing.storages.push(locate(&pickle.storage_name(key), storage)?);
        }
        listing.tensors.push(ListedTensor { name: name.to_string(), storage, view });
    }
    check_sizes(file, &listing)?;
    Ok(listing)
}

/// The storages of a pickle by their names, each of one type and one size.
fn storages<'p>(file: &CheckedFile, pickle: &'p Pickle) -> Result<HashMap<String, &'p StorageRef>> {
    let mut known: HashMap<String, &StorageRef> = HashMap::new();
    for object in &pickle.objects {
        let PickleObject::Storage(storage) = object else {
            continue;
        };
        let name = pickle.storage_name(storage.key);
        let numbers = |storage: &StorageRef| {
            let dtype = storage.dtype.map_or("that cannot be read".into(), |d| d.to_string());
            (storage.count, dtype)
        };
        let (what, found) = (shown(&name), numbers(storage));
        let before = numbers(known.entry(name).or_insert(storage));
        file.require(before == found, || {
            let ((a, b), (c, d)) = (before, found);
            format!("{what}: expected {a} numbers {b} as before, found {c} {d}")
        })?;
    }
    Ok(known)
}

/// Checks that the file makes no more of its bytes than a few tensors that share them.
fn check_sizes(file: &CheckedFile, listing: &Listing) -> Result<()> {
    let stored: u64 = listing.storages.iter().map(Storage::bytes).sum();
    let len = file.len();
    file.require(stored <= len, || {
        format!("its storages overlap: they have {stored} bytes, the file {len}")
    })?;
    let views: HashSet<_> =
        listing.tensors.iter().map(|tensor| (tensor.storage, &tensor.view)).collect();
    let bytes = |&(storage, view): &(usize, &StridedView)| {
        bytes_of(listing.storages[storage].dtype, view.count())
    };
    let viewed = views.iter().map(bytes).fold(0u64, u64::saturating_add);
    file.require(viewed <= stored.saturating_mul(MAX_OVERLAP), || {
        format!("its tensors overlap: together they have more than {MAX_OVERLAP} times the {stored} bytes of their storages")
    })
}

fn check_order(file: &CheckedFile, is_little: bool) -> Result<()> {
    file.require(is_little, || {
        "it was written by a machine with the highest byte first; load it there and save it as safetensors".into()
    })
}
