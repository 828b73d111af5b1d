//! Text in, batches of token ids out, and back: tokenizers, corpora, batches, incremental decoding.
//!
//! Nothing here knows of tensors: token ids are `u32`, batches are row-major `Vec<u32>`.
//!
//! # Example
//!
//! Train a character tokenizer, cut the text into batches, decode a token again:
//!
//! ```
//! use candle_tcn::text::{BatchMode, Batches, Tokenizer, TokenizerSpec};
//!
//! let text = "abababababab";
//! let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, text.as_bytes())?;
//! assert_eq!(tokenizer.vocab_size(), 3); // <unk>, a, b
//!
//! let tokens = tokenizer.encode(text)?;
//! let mut batches = Batches::new(tokens, 2, 3, BatchMode::Carry, 0)?;
//! let batch = batches.next_windows()?;
//! assert_eq!(batch.inputs.len(), 2 * 3);
//! // the target of an input is the token after it
//! assert_eq!(batch.targets[0], batch.inputs[1]);
//!
//! assert_eq!(tokenizer.decode(&[1, 2, 1])?, "aba");
//! # Ok::<(), candle_tcn::Error>(())
//! ```

mod batches;
mod build;
mod check;
mod corpus;
mod decode;
mod documents;
mod end_token;
mod inputs;
mod inspect;
mod limits;
mod pieces;
mod scan;
mod spec;
mod stream;
mod token_bytes;
mod token_store;
mod tokenizer;
#[cfg(test)]
mod tokenizer_tests;
mod vocab;

pub use batches::{BatchMode, BatchPosition, Batches, TokenWindows};
pub use check::not_text;
pub use corpus::{Corpus, split_fraction};
pub use decode::Decoder;
pub use documents::{DocumentReader, Documents, split_documents};
pub use end_token::split_pair;
pub use inputs::Inputs;
pub use scan::TextScan;
pub(crate) use spec::MAX_VOCAB_SIZE;
pub use spec::TokenizerSpec;
pub use stream::TokenStream;
pub use token_bytes::TokenBytes;
pub(crate) use token_store::sha256_of_tokens;
pub use token_store::{TokenFile, TokenStore};
pub use tokenizer::Tokenizer;

fn text_error(error: tokenizers::Error) -> crate::Error {
    crate::Error::Text(error.to_string())
}
