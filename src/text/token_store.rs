//! The tokens of a text, in memory or in a file.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{Replacement, hex, read_small, write_atomic};
use crate::{AtPath, Error, Result};

/// The tokens of a text, read by ranges: from memory, or from a [`TokenFile`].
#[derive(Debug)]
pub enum TokenStore {
    /// All of them.
    Memory(Vec<u32>),
    /// In a file.
    File(TokenFile),
}

impl From<Vec<u32>> for TokenStore {
    fn from(tokens: Vec<u32>) -> Self {
        Self::Memory(tokens)
    }
}

impl From<TokenFile> for TokenStore {
    fn from(file: TokenFile) -> Self {
        Self::File(file)
    }
}

impl TokenStore {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(tokens) => tokens.len(),
            Self::File(file) => file.len(),
        }
    }

    /// `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 of the ids, four bytes each.
    pub fn sha256(&self) -> String {
        match self {
            Self::Memory(tokens) => sha256_of_tokens(tokens),
            Self::File(file) => file.facts.sha256.clone(),
        }
    }

    /// The `count` tokens from `start` on.
    ///
    /// # Errors
    /// [`Error::Invalid`] beyond the end; [`Error::Io`] where the file cannot be read.
    pub fn read(&mut self, start: usize, count: usize) -> Result<Vec<u32>> {
        let len = self.len();
        let end = start.checked_add(count).filter(|&end| end <= len);
        let beyond = || {
            Error::invalid(
                "tokens",
                format!("a range within {len}"),
                format!("{count} from {start}"),
            )
        };
        let end = end.ok_or_else(beyond)?;
        match self {
            Self::Memory(tokens) => Ok(tokens[start..end].to_vec()),
            Self::File(file) => file.read(start, count),
        }
    }
}

/// SHA-256 of ids, four bytes each.
pub(crate) fn sha256_of_tokens(tokens: &[u32]) -> String {
    let mut hash = Sha256::new();
    for piece in tokens.chunks(1 << 14) {
        hash.update(piece.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
    }
    hex(&hash.finalize())
}

/// Facts of a token file, beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    /// Number of tokens.
    len: usize,
    /// Bytes of an id.
    width: usize,
    /// SHA-256 of the ids, four bytes each.
    sha256: String,
}

/// A file of token ids, one, two or four bytes each, that is written once and read by ranges. Facts about it lie beside
/// it, in `.json`; a file without them is one whose writing was interrupted.
///
/// # Example
///
/// ```
/// use candle_tcn::text::{TokenFile, TokenStore};
///
/// let folder = tempfile::tempdir().expect("a folder");
/// let path = folder.path().join("tokens");
/// assert!(TokenFile::open(&path)?.is_none());
/// let pieces = [vec![1, 2, 3], vec![500]].into_iter().map(Ok);
/// TokenFile::create(&path, 501, pieces)?;
/// let mut store = TokenStore::from(TokenFile::open(&path)?.expect("a file"));
/// assert_eq!(store.read(1, 3)?, [2, 3, 500]);
/// assert_eq!(store.sha256(), TokenStore::from(vec![1, 2, 3, 500]).sha256());
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    file: File,
    facts: Facts,
}

impl TokenFile {
    /// Writes pieces of a text of ids below `vocab_size`, one after the other; an interruption leaves no file.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file; those of the pieces.
    pub fn create(
        path: impl AsRef<Path>,
        vocab_size: usize,
        pieces: impl Iterator<Item = Result<Vec<u32>>>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let width = match vocab_size {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        };
        let (mut len, mut hash) = (0, Sha256::new());
        let mut replacement = Replacement::begin(path)?;
        let mut file = BufWriter::with_capacity(1 << 20, replacement.file());
        for piece in pieces {
            for id in piece? {
                let bytes = id.to_le_bytes();
                hash.update(bytes);
                file.write_all(&bytes[..width]).at(path)?;
                len += 1;
            }
        }
        file.flush().at(path)?;
        drop(file);
        replacement.commit()?;
        let facts = Facts { len, width, sha256: hex(&hash.finalize()) };
        let json =
            serde_json::to_vec(&facts).map_err(|error| Error::file(path, error.to_string()))?;
        write_atomic(&facts_of(path), |file| file.write_all(&json))?;
        Ok(Self { path: path.into(), file: File::open(path).at(path)?, facts })
    }

    /// Opens a file that was written whole; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] for a file that is not what it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let (path, beside) = (path.as_ref(), facts_of(path.as_ref()));
        if !path.exists() || !beside.exists() {
            return Ok(None);
        }
        let json = read_small(&beside, "facts of a token file", 4096)?;
        let facts: Facts = serde_json::from_slice(&json).map_err(|error| {
            Error::file(&beside, format!("not the facts of a token file: {error}"))
        })?;
        let file = File::open(path).at(path)?;
        let (expected, found) =
            (facts.len.checked_mul(facts.width), file.metadata().at(path)?.len());
        let fits =
            matches!(facts.width, 1 | 2 | 4) && expected.map(|len| len as u64) == Some(found);
        if !fits {
            let message = format!(
                "expected {} tokens of {} bytes, found {found} bytes",
                facts.len, facts.width
            );
            return Err(Error::file(path, message));
        }
        Ok(Some(Self { path: path.into(), file, facts }))
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.facts.len
    }

    /// `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&mut self, start: usize, count: usize) -> Result<Vec<u32>> {
        let width = self.facts.width;
        let mut bytes = vec![0; count * width];
        self.file.seek(SeekFrom::Start((start * width) as u64)).at(&self.path)?;
        self.file.read_exact(&mut bytes).at(&self.path)?;
        let id = |bytes: &[u8]| bytes.iter().rev().fold(0, |id, &byte| id << 8 | u32::from(byte));
        Ok(bytes.chunks_exact(width).map(id).collect())
    }
}

fn facts_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}
