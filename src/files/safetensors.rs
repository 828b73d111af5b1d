//! Safetensors files: the one reader of their headers, and the one writer.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use safetensors::View;
use safetensors::tensor::{Metadata, TensorInfo};

use super::checked_file::{CheckedFile, little_endian, shown};
use super::listing::{ListedTensor, Listing, MAX_RANK, Storage, StridedView, bytes_of, read_as};
use super::names::MAX_HEADER_BYTES;
use super::replacement::write_atomic;
use super::unique_names::UniqueNames;
use crate::{Error, Result};

const CUT: &str = "not a whole safetensors file";

/// `true` if a file that starts so is meant to be a safetensors file: a length, then a JSON object.
pub(super) fn is_start(start: &[u8]) -> bool {
    start.get(8) == Some(&b'{')
}

/// The header of a safetensors file, which agrees with itself.
pub(crate) struct Header {
    /// Names and descriptions of the tensors, in the order of their numbers.
    pub tensors: Vec<(String, TensorInfo)>,
    metadata: Vec<(String, String)>,
    /// Bytes of the JSON object.
    length: u64,
    /// Bytes of all numbers.
    data: u64,
}

impl Header {
    /// Reads the header; the numbers behind it need not be whole.
    pub(crate) fn read(file: &CheckedFile) -> Result<Self> {
        let length = little_endian(&file.bytes(CUT, 0, 8)?);
        file.require((2..=MAX_HEADER_BYTES).contains(&length), || {
            format!(
                "{CUT}: expected a header of 2 to {MAX_HEADER_BYTES} bytes, found one of {length}"
            )
        })?;
        let json = file.bytes(&format!("{CUT}: its header"), 8, length)?;
        let UniqueNames { entries: mut tensors, metadata } = serde_json::from_slice(&json)
            .map_err(|error| file.wrong(format!("{CUT}: its header: {error}")))?;
        tensors.sort_by_key(|(_, info): &(String, TensorInfo)| info.data_offsets);
        let checked = Metadata::new(None, tensors.clone())
            .map_err(|error| file.wrong(format!("{CUT}: {error}")))?;
        Ok(Self { tensors, metadata, length, data: checked.data_len() as u64 })
    }

    /// A text of the metadata.
    pub(crate) fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(found, _)| found == name).map(|(_, text)| text.as_str())
    }

    /// Bytes that the whole file has. Saturates: no file is so long.
    pub(crate) fn file_bytes(&self) -> u64 {
        (8 + self.length).saturating_add(self.data)
    }

    /// The tensors of the file, which is as long as the header says.
    pub(super) fn list(self, file: &CheckedFile) -> Result<Listing> {
        file.require(self.file_bytes() == file.len(), || {
            let (header, data, found) = (self.length, self.data, file.len());
            format!("{CUT}: expected 8 + {header} + {data} bytes, found {found}")
        })?;
        let mut listing = Listing::default();
        for (name, info) in self.tensors {
            let (storage, view) = locate(info, 8 + self.length)
                .map_err(|message| file.wrong(format!("tensor {}: {message}", shown(&name))))?;
            listing.tensors.push(ListedTensor { name, storage: listing.storages.len(), view });
            listing.storages.push(storage);
        }
        add_shared(&mut listing, self.metadata);
        Ok(listing)
    }

    /// Reads the tensors of the file as they are stored.
    pub(crate) fn read_tensors(self, file: &CheckedFile) -> Result<HashMap<String, Tensor>> {
        self.list(file)?.read(file)
    }
}

/// Adds the names that `safetensors.torch.save_model` leaves out: of tensors that are shared it keeps one, and
/// the metadata say which one stands for another.
fn add_shared(listing: &mut Listing, shared: Vec<(String, String)>) {
    let kept = listing.tensors.iter().enumerate();
    let kept: HashMap<String, usize> = kept.map(|(i, tensor)| (tensor.name.clone(), i)).collect();
    for (name, stands_for_it) in shared {
        if let (None, Some(&i)) = (kept.get(&name), kept.get(&stands_for_it)) {
            listing.tensors.push(ListedTensor { name, ..listing.tensors[i].clone() });
        }
    }
}

/// Storage and view of a tensor whose offsets count from byte `data` of the file.
fn locate(info: TensorInfo, data: u64) -> Result<(Storage, StridedView), String> {
    let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
    if read_as(dtype).is_none() {
        return Err(format!("expected floats or whole numbers, found {dtype:?}"));
    }
    if shape.len() > MAX_RANK {
        return Err(format!("expected at most {MAX_RANK} axes, found {}", shape.len()));
    }
    let count = (end - start) / bytes_of(dtype, 1) as usize;
    let storage = Storage { dtype, start: data + start as u64, count, crc: None };
    Ok((storage, StridedView::whole(shape, count)?))
}

/// Writes a safetensors file, whole or not at all. The same tensors give the same bytes.
///
/// # Errors
/// [`Error::Io`] naming the file; what stood there before then stays.
pub fn write_tensors(path: impl AsRef<Path>, tensors: &HashMap<String, Tensor>) -> Result<()> {
    write(path.as_ref(), tensors, None)
}

/// Writes tensors as [`write_tensors`] does, with one pair in the metadata: `pair`, else the format. Only one,
/// because the order of several would not be the same every time.
pub(crate) fn write<N: AsRef<str> + Ord + std::fmt::Display, V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (N, V)>,
    pair: Option<(&str, &str)>,
) -> Result<()> {
    let format = concat!("candle-tcn ", env!("CARGO_PKG_VERSION"));
    let (name, value) = pair.unwrap_or(("format", format));
    let metadata = HashMap::from([(name.to_string(), value.to_string())]);
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|e| Error::file(path, format!("the tensors cannot be written: {e}")))?;
    write_atomic(path, |file| file.write_all(&bytes))
}
