//! Locks between processes.

use std::fs::{File, Metadata, TryLockError};
use std::io::Result as IoResult;
use std::path::Path;

use crate::AtPath;
use crate::Result;

/// `true` if `found`, the metadata of a path, are those of this very file.
#[cfg(unix)]
pub(crate) fn is_same(file: &File, found: IoResult<Metadata>) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), found) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_same(_: &File, _: IoResult<Metadata>) -> bool {
    true
}

/// Exclusive lock on a file or folder, held as long as the value lives; the system takes it back when
/// the process ends. File systems without locks (`ENOLCK`) grant it to everyone.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Option<File>);

impl Lock {
    /// Locks `path`, which exists, or returns `None` where another process holds it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where the file cannot be opened.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::files::Lock;
    /// let folder = tempfile::tempdir().unwrap();
    /// let lock = Lock::take(folder.path())?;
    /// assert!(lock.is_some());
    /// # #[cfg(unix)]
    /// assert!(Lock::take(folder.path())?.is_none());
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn take(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = path.as_ref();
        // other systems than Unix cannot open a folder as a file
        if !cfg!(unix) && path.is_dir() {
            return Ok(Some(Self(None)));
        }
        let file = File::open(path).at(path)?;
        Ok(Self::of(file))
    }

    /// Opens or makes a file to read and write and locks it, or returns `None` where another process holds it.
    /// The file is still at `path` then: nobody removed it while the lock was being taken.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Option<(File, Self)>> {
        let path = path.as_ref();
        loop {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false);
            let file = file.open(path).at(path)?;
            let Some(lock) = Self::of(file.try_clone().at(path)?) else {
                return Ok(None);
            };
            if is_same(&file, path.metadata()) {
                return Ok(Some((file, lock)));
            }
        }
    }

    /// Locks an open file, or returns `None` where another process holds it.
    pub fn of(file: File) -> Option<Self> {
        match file.try_lock() {
            Ok(()) => Some(Self(Some(file))),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Self(None)),
        }
    }
}
