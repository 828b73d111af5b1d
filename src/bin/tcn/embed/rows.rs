//! Rows of a partial file, as they lie on the disk.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use candle_tcn::{AtPath, Error};
use serde::{Deserialize, Serialize};

/// The longest line that a partial file's own notes take.
const MAX_NOTE: u64 = 1 << 20;

/// The line of JSON before the numbers of a row.
#[derive(Serialize, Deserialize)]
pub struct Note {
    pub id: Option<String>,
    pub positions: usize,
    pub width: usize,
    /// The last row of those that were appended together: only after it a run can go on, so that the same
    /// sequences meet in a batch.
    pub last: bool,
}

/// Reads a partial file from the beginning.
pub struct RowReader {
    path: PathBuf,
    reader: BufReader<File>,
    pub settings: String,
    /// Bytes read.
    pub at: u64,
    pub len: u64,
}

impl RowReader {
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).at(path)?;
        let len = file.metadata().at(path)?.len();
        let mut rows = Self {
            path: path.into(),
            reader: BufReader::new(file),
            settings: String::new(),
            at: 0,
            len,
        };
        rows.settings = rows.line()?.unwrap_or_default();
        Ok(rows)
    }

    /// The next whole line.
    fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(MAX_NOTE).read_until(b'\n', &mut bytes);
        self.at += read.at(&self.path)? as u64;
        let whole = bytes.ends_with(b"\n");
        Ok(whole.then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The next note, and the bytes of its numbers, if they are all there.
    fn note(&mut self) -> anyhow::Result<Option<(Note, u64)>> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        let damaged = |_| {
            let message = "not a partial file of tcn embed; begin anew with --force";
            Error::file(&self.path, message)
        };
        let note: Note = serde_json::from_str(&line).map_err(damaged)?;
        let bytes = (note.positions as u64)
            .checked_mul(note.width as u64)
            .and_then(|numbers| numbers.checked_mul(size_of::<f32>() as u64));
        let there = self.len - self.at;
        Ok(bytes.filter(|&bytes| bytes <= there).map(|bytes| (note, bytes)))
    }

    pub fn skip(&mut self) -> anyhow::Result<Option<Note>> {
        let Some((note, bytes)) = self.note()? else {
            return Ok(None);
        };
        let relative = i64::try_from(bytes)?;
        self.reader.seek_relative(relative).at(&self.path)?;
        self.at += bytes;
        Ok(Some(note))
    }

    pub fn row(&mut self) -> anyhow::Result<Option<(Note, Vec<u8>)>> {
        let Some((note, len)) = self.note()? else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(len)?];
        self.reader.read_exact(&mut bytes).at(&self.path)?;
        self.at += len;
        Ok(Some((note, bytes)))
    }
}
