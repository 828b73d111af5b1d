//! Texts that fall into documents.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Inputs;
use super::check::{Origin, text_of};
use super::inputs::without_mark;
use crate::files::{Decompressed, formats, is_standard_input};
use crate::{AtPath, Error, Result};

/// The longest document, which is held in memory.
const MAX_BYTES: u64 = 1 << 30;

/// The way in which texts fall into documents. Line ends around a document are not part of it, and empty ones are left
/// out.
///
/// Written and read as `lines`, `files`, or as the separator.
///
/// # Example
///
/// ```
/// use candle_tcn::text::{DocumentReader, Documents};
///
/// let read = |text: &'static str, by: Documents| -> candle_tcn::Result<Vec<Vec<u8>>> {
///     DocumentReader::new(text.as_bytes(), by).collect()
/// };
/// assert_eq!(read("one\n\ntwo\n", Documents::Lines)?, [b"one", b"two"]);
/// assert_eq!(read("a\nb\n---\nc\n", "---".parse()?)?, [&b"a\nb"[..], b"c"]);
/// assert_eq!(read("a\nb\n", Documents::Files)?, [b"a\nb"]);
/// assert_eq!(read("{\"text\": \"a\\nb\"}\n", Documents::Field("text".into()))?, [b"a\nb"]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Documents {
    /// Each line is one.
    Lines,
    /// Each file is one.
    Files,
    /// They stand between separators, and each file begins another.
    Separator(String),
    /// Each line is a JSON object, whose field of this name is one.
    Field(String),
}

impl FromStr for Documents {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" => Err(Error::invalid("documents", "lines, files or a separator", "nothing")),
            "lines" => Ok(Self::Lines),
            "files" => Ok(Self::Files),
            separator => Ok(Self::Separator(separator.into())),
        }
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("lines"),
            Self::Files => f.write_str("files"),
            Self::Separator(separator) => f.write_str(separator),
            Self::Field(field) => write!(f, "the field {field} of JSON lines"),
        }
    }
}

impl Documents {
    /// The documents of files, in order, each read as it comes: text, unless they may be `any_bytes`.
    pub fn of(
        self,
        inputs: &Inputs,
        any_bytes: bool,
    ) -> impl Iterator<Item = Result<Vec<u8>>> + use<> {
        inputs.files().to_vec().into_iter().flat_map(move |path| {
            let (reader, error) = match self.open(&path) {
                Ok(reader) => (Some(DocumentReader { any_bytes, ..reader }), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(reader.into_iter().flatten())
        })
    }

    fn open(&self, path: &Path) -> Result<DocumentReader<impl BufRead + use<>>> {
        let text = without_mark(Decompressed::open(path)?).at(path)?;
        let mut reader = DocumentReader::new(BufReader::new(text), self.clone());
        if !is_standard_input(path) {
            reader.origin = Origin::file(path);
        }
        Ok(reader)
    }
}

/// The documents of one text, one after the other: an iterator of their bytes. After an error it ends.
#[derive(Debug)]
pub struct DocumentReader<R> {
    text: R,
    by: Documents,
    /// With the place of the document that is read.
    origin: Origin,
    any_bytes: bool,
    line: u64,
    /// Bytes read so far.
    read: u64,
    failed: bool,
}

impl<R: BufRead> DocumentReader<R> {
    /// Reads from anything; a slice of bytes will do.
    pub fn new(text: R, by: Documents) -> Self {
        Self {
            text,
            by,
            origin: Origin::default(),
            any_bytes: true,
            line: 0,
            read: 0,
            failed: false,
        }
    }

    fn error(&self, what: impl fmt::Display) -> Error {
        match &self.origin.path {
            Some(path) => Error::file(path, what.to_string()),
            None => Error::Text(what.to_string()),
        }
    }

    fn advance(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut bytes = Vec::new();
            self.origin.offset = self.read;
            let ended = match self.by.clone() {
                Documents::Files => {
                    self.read(|text, bytes| text.read_to_end(bytes), &mut bytes)? == 0
                }
                Documents::Lines | Documents::Field(_) => self.read_until("\n", &mut bytes)?,
                Documents::Separator(separator) => self.read_until(&separator, &mut bytes)?,
            };
            self.line += 1;
            if self.origin.start.is_empty() {
                self.origin.start = bytes[..bytes.len().min(formats::START_BYTES)].to_vec();
            }
            if !self.any_bytes {
                text_of(&bytes, true, &self.origin)?;
            }
            let document = trimmed(&bytes);
            if let (Documents::Field(field), false) = (&self.by, document.is_empty()) {
                let text = self.field(document, field)?;
                let text = trimmed(text.as_bytes());
                if !text.is_empty() {
                    return Ok(Some(text.to_vec()));
                }
            } else if !document.is_empty() {
                return Ok(Some(document.to_vec()));
            }
            if ended {
                return Ok(None);
            }
        }
    }

    fn read(
        &mut self,
        read: impl FnOnce(&mut std::io::Take<&mut R>, &mut Vec<u8>) -> std::io::Result<usize>,
        bytes: &mut Vec<u8>,
    ) -> Result<usize> {
        let left = (MAX_BYTES + 1).saturating_sub(bytes.len() as u64);
        let read = read(&mut (&mut self.text).take(left), bytes).map_err(|error| {
            match &self.origin.path {
                Some(path) => Error::io(path, error),
                None => Error::Text(format!("the text cannot be read: {error}")),
            }
        })?;
        self.read += read as u64;
        match bytes.len() as u64 > MAX_BYTES {
            true => Err(self.error(format!(
                "expected documents of at most {MAX_BYTES} bytes, found a longer one"
            ))),
            false => Ok(read),
        }
    }

    /// Reads to a separator, which is left out; `true` at the end of the text.
    fn read_until(&mut self, separator: &str, bytes: &mut Vec<u8>) -> Result<bool> {
        let last = separator.as_bytes().last().copied().unwrap_or(b'\n');
        loop {
            if self.read(|text, bytes| text.read_until(last, bytes), bytes)? == 0 {
                return Ok(true);
            }
            if bytes.ends_with(separator.as_bytes()) {
                bytes.truncate(bytes.len() - separator.len());
                return Ok(false);
            }
        }
    }

    fn field(&self, line: &[u8], field: &str) -> Result<String> {
        let number = self.line;
        let text = text_of(line, true, &self.origin)?;
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            self.error(format!("line {number}: expected a JSON object: {error}"))
        })?;
        match object.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.error(format!(
                "line {number}: expected text in {field:?}, found another kind of value"
            ))),
            None => {
                let names: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
                Err(self.error(format!(
                    "line {number}: expected a field {field:?}, found {}",
                    names.join(", ")
                )))
            }
        }
    }
}

/// Splits off documents at the end for validation, of at least a fraction of all bytes; one is left at least.
///
/// # Errors
///
/// [`Error::Invalid`] unless 0 ≤ `fraction` < 1.
///
/// # Example
///
/// ```
/// let (train, valid) = candle_tcn::text::split_documents(vec!["abc", "d", "ef"], 0.5)?;
/// assert_eq!((train, valid), (vec!["abc"], vec!["d", "ef"]));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn split_documents<D: AsRef<[u8]>>(
    mut documents: Vec<D>,
    fraction: f64,
) -> Result<(Vec<D>, Vec<D>)> {
    let allowed = (0.0..1.0).contains(&fraction);
    Error::require(allowed, "valid_fraction", "a number from 0 to below 1", fraction)?;
    let len = |document: &D| document.as_ref().len();
    let wanted = (documents.iter().map(len).sum::<usize>() as f64 * fraction).ceil() as usize;
    let (mut at, mut bytes) = (documents.len(), 0);
    while at > 1 && bytes < wanted {
        at -= 1;
        bytes += len(&documents[at]);
    }
    let valid = documents.split_off(at);
    Ok((documents, valid))
}

/// Without line ends around it.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b'\n' | b'\r', rest @ ..] | [rest @ .., b'\n' | b'\r'] = text {
        text = rest;
    }
    text
}

impl<R: BufRead> Iterator for DocumentReader<R> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], by: &str) -> Result<Vec<String>> {
        let documents = DocumentReader::new(text, by.parse()?);
        documents.map(|document| Ok(String::from_utf8_lossy(&document?).into_owned())).collect()
    }

    #[test]
    fn separators_may_be_of_any_length() {
        assert_eq!(read(b"a--b---c", "--").unwrap(), ["a", "b", "-c"]);
        assert_eq!(read(b"<end>\n\na\r\n<end>b<end>", "<end>").unwrap(), ["a", "b"]);
        assert_eq!(read("一。二。".as_bytes(), "。").unwrap(), ["一", "二"]);
        assert_eq!(read(b"\n\n", "x").unwrap(), [] as [&str; 0]);
        assert_eq!(read(b"a\r\n\r\nb", "lines").unwrap(), ["a", "b"]);
    }

    #[test]
    fn json_lines_say_what_is_wrong() {
        let read = |text: &'static str| -> Result<Vec<Vec<u8>>> {
            DocumentReader::new(text.as_bytes(), Documents::Field("text".into())).collect()
        };
        assert_eq!(
            read("{\"text\": \"a\", \"n\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"b\"}").unwrap(),
            [b"a", b"b"]
        );
        for (text, expected) in [
            ("{\"text\": \"a\"}\nb\n", "line 2: expected a JSON object"),
            ("{\"body\": 1, \"id\": 2}", "line 1: expected a field \"text\", found body, id"),
            ("{\"text\": 1}", "line 1: expected text in \"text\""),
            ("[1]", "line 1: expected a JSON object"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
