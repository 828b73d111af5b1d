//! The dict of tensors in what a training script saved.

use std::collections::HashSet;

use super::objects::{Pickle, PickleObject, PicklePair, PickleValue};
use crate::Result;
use crate::files::checked_file::{CheckedFile, shown};
use crate::files::listing::read_as;

/// Beginning of the keys under which an optimizer keeps its own tensors.
const OPTIMIZER: &str = "optim";

/// Most dicts that an error names.
const MAX_NAMED: usize = 10;

/// Levels of dicts and lists that are looked into.
const MAX_DEPTH: usize = 16;

/// Keys and values of a dict.
pub(super) type DictEntries = [PicklePair];

/// A dict that holds tensors.
struct TensorDict<'p> {
    /// Keys that lead to it, joined by dots; empty for the whole file.
    path: String,
    entries: &'p DictEntries,
    tensors: usize,
    /// Most of its values are tensors of floats, unlike what callbacks and random generators keep.
    is_of_weights: bool,
}

/// The entries of the one dict of tensors in `root`, or of the one under `key`.
pub(super) fn state_dict<'p>(
    file: &CheckedFile,
    pickle: &'p Pickle,
    root: PickleValue,
    key: Option<&str>,
) -> Result<&'p DictEntries> {
    let mut found = tensor_dicts(pickle, root);
    if let Some(key) = key {
        let named = found.iter().find(|dict| dict.path == key);
        return named.map(|dict| dict.entries).ok_or_else(|| {
            let (key, found) = (shown(key), list(&found));
            file.wrong(format!("expected a dict of tensors under {key}, found {found}"))
        });
    }
    // beside its network a checkpoint may hold tensors of its own, such as a count
    narrow(&mut found, |dict| dict.is_of_weights);
    narrow(&mut found, |dict| !dict.path.is_empty());
    match &found[..] {
        [one] => Ok(one.entries),
        [] => Err(file.wrong(
            "expected a dict of tensors at some depth, found none; save one with torch.save(model.state_dict(), ...)",
        )),
        _ => Err(file.wrong(format!("expected one dict of tensors, found {}", list(&found)))),
    }
}

/// Keeps those that are `wanted`, where any are.
fn narrow(found: &mut Vec<TensorDict>, wanted: impl Fn(&TensorDict) -> bool) {
    if found.iter().any(&wanted) {
        found.retain(wanted);
    }
}

fn list(found: &[TensorDict]) -> String {
    let name = |TensorDict { path, tensors, .. }: &TensorDict| {
        let name = if path.is_empty() { "the whole file".into() } else { shown(path) };
        format!("{name} ({tensors} tensors)")
    };
    let names = found.iter().take(MAX_NAMED).map(name).collect::<Vec<_>>().join(", ");
    match found.len() {
        0 => "none".into(),
        n if n > MAX_NAMED => format!("{names} and {} more", n - MAX_NAMED),
        _ => names,
    }
}

/// All dicts that hold tensors, but optimizers', in the order of the file.
fn tensor_dicts<'p>(pickle: &'p Pickle, root: PickleValue) -> Vec<TensorDict<'p>> {
    let mut found = Vec::new();
    // a value may stand in several places, and even in itself
    let mut seen = HashSet::new();
    let mut next = vec![(String::new(), root, 0)];
    while let Some((path, value, depth)) = next.pop() {
        let PickleValue::Object(index) = value else {
            continue;
        };
        // an optimizer's state has this entry, by whatever name
        let is_optimizer = pickle.get(value, "param_groups").is_some();
        if depth > MAX_DEPTH || is_optimizer || !seen.insert(index) {
            continue;
        }
        for (key, value) in inner(pickle, value).into_iter().rev() {
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            next.push((path, value, depth + 1));
        }
        if let Some(PickleObject::Dict(entries)) = pickle.object(value) {
            found.extend(tensor_dict(pickle, path, entries));
        }
    }
    found
}

/// The parts of a dict, a list or a tuple, by their keys or indices.
fn inner(pickle: &Pickle, value: PickleValue) -> Vec<(String, PickleValue)> {
    let Some(PickleObject::Dict(entries)) = pickle.object(value) else {
        let parts = pickle.parts(value).unwrap_or_default().iter().enumerate();
        return parts.map(|(i, &value)| (i.to_string(), value)).collect();
    };
    let entry = |&[key, value]: &PicklePair| match key {
        PickleValue::Int(number) => Some((number.to_string(), value)),
        key => Some((pickle.text(key)?.to_string(), value)),
    };
    let entries = entries.iter().filter_map(entry);
    entries.filter(|(key, _)| !key.starts_with(OPTIMIZER)).collect()
}

/// A dict, if it has tensors.
fn tensor_dict<'p>(
    pickle: &'p Pickle,
    path: String,
    entries: &'p DictEntries,
) -> Option<TensorDict<'p>> {
    let tensors = entries.iter().filter_map(|&[_, value]| match pickle.object(value) {
        Some(PickleObject::Tensor(parts)) => Some(pickle.tensor(parts)),
        _ => None,
    });
    let tensors: Vec<_> = tensors.collect();
    let dtypes = tensors.iter().flatten().filter_map(|(storage, _)| read_as(storage.dtype?));
    let is_of_weights = 2 * dtypes.filter(|dtype| dtype.is_float()).count() > entries.len();
    let tensors = tensors.len();
    (tensors > 0).then_some(TensorDict { path, entries, tensors, is_of_weights })
}
