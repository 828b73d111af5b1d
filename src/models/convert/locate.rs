//! The place of a network in a state dict: under `module.`, `_orig_mod.`, `self.tcn`, ….

use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::{DType, Tensor};

use super::{Arguments, Tensors};
use crate::{Error, Result};

/// Beginnings of a tensor's name in networks that are known.
const NETWORKS: [&str; 4] = ["encoder.weight", "network.0.", "tcn.network.0.", "embedder."];

/// Names of a weight in a layer that stands alone.
const LAYERS: [&str; 2] = ["weight", "weight_v"];

/// Most places that are tried.
const MAX_PLACES: usize = 256;

/// The tensors with weight norm under its older names.
///
/// # Errors
/// [`Error::Tensor`] where both names of one tensor are there with different numbers.
pub(super) fn plain_names(tensors: HashMap<String, Tensor>) -> Result<Tensors> {
    renamed(tensors.into_iter().collect(), |name| {
        name.replace(".parametrizations.weight.original0", ".weight_g")
            .replace(".parametrizations.weight.original1", ".weight_v")
    })
}

/// The tensors under other names; those that get the same name must hold the same numbers.
pub(super) fn renamed(tensors: Tensors, name: impl Fn(&str) -> String) -> Result<Tensors> {
    let mut renamed: BTreeMap<String, (String, Tensor)> = BTreeMap::new();
    for (original, tensor) in tensors {
        let name = name(&original);
        if let Some((other, same)) = renamed.get(&name)
            && !same_numbers(&tensor, same)?
        {
            let expected = format!("the numbers of {other}, which is the same tensor");
            return Err(Error::tensor(original, expected, "others"));
        }
        renamed.insert(name, (original, tensor));
    }
    Ok(renamed.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

/// `true` if all numbers are the same, a NaN like a NaN.
pub(super) fn same_numbers(a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        return Ok(false);
    }
    let numbers = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let pairs = numbers(a)?.into_iter().zip(numbers(b)?);
    Ok(pairs.into_iter().all(|(a, b)| a == b || (a.is_nan() && b.is_nan())))
}

/// The prefixes under which a network may stand, the shortest first.
pub(super) fn places(tensors: &Tensors, arguments: &Arguments) -> Vec<String> {
    let mut places = BTreeSet::new();
    for name in tensors.keys() {
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
        let is_network = |start: &usize| {
            let rest = &name[*start..];
            NETWORKS.iter().any(|network| rest.starts_with(network))
                || arguments.has("in_channels") && LAYERS.contains(&rest)
        };
        places.extend(starts.filter(is_network).map(|start| (start, &name[..start])));
    }
    places.into_iter().take(MAX_PLACES).map(|(_, place)| place.to_string()).collect()
}

/// The tensors under a prefix, without it, and how many are not.
pub(super) fn under(tensors: &Tensors, prefix: &str) -> (Tensors, Vec<String>) {
    let mut inside = Tensors::new();
    let mut outside = Vec::new();
    for (name, tensor) in tensors {
        match name.strip_prefix(prefix) {
            Some(rest) => drop(inside.insert(rest.to_string(), tensor.clone())),
            None => outside.push(name.clone()),
        }
    }
    (inside, outside)
}
