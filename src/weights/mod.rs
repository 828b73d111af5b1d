//! Weights as they are published: safetensors and PyTorch's pickles, whole or in several files.
//!
//! | file | read as |
//! |---|---|
//! | `*.safetensors` | safetensors; bytes beside scales (`weight`, `weight_scale`) become floats |
//! | `*.bin`, `*.pt`, `*.pth` | what `torch.save` writes, today's zip archive or the format before PyTorch 1.6 |
//! | `*.index.json` | an index with its files |
//!
//! The first two are told apart by their content. Of a PyTorch file the tensors are those of the one dict that
//! holds tensors, at any depth (`state_dict`, `net.model`, …; an optimizer's do not count); [`open_key`] chooses
//! where there are several. What is no tensor there is left out. Of a safetensors file, the names that
//! `safetensors.torch.save_model` left out for tensors that are shared are there again. **Nothing in a file is run**: a pickle that names anything but what tensors
//! are made of is an error.
//!
//! A file is checked whole before any of its numbers are read: [`open`] lists its tensors, and
//! [`WeightsFile::read`] reads each into a buffer of its own.

mod globals;
pub(crate) mod index;
mod json;
mod numbers;
mod other;
mod pickle;
mod safetensors;
mod source;
mod state_dict;
mod torch;
mod values;
mod zip;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};
use numbers::{Kind, Listing};
use source::Source;
pub(crate) use source::shown;

/// The files that a model directory may keep its weights in, in the order in which they are looked for.
pub const FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// What a scale's name has behind that of its weights.
const SCALE: &str = "_scale";

/// The tensors of a file.
#[derive(Debug, Clone)]
pub struct Weights {
    /// By name.
    pub tensors: HashMap<String, Tensor>,
    /// Whether any were stored as bytes and scales.
    pub int8: bool,
}

/// What is known of a tensor before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its dotted name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type it is read as: booleans as bytes, `U16` as `U32`, bytes with scales as `F32`.
    pub dtype: DType,
    /// Whether it is stored as bytes and scales.
    pub int8: bool,
}

/// A file of weights, or an index with its files, whose numbers are not read yet.
#[derive(Debug)]
pub struct WeightsFile {
    parts: Vec<Part>,
    tensors: Vec<TensorInfo>,
}

#[derive(Debug)]
struct Part {
    source: Source,
    listing: Listing,
}

/// The weights of a model directory: the first of [`FILES`] that is there.
///
/// # Errors
/// [`Error::File`] naming the folder where there is none.
///
/// # Example
///
/// ```
/// let path = candle_tcn::weights::find("models/kjv-tiny")?;
/// assert!(path.ends_with("model.safetensors"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn find(dir: impl AsRef<Path>) -> Result<PathBuf> {
    let dir = dir.as_ref();
    let found = FILES.iter().map(|name| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        Error::file(dir, format!("expected weights in it ({}), found none", FILES.join(", ")))
    })
}

/// Reads a file of weights, or an index with its files.
///
/// # Errors
/// As [`open`] and [`WeightsFile::read`].
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{Device, Tensor};
/// use candle_tcn::{model_dir, weights};
///
/// let dir = tempfile::tempdir().expect("a temporary folder");
/// let path = dir.path().join("a.safetensors");
/// let one = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// model_dir::write_tensors(&path, &HashMap::from([("decoder.weight".to_string(), one)]))?;
/// let weights = weights::read(&path)?;
/// assert_eq!(weights.tensors["decoder.weight"].to_vec2::<f32>()?, [[1., 2.], [3., 4.]]);
/// assert!(!weights.int8);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn read(path: impl AsRef<Path>) -> Result<Weights> {
    open(path)?.read()
}

/// As [`open`], of a PyTorch file with several dicts of tensors the one under `key`, such as `ema.model`.
///
/// # Errors
/// As [`open`]; [`Error::File`] where there is no such dict.
pub fn open_key(path: impl AsRef<Path>, key: &str) -> Result<WeightsFile> {
    open_file(path.as_ref(), Some(key))
}

/// Refuses weights that are not finite: nothing that is computed with them means anything.
///
/// # Errors
/// [`Error::Tensor`] naming the first tensor, in the order of the names, that holds a NaN or an infinity.
pub fn check_finite(tensors: &HashMap<String, Tensor>) -> Result<()> {
    let mut names: Vec<_> = tensors.keys().collect();
    names.sort();
    for name in names {
        let tensor = &tensors[name];
        if !tensor.dtype().is_float() {
            continue;
        }
        let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(bad) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(Error::Tensor {
                name: shown(name),
                expected: "finite numbers".into(),
                found: bad.to_string(),
            });
        }
    }
    Ok(())
}

/// Lists the tensors of a file of weights, or of an index with its files; their numbers are not read.
///
/// A file of an index has exactly the tensors that the index says are there.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file: where it is cut or damaged, is none of the formats,
/// holds what cannot be read, or names a program to run.
///
/// # Example
///
/// ```
/// let file = candle_tcn::weights::open("models/kjv-tiny/model.safetensors")?;
/// let parameters: usize = file.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
/// assert!(parameters > 100_000);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn open(path: impl AsRef<Path>) -> Result<WeightsFile> {
    open_file(path.as_ref(), None)
}

fn open_file(path: &Path, key: Option<&str>) -> Result<WeightsFile> {
    let mut file = WeightsFile { parts: Vec::new(), tensors: Vec::new() };
    if path.extension().is_none_or(|extension| extension != "json") {
        file.add(path, key)?;
        return Ok(file);
    }
    for (shard, names) in index::read(path)? {
        let shard = path.with_file_name(shard);
        let new = file.add(&shard, key)?;
        let mut missing: HashSet<&str> = names.iter().map(String::as_str).collect();
        let extra = new.iter().find(|tensor| !missing.remove(tensor.name.as_str()));
        if let Some(tensor) = extra {
            let message =
                format!("tensor {}: by the index it is not in this file", shown(&tensor.name));
            return Err(Error::file(shard, message));
        }
        if let Some(name) = missing.iter().min() {
            let message =
                format!("tensor {}: by the index it is in this file, but it is not", shown(name));
            return Err(Error::file(shard, message));
        }
    }
    Ok(file)
}

impl WeightsFile {
    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The files that the tensors lie in.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.source.path())
    }

    /// Whether any are stored as bytes and scales.
    pub fn is_int8(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.int8)
    }

    /// Reads all tensors. Bytes with scales become `weight[o, …] = byte[o, …] · scale[o]`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file; [`Error::TooLarge`] where there is not so much
    /// memory.
    pub fn read(self) -> Result<Weights> {
        let int8 = self.is_int8();
        let mut tensors = HashMap::with_capacity(self.tensors.len());
        for part in &self.parts {
            part.listing.read(&part.source, |name, tensor| {
                tensors.insert(name.to_string(), tensor);
            })?;
            let bytes =
                part.listing.entries.iter().filter(|entry| part.kind(entry.storage) == Kind::I8);
            for entry in bytes {
                let scale = tensors.remove(&format!("{}{SCALE}", entry.name));
                if let (Some(scale), Some(bytes)) = (scale, tensors.get_mut(&entry.name)) {
                    *bytes = dequantize(bytes, &scale).map_err(|message| {
                        part.source.wrong(format!("tensor {}: {message}", shown(&entry.name)))
                    })?;
                }
            }
        }
        Ok(Weights { tensors, int8 })
    }

    /// Lists one file, whose tensors are returned.
    fn add(&mut self, path: &Path, key: Option<&str>) -> Result<&[TensorInfo]> {
        let source = Source::open(path)?;
        let start = source.bytes("its start", 0, source.len().min(512))?;
        let listing = if safetensors::is_start(&start) {
            match key {
                None => safetensors::list(&source),
                Some(key) => Err(source.wrong(format!(
                    "expected a PyTorch file to choose {key} from, found safetensors, which has no parts"
                ))),
            }
        } else if torch::is_zip(&start) {
            torch::list_zip(&source, key)
        } else if torch::is_pickle(&start) {
            torch::list_pickles(&source, key)
        } else if let Some(kind) = other::recognize(&start, path) {
            Err(source.wrong(format!("expected weights, found {kind}")))
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            safetensors::list(&source)
        } else {
            Err(source
                .wrong("expected a safetensors file or one that torch.save writes, found neither"))
        }?;
        let before = self.tensors.len();
        let part = Part { source, listing };
        self.tensors.extend(part.tensors()?);
        self.parts.push(part);
        Ok(&self.tensors[before..])
    }
}

impl Part {
    fn kind(&self, storage: usize) -> Kind {
        self.listing.storages[storage].kind
    }

    /// The tensors that will be read: bytes and their scales as one.
    fn tensors(&self) -> Result<Vec<TensorInfo>> {
        let entries = &self.listing.entries;
        let by_name: HashMap<&str, _> =
            entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let bytes = entries.iter().filter(|entry| self.kind(entry.storage) == Kind::I8);
        let mut scales = HashSet::new();
        for entry in bytes {
            let name = format!("{}{SCALE}", entry.name);
            let fits = by_name.get(name.as_str()).is_some_and(|scale| {
                self.kind(scale.storage) == Kind::F32
                    && entry.view.shape.first().is_some_and(|&o| scale.view.shape == [o])
            });
            if !fits {
                return Err(self.source.wrong(format!(
                    "tensor {}: bytes of shape {:?}: expected their scales, F32 and one for each output channel, in {}{SCALE}",
                    shown(&entry.name),
                    entry.view.shape,
                    shown(&entry.name)
                )));
            }
            scales.insert(name);
        }
        let read = entries.iter().filter(|entry| !scales.contains(&entry.name));
        let info = |entry: &numbers::Entry| {
            let kind = self.kind(entry.storage);
            Some(TensorInfo {
                name: entry.name.clone(),
                shape: entry.view.shape.clone(),
                dtype: kind.dtype()?,
                int8: kind == Kind::I8,
            })
        };
        Ok(read.filter_map(info).collect())
    }
}

/// `byte[o, …] · scale[o]`, where `bytes` has the bits of signed bytes.
fn dequantize(bytes: &Tensor, scale: &Tensor) -> std::result::Result<Tensor, String> {
    let failed = |error: candle_core::Error| error.to_string();
    let scale = scale.to_vec1::<f32>().map_err(failed)?;
    if let Some(scale) = scale.iter().find(|scale| !scale.is_finite()) {
        return Err(format!("expected finite scales, found {scale}"));
    }
    let shape = bytes.shape().clone();
    let bytes = bytes.flatten_all().and_then(|bytes| bytes.to_vec1::<u8>()).map_err(failed)?;
    let mut numbers = Vec::with_capacity(bytes.len());
    let rows = bytes.chunks((bytes.len() / scale.len().max(1)).max(1));
    for (row, scale) in rows.zip(scale) {
        numbers.extend(row.iter().map(|&byte| f32::from(byte.cast_signed()) * scale));
    }
    Tensor::from_vec(numbers, shape, &Device::Cpu).map_err(failed)
}
