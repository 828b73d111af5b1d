//! A model directory: `config.json`, `model.safetensors`, `tokenizer.json`. Also exactly what is on
//! the Hub.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use crate::fsutil::write_atomic;
use crate::models::{Model, ModelConfig};
use crate::text::Tokenizer;
use crate::{Error, Result};

/// The configuration's file name.
pub const CONFIG: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS: &str = "model.safetensors";
/// The tokenizer's file name.
pub const TOKENIZER: &str = "tokenizer.json";

/// The file name of a vocabulary, one token a line, where there is no tokenizer.
pub const VOCABULARY: &str = "vocab.txt";

/// A configuration is a few hundred bytes; a larger file is something else.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The most that the streaming state of one sequence may take.
const MAX_STATE_BYTES: usize = 1 << 32;

/// A model ready to run, with its tokenizer where it has one.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// What the model is.
    pub config: ModelConfig,
    /// The model, frozen for inference.
    pub model: Model,
    /// How text becomes its tokens, where the directory says.
    pub tokenizer: Option<Tokenizer>,
    /// Where its tokenizer would be.
    tokenizer_path: PathBuf,
}

impl LoadedModel {
    /// Loads a model directory.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] naming the file; [`Error::Tensor`] naming the tensor where
    /// configuration and weights disagree.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::LoadedModel;
    /// let loaded = LoadedModel::load("models/kjv-tiny")?;
    /// assert_eq!(loaded.config.vocab_size(), loaded.tokenizer()?.vocab_size());
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            let found = match dir.exists() {
                true => "this is no directory",
                false => "there is no such directory",
            };
            return Err(Error::file(
                dir,
                format!(
                    "expected a model directory with {CONFIG}, {WEIGHTS} and {TOKENIZER}; {found}"
                ),
            ));
        }
        let config = read_config(dir.join(CONFIG))?;
        let weights = read_tensors(dir.join(WEIGHTS))?;
        let tokenizer = read_tokenizer(dir)?;
        Self::from_parts(config, weights, tokenizer, &dir.join(WEIGHTS))
    }

    /// Reads a model from the contents of its files, such as those compiled into a program.
    ///
    /// # Errors
    /// As [`LoadedModel::load`].
    pub fn from_bytes(config: &str, weights: &[u8], tokenizer: &[u8]) -> Result<Self> {
        let config = ModelConfig::from_json(config, CONFIG)?;
        let weights = tensors_from(weights, Path::new(WEIGHTS))?;
        Self::from_parts(
            config,
            weights,
            Some(Tokenizer::from_json(tokenizer)?),
            Path::new(WEIGHTS),
        )
    }

    /// How text becomes the model's tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network on frames; [`Error::File`] where the directory has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.config.expect_tokens()?;
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::file(
                &self.tokenizer_path,
                format!(
                    "no such file and no {VOCABULARY}; a model directory needs one to read text"
                ),
            )
        })
    }

    fn from_parts(
        config: ModelConfig,
        mut weights: HashMap<String, Tensor>,
        tokenizer: Option<Tokenizer>,
        source: &Path,
    ) -> Result<Self> {
        let in_config = |message: String| Error::file(source.with_file_name(CONFIG), message);
        let state = config.validate().and_then(|()| config.state_bytes(1));
        let state = state.map_err(|e| in_config(e.to_string()))?;
        if state > MAX_STATE_BYTES {
            return Err(in_config(format!(
                "streaming would keep {state} bytes, at most {MAX_STATE_BYTES} are supported; its dilations are too large"
            )));
        }
        let tied = config.drop_tied_copy(&mut weights);
        tied.map_err(|e| Error::file(source, e.to_string()))?;
        check_weights(&config, &weights).map_err(|e| Error::file(source, e.to_string()))?;
        let (tokens, vocab) = (
            tokenizer.as_ref().map_or(0, Tokenizer::vocab_size),
            config.vocab_size(),
        );
        if tokens > vocab && config.expect_tokens().is_ok() {
            return Err(in_config(format!(
                "vocab_size: expected at least the {tokens} tokens of {TOKENIZER}, found {vocab}"
            )));
        }
        let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let model = Model::new(&config, vb)?.freeze()?;
        Ok(Self {
            config,
            model,
            tokenizer,
            tokenizer_path: source.with_file_name(TOKENIZER),
        })
    }
}

/// Reads the tokenizer of a model directory: `tokenizer.json` or, where there is none, `vocab.txt`.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file.
pub fn read_tokenizer(dir: impl AsRef<Path>) -> Result<Option<Tokenizer>> {
    let dir = dir.as_ref();
    let (tokenizer, vocabulary) = (dir.join(TOKENIZER), dir.join(VOCABULARY));
    match (tokenizer.exists(), vocabulary.exists()) {
        (true, _) => Tokenizer::from_file(tokenizer).map(Some),
        (false, true) => Tokenizer::from_vocab_file(vocabulary).map(Some),
        (false, false) => Ok(None),
    }
}

/// Reads a `config.json`.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file.
pub fn read_config(path: impl AsRef<Path>) -> Result<ModelConfig> {
    let path = path.as_ref();
    let size = std::fs::metadata(path)
        .map_err(|e| Error::io(path, e))?
        .len();
    if size > MAX_CONFIG_BYTES {
        return Err(Error::file(
            path,
            format!("expected a model configuration, found {size} bytes"),
        ));
    }
    let json = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let json = String::from_utf8(json)
        .map_err(|e| Error::file(path, format!("expected JSON text: {e}")))?;
    ModelConfig::from_json(&json, path)
}

/// Whether `weights` are exactly the tensors that `config` asks for.
///
/// # Errors
/// [`Error::Tensor`] naming the first tensor that is missing, left over, of another shape or no float.
pub fn check_weights(config: &ModelConfig, weights: &HashMap<String, Tensor>) -> Result<()> {
    let expected = config.tensors()?;
    for (name, shape) in &expected {
        let mismatch = |found: String| Error::Tensor {
            name: name.clone(),
            expected: format!("{shape:?}"),
            found,
        };
        let tensor = weights
            .get(name)
            .ok_or_else(|| mismatch("no such tensor".into()))?;
        if tensor.dims() != shape {
            return Err(mismatch(format!("{:?}", tensor.dims())));
        }
        if !tensor.dtype().is_float() {
            return Err(mismatch(format!("{:?} numbers", tensor.dtype())));
        }
    }
    let known: HashSet<&String> = expected.iter().map(|(name, _)| name).collect();
    match weights.keys().filter(|name| !known.contains(name)).min() {
        None => Ok(()),
        Some(name) => Err(Error::Tensor {
            name: name.clone(),
            expected: "no such tensor in this configuration".into(),
            found: format!("{:?}", weights[name].dims()),
        }),
    }
}

/// Reads a safetensors file.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<HashMap<String, Tensor>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    tensors_from(&bytes, path)
}

fn tensors_from(bytes: &[u8], path: &Path) -> Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| {
        Error::file(
            path,
            format!("not a whole safetensors file ({} bytes): {e}", bytes.len()),
        )
    })
}

/// Writes a safetensors file, whole or not at all. The same tensors give the same bytes.
///
/// # Errors
/// [`Error::Io`] naming the file; what stood there before then stays.
pub fn write_tensors(path: impl AsRef<Path>, tensors: &HashMap<String, Tensor>) -> Result<()> {
    let format = concat!("candle-tcn ", env!("CARGO_PKG_VERSION"));
    write_tensors_with(path.as_ref(), tensors, ("format", format))
}

/// As [`write_tensors`], with this name and value in its metadata.
pub(crate) fn write_tensors_with(
    path: &Path,
    tensors: &HashMap<String, Tensor>,
    (name, value): (&str, &str),
) -> Result<()> {
    let metadata = HashMap::from([(name.to_string(), value.to_string())]);
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|e| Error::file(path, format!("the tensors cannot be written: {e}")))?;
    write_atomic(path, |file| std::io::Write::write_all(file, &bytes))
}
