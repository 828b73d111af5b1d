//! From text to token ids.

use rayon::prelude::*;

use super::super::check::{Origin, text_of};
use super::super::corpus::starts_character;
use super::super::inspect::EncodingKind;
use super::super::pieces::{PIECE_BYTES, cut, cut_all};
use super::Tokenizer;
use crate::{Error, Result};

/// Bytes encoded before their ids are gathered; bounds the memory that the general machinery,
/// which keeps some hundred bytes per token, takes at a time.
const BYTES_AT_ONCE: usize = 64 * PIECE_BYTES;

impl Tokenizer {
    /// The token ids of a text.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] if a tokenizer from a file cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_at(text, true)
    }

    /// The token ids of a text in which names of special tokens mean nothing.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{Tokenizer, TokenizerSpec};
    ///
    /// let (bytes, end) = Tokenizer::from_spec(&TokenizerSpec::Byte, b"")?.with_end_token()?;
    /// assert_eq!(bytes.encode("<|endoftext|>")?, [end]);
    /// assert_eq!(bytes.encode_plain("<|endoftext|>")?.len(), 13);
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let named = self.inner.vocabulary.special.iter().filter_map(|&id| self.token_text(id));
        if !named.into_iter().any(|name| text.contains(&name)) {
            return self.encode(text);
        }
        let mut hf = self.inner.hf.clone();
        hf.set_encode_special_tokens(true);
        let encoded = hf.encode_fast(text, false);
        encoded.map(|encoding| encoding.get_ids().to_vec()).map_err(cannot)
    }

    /// The token ids of bytes, which must be UTF-8 text unless this is a byte tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] with the byte offset if they are not UTF-8 or hold a NUL byte, or if a
    /// tokenizer from a file cannot encode them.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{Tokenizer, TokenizerSpec};
    ///
    /// let bytes = Tokenizer::from_spec(&TokenizerSpec::Byte, b"")?;
    /// assert_eq!(bytes.encode_bytes(b"A\xff")?, [65, 255]);
    ///
    /// let chars = Tokenizer::from_spec(&TokenizerSpec::Char, b"A")?;
    /// let error = chars.encode_bytes(b"A\xff").unwrap_err().to_string();
    /// assert!(error.contains("byte offset 1"));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>> {
        Ok(self.encode_prefix(bytes, (true, true), &Origin::default())?.0)
    }

    /// Encodes as much of `bytes` as does not depend on what follows, or all if they are the
    /// `whole` rest of the text; `first` if the text begins with them. Returns the ids and the number of bytes
    /// they stand for.
    pub(in crate::text) fn encode_prefix(
        &self,
        bytes: &[u8],
        (first, whole): (bool, bool),
        origin: &Origin,
    ) -> Result<(Vec<u32>, usize)> {
        if let EncodingKind::Byte(table) = &self.inner.encoder {
            let named = !self.inner.specials.is_empty()
                && std::str::from_utf8(bytes).is_ok_and(|text| self.names_special(text));
            if !named {
                return Ok((look_up_bytes(table, bytes), bytes.len()));
            }
        }
        let text = text_of(bytes, whole, origin)?;
        let rest = match self.inner.encoder {
            EncodingKind::General if !whole => cut(text, PIECE_BYTES, &self.inner.cuts).1,
            _ => "",
        };
        let text = &text[..text.len() - rest.len()];
        Ok((self.encode_at(text, first)?, text.len()))
    }

    /// The token ids of a text that continues another: without what the tokenizer does at the beginning of one.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub(crate) fn encode_inside(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_at(text, false)
    }

    /// The token ids of a text, or of one that continues another if it is not the `first`.
    fn encode_at(&self, text: &str, first: bool) -> Result<Vec<u32>> {
        match &self.inner.encoder {
            _ if self.names_special(text) => {
                self.encode_pieces(&self.pieces(text, PIECE_BYTES), first)
            }
            EncodingKind::Byte(table) => Ok(look_up_bytes(table, text.as_bytes())),
            EncodingKind::Char { table, unk } => {
                let mut ids = Vec::with_capacity(text.chars().count());
                ids.extend(text.chars().map(|c| table.get(c as usize).copied().unwrap_or(*unk)));
                Ok(ids)
            }
            EncodingKind::General => self.encode_pieces(&self.pieces(text, PIECE_BYTES), first),
        }
    }

    fn names_special(&self, text: &str) -> bool {
        self.inner.specials.iter().any(|name| text.contains(name.as_str()))
    }

    /// The number of bytes at the start of `tail`, the end of a text, to leave out for the tokens of the rest to be
    /// the last ones of the whole text; none where those would be fewer than `tokens`, or it is not known.
    pub(in crate::text) fn skip_to_cut(&self, tail: &[u8], tokens: usize) -> Option<usize> {
        let character = tail.iter().position(|&byte| starts_character(byte));
        match self.inner.encoder {
            // four bytes hold a token
            EncodingKind::Byte(_) => Some(0),
            EncodingKind::Char { .. } => character,
            EncodingKind::General => {
                let text = std::str::from_utf8(&tail[character?..]).ok()?;
                let rest = self.inner.cuts.behind_cut(text)?;
                let enough = self.encode_inside(rest).ok()?.len() >= tokens;
                enough.then(|| tail.len() - rest.len())
            }
        }
    }

    /// The pieces of a text, of at least `min` bytes.
    pub(in crate::text) fn pieces<'t>(&self, text: &'t str, min: usize) -> Vec<&'t str> {
        cut_all(text, min, &self.inner.cuts)
    }

    /// The ids of pieces, of which the first is that of the text or not.
    pub(in crate::text) fn encode_pieces(&self, pieces: &[&str], first: bool) -> Result<Vec<u32>> {
        let encode = |(i, piece): (usize, &&str)| -> Result<Vec<u32>> {
            let inside = self.inner.hf_inside.as_ref().filter(|_| i > 0 || !first);
            let hf = inside.unwrap_or(&self.inner.hf);
            let encoded = hf.encode_fast(*piece, false);
            encoded.map(|encoding| encoding.get_ids().to_vec()).map_err(cannot)
        };
        let (mut ids, mut done) = (Vec::new(), 0);
        while done < pieces.len() {
            let mut bytes = 0;
            let group = pieces[done..].iter().take_while(|piece| {
                bytes += piece.len();
                bytes <= BYTES_AT_ONCE
            });
            let end = done + group.count().max(1);
            let group: Vec<_> = (done..end).zip(&pieces[done..end]).collect();
            let encoded: Result<Vec<_>> = group.into_par_iter().map(encode).collect();
            encoded?.iter().for_each(|piece| ids.extend(piece));
            done = end;
        }
        ids.shrink_to_fit();
        Ok(ids)
    }
}

fn cannot(error: tokenizers::Error) -> Error {
    Error::Text(format!("the tokenizer cannot encode the text: {error}"))
}

fn look_up_bytes(table: &[u32; 256], bytes: &[u8]) -> Vec<u32> {
    bytes.iter().map(|&byte| table[usize::from(byte)]).collect()
}
