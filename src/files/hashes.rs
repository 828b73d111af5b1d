//! Hashes of files in hexadecimal digits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::AtPath;
use crate::Result;

/// SHA-256 of everything that `reader` gives, in hexadecimal digits.
///
/// # Errors
/// Those of the reader.
///
/// # Example
///
/// ```
/// let hash = candle_tcn::files::sha256(&b"hello\n"[..])?;
/// // echo hello | sha256sum
/// assert!(hash.starts_with("5891b5b522d5df08"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn sha256(reader: impl Read) -> std::io::Result<String> {
    hash(Sha256::new(), reader)
}

/// The hash of everything that `reader` gives, in hexadecimal digits.
pub(crate) fn hash<D: Digest>(mut hasher: D, mut reader: impl Read) -> std::io::Result<String> {
    const PIECE: u64 = 1 << 16;
    let mut piece = Vec::new();
    while reader.by_ref().take(PIECE).read_to_end(&mut piece)? > 0 {
        hasher.update(&piece);
        piece.clear();
    }
    Ok(hex(&hasher.finalize()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) naming the file.
pub fn sha256_of(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    File::open(path).and_then(sha256).at(path)
}
