//! Sequences from a file: one a line, or FASTA.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use candle_tcn::Error;

/// The longest line or sequence; longer ones are something else.
const MAX_BYTES: u64 = 1 << 28;

/// A sequence, with its name where it has one.
pub struct Sequence {
    /// Of FASTA, the first word after `>`.
    pub id: Option<String>,
    pub text: String,
}

impl Sequence {
    pub fn new(text: &str) -> Self {
        Self {
            id: None,
            text: text.to_string(),
        }
    }

    /// What to call it in a message.
    pub fn name(&self) -> String {
        match &self.id {
            Some(id) => id.clone(),
            None => {
                let start: String = self.text.chars().take(40).collect();
                format!("{start:?}")
            }
        }
    }
}

/// The sequences of a file: lines, or where the first begins with `>`, FASTA, whose sequences may take
/// several lines. Empty lines are skipped.
pub struct Sequences {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: u64,
    /// A line that was read and belongs to the next sequence.
    next: Option<String>,
    fasta: bool,
}

impl Sequences {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let reader: Box<dyn BufRead> = match path == Path::new("-") {
            true => Box::new(BufReader::new(std::io::stdin())),
            false => Box::new(BufReader::new(
                File::open(path).map_err(|e| Error::io(path, e))?,
            )),
        };
        let mut sequences = Self {
            path: path.into(),
            reader,
            line: 0,
            next: None,
            fasta: false,
        };
        sequences.next = sequences.read_line()?;
        sequences.fasta = sequences
            .next
            .as_ref()
            .is_some_and(|line| line.starts_with('>'));
        Ok(sequences)
    }

    fn wrong(&self, what: &str) -> Error {
        Error::file(&self.path, format!("line {}: {what}", self.line))
    }

    /// The next line that is not empty, without its end.
    fn read_line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            let read = (&mut self.reader)
                .take(MAX_BYTES)
                .read_until(b'\n', &mut bytes);
            if read.map_err(|e| Error::io(&self.path, e))? == 0 {
                return Ok(None);
            }
            if bytes.len() as u64 == MAX_BYTES {
                return Err(self.wrong("expected a sequence, found one too long").into());
            }
            let text =
                String::from_utf8(bytes).map_err(|_| self.wrong("expected text in UTF-8"))?;
            let text = text.trim();
            if !text.is_empty() {
                return Ok(Some(text.to_string()));
            }
        }
    }

    fn advance(&mut self) -> anyhow::Result<Option<Sequence>> {
        let line = match self.next.take() {
            Some(line) => Some(line),
            None => self.read_line()?,
        };
        let Some(line) = line else { return Ok(None) };
        if !self.fasta {
            return Ok(Some(Sequence::new(&line)));
        }
        let name = line.strip_prefix('>').unwrap_or_default();
        let id = name
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_string();
        let mut text = String::new();
        while let Some(line) = self.read_line()? {
            if line.starts_with('>') {
                self.next = Some(line);
                break;
            }
            text.push_str(&line);
        }
        if text.is_empty() {
            return Err(self
                .wrong(&format!("expected the sequence of {id:?}, found none"))
                .into());
        }
        Ok(Some(Sequence { id: Some(id), text }))
    }
}

impl Iterator for Sequences {
    type Item = anyhow::Result<Sequence>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
