//! Decoding ids one by one.

use super::Tokenizer;
use crate::Result;
use crate::files::formats::text_at_start;

/// Most tokens that wait for the rest of a character. One needs at most 4 byte tokens.
const MAX_PENDING: usize = 8;

/// Turns token ids into text as they are generated, never splitting a UTF-8 character.
///
/// The parts that [`Decoder::push`] and [`Decoder::finish`] return, joined, are what
/// [`Tokenizer::decode`] gives for all ids at once, always for the tokenizers this crate makes,
/// and for others unless their decoder rewrites text across more than a few tokens (removing
/// spaces in front of punctuation, for instance). A push costs the same however much text came
/// before. Bytes that can no longer become a character are given out as U+FFFD at once: at most
/// three bytes are ever held back (eight tokens, for decoders that do more than join bytes).
///
/// # Example
///
/// ```
/// use candle_tcn::text::{Tokenizer, TokenizerSpec};
///
/// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Byte, b"")?;
/// let mut decoder = tokenizer.decoder();
/// // é is the two bytes C3 A9
/// assert_eq!(decoder.push(0xC3)?, None);
/// assert_eq!(decoder.push(0xA9)?, Some("é".to_string()));
/// assert_eq!(decoder.push(0xC3)?, None);
/// assert_eq!(decoder.finish()?, "\u{fffd}");
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Decoder {
    tokenizer: Tokenizer,
    state: DecoderState,
}

#[derive(Debug, Clone)]
enum DecoderState {
    /// The bytes of an unfinished character: at most three.
    Bytes(Vec<u8>),
    /// The tokens given out last, which tell whether a space belongs in front of the next ones,
    /// and those held back.
    Window { context: Vec<u32>, pending: Vec<u32> },
}

impl Decoder {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        let state = match tokenizer.joins_bytes() {
            true => DecoderState::Bytes(Vec::new()),
            false => DecoderState::Window { context: Vec::new(), pending: Vec::new() },
        };
        Self { tokenizer, state }
    }

    /// The same decoder after tokens whose text is known already, such as a prompt's: some tokenizers
    /// put a space between tokens that the first one alone does not show.
    pub fn after(mut self, tokens: &[u32]) -> Self {
        if let DecoderState::Window { context, .. } = &mut self.state {
            *context = tokens[tokens.len().saturating_sub(MAX_PENDING)..].to_vec();
        }
        self
    }

    /// Takes the next id and returns the text that it completes, if any.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] for an id that is not in the vocabulary; the decoder then stays as it was.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.tokenizer.check_id(id)?;
        let text = match &mut self.state {
            DecoderState::Bytes(pending) => {
                pending.extend_from_slice(self.tokenizer.bytes_of(id).unwrap_or_default());
                take_complete(pending)
            }
            DecoderState::Window { .. } if self.tokenizer.is_special(id) => String::new(),
            DecoderState::Window { context, pending } => {
                pending.push(id);
                let text = new_text(&self.tokenizer, context, pending)?;
                if text.ends_with(char::REPLACEMENT_CHARACTER) && pending.len() < MAX_PENDING {
                    return Ok(None);
                }
                *context = std::mem::take(pending);
                text
            }
        };
        Ok((!text.is_empty()).then_some(text))
    }

    /// The text held back, an unfinished character as U+FFFD.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Text`] if a tokenizer from a file cannot decode the ids.
    pub fn finish(&self) -> Result<String> {
        match &self.state {
            DecoderState::Bytes(pending) => Ok(String::from_utf8_lossy(pending).into_owned()),
            DecoderState::Window { context, pending } => {
                new_text(&self.tokenizer, context, pending)
            }
        }
    }
}

/// Takes from `bytes` all that is decided: complete characters, and U+FFFD for what cannot become
/// one. An unfinished character at the end stays.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let invalid = chunk.invalid();
        let is_last = taken + invalid.len() == bytes.len();
        let may_go_on = invalid.is_empty() || is_last && text_at_start(invalid).1;
        if !may_go_on {
            text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
    }
    bytes.drain(..taken);
    text
}

/// The text that `pending` adds to that of `context`.
fn new_text(tokenizer: &Tokenizer, context: &[u32], pending: &[u32]) -> Result<String> {
    let before = tokenizer.decode(context)?;
    let mut text = tokenizer.decode(&[context, pending].concat())?;
    let pairs = before.chars().zip(text.chars());
    let common: usize = pairs.take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    text.drain(..common);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_between_prompt_and_text_is_kept() {
        // as `tokenizers` writes a word-level vocabulary with Metaspace: words begin with ▁
        let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "post_processor": null,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            "model": {"type": "WordLevel", "vocab": {"▁the": 0, "▁fox": 1, "?": 2}, "unk_token": "?"}}"#;
        let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
        assert_eq!(tokenizer.decoder().push(1).unwrap().unwrap(), "fox");
        assert_eq!(tokenizer.decoder().after(&[0]).push(1).unwrap().unwrap(), " fox");
    }

    #[test]
    fn holds_back_only_what_may_become_a_character() {
        let mut bytes = b"a\xe9\xbe".to_vec();
        assert_eq!(take_complete(&mut bytes), "a");
        assert_eq!(bytes, b"\xe9\xbe");
        bytes.push(0x8d);
        assert_eq!(take_complete(&mut bytes), "龍");
        // a lead byte is cut off by a letter
        let mut bytes = b"\xf0\x9f\x98z\xf0".to_vec();
        assert_eq!(take_complete(&mut bytes), "\u{fffd}z");
        assert_eq!(bytes, b"\xf0");
    }

    proptest::proptest! {
        #[test]
        fn is_the_lossy_text_of_the_whole(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"a\x80\xa9\xc3\xe9\xbe\x8d\xf0\x9f\x98\xff".to_vec()),
                0..40,
            ),
        ) {
            let (mut pending, mut text) = (Vec::new(), String::new());
            for &byte in &bytes {
                pending.push(byte);
                text += &take_complete(&mut pending);
                proptest::prop_assert!(pending.len() <= 3);
            }
            text += &String::from_utf8_lossy(&pending);
            proptest::prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
