//! A file that is read in places, each checked against its length first.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// An open file of known length.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(path, error);
        // asked before opening: a named pipe would wait for its writer
        let about = std::fs::metadata(path).map_err(failed)?;
        if !about.is_file() {
            let found = if about.is_dir() { "a folder" } else { "no ordinary file" };
            return Err(Error::file(path, format!("expected a file of weights, found {found}")));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file: File::open(path).map_err(failed)?,
            len: about.len(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file is not what it should be.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }

    /// That `bytes` from `start` on lie inside of the file.
    pub(super) fn check_range(&self, what: &str, start: u64, bytes: u64) -> Result<()> {
        match start.checked_add(bytes) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(self.wrong(format!(
                "{what}: expected {bytes} bytes from byte {start} on, found a file of {} bytes; is it cut?",
                self.len
            ))),
        }
    }

    /// The file from `start` on.
    pub(super) fn reader(&self, start: u64) -> Result<impl Read> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start)).map_err(|error| Error::io(&self.path, error))?;
        Ok(file)
    }

    /// `bytes` bytes from `start` on; the caller bounds them.
    pub(super) fn bytes(&self, what: &str, start: u64, bytes: u64) -> Result<Vec<u8>> {
        self.check_range(what, start, bytes)?;
        let mut content = Vec::new();
        self.reader(start)?
            .take(bytes)
            .read_to_end(&mut content)
            .map_err(|error| Error::io(&self.path, error))?;
        match content.len() as u64 == bytes {
            true => Ok(content),
            false => Err(self.wrong(format!("{what}: the file became shorter while it was read"))),
        }
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
