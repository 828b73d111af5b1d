//! The kinds of tokenizers, as they are written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, Result};

/// The most ids a tokenizer may have. A model allocates an embedding row per id, so a larger
/// number in a file is taken for damage.
pub(crate) const MAX_VOCAB_SIZE: usize = 1_000_000;

/// 256 bytes and one merge: with fewer there is nothing to learn, that is [`TokenizerSpec::Byte`].
const MIN_BPE_SIZE: usize = 257;

/// A kind of tokenizer to make.
///
/// Written and read as `char`, `byte`, `bpe:N` or the path of a `tokenizer.json`. A file that is
/// really called `char` is written `./char`.
///
/// # Errors
///
/// Parsing gives [`Error::Invalid`] for an empty value and for an `N` outside 257 to 1,000,000.
///
/// # Example
///
/// ```
/// use candle_tcn::text::TokenizerSpec;
///
/// assert_eq!("bpe:512".parse::<TokenizerSpec>()?, TokenizerSpec::Bpe(512));
/// assert_eq!(TokenizerSpec::Byte.to_string(), "byte");
/// assert!("bpe:12".parse::<TokenizerSpec>().is_err());
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// One token per Unicode character of the training text, and `<unk>` for every other.
    Char,
    /// One token per byte; the id is the byte.
    Byte,
    /// Byte-level byte-pair encoding with at most this many tokens, learned from the training
    /// text. A short text has fewer pairs worth merging and so fewer tokens.
    Bpe(usize),
    /// An existing Hugging Face `tokenizer.json`.
    File(PathBuf),
}

impl FromStr for TokenizerSpec {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        match (value, value.strip_prefix("bpe:")) {
            ("", _) => Err(Error::invalid(
                "tokenizer",
                "char, byte, bpe:N or the path of a tokenizer.json",
                "nothing",
            )),
            ("char", _) => Ok(Self::Char),
            ("byte", _) => Ok(Self::Byte),
            ("bpe", _) => Err(bpe_error(value)),
            (_, Some(size)) => Self::Bpe(size.parse().map_err(|_| bpe_error(value))?).checked(),
            (path, None) => Ok(Self::File(path.into())),
        }
    }
}

impl TokenizerSpec {
    /// The same, or an error for a size of [`TokenizerSpec::Bpe`] that parsing would not allow.
    pub(super) fn checked(self) -> Result<Self> {
        match self {
            Self::Bpe(size) if !(MIN_BPE_SIZE..=MAX_VOCAB_SIZE).contains(&size) => {
                Err(bpe_error(&self.to_string()))
            }
            spec => Ok(spec),
        }
    }
}

fn bpe_error(found: &str) -> Error {
    Error::invalid(
        "tokenizer",
        format!(
            "bpe:N with a vocabulary of N = {MIN_BPE_SIZE} to {MAX_VOCAB_SIZE} tokens \
             (256 of them are the bytes; for bytes alone use byte)"
        ),
        found,
    )
}

impl fmt::Display for TokenizerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Char => f.write_str("char"),
            Self::Byte => f.write_str("byte"),
            Self::Bpe(size) => write!(f, "bpe:{size}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for value in ["char", "byte", "bpe:257", "bpe:1000000", "some/tokenizer.json", "./char"] {
            let spec: TokenizerSpec = value.parse().unwrap();
            assert_eq!(spec.to_string(), value);
        }
    }

    #[test]
    fn refuses_sizes_out_of_range() {
        for value in [
            "bpe",
            "bpe:",
            "bpe:0",
            "bpe:256",
            "bpe:1000001",
            "bpe:-3",
            "bpe:4k",
            "bpe:99999999999999999999999",
        ] {
            let message = value.parse::<TokenizerSpec>().unwrap_err().to_string();
            assert!(message.contains("257 to 1000000"), "{message}");
            assert!(message.ends_with(&format!("found {value}")), "{message}");
        }
        assert!("".parse::<TokenizerSpec>().is_err());
    }
}
