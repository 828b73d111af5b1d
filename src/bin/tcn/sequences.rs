//! Sequences from a file: one a line, or FASTA.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use candle_tcn::files::Decompressed;
use candle_tcn::text::{Inputs, Tokenizer, not_text};
use candle_tcn::{AtPath, Error};

use crate::model::Unknown;

/// The longest line or sequence; longer ones are something else.
const MAX_BYTES: u64 = 1 << 28;

/// Bytes by which a file is judged to be text.
const TEXT_BYTES: usize = 4096;

/// Bytes in which it is found out whether it is FASTA.
const START_BYTES: u64 = 1 << 16;

/// A sequence, with its name where it has one.
pub struct Sequence {
    /// Of FASTA, the first word after `>`.
    pub id: Option<String>,
    pub text: String,
}

impl Sequence {
    pub fn new(text: &str) -> Self {
        Self { id: None, text: text.to_string() }
    }

    /// Its name in messages.
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

/// The sequences of a file: lines, or FASTA, whose sequences begin with a line `>NAME` and may take several more.
/// Empty lines and a byte order mark are skipped, and in FASTA comments, which begin with `;`.
pub struct Sequences {
    path: PathBuf,
    reader: BufReader<Chain<Cursor<Vec<u8>>, Decompressed>>,
    line: u64,
    /// The name of the next sequence, which ended the one before.
    name: Option<String>,
    fasta: bool,
}

impl Sequences {
    /// Opens a file, a folder or a pattern; `-` is standard input.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut text = Inputs::find(&[path.to_path_buf()])?.open()?;
        let mut start = Vec::new();
        text.by_ref().take(START_BYTES).read_to_end(&mut start).at(path)?;
        if let Some(kind) = not_text(&start[..start.len().min(TEXT_BYTES)]) {
            let message = format!("expected sequences in UTF-8, found {kind}");
            return Err(Error::file(path, message).into());
        }
        let known = String::from_utf8_lossy(&start);
        // comments may stand before the first name
        let mut lines = known.trim_start_matches('\u{feff}').lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with(';'));
        let fasta = first.is_some_and(|line| line.starts_with('>'));
        let reader = BufReader::new(Cursor::new(start).chain(text));
        Ok(Self { path: path.into(), reader, line: 0, name: None, fasta })
    }

    fn wrong(&self, what: &str) -> Error {
        Error::file(&self.path, format!("line {}: {what}", self.line))
    }

    /// The next line that is not empty, without its end.
    fn read_line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            let read = (&mut self.reader).take(MAX_BYTES).read_until(b'\n', &mut bytes);
            if read.at(&self.path)? == 0 {
                return Ok(None);
            }
            if bytes.len() as u64 == MAX_BYTES {
                return Err(self.wrong("expected a sequence, found one too long").into());
            }
            let text =
                String::from_utf8(bytes).map_err(|_| self.wrong("expected text in UTF-8"))?;
            let text = match self.line {
                1 => text.trim_start_matches('\u{feff}').trim(),
                _ => text.trim(),
            };
            let is_comment = self.fasta && text.starts_with(';');
            if !text.is_empty() && !is_comment {
                return Ok(Some(text.to_string()));
            }
        }
    }

    fn advance(&mut self) -> anyhow::Result<Option<Sequence>> {
        let known = self.name.take().map(|name| Ok(Some(name)));
        let Some(line) = known.unwrap_or_else(|| self.read_line())? else { return Ok(None) };
        if !self.fasta {
            return match line.starts_with('>') {
                true => Err(self
                    .wrong("a name of FASTA, and text before the first one: expected a name in the first line, or sequences alone")
                    .into()),
                false => Ok(Some(Sequence::new(&line))),
            };
        }
        let name = line.strip_prefix('>').unwrap_or_default();
        let id = name.split_whitespace().next().unwrap_or_default().to_string();
        let mut text = String::new();
        while let Some(line) = self.read_line()? {
            if line.starts_with('>') {
                self.name = Some(line);
                break;
            }
            text.push_str(&line);
        }
        if text.is_empty() {
            return Err(self.wrong(&format!("expected the sequence of {id:?}, found none")).into());
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

/// The tokens of each sequence; an error where `fault` finds one in them.
pub fn encode(
    tokenizer: &Tokenizer,
    sequences: &[Sequence],
    unknown: &mut Unknown,
    fault: impl Fn(&[u32]) -> Option<String>,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let one = |sequence: &Sequence| {
        let tokens = tokenizer.encode(&sequence.text)?;
        if let Some(fault) = fault(&tokens) {
            return Err(Error::Text(format!("{}: {fault}", sequence.name())).into());
        }
        unknown.count(&sequence.name(), tokenizer, &tokens);
        Ok(tokens)
    };
    sequences.iter().map(one).collect()
}
