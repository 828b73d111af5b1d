//! From text files to training and validation tokens.

use std::path::{Path, PathBuf};

use candle_tcn::files::is_standard_input;
use candle_tcn::text::{
    Corpus, Inputs, TokenStore, TokenStream, Tokenizer, TokenizerSpec, split_fraction,
};
use candle_tcn::train::{DataFile, ValidSet};
use candle_tcn::{Error, Result};
use serde::{Deserialize, Serialize};

use super::base::Base;
use crate::documents::DocumentArgs;
use crate::flags::{counted, expect_together, first_of};
use crate::{line_ends, memory, model};

/// Part of a text to validate on where no flag says.
const VALID_FRACTION: f64 = 0.1;

/// The source of the text, as the flags say it and `run.json` keeps it.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
pub struct TextSource {
    /// Texts, joined in this order, or series (--task): files, also .gz and .zst, folders, patterns such as 'notes/*.txt', `-` for
    /// standard input (default: a built-in text, the start of the King James Bible); of series .csv, .ts, .npy,
    /// .safetensors, or a made-up task as adding:600 or copy:1000
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// A text to validate on, instead of the end of the data; named as those of --data are
    #[arg(long, value_name = "FILE")]
    pub valid: Option<PathBuf>,
    /// Fraction of the data, taken from its end, to validate on (default: 0.1; of series with classes 0)
    #[arg(long, value_name = "F", conflicts_with = "valid")]
    pub valid_fraction: Option<f64>,
    /// Validate on at most N bytes
    #[arg(long, value_name = "N", default_value_t = 400_000)]
    pub valid_bytes: usize,
    #[serde(flatten)]
    #[command(flatten)]
    pub documents: DocumentArgs,
    /// Keep the tokens of the text in a file of this folder, read as they are needed (texts of more than 256 MiB always
    /// do, in the system's folder for caches)
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    pub token_cache: Option<PathBuf>,
}

impl TextSource {
    /// Fraction of a text to validate on.
    pub fn fraction(&self) -> f64 {
        self.valid_fraction.unwrap_or(VALID_FRACTION)
    }

    /// The first file's name, for the run's directory.
    pub fn stem(&self) -> String {
        let Some(first) = self.data.first() else {
            return "kjv".to_string();
        };
        if is_standard_input(first) {
            return "stdin".to_string();
        }
        let name = first.file_name().map(|name| name.to_string_lossy());
        let stem = name.as_deref().and_then(|name| name.split('.').next());
        let plain = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let stem: String = stem.unwrap_or_default().chars().filter(plain).collect();
        match stem.is_empty() {
            true => "text".to_string(),
            false => stem,
        }
    }

    /// Takes over where the texts are now, as far as `other` says; `true` if it says something.
    pub fn move_to(&mut self, other: TextSource) -> bool {
        let said = (!other.data.is_empty(), other.valid.is_some());
        if said.0 {
            self.data = other.data;
        }
        self.valid = other.valid.or(self.valid.take());
        self.token_cache = other.token_cache.or(self.token_cache.take());
        said.0 || said.1
    }

    /// Refuses a folder for tokens that would not lie there.
    pub fn check_cache(&self, is_masked: bool) -> anyhow::Result<()> {
        let is_held = is_masked || self.documents.by().is_some() || self.is_piped();
        let is_idle = self.token_cache.is_some() && (is_held || self.data.is_empty());
        expect_together(&[(
            "--token-cache",
            is_idle,
            "a running text in files; all else is held in memory",
        )])
    }

    /// The files' names.
    pub fn describe(&self) -> String {
        if self.data.is_empty() {
            return model::TEXT_NAME.to_string();
        }
        self.data.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// `true` if standard input is among the texts, which nobody can read again.
    pub fn is_piped(&self) -> bool {
        self.data.iter().chain(&self.valid).any(|path| is_standard_input(path))
    }
}

/// Says what was found in folders and passed over.
fn tell_of_found(inputs: &Inputs) {
    if !inputs.are_found() {
        return;
    }
    let mut text = format!("{} of text", counted(inputs.files().len(), "file"));
    let mut sign = "; passed over: ";
    if inputs.hidden() > 0 {
        text += &format!("{sign}{} hidden", inputs.hidden());
        sign = ", ";
    }
    let others = inputs.not_text();
    if !others.is_empty() {
        let names = others.iter().map(|path| path.display().to_string());
        text += &format!("{sign}{} not text ({})", others.len(), first_of(names, 3));
    }
    say!("{text}");
}

/// Everything a run reads.
pub struct Data {
    pub tokenizer: Tokenizer,
    /// The value of `--tokenizer`.
    pub tokenizer_name: String,
    /// Number of tokens that are trained on.
    pub train_tokens: usize,
    /// Number of tokens that are validated on.
    pub valid_tokens: usize,
    pub valid: ValidSet,
    /// Ends a document, where the text falls into some.
    pub end_token: Option<u32>,
    pub bytes: [usize; 2],
}

impl Data {
    /// Reads and encodes everything, by the tokenizer of the model that the run begins with, else by that which
    /// `spec` names or that is made from the training text; the training tokens come beside.
    pub fn read(
        source: &TextSource,
        spec: &TokenizerSpec,
        base: Option<&Base>,
    ) -> anyhow::Result<(Self, TokenStore, Vec<bool>)> {
        let find = |paths: &[PathBuf]| (!paths.is_empty()).then(|| Inputs::find(paths)).transpose();
        // none mean the built-in text, and a part of the text to validate on
        let (data, held_out) = (find(&source.data)?, find(source.valid.as_slice())?);
        data.iter().chain(&held_out).for_each(tell_of_found);
        if let Some(by) = source.documents.by() {
            let inputs = (data.as_ref(), held_out.as_ref());
            let (data, (tokens, scored)) = Self::read_documents(source, &by, inputs, spec, base)?;
            return Ok((data, tokens.into(), scored));
        }
        if let (Some(inputs), Some(folder)) = (&data, Self::token_folder(source, data.as_ref())) {
            let inputs = (inputs, held_out.as_ref());
            let (data, tokens) = Self::read_large(source, inputs, spec, base, &folder)?;
            return Ok((data, tokens.into(), Vec::new()));
        }
        let (data, tokens) = Self::read_whole(source, (data, held_out), spec, base)?;
        Ok((data, tokens.into(), Vec::new()))
    }

    /// Reads a text that memory holds.
    fn read_whole(
        source: &TextSource,
        (data, held_out): (Option<Inputs>, Option<Inputs>),
        spec: &TokenizerSpec,
        base: Option<&Base>,
    ) -> anyhow::Result<(Self, Vec<u32>)> {
        let most = memory::check_text(data.iter().chain(&held_out).map(Inputs::bytes).sum())?;
        let corpus = match &data {
            Some(inputs) => Corpus::read(inputs, most)?,
            None => Corpus::from_bytes(model::TEXT.as_bytes().to_vec()),
        };
        let mut existing = existing(spec, base)?;
        let any_bytes = accepts_any_bytes(spec, existing.as_ref());
        if !any_bytes {
            // named by file and offset, which the parts of the text no longer know
            corpus.text()?;
        }
        let held_out = held_out.map(|inputs| Corpus::read(&inputs, most)).transpose()?;
        if let Some(base) = base.filter(|_| !any_bytes) {
            existing = Some(base.tokenizer(std::iter::once(&corpus).chain(&held_out))?);
        }
        let (train, valid) = match &held_out {
            Some(valid) => {
                if !any_bytes {
                    valid.text()?;
                }
                line_ends::compare(corpus.bytes(), valid.bytes());
                (corpus.bytes(), valid.bytes())
            }
            None => split_fraction(corpus.bytes(), source.fraction(), !any_bytes)?,
        };
        let valid = beginning(valid, source.valid_bytes);
        let tokenizer_name = tokenizer_name(spec, base);
        let tokenizer = match existing {
            Some(tokenizer) => tokenizer,
            // of the whole text: a character that only the end has is not unknown
            None => Tokenizer::from_spec(spec, corpus.bytes())?,
        };
        let bytes = [train.len(), valid.len()];
        let train = tokenizer.encode_bytes(train)?;
        let valid = valid_set(&tokenizer, valid)?;
        for (name, tokens) in [("training text", &train), ("validation text", &valid.tokens)] {
            let unknown = model::unknown_tokens(&tokenizer, tokens);
            model::warn_of_unknown(&name, unknown, model::IN_LOSSES);
        }
        if train.is_empty() {
            return Err(Error::Text(format!("{}: no text to train on", source.describe())).into());
        }
        let train_tokens = train.len();
        let data = Self {
            tokenizer,
            tokenizer_name,
            train_tokens,
            valid_tokens: valid.tokens.len(),
            valid,
            end_token: None,
            bytes,
        };
        Ok((data, train))
    }

    /// For the model card: what was read, in which role.
    pub fn files(&self, source: &TextSource) -> Vec<DataFile> {
        let name = |path: &Path| {
            path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
        };
        let names = match source.data.len() {
            0 => model::TEXT_NAME.to_string(),
            _ => source.data.iter().map(|p| name(p)).collect::<Vec<_>>().join(", "),
        };
        let valid = match &source.valid {
            Some(path) => name(path),
            None => format!("the last {}% of it", source.fraction() * 100.0),
        };
        let file = |name, role: &str, bytes: usize, tokens: usize| DataFile {
            name,
            role: role.into(),
            bytes: bytes as u64,
            tokens: tokens as u64,
        };
        vec![
            file(names, "train", self.bytes[0], self.train_tokens),
            file(valid, "validation", self.bytes[1], self.valid_tokens),
        ]
    }
}

/// `true` if a text need not be UTF-8.
pub fn accepts_any_bytes(spec: &TokenizerSpec, existing: Option<&Tokenizer>) -> bool {
    match existing {
        Some(tokenizer) => tokenizer.accepts_any_bytes(),
        None => *spec == TokenizerSpec::Byte,
    }
}

/// The tokenizer that there is before the text is known.
pub fn existing(spec: &TokenizerSpec, base: Option<&Base>) -> Result<Option<Tokenizer>> {
    match (base, spec) {
        (Some(base), _) => Ok(Some(base.files.tokenizer()?.clone())),
        (None, TokenizerSpec::File(path)) => Tokenizer::from_file(path).map(Some),
        (None, _) => Ok(None),
    }
}

/// The tokenizer's name in a card.
pub fn tokenizer_name(spec: &TokenizerSpec, base: Option<&Base>) -> String {
    match (base, spec) {
        (Some(base), _) => format!("that of {}", base.name),
        (None, TokenizerSpec::File(_)) => "tokenizer.json".into(),
        (None, spec) => spec.to_string(),
    }
}

/// The tokens of `text`, and how many characters of it are predicted.
pub fn valid_set(tokenizer: &Tokenizer, text: &[u8]) -> Result<ValidSet> {
    let mut stream = TokenStream::new(text, tokenizer);
    let mut tokens = Vec::new();
    for piece in stream.by_ref() {
        tokens.extend(piece?);
    }
    let characters = stream.characters().saturating_sub(stream.first_token().0);
    Ok(ValidSet::text(tokens, characters))
}

/// At most the first `most` bytes of `text`, a whole number of characters where it is UTF-8.
pub fn beginning(text: &[u8], most: usize) -> &[u8] {
    let continues = |&byte: &u8| byte & 0xc0 == 0x80;
    let mut end = most.min(text.len());
    while end > 0 && most - end < 3 && text.get(end).is_some_and(continues) {
        end -= 1;
    }
    &text[..end]
}
