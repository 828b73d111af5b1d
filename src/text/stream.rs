//! Files of any length, token ids in pieces.

mod near_end;

use std::io::Read;
use std::path::Path;

use super::check::Origin;
use super::corpus::{empty, starts_character};
use super::inputs::BYTE_ORDER_MARK;
use super::{Inputs, Tokenizer};
use crate::files::{Decompressed, formats, is_standard_input};
use crate::{Error, Result};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The token ids of a text of any length, piece by piece: an iterator of `Result<Vec<u32>>`.
///
/// The pieces joined are exactly what [`Tokenizer::encode_bytes`] gives for the whole text. Memory
/// is constant: about 1 MiB of text and its ids. Only a tokenizer that is neither `char` nor
/// `byte` needs more for a text in which it finds no place to cut (see [`Tokenizer`]): it then
/// holds the text up to the next such place. After an error the iterator ends.
///
/// # Example
///
/// ```
/// use candle_tcn::text::{TokenStream, Tokenizer, TokenizerSpec};
///
/// let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, "né".as_bytes())?;
/// let mut stream = TokenStream::new("née".as_bytes(), &tokenizer);
/// let mut ids = Vec::new();
/// for piece in stream.by_ref() {
///     ids.extend(piece?);
/// }
/// assert_eq!(ids, [1, 2, 0]); // n, é, <unk>
/// assert_eq!((stream.characters(), stream.bytes()), (3, 4));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct TokenStream<R> {
    reader: R,
    tokenizer: Tokenizer,
    origin: Origin,
    buffer: Vec<u8>,
    /// Bytes that the buffer has to hold, unless the text ends before.
    wanted: usize,
    at_end: bool,
    /// A text without any byte is an error.
    refuse_empty: bool,
    /// Bytes of the file before the text: a byte order mark at the start, or what is not read.
    before: u64,
    /// The text begins where the file does.
    whole: bool,
    failed: bool,
    characters: u64,
    /// Characters and bytes of the first token.
    first: Option<(u64, u64)>,
}

impl TokenStream<Decompressed> {
    /// Opens the text that [`Inputs::find`] finds under a name.
    ///
    /// # Errors
    ///
    /// Those of [`Inputs::find`] and [`Inputs::open`]; the first piece is an error if the text is empty.
    pub fn open(path: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Self> {
        let path = path.as_ref();
        let text = Inputs::find(&[path.to_path_buf()])?.open()?;
        Ok(Self::of(text, path, tokenizer))
    }

    fn of(text: Decompressed, path: &Path, tokenizer: &Tokenizer) -> Self {
        let mut stream = Self::new(text, tokenizer);
        if !is_standard_input(path) {
            stream.origin = Origin::file(path);
        }
        stream.refuse_empty = true;
        stream
    }

    /// Bytes of the whole text, where they are known before they are read.
    pub fn total_bytes(&self) -> Option<u64> {
        self.reader.known_bytes()
    }

    /// The same stream, in which an empty file is an empty text.
    pub fn or_empty(mut self) -> Self {
        self.refuse_empty = false;
        self
    }
}

impl<R: Read> TokenStream<R> {
    /// Reads from anything; a slice of bytes will do.
    pub fn new(reader: R, tokenizer: &Tokenizer) -> Self {
        Self {
            reader,
            tokenizer: tokenizer.clone(),
            origin: Origin::default(),
            buffer: Vec::new(),
            wanted: BUFFER_BYTES,
            at_end: false,
            refuse_empty: false,
            before: 0,
            whole: true,
            failed: false,
            characters: 0,
            first: None,
        }
    }

    /// The first bytes that were read, some thousand; none before the first piece.
    pub fn start(&self) -> &[u8] {
        &self.origin.start
    }

    /// Bytes that the pieces so far stand for.
    pub fn bytes(&self) -> u64 {
        self.origin.offset - self.before
    }

    /// Characters that the pieces so far stand for: bytes that start a UTF-8 character.
    pub fn characters(&self) -> u64 {
        self.characters
    }

    /// Characters and bytes that the first token stands for, which no model can predict; one of
    /// each where it is unknown or part of a character. Zero before the first piece.
    pub fn first_token(&self) -> (u64, u64) {
        self.first.unwrap_or_default()
    }

    /// Measures the first token of `ids` by the beginning of the text.
    fn measure_first(&mut self, ids: &[u32]) -> Result<()> {
        if let (None, Some(&id)) = (self.first, ids.first()) {
            let text = self.tokenizer.decode(&[id])?;
            let known = !text.is_empty() && self.buffer.starts_with(text.as_bytes());
            self.first = Some(match known {
                true => (text.chars().count() as u64, text.len() as u64),
                false if self.tokenizer.accepts_any_bytes() => (1, 1),
                false => {
                    let start = String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(4)]);
                    start.chars().next().map_or((1, 1), |c| (1, c.len_utf8() as u64))
                }
            });
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Vec<u32>>> {
        loop {
            self.fill()?;
            if self.origin.start.is_empty() {
                let start = self.buffer.len().min(formats::START_BYTES);
                self.origin.start = self.buffer[..start].to_vec();
            }
            if self.origin.offset == 0 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.before = BYTE_ORDER_MARK.len() as u64;
                self.origin.offset = self.before;
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            if self.buffer.is_empty() {
                return match &self.origin.path {
                    // the length of a pipe or of a file in /proc is known only now
                    Some(path) if self.refuse_empty && self.bytes() == 0 => Err(empty(path)),
                    _ => Ok(None),
                };
            }
            let (ids, used) = self.tokenizer.encode_prefix(
                &self.buffer,
                (self.whole && self.bytes() == 0, self.at_end),
                &self.origin,
            )?;
            if used > 0 {
                self.measure_first(&ids)?;
                self.consume(used);
                self.wanted = BUFFER_BYTES;
                return Ok(Some(ids));
            }
            // doubled, so that a text without cuts is not searched over and over
            self.wanted = self.wanted.saturating_mul(2);
        }
    }

    fn fill(&mut self) -> Result<()> {
        let missing = self.wanted.saturating_sub(self.buffer.len());
        if self.at_end || missing == 0 {
            return Ok(());
        }
        let read = (&mut self.reader).take(missing as u64).read_to_end(&mut self.buffer);
        let read = read.map_err(|error| match &self.origin.path {
            Some(path) => Error::io(path, error),
            None => Error::Text(format!("the text cannot be read: {error}")),
        });
        self.at_end = read? < missing;
        Ok(())
    }

    fn consume(&mut self, used: usize) {
        let starts = |byte: &u8| starts_character(*byte);
        self.characters += self.buffer.drain(..used).filter(starts).count() as u64;
        self.origin.offset += used as u64;
    }
}

impl<R: Read> Iterator for TokenStream<R> {
    type Item = Result<Vec<u32>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}
