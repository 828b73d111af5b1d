//! Weights for a vocabulary that has grown.

use std::collections::HashMap;

use candle_core::Tensor;

use super::ModelConfig;
use crate::{Error, Result};

/// The weights of a model with rows for as many more tokens as `config` has than `weights` are for: in the
/// embedding, the output layer and its bias, each the mean of the old rows, so that no new token begins as a
/// likely one. Tied matrices are one tensor and grow once.
///
/// # Errors
/// [`Error::Tensor`] for a tensor that is missing, or that differs in more than one size, or has more rows.
///
/// # Example
///
/// ```
/// use candle_tcn::models::{directory::ModelFiles, extend_vocabulary};
///
/// let files = ModelFiles::read("models/kjv-tiny")?;
/// let size = files.config.vocab_size() + 2;
/// let weights = extend_vocabulary(&files.config.with_vocab_size(size), &files.weights)?;
/// assert!(weights.values().any(|tensor| tensor.dims()[0] == size));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn extend_vocabulary(
    config: &ModelConfig,
    weights: &HashMap<String, Tensor>,
) -> Result<HashMap<String, Tensor>> {
    let mut extended = HashMap::new();
    for parameter in config.graph()?.parameters() {
        let (name, shape) = (&parameter.name, &parameter.shape);
        let wrong = |found: String| Error::tensor(name, format!("{shape:?}"), found);
        let tensor = weights.get(name).ok_or_else(|| wrong("no such tensor".into()))?;
        let found = tensor.dims();
        let sizes = || shape.iter().zip(found).enumerate();
        let grown: Vec<usize> =
            sizes().filter(|(_, (a, b))| a != b).map(|(axis, _)| axis).collect();
        let tensor = match grown[..] {
            _ if shape.len() != found.len() => return Err(wrong(format!("{found:?}"))),
            [] => tensor.clone(),
            [axis] if shape[axis] > found[axis] => {
                let mean = tensor.mean_keepdim(axis)?;
                let rows = vec![&mean; shape[axis] - found[axis]];
                Tensor::cat(&[&[tensor], &rows[..]].concat(), axis)?
            }
            _ => return Err(wrong(format!("{found:?}"))),
        };
        extended.insert(name.clone(), tensor);
    }
    Ok(extended)
}
