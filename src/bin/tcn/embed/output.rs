//! Embeddings on their way to a file: first into a partial one beside it, row by row, which an interrupted
//! run goes on with; at the end into the form that was asked for. Memory does not grow with their number.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_tcn::files::{Lock, Replacement};
use candle_tcn::{AtPath, Error};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rows::{Note, RowReader};
use crate::usage_error;

/// The form of the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// `embeddings` (sequences, width), or a tensor `0`, `1`, … (positions, width) for each sequence
    Safetensors,
    /// (sequences, width)
    Npy,
    /// `{"index", "id", "embedding"}`, one a line
    JsonLines,
}

impl OutputFormat {
    /// By the file's ending.
    pub fn of(path: &Path, per_position: bool) -> anyhow::Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") if per_position => Err(usage_error(
                "--output: .npy holds one array, which sequences of many lengths do not fit; expected .safetensors or .jsonl with --per-position",
            )),
            Some("npy") => Ok(Self::Npy),
            Some("jsonl") => Ok(Self::JsonLines),
            _ => Err(usage_error(format!(
                "--output: expected a name that ends in .safetensors, .npy or .jsonl, found {}",
                path.display()
            ))),
        }
    }
}

/// The settings of a run: one that goes on has to have the same. Files are known by their SHA-256.
#[derive(PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Of this program: others may compute other last digits.
    pub version: String,
    /// Of configuration, weights and tokenizer.
    pub model: Vec<String>,
    /// None for standard input and pipes, which cannot be read again: such a run cannot go on.
    pub input: Option<String>,
    pub layer: String,
    pub per_position: bool,
    pub dtype: String,
    pub batch_tokens: usize,
}

/// A file of rows: the settings, then for each row a note and its numbers. It is locked for this process.
pub struct Partial {
    path: PathBuf,
    file: File,
    _lock: Lock,
    /// Rows so far.
    pub rows: u64,
    /// Numbers of a position.
    pub width: usize,
    /// The file is this run's: not before it is known to be no other's.
    is_own: bool,
    /// A later run can go on with its rows.
    is_kept: bool,
    /// Of an output that has no place for a file beside it.
    _temporary: Option<tempfile::TempDir>,
}

impl Partial {
    /// The partial file of this output, as far as rows of it can be used.
    pub fn open(output: &Path, settings: &Settings, force: bool) -> anyhow::Result<Self> {
        // beside a device or a pipe there is no place for a file
        let special = std::fs::metadata(output).is_ok_and(|found| !found.is_file());
        let temporary = special.then(tempfile::tempdir).transpose()?;
        let path = match &temporary {
            Some(folder) => folder.path().join("embeddings.part"),
            None => PathBuf::from([output.as_os_str(), ".part".as_ref()].join("".as_ref())),
        };
        let Some((file, lock)) = Lock::open(&path)? else {
            return Err(Error::file(&path, "in use by another run; choose another --output").into());
        };
        let mut partial = Self {
            path,
            file,
            _lock: lock,
            rows: 0,
            width: 0,
            is_own: false,
            is_kept: settings.input.is_some(),
            _temporary: temporary,
        };
        let end = partial.scan(settings, force)?;
        partial.file.set_len(end).at(&partial.path)?;
        partial.file.seek(SeekFrom::Start(end)).at(&partial.path)?;
        if end == 0 {
            writeln!(partial.file, "{}", serde_json::to_string(settings)?).at(&partial.path)?;
        }
        partial.is_own = true;
        Ok(partial)
    }

    /// Counts the rows that can be used; gives the end of the last. 0 if the file has to start over. Refuses a file
    /// of this name that was not made here, and may be somebody's download.
    fn scan(&mut self, settings: &Settings, force: bool) -> anyhow::Result<u64> {
        let mut reader = RowReader::new(&self.path)?;
        let first = &reader.settings[..];
        // the first field of the settings, now and earlier; it may be cut
        let starts = [&b"{\"version\":"[..], b"{\"model\":"];
        if !starts.iter().any(|start| first.starts_with(start) || start.starts_with(first)) {
            let message = "expected a partial file of tcn embed or none, found something else; move it, or choose another --output";
            return Err(Error::file(&self.path, message).into());
        }
        match serde_json::from_slice::<Settings>(first) {
            _ if force => return Ok(0),
            // cut before its first line was whole
            Err(_) if !first.ends_with(b"\n") => return Ok(0),
            Ok(found) if found.input.is_none() => return Ok(0),
            Ok(found) if found == *settings => {}
            // nobody has anything to lose
            Ok(_) if reader.at == reader.len => return Ok(0),
            _ => bail_usage!(
                "--output: {} is left over from a run with another input, model or settings; begin anew with --force",
                self.path.display()
            ),
        }
        let (mut end, mut rows) = (reader.at, 0);
        while let Some((note, _)) = reader.row(false)? {
            rows += 1;
            if note.last {
                (end, self.rows, self.width) = (reader.at, rows, note.width);
            }
        }
        Ok(end)
    }

    /// Appends rows, notes and numbers, and makes them last.
    pub fn append(&mut self, rows: &[(Note, Vec<f32>)]) -> anyhow::Result<()> {
        let mut out = BufWriter::new(&self.file);
        let mut write = || -> std::io::Result<()> {
            for (note, numbers) in rows {
                writeln!(out, "{}", serde_json::to_string(note)?)?;
                for number in numbers {
                    out.write_all(&number.to_le_bytes())?;
                }
            }
            out.flush()?;
            self.file.sync_data()
        };
        write().at(&self.path)?;
        self.rows += rows.len() as u64;
        self.width = rows.last().map_or(self.width, |(note, _)| note.width);
        Ok(())
    }

    /// Writes the output and removes the partial file.
    pub fn finish(mut self, format: OutputFormat, output: &Path) -> anyhow::Result<()> {
        let mut replacement = Replacement::begin(output)?;
        let mut out = BufWriter::new(replacement.file());
        match format {
            OutputFormat::Safetensors => self.write_safetensors(&mut out)?,
            OutputFormat::Npy => {
                out.write_all(&npy_header(self.rows, self.width)).at(output)?;
                self.copy_numbers(&mut out)?;
            }
            OutputFormat::JsonLines => self.write_json_lines(&mut out)?,
        }
        out.flush().at(output)?;
        drop(out);
        replacement.commit()?;
        self.is_kept = false;
        Ok(())
    }

    fn write_safetensors(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut tensors = Vec::new();
        let mut reader = RowReader::new(&self.path)?;
        let settings: Settings = serde_json::from_slice(&reader.settings)?;
        let mut tensor = |name: String, shape: Vec<usize>, start: usize| {
            let end = start + shape.iter().product::<usize>() * size_of::<f32>();
            let info = TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) };
            tensors.push((name, info));
            end
        };
        if settings.per_position {
            let mut start = 0;
            for index in 0.. {
                let Some((note, _)) = reader.row(false)? else { break };
                start = tensor(index.to_string(), vec![note.positions, note.width], start);
            }
        } else {
            tensor("embeddings".into(), vec![self.rows as usize, self.width], 0);
        }
        let mut header = serde_json::to_vec(&Metadata::new(None, tensors)?)?;
        // the numbers begin at a multiple of 8 bytes
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        self.copy_numbers(out)
    }

    fn copy_numbers(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut reader = RowReader::new(&self.path)?;
        while let Some((_, bytes)) = reader.row(true)? {
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn write_json_lines(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut reader = RowReader::new(&self.path)?;
        for index in 0.. {
            let Some((note, bytes)) = reader.row(true)? else {
                break;
            };
            let numbers: Vec<f32> =
                bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let embedding = match note.positions {
                1 => json!(numbers),
                _ => numbers.chunks_exact(note.width.max(1)).map(|row| json!(row)).collect(),
            };
            writeln!(out, "{}", json!({"index": index, "id": note.id, "embedding": embedding}))?;
        }
        Ok(())
    }
}

/// A file without rows, or of a run that cannot go on, is removed with its run.
impl Drop for Partial {
    fn drop(&mut self) {
        if self.is_own && (!self.is_kept || self.rows == 0) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// NumPy's format 1.0: magic, version, length of the description, the description, ended by a line end at a
/// multiple of 64 bytes.
fn npy_header(rows: u64, width: usize) -> Vec<u8> {
    const BEFORE: usize = 10;
    let description =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let len = (BEFORE + description.len() + 1).next_multiple_of(64) - BEFORE;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(format!("{description:<0$}\n", len - 1).as_bytes());
    header
}
