//! One look at a text of any length.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::check::{Origin, distinct_chars, text_of};
use crate::files::{formats, hex};
use crate::{AtPath, Result};

/// Bytes looked at together.
const PIECE: usize = 1 << 20;

/// Facts of a text, found in one pass and in constant memory.
///
/// # Example
///
/// ```
/// use candle_tcn::text::TextScan;
/// let scan = TextScan::of("née".as_bytes(), "a.txt", false)?;
/// assert_eq!((scan.bytes, scan.characters), (4, vec!['e', 'n', 'é']));
/// assert!(TextScan::of(&b"n\xffe"[..], "a.txt", false).is_err());
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextScan {
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Number of its bytes.
    pub bytes: u64,
    /// The distinct characters, in code point order; none of bytes that are no text.
    pub characters: Vec<char>,
}

impl TextScan {
    /// Looks at a text that `source` is named in errors about: in UTF-8, unless it may be `any_bytes`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where it cannot be read, and as [`Corpus::text`](super::Corpus::text) for what is
    /// no text.
    pub fn of(mut text: impl Read, source: impl AsRef<Path>, any_bytes: bool) -> Result<Self> {
        let source = source.as_ref();
        let mut origin = Origin::file(source);
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut characters = BTreeSet::new();
        let mut piece = Vec::with_capacity(PIECE + 4);
        loop {
            let before = piece.len();
            let read = text.by_ref().take(PIECE as u64).read_to_end(&mut piece).at(source)?;
            hash.update(&piece[before..]);
            bytes += read as u64;
            if any_bytes {
                piece.clear();
            } else {
                if origin.start.is_empty() {
                    origin.start = piece[..piece.len().min(formats::START_BYTES)].to_vec();
                }
                // the last character may go on in the next piece
                let known = text_of(&piece, read < PIECE, &origin)?;
                characters.extend(distinct_chars(known));
                let known = known.len();
                origin.offset += known as u64;
                piece.drain(..known);
            }
            if read < PIECE {
                break;
            }
        }
        let characters = characters.into_iter().collect();
        Ok(Self { sha256: hex(&hash.finalize()), bytes, characters })
    }
}
