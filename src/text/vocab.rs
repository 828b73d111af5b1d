//! Tokenizers of single characters from a `vocab.txt`, one token a line.

use std::collections::HashSet;
use std::path::Path;

use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence;
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer as HfTokenizer};

use super::Tokenizer;
use super::build::characters;
use super::spec::MAX_VOCAB_SIZE;
use super::text_error;
use crate::files::names::MAX_VOCABULARY_BYTES;
use crate::files::read_at_most;
use crate::{Error, Result};

/// Names of the token for unknown characters.
const UNKNOWN: [&str; 2] = ["<unk>", "[UNK]"];

impl Tokenizer {
    /// The tokenizer of a `vocab.txt`, as Hugging Face's tokenizers of biological sequences have it: the id
    /// of a token is the number of its line, from 0. Each character of a text is a token, in capital letters
    /// where the vocabulary has no small one; tokens like `<mask>` or `[MASK]` are found in a text, and
    /// characters without a token become `<unk>` or `[UNK]`. No special token is added.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::File`] naming the line where it is no such
    /// vocabulary.
    pub fn from_vocab_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_at_most(path, "a vocabulary", MAX_VOCABULARY_BYTES)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| Error::file(path, format!("expected text in UTF-8: {e}")))?;
        Self::from_vocab(&text).map_err(|e| Error::file(path, e.to_string()))
    }

    /// As [`Tokenizer::from_vocab_file`], from the content of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] naming the line.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::Tokenizer;
    /// let tokenizer = Tokenizer::from_vocab("<pad>\n<unk>\n<mask>\nA\nC\n")?;
    /// assert_eq!(tokenizer.encode("Ac<mask>X")?, [3, 4, 2, 1]);
    /// assert_eq!(tokenizer.mask_id(), Some(2));
    /// assert_eq!(tokenizer.decode(&[3, 4, 4])?, "ACC");
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn from_vocab(text: &str) -> Result<Self> {
        let tokens: Vec<&str> = text.lines().collect();
        check(&tokens)?;
        Self::from_hf(build(&tokens)?).map_err(Error::Text)
    }

    /// This character tokenizer with more characters: ids stay as they are, new ones follow them.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a tokenizer of another kind, and for more than 1,000,000 tokens.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{Tokenizer, TokenizerSpec};
    /// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, b"ab")?;
    /// let larger = tokenizer.with_characters(&['c', 'a', 'd'])?;
    /// // <unk> 0, a 1, b 2, c 3, d 4
    /// assert_eq!(larger.encode("abcde")?, [1, 2, 3, 4, 0]);
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn with_characters(&self, characters: &[char]) -> Result<Self> {
        let unknown = self.unknown_id().and_then(|id| self.token_text(id));
        let known: Option<Vec<String>> =
            (0..self.vocab_size() as u32).map(|id| self.token_text(id)).collect();
        let (Some(unknown), Some(mut tokens), true) = (unknown, known, self.is_of_characters())
        else {
            let expected = "one of single characters and a token for unknown ones";
            return Err(Error::invalid("tokenizer", expected, "another kind"));
        };
        let mut seen: HashSet<String> = tokens.iter().cloned().collect();
        let new = characters.iter().map(char::to_string);
        tokens.extend(new.filter(|character| seen.insert(character.clone())));
        let expected = format!("at most {MAX_VOCAB_SIZE} tokens");
        Error::require(tokens.len() <= MAX_VOCAB_SIZE, "tokenizer", &expected, tokens.len())?;
        let specials = (0..self.vocab_size() as u32).filter(|&id| self.is_special(id));
        let specials = specials.filter_map(|id| self.token_text(id));
        let specials: Vec<AddedToken> =
            specials.map(|name| AddedToken::from(name, true).normalized(false)).collect();
        let mut hf = super::build::characters(tokens.into_iter(), &unknown)?;
        hf.add_special_tokens(specials).map_err(text_error)?;
        Self::from_hf(hf).map_err(Error::Text)
    }

    /// The id of a token, written as it stands in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.hf().token_to_id(token)
    }

    /// The id of the token that stands for what is to be found: `<mask>` or `[MASK]`.
    pub fn mask_id(&self) -> Option<u32> {
        self.token_id("<mask>").or_else(|| self.token_id("[MASK]"))
    }

    /// As [`mask_id`](Self::mask_id), where there must be one.
    ///
    /// # Errors
    /// [`Error::Text`] where there is none.
    pub fn expect_mask(&self) -> Result<u32> {
        let missing = || Error::Text("the tokenizer has no token <mask> or [MASK]".into());
        self.mask_id().ok_or_else(missing)
    }

    /// The id of the token that fills up shorter sequences: `<pad>` or `[PAD]`.
    pub fn pad_id(&self) -> Option<u32> {
        self.token_id("<pad>").or_else(|| self.token_id("[PAD]"))
    }
}

/// `true` if a token stands for something that is no text.
fn is_special(token: &str) -> bool {
    let is_between = |from, to| token.starts_with(from) && token.ends_with(to);
    token.chars().count() > 1 && (is_between('<', '>') || is_between('[', ']'))
}

fn check(tokens: &[&str]) -> Result<()> {
    if tokens.is_empty() || tokens.len() > MAX_VOCAB_SIZE {
        return Err(Error::Text(format!(
            "expected 1 to {MAX_VOCAB_SIZE} tokens, one a line, found {}",
            tokens.len()
        )));
    }
    let mut seen = HashSet::new();
    for (line, &token) in (1..).zip(tokens) {
        let fault = if token.is_empty() {
            "an empty line"
        } else if token.chars().count() > 1 && !is_special(token) {
            "a token of several characters, which needs a tokenizer.json"
        } else if !seen.insert(token) {
            "a token that stood before"
        } else {
            continue;
        };
        return Err(Error::Text(format!(
            "line {line}: expected a character, or a special token like <mask>; found {fault}: {token:?}"
        )));
    }
    Ok(())
}

fn build(tokens: &[&str]) -> Result<HfTokenizer> {
    let known: HashSet<&str> = tokens.iter().copied().collect();
    let unknown = UNKNOWN.into_iter().find(|token| known.contains(token)).ok_or_else(|| {
        let expected = UNKNOWN.join(" or ");
        let what = "for characters without a token";
        Error::Text(format!("expected a token {expected} {what}, found none"))
    })?;
    let mut hf = characters(tokens.iter().map(|token| token.to_string()), unknown)?;
    let capitals = ('a'..='z').filter_map(|small| {
        let (small, capital) = (small.to_string(), small.to_ascii_uppercase().to_string());
        let wanted = known.contains(&*capital) && !known.contains(&*small);
        wanted.then(|| Replace::new(small, capital).map(NormalizerWrapper::from))
    });
    let capitals: Vec<_> = capitals.collect::<Result<_, _>>().map_err(text_error)?;
    if !capitals.is_empty() {
        hf.with_normalizer(Some(Sequence::new(capitals))).map_err(text_error)?;
    }
    let special = tokens.iter().filter(|token| is_special(token));
    let special = special.map(|token| AddedToken::from(*token, true));
    hf.add_special_tokens(special).map_err(text_error)?;
    Ok(hf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_letters_that_have_a_token_stay() {
        let tokenizer = Tokenizer::from_vocab("[UNK]\r\na\r\nA\r\nC").unwrap();
        assert_eq!(tokenizer.encode("aAcC b").unwrap(), [1, 2, 3, 3, 0, 0]);
    }

    #[test]
    fn faults_are_told_with_their_line() {
        for (text, fault) in [
            ("", "expected 1 to"),
            ("<unk>\n\nA", "line 2"),
            ("<unk>\nA\nA", "line 3"),
            ("<unk>\nab", "tokenizer.json"),
            ("A\nB", "<unk> or [UNK]"),
        ] {
            let error = Tokenizer::from_vocab(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }
}
