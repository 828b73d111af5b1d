//! Weight norm folded into the weights that it gives.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use crate::{Error, Result, ops};

/// Replaces every pair `*.weight_g`, `*.weight_v` by the `*.weight` that applies, `g·v/‖v‖`.
///
/// # Errors
/// [`Error::Tensor`] for one without the other.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{Device, Tensor};
/// use candle_tcn::files::fold_weight_norm;
///
/// let mut weights = HashMap::from([
///     ("conv.weight_v".to_string(), Tensor::new(&[[[3f32], [4.]]], &Device::Cpu)?),
///     ("conv.weight_g".to_string(), Tensor::new(&[[[10f32]]], &Device::Cpu)?),
/// ]);
/// fold_weight_norm(&mut weights)?;
/// assert_eq!(weights["conv.weight"].flatten_all()?.to_vec1::<f32>()?, [6., 8.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn fold_weight_norm(weights: &mut HashMap<String, Tensor>) -> Result<()> {
    let layers: Vec<String> =
        weights.keys().filter_map(|name| name.strip_suffix("weight_g").map(String::from)).collect();
    for layer in layers {
        let mut take = |name: &str| weights.remove(&format!("{layer}{name}"));
        let (Some(g), Some(v)) = (take("weight_g"), take("weight_v")) else {
            let expected = "the directions that weight_g belongs to";
            return Err(Error::tensor(format!("{layer}weight_v"), expected, "no such tensor"));
        };
        // a norm of sixteen bits would lose half of them
        let [v, g] = [v, g].map(|t| match t.dtype() {
            DType::F16 | DType::BF16 => t.to_dtype(DType::F32),
            _ => Ok(t),
        });
        weights.insert(format!("{layer}weight"), ops::weight_norm(&v?, &g?)?.detach());
    }
    Ok(())
}
