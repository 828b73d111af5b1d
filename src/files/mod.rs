//! Bytes on a disk: writes that survive an interruption, locks, hashes, and what was packed.

pub(crate) mod formats;
mod lock;
mod replacement;
mod unpack;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use lock::Lock;
pub use replacement::{Replacement, TEMPORARY, write_atomic};
pub(crate) use unpack::is_packed;
pub use unpack::{Source, is_standard_input};

use crate::{Error, Result};

/// Folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename in `folder` last, on file systems that can sync a folder.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    // other systems cannot open a folder as a file; their rename is journalled
    match cfg!(unix) {
        true => sync(&File::open(folder)?),
        false => Ok(()),
    }
}

/// Makes what was written to `file` last, on file systems that can.
pub(crate) fn sync(file: &File) -> std::io::Result<()> {
    where_supported(file.sync_all())
}

/// Success also where the file system does not know the operation at all: some network and user-space
/// file systems answer `EINVAL` or `ENOSYS` to an fsync.
fn where_supported(result: std::io::Result<()>) -> std::io::Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    result.or_else(|error| match error.kind() {
        InvalidInput | Unsupported => Ok(()),
        _ => Err(error),
    })
}

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
pub fn sha256(mut reader: impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn sha256_of(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    File::open(path).and_then(sha256).map_err(|error| Error::io(path, error))
}
