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
    /// The first line, perhaps without its end.
    pub settings: Vec<u8>,
    /// Bytes read.
    pub at: u64,
    pub len: u64,
}

impl RowReader {
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).at(path)?;
        let len = file.metadata().at(path)?.len();
        let reader = BufReader::new(file);
        let mut rows = Self { path: path.into(), reader, settings: Vec::new(), at: 0, len };
        rows.settings = rows.line()?;
        Ok(rows)
    }

    /// The next line; at the end of the file it may not be whole.
    fn line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(MAX_NOTE).read_until(b'\n', &mut bytes);
        self.at += read.at(&self.path)? as u64;
        Ok(bytes)
    }

    /// The next note and, if they are `wanted`, the bytes of its numbers; none where the row is not whole.
    pub fn row(&mut self, wanted: bool) -> anyhow::Result<Option<(Note, Vec<u8>)>> {
        let line = self.line()?;
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        let note: Note = serde_json::from_slice(&line).map_err(|_| {
            let message = "not a partial file of tcn embed; begin anew with --force";
            Error::file(&self.path, message)
        })?;
        let numbers = (note.positions as u64).checked_mul(note.width as u64);
        let len = numbers.and_then(|numbers| numbers.checked_mul(size_of::<f32>() as u64));
        let Some(len) = len.filter(|&len| len <= self.len - self.at) else {
            return Ok(None);
        };
        self.at += len;
        let mut bytes = vec![0; if wanted { usize::try_from(len)? } else { 0 }];
        match wanted {
            true => self.reader.read_exact(&mut bytes),
            false => self.reader.seek_relative(i64::try_from(len)?),
        }
        .at(&self.path)?;
        Ok(Some((note, bytes)))
    }
}
