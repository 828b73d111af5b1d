//! Text files in memory.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Inputs;
use super::check::{Origin, text_of};
use super::inputs::without_mark;
use crate::files::{Decompressed, is_standard_input};
use crate::{AtPath, Error, Result};

/// The bytes of one or more text files, in order, and where each file starts.
///
/// # Example
///
/// ```
/// use candle_tcn::text::Corpus;
///
/// let corpus = Corpus::from_bytes("天地玄黃".into());
/// assert_eq!(corpus.text()?, "天地玄黃");
/// assert_eq!(corpus.bytes().len(), 12);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    bytes: Vec<u8>,
    /// Each file and the place of its bytes, in order.
    files: Vec<(PathBuf, Range<usize>)>,
}

impl Corpus {
    /// Text that is in memory already.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, files: Vec::new() }
    }

    /// Reads the files of [`Inputs::find`] and joins them: named ones with nothing in between, found ones with a
    /// line end; a byte order mark at the start of one is left out.
    ///
    /// # Errors
    ///
    /// Those of [`Inputs::find`] and [`Corpus::read`].
    pub fn read_files(paths: &[PathBuf]) -> Result<Self> {
        Self::read(&Inputs::find(paths)?, u64::MAX)
    }

    /// Reads files, of `most` bytes together when they are unpacked.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if one cannot be read, [`Error::File`] if one is a folder or empty, [`Error::TooLarge`] for
    /// more bytes.
    pub fn read(inputs: &Inputs, most: u64) -> Result<Self> {
        let mut corpus = Self::default();
        for path in inputs.files() {
            let start = corpus.bytes.len();
            let left = most.saturating_sub(start as u64);
            let source = Decompressed::open(path)?.take(left.saturating_add(1));
            let is_named = !is_standard_input(path);
            let path = if is_named { path } else { Path::new("standard input") };
            let read =
                without_mark(source).and_then(|mut text| text.read_to_end(&mut corpus.bytes));
            read.at(path)?;
            if corpus.bytes.len() as u64 > most {
                let detail =
                    format!("the text has more than {most} bytes, which memory would not hold");
                return Err(Error::too_large(path.display().to_string(), detail));
            }
            if corpus.bytes.len() == start {
                return Err(empty(path));
            }
            if inputs.are_found() && !corpus.bytes.ends_with(b"\n") {
                corpus.bytes.push(b'\n');
            }
            corpus.files.push((path.to_path_buf(), start..corpus.bytes.len()));
        }
        Ok(corpus)
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All files as text, checked.
    ///
    /// # Errors
    ///
    /// [`Error::File`] ([`Error::Text`] for bytes from memory) with the file and the offset in it
    /// of the first byte that is not UTF-8, or of a NUL byte. Each file must be UTF-8 by itself.
    pub fn text(&self) -> Result<&str> {
        for (path, place) in &self.files {
            text_of(&self.bytes[place.clone()], true, &Origin::file(path))?;
        }
        text_of(&self.bytes, true, &Origin::default())
    }
}

pub(super) fn empty(path: &Path) -> Error {
    Error::file(path, "expected text, found an empty file")
}

/// Splits off the last `fraction` of `bytes` for validation.
///
/// The first part is `floor(len · (1 − fraction))` bytes long, or up to three fewer if that would
/// split a UTF-8 character and `utf8` is set.
///
/// # Errors
///
/// [`Error::Invalid`] unless 0 ≤ `fraction` < 1.
///
/// # Example
///
/// ```
/// use candle_tcn::text::split_fraction;
///
/// let (train, valid) = split_fraction("abécd".as_bytes(), 0.5, true)?;
/// // floor(6 · 0.5) = 3 is inside é
/// assert_eq!((train, valid), ("ab".as_bytes(), "écd".as_bytes()));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn split_fraction(bytes: &[u8], fraction: f64, utf8: bool) -> Result<(&[u8], &[u8])> {
    let allowed = (0.0..1.0).contains(&fraction);
    Error::require(allowed, "valid_fraction", "a number from 0 to below 1", fraction)?;
    // a float to integer cast saturates; f64 holds lengths up to 2^53 exactly
    let mut at = ((bytes.len() as f64 * (1.0 - fraction)) as usize).min(bytes.len());
    let lowest = at.saturating_sub(3);
    while utf8 && at > lowest && bytes.get(at).is_some_and(|&byte| !starts_character(byte)) {
        at -= 1;
    }
    Ok(bytes.split_at(at))
}

/// `true` if a byte of UTF-8 text starts a character, rather than continues one.
pub(super) fn starts_character(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_the_shakespeare_file_like_others_do() {
        let (train, valid) = split_fraction(&vec![b'a'; 1_115_394], 0.1, true)
            .map(|(train, valid)| (train.len(), valid.len()))
            .unwrap();
        assert_eq!((train, valid), (1_003_854, 111_540));
    }

    #[test]
    fn splits_in_front_of_a_character() {
        let text = "𠀀𠀁𠀂"; // 4 bytes each
        for fraction in [0.0, 0.1, 0.3, 0.5, 0.6, 0.9, 0.999] {
            let (train, valid) = split_fraction(text.as_bytes(), fraction, true).unwrap();
            let train = std::str::from_utf8(train).unwrap();
            assert_eq!(train.to_owned() + std::str::from_utf8(valid).unwrap(), text);
        }
        let (train, _) = split_fraction(text.as_bytes(), 0.5, false).unwrap();
        assert_eq!(train.len(), 6);
        // not text at all: no endless search
        assert_eq!(split_fraction(&[0x80; 100], 0.5, true).unwrap().0.len(), 47);
        assert_eq!(split_fraction(b"", 0.5, true).unwrap().0.len(), 0);
    }

    #[test]
    fn refuses_fractions_out_of_range() {
        for fraction in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
            let error = split_fraction(b"abc", fraction, true).unwrap_err();
            assert!(error.to_string().contains("valid_fraction"));
        }
    }
}
