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
use objects::{Pickle, PickleObject, PickleValue, StorageRef};
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
    if pickle.len > MAX_PICKLE_BYTES {
        return Err(file.wrong(format!(
            "data.pkl: expected at most {MAX_PICKLE_BYTES} bytes, found {}",
            pickle.len
        )));
    }
    let bytes = file.bytes("data.pkl", pickle.start, pickle.len)?;
    if crc32fast::hash(&bytes) != pickle.crc {
        return Err(file.wrong("data.pkl is damaged: its checksum is another than the archive's"));
    }
    let loaded = load(&bytes, MAX_VALUES);
    let (pickle, value, _) = loaded.map_err(|message| file.wrong(message))?;
    list(file, &pickle, state_dict(file, &pickle, value, key)?, |key, storage| {
        let found = find(&format!("data/{}", String::from_utf8_lossy(key)))?;
        let wrong = |message: String| file.wrong(format!("{}: expected {message}", named(key)));
        match found {
            None => Err(wrong("it in the archive, found none".into())),
            Some(found) if found.len != storage.bytes() => Err(wrong(format!(
                "{} bytes for {} numbers, found {}",
                storage.bytes(),
                storage.count,
                found.len
            ))),
            Some(found) => Ok(Storage { start: found.start, crc: Some(found.crc), ..storage }),
        }
    })
}

/// Lists the tensors of a file of the older format: magic number, version, machine, the object, its storages'
/// keys, each a pickle; then for each key the count of its numbers, and the numbers.
pub(super) fn list_pickles(file: &CheckedFile, key: Option<&str>) -> Result<Listing> {
    let bytes = file.bytes("its pickle", 0, file.len().min(MAX_PICKLE_BYTES))?;
    let mut at = 0;
    let mut next = |values| {
        let loaded = load(&bytes[at..], values);
        let (pickle, value, len) = loaded.map_err(|message| file.wrong(message))?;
        at += len;
        Ok::<_, Error>((pickle, value))
    };
    let (pickle, value) = next(FEW)?;
    match value {
        PickleValue::Long(span) if pickle.bytes(span) == MAGIC => {}
        _ => return Err(file.wrong("a pickle, but not one that torch.save writes; save tensors with torch.save or safetensors")),
    }
    if next(FEW)?.1 != PickleValue::Int(PROTOCOL) {
        return Err(file.wrong(format!(
            "expected version {PROTOCOL} of PyTorch's older format, found another"
        )));
    }
    let (pickle, machine) = next(FEW)?;
    check_order(file, pickle.get(machine, "little_endian") == Some(PickleValue::Bool(true)))?;
    let (pickle, object) = next(MAX_VALUES)?;
    let (keys_pickle, keys) = next(2 * MAX_TENSORS)?;
    let starts = starts(file, &pickle, (&keys_pickle, keys), at as u64)?;
    list(file, &pickle, state_dict(file, &pickle, object, key)?, |key, storage| {
        let start = starts.get(key).ok_or_else(|| {
            file.wrong(format!("{}: expected it behind the pickles, found none", named(key)))
        })?;
        Ok(Storage { start: *start, ..storage })
    })
}

/// The first byte of the numbers of each storage of the older format; the first storage stands at `at`.
fn starts<'a>(
    file: &CheckedFile,
    pickle: &Pickle,
    (keys_pickle, keys): (&Pickle<'a>, PickleValue),
    mut at: u64,
) -> Result<HashMap<&'a [u8], u64>> {
    let known = storages(file, pickle)?;
    let Some(PickleObject::List(keys)) = keys_pickle.object(keys) else {
        return Err(file.wrong("expected a list of storages, found something else"));
    };
    let mut starts = HashMap::new();
    for &key in keys {
        let PickleValue::Text(span) = key else {
            return Err(file.wrong("expected storages named by text, found something else"));
        };
        let key = keys_pickle.bytes(span);
        let what = named(key);
        let wrong = |message: String| file.wrong(format!("{what}{message}"));
        let storage = known
            .get(key)
            .ok_or_else(|| wrong(": no tensor belongs to it, so its size is not known".into()))?;
        let dtype = storage.dtype.ok_or_else(|| wrong(format!(": {UNREADABLE}")))?;
        let count = little_endian(&file.bytes(&what, at, 8)?);
        if count != storage.count as u64 {
            return Err(wrong(format!(": expected {} numbers, found {count}", storage.count)));
        }
        let bytes = bytes_of(dtype, storage.count);
        file.check_range(&what, at + 8, bytes)?;
        if starts.insert(key, at + 8).is_some() {
            return Err(wrong(" stands there twice".into()));
        }
        at += 8 + bytes;
    }
    Ok(starts)
}

const UNREADABLE: &str = "complex and quantised numbers cannot be read";

/// Lists the tensors among the entries of a dict; `locate` finds a storage by its key, and sets its
/// first byte and its checksum.
fn list(
    file: &CheckedFile,
    pickle: &Pickle,
    state_dict: &DictEntries,
    locate: impl Fn(&[u8], Storage) -> Result<Storage>,
) -> Result<Listing> {
    storages(file, pickle)?;
    let mut listing = Listing::default();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
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
        if names.len() > MAX_TENSORS {
            return Err(file.wrong(format!("expected at most {MAX_TENSORS} tensors, found more")));
        }
        let (StorageRef { dtype, key, count }, view) = pickle.tensor(parts).map_err(wrong)?;
        let dtype = dtype.ok_or_else(|| wrong(UNREADABLE.into()))?;
        let key = pickle.bytes(key);
        let storage = match places.get(key) {
            Some(&place) => place,
            None => {
                let storage = Storage { dtype, start: 0, count, crc: None };
                listing.storages.push(locate(key, storage)?);
                places.insert(key, listing.storages.len() - 1);
                listing.storages.len() - 1
            }
        };
        listing.tensors.push(ListedTensor { name: name.to_string(), storage, view });
    }
    check_sizes(file, &listing)?;
    Ok(listing)
}

/// The storages of a pickle by their keys, each of one type and one size.
fn storages<'a, 'p>(
    file: &CheckedFile,
    pickle: &'p Pickle<'a>,
) -> Result<HashMap<&'a [u8], &'p StorageRef>> {
    let mut known: HashMap<&[u8], &StorageRef> = HashMap::new();
    for object in &pickle.objects {
        let PickleObject::Storage(storage) = object else {
            continue;
        };
        let key = pickle.bytes(storage.key);
        let before = known.entry(key).or_insert(storage);
        if (before.dtype, before.count) != (storage.dtype, storage.count) {
            let dtype = |storage: &StorageRef| {
                storage.dtype.map_or("that cannot be read".to_string(), |dtype| dtype.to_string())
            };
            return Err(file.wrong(format!(
                "{}: expected {} numbers {} as before, found {} {}",
                named(key),
                before.count,
                dtype(before),
                storage.count,
                dtype(storage)
            )));
        }
    }
    Ok(known)
}

/// A storage by its key, for messages.
fn named(key: &[u8]) -> String {
    format!("storage {}", shown(&String::from_utf8_lossy(key)))
}

/// Checks that the file makes no more of its bytes than a few tensors that share them.
fn check_sizes(file: &CheckedFile, listing: &Listing) -> Result<()> {
    let stored: u64 = listing.storages.iter().map(Storage::bytes).sum();
    if stored > file.len() {
        return Err(file.wrong(format!(
            "its storages overlap: they have {stored} bytes, the file {}",
            file.len()
        )));
    }
    let views: HashSet<_> =
        listing.tensors.iter().map(|tensor| (tensor.storage, &tensor.view)).collect();
    let bytes = |&(storage, view): &(usize, &StridedView)| {
        bytes_of(listing.storages[storage].dtype, view.count())
    };
    let viewed = views.iter().map(bytes).fold(0u64, u64::saturating_add);
    match viewed > stored.saturating_mul(MAX_OVERLAP) {
        false => Ok(()),
        true => Err(file.wrong(format!(
            "its tensors overlap: together they have more than {MAX_OVERLAP} times the {stored} bytes of their storages"
        ))),
    }
}

fn check_order(file: &CheckedFile, little: bool) -> Result<()> {
    match little {
        true => Ok(()),
        false => Err(file.wrong("it was written by a machine with the highest byte first; load it there and save it as safetensors")),
    }
}
