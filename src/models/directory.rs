//! A model directory: `config.json`, `model.safetensors`, `tokenizer.json`. Also exactly what is on
//! the Hub. Weights are read in any of the forms of [`weights`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::ModelConfig;
use crate::files::names::{CHECKPOINTS, CONFIG, MAX_CONFIG_BYTES, TOKENIZER, VOCABULARY, WEIGHTS};
use crate::files::weights::{self, Weights, WeightsFile};
use crate::files::{read_small, shown};
use crate::graph::{Graph, Network, Parameter};
use crate::kernels::Kernel;
use crate::text::{MAX_VOCAB_SIZE, Tokenizer};
use crate::{Error, Result};

/// The most that the streaming state of one sequence may take.
const MAX_STATE_BYTES: u64 = 1 << 32;

/// A model ready to run, with its tokenizer where it has one.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// Configuration of the model.
    pub config: ModelConfig,
    /// The model, frozen for inference.
    pub model: Network,
    /// Its tokenizer, where the directory has one.
    pub tokenizer: Option<Tokenizer>,
    /// The file that its tokenizer would be in.
    tokenizer_path: PathBuf,
    /// `true` if the weights were stored as bytes and scales.
    pub int8: bool,
}

impl LoadedModel {
    /// Loads a model directory, or a checkpoint of a training run.
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
        ModelFiles::read(dir)?.into_model()
    }

    /// Reads a model from the contents of its files, such as those compiled into a program.
    ///
    /// # Errors
    /// As [`LoadedModel::load`].
    pub fn from_bytes(config: &str, weights: &[u8], tokenizer: &[u8]) -> Result<Self> {
        ModelFiles::from_bytes(config, weights, tokenizer)?.into_model()
    }

    /// The same model under another kernel than the [best](Kernel::best).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a kernel that this processor lacks.
    pub fn with_kernel(self, kernel: Kernel) -> Result<Self> {
        Ok(Self { model: self.model.with_kernel(kernel)?, ..self })
    }

    /// Tokenizer of the model.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network on frames; [`Error::File`] where the directory has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        expect_tokenizer(&self.config, self.tokenizer.as_ref(), &self.tokenizer_path)
    }
}

/// The files of a model directory, read and checked: what a [`LoadedModel`] is made of, and what a training run
/// can [begin](crate::train::Trainer::with_weights) with.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// Configuration of the model.
    pub config: ModelConfig,
    /// Tensors by the names that the configuration gives them.
    pub weights: HashMap<String, Tensor>,
    /// Its tokenizer, where the directory has one.
    pub tokenizer: Option<Tokenizer>,
    /// The file of the weights.
    source: PathBuf,
    int8: bool,
}

impl ModelFiles {
    /// Reads a model directory, or a checkpoint of a training run.
    ///
    /// # Errors
    /// As [`LoadedModel::load`].
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::models::directory::ModelFiles;
    /// let files = ModelFiles::read("models/kjv-tiny")?;
    /// assert_eq!(files.weights.len(), files.config.graph()?.parameters().len());
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            let found = if dir.exists() { "this is no" } else { "there is no such" };
            let expected = format!("a model directory with {CONFIG}, {WEIGHTS} and {TOKENIZER}");
            return Err(Error::file(dir, format!("expected {expected}; {found} directory")));
        }
        let described = described_in(dir);
        let config = read_config(described.join(CONFIG))?;
        let source = weights::find(dir)?;
        let weights = read_checked(&config, weights::open(&source)?, &source)?;
        let tokenizer = read_tokenizer_for(&described, config.vocab_size())?;
        Self::checked(config, weights, tokenizer, &source)
    }

    /// Reads a model from the contents of its files.
    ///
    /// # Errors
    /// As [`LoadedModel::load`].
    pub fn from_bytes(config: &str, weights: &[u8], tokenizer: &[u8]) -> Result<Self> {
        let config = ModelConfig::from_json(config, CONFIG)?;
        let source = Path::new(WEIGHTS);
        let weights = read_checked(&config, weights::open_bytes(source, weights)?, source)?;
        let tokenizer = Some(Tokenizer::from_json(tokenizer)?);
        Self::checked(config, weights, tokenizer, source)
    }

    fn checked(
        config: ModelConfig,
        mut weights: Weights,
        tokenizer: Option<Tokenizer>,
        source: &Path,
    ) -> Result<Self> {
        let in_file = |e: Error| Error::file(source, e.to_string());
        weights::check_finite(&weights.tensors).map_err(in_file)?;
        config.graph()?.drop_copies(&mut weights.tensors).map_err(in_file)?;
        let tokens = tokenizer.as_ref().map_or(0, Tokenizer::vocab_size);
        let vocab = config.vocab_size();
        if tokens > vocab && config.expect_tokens().is_ok() {
            let message = format!(
                "vocab_size: expected at least the {tokens} tokens of {TOKENIZER}, found {vocab}"
            );
            return Err(Error::file(source.with_file_name(CONFIG), message));
        }
        let Weights { tensors: weights, int8, .. } = weights;
        Ok(Self { config, weights, tokenizer, source: source.to_path_buf(), int8 })
    }

    /// Tokenizer of the model.
    ///
    /// # Errors
    /// As [`LoadedModel::tokenizer`].
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let path = self.source.with_file_name(TOKENIZER);
        expect_tokenizer(&self.config, self.tokenizer.as_ref(), &path)
    }

    /// The model, frozen for inference.
    ///
    /// # Errors
    /// Those of candle.
    pub fn into_model(self) -> Result<LoadedModel> {
        let Self { config, weights, tokenizer, source, int8 } = self;
        let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let model = config.build(vb)?.freeze()?;
        let tokenizer_path = source.with_file_name(TOKENIZER);
        Ok(LoadedModel { config, model, tokenizer, tokenizer_path, int8 })
    }
}

/// The tokenizer that a model directory has, or an error that names its file.
fn expect_tokenizer<'a>(
    config: &ModelConfig,
    tokenizer: Option<&'a Tokenizer>,
    path: &Path,
) -> Result<&'a Tokenizer> {
    config.expect_tokens()?;
    tokenizer.ok_or_else(|| {
        let message =
            format!("no such file and no {VOCABULARY}; a model directory needs one to read text");
        Error::file(path, message)
    })
}

/// The folder that holds the configuration and the tokenizer of the model in `dir`: itself, or the run whose
/// checkpoint `dir` is (`RUN/checkpoints/step-N`).
pub fn described_in(dir: impl AsRef<Path>) -> PathBuf {
    let dir = dir.as_ref();
    let is_described = |dir: &Path| dir.join(CONFIG).exists();
    let run_of = || {
        let whole = std::path::absolute(dir).ok()?;
        let run = whole.parent().filter(|path| path.ends_with(CHECKPOINTS))?.parent()?;
        is_described(run).then(|| run.to_path_buf())
    };
    let run = if is_described(dir) { None } else { run_of() };
    run.unwrap_or_else(|| dir.to_path_buf())
}

/// Reads the tokenizer of a model directory: `tokenizer.json` or, where there is none, `vocab.txt`.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file.
pub fn read_tokenizer(dir: impl AsRef<Path>) -> Result<Option<Tokenizer>> {
    read_tokenizer_for(dir.as_ref(), MAX_VOCAB_SIZE)
}

/// As [`read_tokenizer`], for a model of `vocab_size` tokens; a network on frames has none.
fn read_tokenizer_for(dir: &Path, vocab_size: usize) -> Result<Option<Tokenizer>> {
    let (tokenizer, vocabulary) = (dir.join(TOKENIZER), dir.join(VOCABULARY));
    match (tokenizer.exists(), vocabulary.exists()) {
        _ if vocab_size == 0 => Ok(None),
        (true, _) => Tokenizer::from_file_for(&tokenizer, vocab_size).map(Some),
        (false, true) => Tokenizer::from_vocab_file(vocabulary).map(Some),
        (false, false) => Ok(None),
    }
}

/// Reads weights once the configuration was found to be one that runs and the tensors those that it asks for.
fn read_checked(config: &ModelConfig, weights: WeightsFile, source: &Path) -> Result<Weights> {
    let in_config = |message: String| Error::file(source.with_file_name(CONFIG), message);
    let graph = config.graph().and_then(|graph| Ok((graph.state_bytes(1)?, graph)));
    let (state, graph) = graph.map_err(|e| in_config(e.to_string()))?;
    if state as u64 > MAX_STATE_BYTES {
        return Err(in_config(format!(
            "streaming would keep {state} bytes, at most {MAX_STATE_BYTES} are supported; its dilations are too large"
        )));
    }
    let found = weights.tensors().iter();
    let found = found.map(|tensor| (tensor.name.as_str(), &tensor.shape[..], tensor.dtype));
    // a second copy of a tied matrix is compared when it is read
    let copies = graph.parameters().iter().flat_map(|parameter| &parameter.copies);
    let copies: HashSet<&str> = copies.map(String::as_str).collect();
    let found = found.filter(|(name, ..)| !copies.contains(name));
    check_tensors(&graph, found).map_err(|e| Error::file(source, e.to_string()))?;
    weights.read()
}

/// Reads a `config.json` and checks every field, the vocabulary where it is known.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file.
pub fn read_config(path: impl AsRef<Path>) -> Result<ModelConfig> {
    let path = path.as_ref();
    if let Some(model) = path.parent().filter(|model| model.is_file()) {
        let message =
            format!("expected the folder of a model, with a {CONFIG} in it, found a file");
        return Err(Error::file(model, message));
    }
    let json = read_small(path, "a model configuration", MAX_CONFIG_BYTES)?;
    let json = String::from_utf8(json)
        .map_err(|e| Error::file(path, format!("expected JSON text: {e}")))?;
    let config = ModelConfig::from_json(&json, path)?;
    config.sized().graph().map_err(|e| Error::file(path, e.to_string()))?;
    Ok(config)
}

/// Checks that `weights` are exactly the tensors that `config` asks for.
///
/// # Errors
/// [`Error::Tensor`] naming the first tensor that is missing, left over, of another shape or no float.
pub fn check_weights(config: &ModelConfig, weights: &HashMap<String, Tensor>) -> Result<()> {
    let found = weights.iter();
    check_tensors(&config.graph()?, found.map(|(name, t)| (name.as_str(), t.dims(), t.dtype())))
}

fn check_tensors<'a>(
    graph: &Graph,
    found: impl Iterator<Item = (&'a str, &'a [usize], DType)>,
) -> Result<()> {
    let mut found: BTreeMap<&str, (&[usize], DType)> =
        found.map(|(name, shape, dtype)| (name, (shape, dtype))).collect();
    for Parameter { name, shape, .. } in graph.parameters() {
        let problem = match found.remove(name.as_str()) {
            None => "no such tensor".into(),
            Some((found, _)) if found != shape => format!("{found:?}"),
            Some((_, dtype)) if !dtype.is_float() => format!("{dtype:?} numbers"),
            Some(_) => continue,
        };
        return Err(Error::tensor(name, format!("{shape:?}"), problem));
    }
    match found.first_key_value() {
        None => Ok(()),
        Some((name, (shape, _))) => {
            let expected = "no such tensor in this configuration";
            Err(Error::tensor(shown(name), expected, format!("{shape:?}")))
        }
    }
}
