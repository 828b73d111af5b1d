//! Writes that last: files and folders synced, where the file system can.

use std::fs::File;
use std::path::Path;

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

/// Makes what was written to `file` last, on file systems that can: some network and user-space file systems
/// answer `EINVAL` or `ENOSYS` to an fsync.
pub(crate) fn sync(file: &File) -> std::io::Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    file.sync_all().or_else(|error| match error.kind() {
        InvalidInput | Unsupported => Ok(()),
        _ => Err(error),
    })
}
