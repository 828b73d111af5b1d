//! Text to ids and back.

mod encode;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::Tokenizer as HfTokenizer;
use tokenizers::models::ModelWrapper;

use super::check::{Origin, distinct_chars, text_of};
use super::inspect::{self, EncodingKind, Vocabulary};
use super::pieces::Cuts;
use super::spec::MAX_VOCAB_SIZE;
use super::{Decoder, TokenizerSpec, build, limits, text_error};
use crate::files::names::MAX_TOKENIZER_BYTES;
use crate::files::{read_at_most, write_atomic};
use crate::{Error, Result};

/// A tokenizer: text to token ids and back.
///
/// Every kind is a Hugging Face `tokenizers` pipeline and is saved as a `tokenizer.json` that the
/// Python package loads and that encodes and decodes the same way there (with
/// `add_special_tokens=False`). Cloning is cheap; clones share the vocabulary.
///
/// | kind | tokens | unknown characters | bytes that are not UTF-8 |
/// |---|---|---|---|
/// | `char` | `<unk>` (id 0), then the distinct characters of the training text in code point order | become `<unk>` | error |
/// | `byte` | the 256 bytes, id = byte | there are none | accepted |
/// | `bpe:N` | 256 bytes and learned pairs | there are none | error |
/// | a file | whatever it says | whatever it says | error, unless it is a byte tokenizer |
///
/// Character and byte tokenizers, recognised from the model also when they come from a file,
/// encode by a table. All others encode a long text in pieces of about 64 KiB, in parallel and in
/// order: a piece ends in front of a space, or behind a line, that stands between characters which
/// are not white space. For `bpe:N`, and for files whose words end at white space, the result is that of encoding
/// the whole text at once, special tokens and what their normalizers do at the ends of a text included; only
/// where 256 KiB hold no such place is a text cut elsewhere, which may cost a token. The number of threads never
/// matters.
///
/// Truncation, padding and BPE dropout of a loaded file are turned off: a corpus is encoded whole
/// and always the same way. No special tokens are added.
///
/// # Example
///
/// ```
/// use candle_tcn::text::{Tokenizer, TokenizerSpec};
///
/// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, "banana".as_bytes())?;
/// // <unk> 0, a 1, b 2, n 3
/// assert_eq!(tokenizer.encode("nabx")?, [3, 1, 2, 0]);
/// assert_eq!(tokenizer.unknown_chars("nabx"), ['x']);
/// assert_eq!(tokenizer.decode(&[2, 1, 3])?, "ban");
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hf: HfTokenizer,
    /// For all pieces of a text but the first, where that one is normalized otherwise.
    hf_inside: Option<HfTokenizer>,
    cuts: Cuts,
    encoder: EncodingKind,
    /// Names of special tokens: a text with one of them is encoded as if by no simple encoder.
    specials: Vec<String>,
    vocabulary: Vocabulary,
    token_bytes: Option<Vec<Option<Box<[u8]>>>>,
}

impl Tokenizer {
    /// Makes the tokenizer that `spec` names; `char` and `bpe:N` learn their vocabulary from
    /// `text`, the others do not look at it.
    ///
    /// The same text gives the same tokenizer, whatever the number of threads.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] if a text to learn from is empty, not UTF-8, or holds a NUL byte;
    /// [`Error::Invalid`] if the vocabulary would be too large or too small;
    /// [`Error::Io`] and [`Error::File`] as in [`Tokenizer::from_file`].
    pub fn from_spec(spec: &TokenizerSpec, text: &[u8]) -> Result<Self> {
        let none = format!("expected text to learn the vocabulary of {spec} from, found none");
        let learn_from = || match text_of(text, true, &Origin::default())? {
            "" => Err(Error::Text(none)),
            text => Ok(text),
        };
        let hf = match spec.clone().checked()? {
            TokenizerSpec::Char => build::char(learn_from()?)?,
            TokenizerSpec::Byte => build::byte()?,
            TokenizerSpec::Bpe(size) => build::bpe(size, learn_from()?)?,
            TokenizerSpec::File(path) => return Self::from_file(path),
        };
        Self::from_hf(hf).map_err(Error::Text)
    }

    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::File`] if it holds no usable tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_file_for(path.as_ref(), MAX_VOCAB_SIZE)
    }

    /// As [`Tokenizer::from_file`], for a model of `vocab_size` tokens: nothing is built of tables that
    /// are much larger.
    pub(crate) fn from_file_for(path: &Path, vocab_size: usize) -> Result<Self> {
        let wrong = match (path.exists(), path.is_dir()) {
            (true, false) => None,
            (true, true) => Some("expected a tokenizer.json, found a folder"),
            _ => Some(
                "no such file; a tokenizer is char, byte, bpe:N or the path of a tokenizer.json",
            ),
        };
        if let Some(wrong) = wrong {
            return Err(Error::file(path, wrong));
        }
        let json = read_at_most(path, "a tokenizer.json", MAX_TOKENIZER_BYTES)?;
        Self::from_json_for(&json, vocab_size).map_err(|error| Error::file(path, error.to_string()))
    }

    /// Reads a tokenizer from the content of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] if it holds no usable tokenizer.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        Self::from_json_for(json, MAX_VOCAB_SIZE)
    }

    fn from_json_for(json: &[u8], vocab_size: usize) -> Result<Self> {
        /// Tables so small may be larger than the model's: what is wrong is found when they are read.
        const SMALL: usize = 1 << 14;
        // the tokenizers crate panics on some files that contradict themselves, for instance on a
        // merge whose product is not in the vocabulary, or on words of length zero
        let load = || {
            limits::check_tables(json, vocab_size.max(SMALL))?;
            let hf = HfTokenizer::from_bytes(json).map_err(|error| error.to_string())?;
            let tokenizer = Self::from_hf(hf)?;
            tokenizer.encode("a b").map_err(|error| error.to_string())?;
            Ok(tokenizer)
        };
        let loaded = std::panic::catch_unwind(load);
        let loaded = loaded.unwrap_or_else(|_| Err("it contradicts itself".to_string()));
        let unusable = "not a usable Hugging Face tokenizer";
        loaded.map_err(|problem| Error::Text(format!("{unusable}: {problem}")))
    }

    pub(super) fn from_hf(mut hf: HfTokenizer) -> Result<Self, String> {
        hf.with_truncation(None).map_err(|error| error.to_string())?;
        hf.with_padding(None);
        if let ModelWrapper::BPE(model) = hf.get_model()
            && model.dropout.is_some()
        {
            let mut model = model.clone();
            model.dropout = None;
            hf.with_model(model);
        }
        let size = inspect::vocab_size(&hf)?;
        let json = hf.to_string(false).map_err(|error| error.to_string())?;
        let json: Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        for part in ["normalizer", "decoder"] {
            limits::check_growth(part, &json[part])?;
        }
        let vocabulary = inspect::vocabulary(&hf, size, &json);
        let (encoder, specials) = inspect::encoder(&hf, &json);
        Ok(Self {
            inner: Arc::new(Inner {
                encoder,
                specials,
                hf_inside: inspect::inside(&json)?,
                cuts: inspect::cuts(&json),
                token_bytes: inspect::token_bytes(&hf, &json, &vocabulary),
                vocabulary,
                hf,
            }),
        })
    }

    /// The content of the `tokenizer.json` that [`Tokenizer::save`] writes.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] if the tokenizer cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.inner.hf.to_string(true).map_err(text_error)
    }

    /// Writes a `tokenizer.json`; an interruption leaves the old file whole.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let json = self.to_json()?;
        write_atomic(path.as_ref(), |file| std::io::Write::write_all(file, json.as_bytes()))
    }

    /// The highest token id plus one: the rows that a model's embedding needs. At most 1,000,000.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.size
    }

    /// `true` if [`Tokenizer::encode_bytes`] takes bytes that are not UTF-8, as byte tokenizers do.
    pub fn accepts_any_bytes(&self) -> bool {
        matches!(self.inner.encoder, EncodingKind::Byte(_))
    }

    /// The text of token ids. Special tokens are left out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// To decode ids one by one as they are generated use [`Tokenizer::decoder`].
    ///
    /// # Errors
    ///
    /// [`Error::Text`] for an id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        ids.iter().try_for_each(|&id| self.check_id(id))?;
        if !self.joins_bytes() {
            return self.inner.hf.decode(ids, true).map_err(text_error);
        }
        let bytes: Vec<&[u8]> = ids.iter().filter_map(|&id| self.bytes_of(id)).collect();
        Ok(String::from_utf8_lossy(&bytes.concat()).into_owned())
    }

    /// A decoder that takes ids one by one and gives text as soon as its characters are complete.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.clone())
    }

    /// `true` if each character is a token, whatever surrounds it.
    pub(super) fn is_of_characters(&self) -> bool {
        matches!(self.inner.encoder, EncodingKind::Char { .. })
    }

    pub(super) fn hf(&self) -> &HfTokenizer {
        &self.inner.hf
    }

    /// `true` if decoding is joining the bytes of the tokens.
    pub(super) fn joins_bytes(&self) -> bool {
        self.inner.token_bytes.is_some()
    }

    /// The bytes of a token, if decoding is joining them.
    pub(super) fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        let bytes = self.inner.token_bytes.as_ref()?;
        bytes.get(id as usize)?.as_deref()
    }

    /// `true` for a token that stands for something that is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.vocabulary.special.binary_search(&id).is_ok()
    }

    pub(super) fn check_id(&self, id: u32) -> Result<()> {
        let known = match self.joins_bytes() {
            true => self.bytes_of(id).is_some(),
            false => self.token_text(id).is_some(),
        };
        if known {
            return Ok(());
        }
        let last = self.vocab_size() - 1;
        let expected = format!("one of the tokenizer's vocabulary, which ends at {last}");
        let found = format!("{id}; do the model and tokenizer.json belong together?");
        Err(Error::invalid("token id", expected, found))
    }

    /// The token as it stands in the vocabulary, in byte-level tokenizers in GPT-2's printable
    /// alphabet (`Ġ` is a space); `None` if the id has no token.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.hf.id_to_token(id)
    }

    /// The id of text that the tokenizer has no token for, if it has one.
    pub fn unknown_id(&self) -> Option<u32> {
        self.inner.vocabulary.unk
    }

    /// Ids that generation must never sample: the unknown token, special tokens, and ids below
    /// [`Tokenizer::vocab_size`] that have no token. In ascending order.
    pub fn banned_ids(&self) -> Vec<u32> {
        self.inner.vocabulary.banned.clone()
    }

    /// The distinct characters of `text` that the tokenizer cannot represent, in code point order.
    /// Always empty for `byte` and `bpe:N`.
    pub fn unknown_chars(&self, text: &str) -> Vec<char> {
        distinct_chars(text).into_iter().filter(|&c| self.is_unknown(c)).collect()
    }

    fn is_unknown(&self, c: char) -> bool {
        match self.encode(c.encode_utf8(&mut [0; 4])) {
            // white space may well belong to no token
            Ok(ids) if ids.is_empty() => !c.is_whitespace(),
            Ok(ids) => ids.iter().any(|&id| self.inner.vocabulary.unk == Some(id)),
            Err(_) => true,
        }
    }
}
