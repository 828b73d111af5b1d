//! The bytes that each token adds to a text.

use tokenizers::{Decoder as _, DecoderWrapper};

use super::Tokenizer;
use super::text_error;
use crate::{Error, Result};

/// Number of tokens that are decoded in a row to check the bytes of each.
const CHECKED: usize = 256;

/// The bytes that each token id adds to a text.
///
/// A token may be a part of a character. Some tokenizers write the first token of a text otherwise
/// than the others, without the space in front of it.
///
/// # Example
///
/// ```
/// use candle_tcn::text::{Tokenizer, TokenizerSpec};
/// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, "né".as_bytes())?;
/// // <unk>, n, é
/// let tokens = tokenizer.token_bytes()?;
/// assert_eq!(tokens.later()[1..], [Box::from(*b"n"), Box::from("é".as_bytes())]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBytes {
    first: Option<Vec<Box<[u8]>>>,
    later: Vec<Box<[u8]>>,
}

impl TokenBytes {
    /// The bytes of the ids 0, 1, 2 and so on, the same wherever the token stands.
    pub fn new(bytes: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { first: None, later: bytes.into_iter().map(Vec::into_boxed_slice).collect() }
    }

    #[cfg(test)]
    pub(crate) fn for_test(first: Option<Vec<Vec<u8>>>, later: Vec<Vec<u8>>) -> Self {
        Self { first: first.map(|bytes| Self::new(bytes).later), ..Self::new(later) }
    }

    /// The same for a text that goes on after another, such as a prompt that is shown: it has no first
    /// token.
    pub fn after_text(self) -> Self {
        Self { first: None, ..self }
    }

    /// The bytes of each id as the first token of a text, where they differ from the others.
    pub fn first(&self) -> Option<&[Box<[u8]>]> {
        self.first.as_deref()
    }

    /// The bytes of each id behind other tokens.
    pub fn later(&self) -> &[Box<[u8]>] {
        &self.later
    }
}

impl Tokenizer {
    /// The bytes that each id adds to a text: those of the unknown token, special tokens and ids
    /// without a token are empty.
    ///
    /// If decoding does more than join the tokens' bytes (WordPiece and Metaspace write spaces
    /// between words), they are found by decoding each token between two others.
    ///
    /// # Errors
    ///
    /// [`Error::TokenBytes`] if what a token adds depends on more than whether it is the first.
    pub fn token_bytes(&self) -> Result<TokenBytes> {
        let banned = self.banned_ids();
        let ids = 0..self.vocab_size() as u32;
        let known = |id: &u32| banned.binary_search(id).is_err();
        if self.joins_bytes() {
            let bytes = |id| self.bytes_of(id).filter(|_| known(&id));
            return Ok(TokenBytes::new(ids.map(|id| bytes(id).unwrap_or_default().to_vec())));
        }
        let between = self.neighbour(ids.clone().filter(known))?.ok_or(Error::TokenBytes)?;
        let table = |first: bool| -> Result<Vec<Box<[u8]>>> {
            let bytes = |id| if known(&id) { between.bytes(id, first) } else { Ok(Vec::new()) };
            ids.clone().map(|id| Ok(bytes(id)?.into())).collect()
        };
        let tokens = TokenBytes { first: Some(table(true)?), later: table(false)? };
        let sample = ids.filter(known).filter(|&id| between.byte(id).is_none());
        self.check_bytes(&tokens, &sample.take(CHECKED).collect::<Vec<_>>())?;
        Ok(tokens)
    }

    /// A token that other tokens are looked at beside: one whose text is seen when it is decoded.
    fn neighbour(&self, ids: impl Iterator<Item = u32>) -> Result<Option<Between<'_>>> {
        for id in ids {
            let alone = self.decode(&[id])?;
            let twice = self.decode(&[id, id])?;
            let behind = twice.strip_prefix(&alone).unwrap_or_default().to_string();
            let is_seen = !alone.is_empty() && !alone.contains(char::REPLACEMENT_CHARACTER);
            if is_seen && !behind.is_empty() {
                return Ok(Some(Between { tokenizer: self, id, alone, behind }));
            }
        }
        Ok(None)
    }

    /// Checks that the joined bytes of `ids` are what decoding gives, but for a space at the end.
    fn check_bytes(&self, tokens: &TokenBytes, ids: &[u32]) -> Result<()> {
        let mut joined = Vec::new();
        for (at, &id) in ids.iter().enumerate() {
            let table = tokens.first().filter(|_| at == 0);
            joined.extend_from_slice(&table.unwrap_or(tokens.later())[id as usize]);
        }
        let joined = String::from_utf8_lossy(&joined);
        let is_right = joined.trim_end() == self.decode(ids)?.trim_end();
        is_right.then_some(()).ok_or(Error::TokenBytes)
    }
}

/// Decodes tokens beside a token whose text is known.
struct Between<'a> {
    tokenizer: &'a Tokenizer,
    id: u32,
    /// The neighbour's text as the first token.
    alone: String,
    /// Its text behind another.
    behind: String,
}

impl Between<'_> {
    /// The bytes that `id` adds to a text.
    fn bytes(&self, id: u32, first: bool) -> Result<Vec<u8>> {
        if let Some(byte) = self.byte(id) {
            return Ok(vec![byte]);
        }
        if let Some(text) = self.link(id, first)? {
            return Ok(text.into_bytes());
        }
        let (ids, before) = match first {
            true => (vec![id, self.id], ""),
            false => (vec![self.id, id, self.id], self.alone.as_str()),
        };
        let text = self.tokenizer.decode(&ids)?;
        let text = text.strip_prefix(before).and_then(|text| text.strip_suffix(&self.behind));
        Ok(text.ok_or(Error::TokenBytes)?.into())
    }

    /// The byte that `id` stands for, like `<0x0A>`, where the decoder joins such tokens to characters.
    fn byte(&self, id: u32) -> Option<u8> {
        if !joins_byte_tokens(self.tokenizer.hf().get_decoder()?) {
            return None;
        }
        let token = self.tokenizer.token_text(id)?;
        let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
        (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
    }

    /// The text of `id` from a decoder that gives one text for every token.
    fn link(&self, id: u32, first: bool) -> Result<Option<String>> {
        let text = |id| self.tokenizer.token_text(id);
        let (Some(decoder), Some(neighbour), Some(token)) =
            (self.tokenizer.hf().get_decoder(), text(self.id), text(id))
        else {
            return Ok(None);
        };
        let (mut chain, at) = match first {
            true => (vec![token, neighbour], 0),
            false => (vec![neighbour.clone(), token, neighbour], 1),
        };
        let tokens = chain.len();
        chain = decoder.decode_chain(chain).map_err(text_error)?;
        Ok((chain.len() == tokens).then(|| chain.swap_remove(at)))
    }
}

fn joins_byte_tokens(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(decoders) => decoders.get_decoders().iter().any(joins_byte_tokens),
        _ => false,
    }
}
