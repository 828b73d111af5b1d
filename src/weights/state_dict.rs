//! The dict of tensors in what a training script saved.

use std::collections::HashSet;

use super::pickle::Pickle;
use super::source::{Source, shown};
use super::values::{Object, Value};
use crate::Result;

/// Beginning of the keys under which an optimizer keeps its own tensors.
const OPTIMIZER: &str = "optim";

/// Most dicts that an error names.
const MAX_NAMED: usize = 10;

/// Levels of dicts and lists that are looked into.
const MAX_DEPTH: usize = 16;

/// A dict that holds tensors.
struct Found<'p> {
    /// Keys that lead to it, joined by dots; empty for the whole file.
    path: String,
    entries: &'p [(Value, Value)],
    tensors: usize,
    /// Most of its values are tensors of floats, unlike what callbacks and random generators keep.
    is_of_weights: bool,
}

/// The entries of the one dict of tensors in `root`, or of the one under `key`.
pub(super) fn state_dict<'p>(
    source: &Source,
    pickle: &'p Pickle,
    root: Value,
    key: Option<&str>,
) -> Result<&'p [(Value, Value)]> {
    let found = find(pickle, root);
    if let Some(key) = key {
        return match found.iter().find(|dict| dict.path == key) {
            Some(dict) => Ok(dict.entries),
            None => Err(source.wrong(format!(
                "expected a dict of tensors under {}, found {}",
                shown(key),
                list(&found)
            ))),
        };
    }
    // beside its network a checkpoint may hold tensors of its own, such as a count
    let inner = narrowed(found, |dict| dict.is_of_weights);
    let inner = narrowed(inner, |dict| !dict.path.is_empty());
    match &inner[..] {
        [one] => Ok(one.entries),
        [] => Err(source.wrong(
            "expected a dict of tensors at some depth, found none; save one with torch.save(model.state_dict(), ...)",
        )),
        _ => Err(source.wrong(format!(
            "expected one dict of tensors, found {}; --key chooses one",
            list(&inner)
        ))),
    }
}

/// Those that `wanted` says, where it says any.
fn narrowed<'p>(found: Vec<Found<'p>>, wanted: impl Fn(&Found) -> bool) -> Vec<Found<'p>> {
    match found.iter().any(&wanted) {
        true => found.into_iter().filter(wanted).collect(),
        false => found,
    }
}

fn list(found: &[Found]) -> String {
    let name = |dict: &Found| match dict.path.as_str() {
        "" => format!("the whole file ({} tensors)", dict.tensors),
        path => format!("{} ({} tensors)", shown(path), dict.tensors),
    };
    let names: Vec<_> = found.iter().take(MAX_NAMED).map(name).collect();
    match found.len() {
        0 => "none".to_string(),
        n if n > MAX_NAMED => format!("{} and {} more", names.join(", "), n - MAX_NAMED),
        _ => names.join(", "),
    }
}

/// All dicts that hold tensors, but optimizers', in the order of the file.
fn find<'p>(pickle: &'p Pickle, root: Value) -> Vec<Found<'p>> {
    let mut found = Vec::new();
    // a value may stand in several places, and even in itself
    let mut seen = HashSet::new();
    let mut next = vec![(String::new(), root, 0)];
    while let Some((path, value, depth)) = next.pop() {
        let Value::Object(index) = value else {
            continue;
        };
        if depth > MAX_DEPTH || !seen.insert(index) {
            continue;
        }
        let below = |key: String| match path.as_str() {
            "" => key,
            path => format!("{path}.{key}"),
        };
        match pickle.object(value) {
            // an optimizer's state, by whatever name
            Some(Object::Dict(_)) if pickle.get(value, "param_groups").is_some() => {}
            Some(Object::Dict(entries)) => {
                for &(key, value) in entries.iter().rev() {
                    let key = match key {
                        Value::Int(number) => Some(number.to_string()),
                        key => pickle.text(key).map(String::from),
                    };
                    if let Some(key) = key.filter(|key| !key.starts_with(OPTIMIZER)) {
                        next.push((below(key), value, depth + 1));
                    }
                }
                let tensors = entries.iter().filter_map(|&(_, value)| match pickle.object(value) {
                    Some(Object::Tensor(parts)) => Some(pickle.tensor(parts)),
                    _ => None,
                });
                let (mut count, mut floats) = (0, 0);
                for tensor in tensors {
                    count += 1;
                    floats += usize::from(tensor.is_ok_and(|(storage, _)| storage.kind.is_float()));
                }
                if count > 0 {
                    found.push(Found {
                        path,
                        entries,
                        tensors: count,
                        is_of_weights: 2 * floats > entries.len(),
                    });
                }
            }
            Some(Object::List(parts) | Object::Tuple(parts)) => {
                for (i, &value) in parts.iter().enumerate().rev() {
                    next.push((below(i.to_string()), value, depth + 1));
                }
            }
            _ => {}
        }
    }
    found
}
