//! The token that ends a document, and other special tokens by their names.

use rayon::prelude::*;
use tokenizers::AddedToken;

use super::{Tokenizer, text_error};
use crate::{Error, Result};

/// Names of the token that ends a document, as tokenizers of the Hub have them.
const NAMES: [&str; 6] =
    ["<|endoftext|>", "</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<end_of_text>"];

impl Tokenizer {
    /// The id of the special token that ends a document, if there is one: `<|endoftext|>`, `</s>`, `<eos>`, `[EOS]`,
    /// `<|end_of_text|>` or `<end_of_text>`.
    pub fn end_id(&self) -> Option<u32> {
        NAMES.iter().find_map(|name| self.special_id(name))
    }

    /// The id of a special token of this name.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.token_id(name).filter(|&id| self.is_special(id))
    }

    /// The same tokenizer with a token that ends a document, `<|endoftext|>` with a new id where it has none; and
    /// that id.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] where the token cannot be added.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{Tokenizer, TokenizerSpec};
    /// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, b"ab")?;
    /// let (tokenizer, end) = tokenizer.with_end_token()?;
    /// assert_eq!((end, tokenizer.vocab_size(), tokenizer.end_id()), (3, 4, Some(3)));
    /// assert_eq!(tokenizer.encode_documents(&["ba", "a"], end)?, [3, 2, 1, 3, 1, 3]);
    /// assert_eq!(tokenizer.decode(&[3, 2, 1, 3])?, "ba");
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn with_end_token(&self) -> Result<(Self, u32)> {
        if let Some(id) = self.end_id() {
            return Ok((self.clone(), id));
        }
        let larger = self.with_specials(&NAMES[..1])?;
        let added = larger.end_id();
        let missing = || Error::Text(format!("{} cannot be added to the tokenizer", NAMES[0]));
        let id = added.ok_or_else(missing)?;
        Ok((larger, id))
    }

    /// The same tokenizer with a token that fills up and one that is looked for, `<pad>` and `<mask>` where it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] where a token cannot be added.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{Tokenizer, TokenizerSpec};
    /// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, b"ACGT")?.with_mask_tokens()?;
    /// assert_eq!((tokenizer.pad_id(), tokenizer.mask_id()), (Some(5), Some(6)));
    /// assert_eq!(tokenizer.encode("A<mask>T")?, [1, 6, 4]);
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn with_mask_tokens(&self) -> Result<Self> {
        let missing = [("<pad>", self.pad_id()), ("<mask>", self.mask_id())];
        let missing = missing.iter().filter(|(_, id)| id.is_none()).map(|(name, _)| *name);
        self.with_specials(&missing.collect::<Vec<_>>())
    }

    fn with_specials(&self, names: &[&str]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self.clone());
        }
        let mut hf = self.hf().clone();
        let token = |name: &&str| AddedToken::from(*name, true).normalized(false);
        hf.add_special_tokens(names.iter().map(token)).map_err(text_error)?;
        Self::from_hf(hf).map_err(Error::Text)
    }

    /// As [`encode_documents`](Self::encode_documents) of pairs: what stands before the first `separator` of a document,
    /// and what follows it; beside the tokens, `true` for those that follow, and for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] for a document without the separator, and those of [`Tokenizer::encode_bytes`].
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{Tokenizer, TokenizerSpec};
    /// let (tokenizer, end) = Tokenizer::from_spec(&TokenizerSpec::Char, b"abc=")?.with_end_token()?;
    /// let (tokens, scored) = tokenizer.encode_pairs(&["a=bc"], "=", end)?;
    /// assert_eq!(tokens, [5, 2, 1, 3, 4, 5]);
    /// assert_eq!(scored, [false, false, false, true, true, true]);
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn encode_pairs<D: AsRef<[u8]> + Sync>(
        &self,
        documents: &[D],
        separator: &str,
        end: u32,
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        let one = |(i, document): (usize, &D)| {
            let [source, target] = split_pair(i, document.as_ref(), separator)?;
            Ok([self.encode_bytes(source)?, self.encode_bytes(target)?])
        };
        let encoded: Result<Vec<_>> = documents.par_iter().enumerate().map(one).collect();
        let (mut tokens, mut scored) = (vec![end], vec![false]);
        for [source, target] in encoded? {
            scored.resize(tokens.len() + source.len(), false);
            tokens.extend(source);
            tokens.extend(target);
            tokens.push(end);
            scored.resize(tokens.len(), true);
        }
        Ok((tokens, scored))
    }

    /// The tokens of documents one after the other: `end` before the first, and behind each.
    ///
    /// # Errors
    ///
    /// Those of [`Tokenizer::encode_bytes`].
    pub fn encode_documents<D: AsRef<[u8]> + Sync>(
        &self,
        documents: &[D],
        end: u32,
    ) -> Result<Vec<u32>> {
        let encoded = documents.par_iter().map(|document| self.encode_bytes(document.as_ref()));
        let encoded: Vec<Vec<u32>> = encoded.collect::<Result<_>>()?;
        let mut tokens =
            Vec::with_capacity(encoded.iter().map(|ids| ids.len() + 1).sum::<usize>() + 1);
        tokens.push(end);
        for ids in encoded {
            tokens.extend(ids);
            tokens.push(end);
        }
        Ok(tokens)
    }
}

/// A document's part up to the end of the first separator, and the rest; `number` counts it in errors, from 0.
///
/// # Errors
///
/// [`Error::Text`] where there is no separator.
///
/// # Example
///
/// ```
/// let [source, target] = candle_tcn::text::split_pair(0, b"dog\tHund", "\t")?;
/// assert_eq!((source, target), (&b"dog\t"[..], &b"Hund"[..]));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn split_pair<'a>(number: usize, document: &'a [u8], separator: &str) -> Result<[&'a [u8]; 2]> {
    let mut places = document.windows(separator.len().max(1));
    let Some(at) = places.position(|place| place == separator.as_bytes()) else {
        let text: String = String::from_utf8_lossy(document).chars().take(40).collect();
        let number = number + 1;
        return Err(Error::Text(format!(
            "document {number}: expected {separator:?}, found none in {text:?}"
        )));
    };
    let (source, target) = document.split_at(at + separator.len());
    Ok([source, target])
}
