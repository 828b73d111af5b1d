//! Weights as they are stored: with their norms folded, in fewer bits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, View};

use crate::files::write_atomic;
use crate::kernels::step::quantize;
use crate::nn::StepDtype;
use crate::ops;
use crate::{Error, Result};

/// What follows the name of a weight of whole numbers in the name of its scales.
pub const SCALE: &str = "_scale";

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
/// use candle_tcn::store::fold_weight_norm;
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
    let lengths: Vec<String> =
        weights.keys().filter_map(|name| name.strip_suffix("weight_g").map(String::from)).collect();
    for layer in lengths {
        let part = |name: &str| format!("{layer}{name}");
        let (g, v) = (weights.remove(&part("weight_g")), weights.remove(&part("weight_v")));
        let (Some(g), Some(v)) = (g, v) else {
            return Err(Error::Tensor {
                name: part("weight_v"),
                expected: "the directions that weight_g belongs to".into(),
                found: "no such tensor".into(),
            });
        };
        // a norm of sixteen bits would lose half of them
        let [v, g] = [v, g].map(|t| match t.dtype() {
            DType::F16 | DType::BF16 => t.to_dtype(DType::F32),
            _ => Ok(t),
        });
        weights.insert(part("weight"), ops::weight_norm(&v?, &g?)?.detach());
    }
    Ok(())
}

/// Writes `model.safetensors` of matrices and kernels of this type; vectors stay `f32`.
///
/// Of `int8`, each `*.weight` is a tensor of whole numbers (I8) beside `*.weight_scale` (out_channels, F32),
/// `weight[o, …] = number · scale[o]`, as [`StepDtype::Int8`] computes with it; but for the tensors that
/// `keep` names, such as an embedding, which stay `f32`.
///
/// # Errors
/// [`Error::Io`] naming the file; what stood there before then stays.
pub fn write_weights(
    path: impl AsRef<Path>,
    weights: &HashMap<String, Tensor>,
    dtype: StepDtype,
    keep: impl Fn(&str) -> bool,
) -> Result<()> {
    let path = path.as_ref();
    let mut stored = HashMap::new();
    for (name, tensor) in weights {
        let vector = tensor.elem_count() == tensor.dim(0).unwrap_or(1);
        if vector || !tensor.dtype().is_float() {
            stored.insert(name.clone(), Stored::new(tensor, DType::F32)?);
            continue;
        }
        match dtype {
            StepDtype::Bf16 => stored.insert(name.clone(), Stored::new(tensor, DType::BF16)?),
            StepDtype::Int8 if name.ends_with(".weight") && !keep(name) => {
                let numbers: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                let (numbers, scales) = quantize(&numbers, tensor.dim(0)?);
                let scales = Tensor::from_vec(scales, tensor.dim(0)?, tensor.device())?;
                stored.insert(format!("{name}{SCALE}"), Stored::new(&scales, DType::F32)?);
                let numbers = Stored {
                    dtype: Dtype::I8,
                    shape: tensor.dims().to_vec(),
                    data: numbers.into_iter().map(i8::cast_unsigned).collect(),
                };
                stored.insert(name.clone(), numbers)
            }
            StepDtype::F32 | StepDtype::Int8 => {
                stored.insert(name.clone(), Stored::new(tensor, DType::F32)?)
            }
        };
    }
    let format = concat!("candle-tcn ", env!("CARGO_PKG_VERSION"));
    let metadata = HashMap::from([("format".to_string(), format.to_string())]);
    let bytes = safetensors::serialize(stored, Some(metadata))
        .map_err(|e| Error::file(path, format!("the tensors cannot be written: {e}")))?;
    write_atomic(path, |file| std::io::Write::write_all(file, &bytes))
}

/// A tensor of a file, of a type that candle need not have.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Stored {
    /// `tensor`, a float of this type; whole numbers stay as they are.
    fn new(tensor: &Tensor, dtype: DType) -> Result<Self> {
        let tensor = match tensor.dtype().is_float() {
            true => tensor.to_dtype(dtype)?,
            false => tensor.clone(),
        };
        Ok(Self {
            dtype: View::dtype(&tensor),
            shape: tensor.dims().to_vec(),
            data: View::data(&tensor).into_owned(),
        })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}
