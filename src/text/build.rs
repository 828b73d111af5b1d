//! Makes the tokenizers of this crate as Hugging Face pipelines.

use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeBuilder, BpeTrainer, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, PreTokenizerWrapper, Tokenizer as HfTokenizer};

use super::check::distinct_chars;
use super::inspect;
use super::pieces::{Cuts, PIECE_BYTES, cut_all};
use super::spec::MAX_VOCAB_SIZE;
use super::text_error;
use crate::{Error, Result};

/// The token that stands for a character which a character tokenizer has not seen.
const UNKNOWN: &str = "<unk>";

/// One token per distinct character of `text`, in code point order, behind `<unk>`.
pub(super) fn char(text: &str) -> Result<HfTokenizer> {
    let distinct = distinct_chars(text);
    let found = distinct.len();
    let expected = format!("text with fewer than {MAX_VOCAB_SIZE} distinct characters");
    Error::require(found < MAX_VOCAB_SIZE, "tokenizer", &expected, found)?;
    let tokens = std::iter::once(UNKNOWN.to_string()).chain(distinct.iter().map(char::to_string));
    characters(tokens, UNKNOWN)
}

/// Tokens of one character each (and special ones), which get the ids 0, 1, 2, …
pub(super) fn characters(
    tokens: impl Iterator<Item = String>,
    unknown: &str,
) -> Result<HfTokenizer> {
    let model = without_merges(tokens).unk_token(unknown.to_string()).build();
    let mut hf = HfTokenizer::new(model.map_err(text_error)?);
    hf.with_decoder(Some(Fuse::new()));
    Ok(hf)
}

fn without_merges(tokens: impl Iterator<Item = String>) -> BpeBuilder {
    BpeBuilder::new().vocab_and_merges(tokens.zip(0..).collect::<Vocab>(), Vec::new())
}

/// One token per byte, id = byte.
pub(super) fn byte() -> Result<HfTokenizer> {
    let tokens = inspect::byte_alphabet().into_iter().map(String::from);
    Ok(byte_level(without_merges(tokens).build().map_err(text_error)?, false))
}

/// Byte pairs learned from `text`.
pub(super) fn bpe(size: usize, text: &str) -> Result<HfTokenizer> {
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        // a pair seen once would only memorise the text
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(inspect::byte_alphabet().into())
        .build();
    let mut hf = byte_level(BPE::default(), true);
    let pieces = cut_all(text, PIECE_BYTES, &Cuts::default());
    hf.train(&mut TrainerWrapper::from(trainer), pieces.into_iter()).map_err(text_error)?;
    Ok(hf)
}

/// A pipeline over bytes; `words` splits like GPT-2, else a text is one word.
fn byte_level(model: BPE, words: bool) -> HfTokenizer {
    let bytes = ByteLevel::new(false, false, words);
    let mut hf = HfTokenizer::new(model);
    hf.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(bytes)));
    hf.with_decoder(Some(DecoderWrapper::ByteLevel(bytes)));
    hf
}
