//! `metrics.jsonl`: the figures of a training run, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::plot::LossPoint;
use crate::{AtPath, Error, Result};

/// Longest line that is read; one of ours has some 250 bytes.
const MAX_LINE: u64 = 64 * 1024;

/// The figures of a training run at one step.
///
/// A number that is not finite is `null` in JSON, which has no other word for it; it is read back
/// as NaN, or as `None` in an optional field.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Optimizer steps done.
    pub step: usize,
    /// Passes over the training data done, with the fraction of the current one.
    pub epoch: f64,
    /// Training tokens predicted so far.
    pub tokens: u64,
    /// Training loss since the last record, nats per token.
    #[serde(deserialize_with = "null_is_nan")]
    pub train_loss: f64,
    /// Learning rate of this step.
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// L2 norm of the gradient before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Training tokens per second since the last record.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_s: f64,
    /// Seconds of training so far, those before a resume included.
    #[serde(deserialize_with = "null_is_nan")]
    pub elapsed_s: f64,
    /// Validation loss, nats per token; only where a validation was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// The validation loss in bits per character of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_bpc: Option<f64>,
}

impl From<&Record> for LossPoint {
    fn from(record: &Record) -> Self {
        let &Record { step, train_loss, valid_loss, .. } = record;
        Self { step, train_loss, valid_loss }
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Appends [`Record`]s to `metrics.jsonl`.
///
/// Every record is handed to the system whole, with its line end, before
/// [`append`](Self::append) returns. If the machine stops in the middle of one, only that last
/// line is torn; reading leaves it out and the next log to open the file cuts it off.
///
/// # Example
///
/// ```
/// use candle_tcn::train::{MetricsLog, Record, read_metrics};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("metrics.jsonl");
/// let mut log = MetricsLog::create(&path)?;
/// for step in [10, 20, 30] {
///     log.append(&Record { step, train_loss: 2.5, ..Default::default() })?;
/// }
/// MetricsLog::resume(&path, 20)?; // the checkpoint of step 20: record 30 never happened
/// let steps: Vec<_> = read_metrics(&path)?.iter().map(|record| record.step).collect();
/// assert_eq!(steps, [10, 20]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
}

impl MetricsLog {
    /// A new, empty log; what `path` held before is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        File::create(path).at(path)?;
        Self::open_append(path)
    }

    /// Opens a log to go on with it, or makes a new one; a torn last line is cut off.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::File`] if a line but the last is not a record.
    pub fn open_append(path: impl AsRef<Path>) -> Result<Self> {
        Self::resume(path, usize::MAX)
    }

    /// As [`open_append`](Self::open_append), and cuts off the records after `step`: they belong
    /// to training that a checkpoint of `step` does not know.
    ///
    /// # Errors
    ///
    /// As [`open_append`](Self::open_append).
    pub fn resume(path: impl AsRef<Path>, step: usize) -> Result<Self> {
        let path = path.as_ref();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .at(path)?;
        let mut keep = 0;
        let mut ends_line = true;
        for line in scan(&file, path)? {
            if line.record.step > step {
                break;
            }
            keep = line.end;
            ends_line = line.terminated;
        }
        cut(&mut file, keep, ends_line).at(path)?;
        let path = path.to_path_buf();
        Ok(Self { file, path })
    }

    /// Appends one record.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], for instance on a full disk.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| Error::file(&self.path, format!("record not written: {error}")))?;
        line.push(b'\n');
        self.file.write_all(&line).at(&self.path)
    }
}

/// Keeps the first `length` bytes and goes to their end, which is made the end of a line.
fn cut(file: &mut File, length: u64, ends_line: bool) -> std::io::Result<()> {
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    if !ends_line {
        file.write_all(b"\n")?;
    }
    crate::files::sync(file)
}

/// Reads all records of a `metrics.jsonl`, but a torn last line.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read, [`Error::File`] with the line number if a line but
/// the last is not a record or a line is unreasonably long.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let file = File::open(path).at(path)?;
    let lines = scan(&file, path)?;
    Ok(lines.into_iter().map(|line| line.record).collect())
}

/// A line of the file.
struct RecordLine {
    record: Record,
    /// Bytes of the file up to its end.
    end: u64,
    /// It ends with a line feed.
    terminated: bool,
}

fn scan(file: &File, path: &Path) -> Result<Vec<RecordLine>> {
    let mut reader = BufReader::new(file);
    let mut lines = Vec::new();
    let mut bytes = Vec::new();
    let mut end = 0;
    for number in 1.. {
        bytes.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
        let length = read.at(path)? as u64;
        if length == 0 {
            break;
        }
        end += length;
        let terminated = bytes.last() == Some(&b'\n');
        match serde_json::from_slice(&bytes) {
            Ok(record) => lines.push(RecordLine { record, end, terminated }),
            // the process was stopped in the middle of this line
            Err(_) if !terminated && length < MAX_LINE => break,
            Err(error) => {
                let message = format!("line {number}: expected a training record, found {error}");
                return Err(Error::file(path, message));
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(step: usize) -> Record {
        Record {
            step,
            epoch: 0.5,
            tokens: 12_800 * step as u64,
            train_loss: 2.5,
            valid_loss: step.is_multiple_of(2).then_some(2.25),
            ..Default::default()
        }
    }

    /// A folder with a log of steps 1, 2, 3.
    fn three() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        for step in 1..=3 {
            log.append(&record(step)).unwrap();
        }
        (folder, path)
    }

    fn steps(path: &Path) -> Vec<usize> {
        read(path).unwrap().iter().map(|record| record.step).collect()
    }

    #[test]
    fn records_come_back_as_they_were() {
        let (_folder, path) = three();
        assert_eq!(read(&path).unwrap(), [record(1), record(2), record(3)]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(!text.lines().next().unwrap().contains("valid_loss"));
    }

    #[test]
    fn a_number_that_is_not_finite_is_null() {
        let (_folder, path) = three();
        let mut log = MetricsLog::open_append(&path).unwrap();
        let train_loss = f64::INFINITY;
        log.append(&Record { train_loss, valid_loss: Some(f64::NAN), ..record(4) }).unwrap();
        let last = read(&path).unwrap().pop().unwrap();
        assert!(last.train_loss.is_nan() && last.valid_loss.is_none());
        assert_eq!(last.step, 4);
    }

    #[test]
    fn create_empties_and_open_append_goes_on() {
        let (_folder, path) = three();
        MetricsLog::open_append(&path).unwrap().append(&record(4)).unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4]);
        MetricsLog::create(&path).unwrap();
        assert!(steps(&path).is_empty());
        std::fs::remove_file(&path).unwrap();
        MetricsLog::open_append(&path).unwrap().append(&record(1)).unwrap();
        assert_eq!(steps(&path), [1]);
    }

    #[test]
    fn resume_forgets_the_records_after_the_checkpoint() {
        for (step, expected) in [(0, vec![9]), (2, vec![1, 2, 9]), (7, vec![1, 2, 3, 9])] {
            let (_folder, path) = three();
            MetricsLog::resume(&path, step).unwrap().append(&record(9)).unwrap();
            assert_eq!(steps(&path), expected);
        }
    }

    #[test]
    fn a_log_torn_at_any_byte_is_read_and_mended() {
        let (_folder, path) = three();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut expected = steps(&path);
            let ends = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            // a record is whole with or without its line end
            let next = whole[length..].first() == Some(&b'\n');
            assert_eq!(expected.len(), ends + usize::from(next), "cut at {length}");
            MetricsLog::open_append(&path).unwrap().append(&record(9)).unwrap();
            expected.push(9);
            assert_eq!(steps(&path), expected, "cut at {length}");
        }
    }

    #[test]
    fn a_broken_line_before_the_last_is_an_error_and_nothing_is_cut() {
        let (_folder, path) = three();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.insert_str(0, "{\"step\": 1}\n");
        std::fs::write(&path, &text).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(
            message.contains("line 1: expected a training record, found missing field"),
            "{message}"
        );
        assert!(MetricsLog::resume(&path, 1).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (_folder, path) = three();
        std::fs::write(&path, vec![b' '; MAX_LINE as usize + 1]).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let (folder, _) = three();
        let message = read(folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("none: "), "{message}");
    }

    proptest! {
        // every case waits for the disk
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let (_folder, path) = three();
            std::fs::write(&path, bytes).unwrap();
            let _ = read(&path);
            let _ = MetricsLog::resume(&path, 1);
        }
    }
}
