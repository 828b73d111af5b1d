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
//! where there are several. Other values there are left out. Of a safetensors file, the names that
//! `safetensors.torch.save_model` left out for tensors that are shared are there again. **Nothing in a file is
//! run**: a pickle that names anything but the parts of tensors is an error.
//!
//! A file is checked whole before any of its numbers are read: [`open`] lists its tensors, and
//! [`WeightsFile::read`] reads each into a buffer of its own.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};

use super::checked_file::{CheckedFile, shown};
use super::listing::Listing;
pub use super::listing::TensorInfo;
use super::names::WEIGHTS_FILES;
use super::safetensors::{self, Header};
use super::{int8, not_weights, shards, torch};
use crate::{Error, Result};

/// The tensors of a file.
#[derive(Debug, Clone)]
pub struct Weights {
    /// By name.
    pub tensors: HashMap<String, Tensor>,
    /// `true` if any were stored as bytes and scales.
    pub int8: bool,
}

/// A file of weights, or an index with its files, whose numbers are not read yet.
#[derive(Debug)]
pub struct WeightsFile {
    parts: Vec<(CheckedFile, Listing)>,
    tensors: Vec<TensorInfo>,
}

/// The weights of a model directory: the first of [`WEIGHTS_FILES`] that is there.
///
/// # Errors
/// [`Error::File`] naming the folder where there is none.
///
/// # Example
///
/// ```
/// let path = candle_tcn::files::weights::find("models/kjv-tiny")?;
/// assert!(path.ends_with("model.safetensors"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn find(dir: impl AsRef<Path>) -> Result<PathBuf> {
    let dir = dir.as_ref();
    let found = WEIGHTS_FILES.iter().map(|name| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        let names = WEIGHTS_FILES.join(", ");
        Error::file(dir, format!("expected weights in it ({names}), found none"))
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
/// use candle_tcn::files::{weights, write_tensors};
///
/// let dir = tempfile::tempdir().expect("a temporary folder");
/// let path = dir.path().join("a.safetensors");
/// let one = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// write_tensors(&path, &HashMap::from([("decoder.weight".to_string(), one)]))?;
/// let weights = weights::read(&path)?;
/// assert_eq!(weights.tensors["decoder.weight"].to_vec2::<f32>()?, [[1., 2.], [3., 4.]]);
/// assert!(!weights.int8);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn read(path: impl AsRef<Path>) -> Result<Weights> {
    open(path)?.read()
}

/// Lists the tensors of a file of weights, or of an index with its files; their numbers are not read.
///
/// A file of an index has exactly the tensors that the index names for it.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file: where it is cut or damaged, is none of the formats,
/// holds what cannot be read, or names a program to run.
///
/// # Example
///
/// ```
/// let file = candle_tcn::files::weights::open("models/kjv-tiny/model.safetensors")?;
/// let parameters: usize = file.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
/// assert!(parameters > 100_000);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn open(path: impl AsRef<Path>) -> Result<WeightsFile> {
    open_file(path.as_ref(), None)
}

/// As [`open`], of a PyTorch file with several dicts of tensors the one under `key`, such as `ema.model`.
///
/// # Errors
/// As [`open`]; [`Error::File`] where there is no such dict.
pub fn open_key(path: impl AsRef<Path>, key: &str) -> Result<WeightsFile> {
    open_file(path.as_ref(), Some(key))
}

/// As [`open`], of bytes in memory, such as those compiled into a program.
pub(crate) fn open_bytes(name: &Path, bytes: &[u8]) -> Result<WeightsFile> {
    let mut weights = WeightsFile { parts: Vec::new(), tensors: Vec::new() };
    weights.add(CheckedFile::in_memory(name, bytes), None)?;
    Ok(weights)
}

fn open_file(path: &Path, key: Option<&str>) -> Result<WeightsFile> {
    let mut weights = WeightsFile { parts: Vec::new(), tensors: Vec::new() };
    if path.extension().is_none_or(|extension| extension != "json") {
        weights.add(CheckedFile::open(path)?, key)?;
        return Ok(weights);
    }
    for (shard, names) in shards::read_index(path)? {
        let shard = path.with_file_name(shard);
        let found = weights.add(CheckedFile::open(&shard)?, key)?;
        let mut missing: BTreeSet<String> = names.into_iter().collect();
        let extra = found.iter().find(|tensor| !missing.remove(&tensor.name));
        let (name, fault) = match (extra, missing.first()) {
            (Some(tensor), _) => (&tensor.name, "it is not in this file"),
            (None, Some(name)) => (name, "it is in this file, but it is not"),
            (None, None) => continue,
        };
        return Err(Error::file(shard, format!("tensor {}: by the index {fault}", shown(name))));
    }
    Ok(weights)
}

impl WeightsFile {
    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The files that the tensors lie in.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|(file, _)| file.path())
    }

    /// `true` if any are stored as bytes and scales.
    pub fn is_int8(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.int8)
    }

    /// Reads all tensors. Bytes with scales become `weight[o, …] = byte[o, …] · scale[o]`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file; [`Error::TooLarge`] where there is not so much
    /// memory.
    pub fn read(self) -> Result<Weights> {
        let mut tensors = HashMap::with_capacity(self.tensors.len());
        for (file, listing) in &self.parts {
            let mut part = listing.read(file)?;
            int8::multiply_scales(listing, &mut part).map_err(|message| file.wrong(message))?;
            tensors.extend(part);
        }
        Ok(Weights { tensors, int8: self.is_int8() })
    }

    /// Lists one file, whose tensors are returned.
    fn add(&mut self, file: CheckedFile, key: Option<&str>) -> Result<&[TensorInfo]> {
        let listing = list(&file, key)?;
        let before = self.tensors.len();
        self.tensors.extend(int8::with_scales(&listing).map_err(|message| file.wrong(message))?);
        self.parts.push((file, listing));
        Ok(&self.tensors[before..])
    }
}

/// Lists the tensors of one file by its format.
fn list(file: &CheckedFile, key: Option<&str>) -> Result<Listing> {
    let start = file.bytes("its start", 0, file.len().min(512))?;
    if safetensors::is_start(&start) {
        match key {
            None => Header::read(file)?.list(file),
            Some(key) => Err(file.wrong(format!(
                "expected a PyTorch file to choose {key} from, found safetensors, which has no parts"
            ))),
        }
    } else if torch::is_zip(&start) {
        torch::list_zip(file, key)
    } else if torch::is_pickle(&start) {
        torch::list_pickles(file, key)
    } else if let Some(kind) = not_weights::recognize(&start, file.path()) {
        Err(file.wrong(format!("expected weights, found {kind}")))
    } else if file.path().extension().is_some_and(|extension| extension == "safetensors") {
        Header::read(file)?.list(file)
    } else {
        Err(file.wrong("expected a safetensors file or one that torch.save writes, found neither"))
    }
}

/// Refuses weights that are not finite: nothing that is computed with them means anything.
///
/// # Errors
/// [`Error::Tensor`] naming the first tensor, in the order of the names, that holds a NaN or an infinity.
pub fn check_finite(tensors: &HashMap<String, Tensor>) -> Result<()> {
    let mut floats: Vec<_> = tensors.iter().filter(|(_, t)| t.dtype().is_float()).collect();
    floats.sort_by_key(|(name, _)| *name);
    for (name, tensor) in floats {
        let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(bad) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(Error::tensor(shown(name), "finite numbers", bad));
        }
    }
    Ok(())
}
