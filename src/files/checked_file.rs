//! Files read at given places, each checked against the file's length first.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::AtPath;
use crate::{Error, Result};

/// An open file of known length, or bytes in memory under a file's name.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    path: PathBuf,
    content: Content,
    len: u64,
}

#[derive(Debug)]
enum Content {
    File(File),
    Memory(Vec<u8>),
}

impl CheckedFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // asked before opening: a named pipe would wait for its writer
        let about = std::fs::metadata(path).at(path)?;
        if !about.is_file() {
            let found = if about.is_dir() { "a folder" } else { "no ordinary file" };
            return Err(Error::file(path, format!("expected a file of tensors, found {found}")));
        }
        let content = Content::File(File::open(path).at(path)?);
        Ok(Self { path: path.to_path_buf(), content, len: about.len() })
    }

    /// Bytes that lie in memory; `name` stands in messages.
    pub(super) fn in_memory(name: &Path, bytes: &[u8]) -> Self {
        let content = Content::Memory(bytes.to_vec());
        Self { path: name.to_path_buf(), content, len: bytes.len() as u64 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// An error of what the file holds.
    pub(crate) fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }

    /// Checks what the file holds: an error with this message unless it `is_right`.
    pub(crate) fn require(&self, is_right: bool, message: impl FnOnce() -> String) -> Result<()> {
        if is_right { Ok(()) } else { Err(self.wrong(message())) }
    }

    /// Checks that `count` bytes from `start` on lie inside of the file.
    pub(super) fn check_range(&self, what: &str, start: u64, count: u64) -> Result<()> {
        let len = self.len;
        self.require(start.checked_add(count).is_some_and(|end| end <= len), || {
            format!("{what}: expected {count} bytes from byte {start} on, found a file of {len} bytes; is it cut?")
        })
    }

    /// `count` bytes from `start` on. No more than the file has are allocated.
    pub(super) fn bytes(&self, what: &str, start: u64, count: u64) -> Result<Vec<u8>> {
        self.check_range(what, start, count)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count as usize).map_err(|_| {
            Error::too_large(what, format!("there is no memory for its {count} bytes"))
        })?;
        match &self.content {
            Content::Memory(all) => {
                bytes.extend_from_slice(&all[start as usize..][..count as usize])
            }
            Content::File(file) => {
                let mut file = file;
                file.seek(SeekFrom::Start(start))
                    .and_then(|_| file.take(count).read_to_end(&mut bytes))
                    .at(&self.path)?;
            }
        }
        let is_whole = bytes.len() as u64 == count;
        self.require(is_whole, || format!("{what}: the file became shorter while it was read"))?;
        Ok(bytes)
    }
}

/// A whole number of at most eight bytes, the lowest first.
pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// Reads a file of at most `limit` bytes; `what` says in messages what it should be.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for a larger file.
pub fn read_small(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>> {
    let expected = format!("{what} of at most {limit} bytes");
    read_at_most(path, &expected, limit)
}

/// As [`read_small`], where messages say only what is `expected`.
pub(crate) fn read_at_most(path: &Path, expected: &str, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).at(path)?;
    let known = file.metadata().at(path)?.len();
    let mut bytes = Vec::new();
    if known <= limit {
        // a pipe does not know how much it will give
        file.take(limit + 1).read_to_end(&mut bytes).at(path)?;
    }
    match known.max(bytes.len() as u64) {
        found if found > limit => {
            Err(Error::file(path, format!("expected {expected}, found {found} bytes")))
        }
        _ => Ok(bytes),
    }
}

/// A name from a file as an error may show it: one line, not long.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut text: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}
