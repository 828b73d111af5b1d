//! Weights in fewer bits: bf16, or bytes with a scale for each output channel.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, View};

use super::checked_file::shown;
use super::listing::{ListedTensor, Listing, TensorInfo, read_as};
use super::safetensors as file_format;
use crate::kernels::step::quantize;
use crate::nn::StepDtype;
use crate::{Error, Result};

/// End of the name of scales, behind the name of their weight.
const SCALE: &str = "_scale";

/// The tensors that reading gives: bytes and their scales as one; an error for bytes without scales.
pub(super) fn with_scales(listing: &Listing) -> Result<Vec<TensorInfo>, String> {
    let by_name: HashMap<&str, _> =
        listing.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut scales = HashSet::new();
    for ListedTensor { name, view, .. } in bytes(listing) {
        let scale = format!("{name}{SCALE}");
        let fits = by_name.get(scale.as_str()).is_some_and(|scale| {
            listing.dtype(scale) == Dtype::F32
                && view.shape.first().is_some_and(|&channels| scale.view.shape == [channels])
        });
        if !fits {
            let (name, shape) = (shown(name), &view.shape);
            return Err(format!(
                "tensor {name}: bytes of shape {shape:?}: expected their scales, F32 and one for each output channel, in {name}{SCALE}"
            ));
        }
        scales.insert(scale);
    }
    let read = listing.tensors.iter().filter(|tensor| !scales.contains(&tensor.name));
    let info = |tensor: &ListedTensor| {
        let (name, shape) = (tensor.name.clone(), tensor.view.shape.clone());
        let stored = listing.dtype(tensor);
        Some(TensorInfo { name, shape, dtype: read_as(stored)?, int8: stored == Dtype::I8 })
    };
    Ok(read.filter_map(info).collect())
}

/// Replaces bytes and scales among `tensors` by their products.
pub(super) fn multiply_scales(
    listing: &Listing,
    tensors: &mut HashMap<String, Tensor>,
) -> Result<(), String> {
    for ListedTensor { name, .. } in bytes(listing) {
        let scale = tensors.remove(&format!("{name}{SCALE}"));
        let (Some(scale), Some(bytes)) = (scale, tensors.get_mut(name)) else {
            continue;
        };
        let wrong = |error: &dyn Display| format!("tensor {}: {error}", shown(name));
        let scale = scale.to_vec1::<f32>().map_err(|error| wrong(&error))?;
        if let Some(scale) = scale.iter().find(|scale| !scale.is_finite()) {
            return Err(wrong(&format!("expected finite scales, found {scale}")));
        }
        *bytes = multiply(bytes, &scale).map_err(|error| wrong(&error))?;
    }
    Ok(())
}

fn bytes(listing: &Listing) -> impl Iterator<Item = &ListedTensor> {
    listing.tensors.iter().filter(|tensor| listing.dtype(tensor) == Dtype::I8)
}

/// `byte[o, …] · scale[o]`, where `bytes` has the bits of signed bytes.
fn multiply(bytes: &Tensor, scale: &[f32]) -> candle_core::Result<Tensor> {
    let shape = bytes.shape();
    let bytes = bytes.flatten_all()?.to_vec1::<u8>()?;
    let mut numbers = Vec::with_capacity(bytes.len());
    let rows = bytes.chunks((bytes.len() / scale.len().max(1)).max(1));
    for (row, scale) in rows.zip(scale) {
        numbers.extend(row.iter().map(|&byte| f32::from(byte.cast_signed()) * scale));
    }
    Tensor::from_vec(numbers, shape, &Device::Cpu)
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
    let mut stored = Vec::new();
    for (name, tensor) in weights {
        let is_vector = tensor.elem_count() == tensor.dim(0).unwrap_or(1);
        let dtype = if is_vector { StepDtype::F32 } else { dtype };
        let as_type = match (tensor.dtype().is_float(), dtype) {
            (false, _) => tensor.dtype(),
            (_, StepDtype::Bf16) => DType::BF16,
            (_, StepDtype::Int8) if name.ends_with(".weight") && !keep(name) => {
                let channels = tensor.dim(0)?;
                let numbers: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                let (numbers, scales) = quantize(&numbers, channels);
                let scales = Tensor::from_vec(scales, channels, &Device::Cpu)?;
                stored.push(bytes_of(format!("{name}{SCALE}"), &scales));
                let bytes = numbers.into_iter().map(i8::cast_unsigned).collect();
                stored.push((name.clone(), Dtype::I8, tensor.dims().to_vec(), bytes));
                continue;
            }
            _ => DType::F32,
        };
        stored.push(bytes_of(name.clone(), &tensor.to_dtype(as_type)?));
    }
    let path = path.as_ref();
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &stored {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        views.push((name, view.map_err(|error| Error::file(path, error.to_string()))?));
    }
    file_format::write(path, views, None)
}

/// Name, type, shape and bytes of a tensor to write.
type StoredBytes = (String, Dtype, Vec<usize>, Vec<u8>);

fn bytes_of(name: String, tensor: &Tensor) -> StoredBytes {
    (name, View::dtype(tensor), tensor.dims().to_vec(), View::data(tensor).into_owned())
}
