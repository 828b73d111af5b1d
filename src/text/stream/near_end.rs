//! The end of a long file, without what stands before it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::TokenStream;
use crate::files::Decompressed;
use crate::text::Tokenizer;
use crate::{AtPath, Result};

/// Bytes of the end that are tried first, for each token.
const BYTES_OF_TOKEN: u64 = 4;

/// Most bytes of the end that are held; a file with fewer tokens in them is read from its beginning.
const MAX_TAIL: u64 = 1 << 26;

impl TokenStream<Decompressed> {
    /// Opens a file so near to its end that its last `tokens` tokens come, the same as if all of it were read; at
    /// its beginning where it has no more of them, or cannot be read from elsewhere (a pipe, a packed file).
    ///
    /// # Errors
    /// Those of [`TokenStream::open`].
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::text::{TokenStream, Tokenizer, TokenizerSpec};
    ///
    /// let file = tempfile::NamedTempFile::new().expect("a temporary file");
    /// std::fs::write(file.path(), "né".repeat(50_000)).expect("writable");
    /// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, "né".as_bytes())?;
    /// let ids: Vec<u32> = TokenStream::open_near_end(file.path(), &tokenizer, 3)?.next().expect("a piece")?;
    /// assert!(ids.len() < 20 && ids.ends_with(&[2, 1, 2]));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn open_near_end(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        tokens: usize,
    ) -> Result<Self> {
        let path = path.as_ref();
        let plain = path.is_file().then(|| Decompressed::open(path)).transpose()?;
        let Some(len) = plain.and_then(|file| file.known_bytes()) else {
            return Self::open(path, tokenizer);
        };
        let mut file = File::open(path).at(path)?;
        let start = start_of_last(&mut file, len, tokenizer, tokens).at(path)?;
        if start == 0 {
            return Self::open(path, tokenizer);
        }
        file.seek(SeekFrom::Start(start)).at(path)?;
        let mut stream = Self::of(Decompressed::new(file), path, tokenizer);
        stream.whole = false;
        stream.before = start;
        stream.origin.offset = start;
        Ok(stream)
    }
}

/// The offset, in a file of `len` bytes, at which the last `tokens` tokens begin, or one before; 0 if not found.
fn start_of_last(
    file: &mut File,
    len: u64,
    tokenizer: &Tokenizer,
    tokens: usize,
) -> std::io::Result<u64> {
    let mut tail = (tokens as u64).saturating_mul(BYTES_OF_TOKEN).max(16);
    while tail < len && tail <= MAX_TAIL {
        let start = file.seek(SeekFrom::Start(len - tail))?;
        let mut bytes = Vec::new();
        file.take(tail).read_to_end(&mut bytes)?;
        if let Some(skipped) = tokenizer.skip_to_cut(&bytes, tokens) {
            return Ok(start + skipped as u64);
        }
        tail *= 4;
    }
    Ok(0)
}
