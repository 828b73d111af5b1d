//! The one error type of the crate: every message names what was expected and what was found. Which flag of a
//! program mends it is known to the program.

use std::fmt;
use std::path::{Path, PathBuf};

/// An error of this crate.
///
/// Messages are written for people: they name the file, field or tensor, what was expected and what
/// was found.
///
/// # Example
///
/// ```
/// use candle_tcn::Error;
/// let error = Error::invalid("dilation", "a whole number of at least 1", 0);
/// assert_eq!(error.to_string(), "dilation: expected a whole number of at least 1, found 0");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field or argument has a value that is not allowed.
    #[error("{field}: expected {expected}, found {found}")]
    Invalid {
        /// The field or argument, as `batch_size`.
        field: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// Integer arithmetic on sizes left the range of `usize`, or a size is beyond what this crate
    /// allocates.
    #[error("{what} is too large: {detail}")]
    TooLarge {
        /// The quantity.
        what: String,
        /// The numbers that make it too large.
        detail: String,
    },
    /// A tensor of a weights file is missing, left over, or of another shape than the model's.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's dotted name.
        name: String,
        /// The shape or presence that the configuration asks for.
        expected: String,
        /// Shape or presence in the file.
        found: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file was read, and its content is wrong.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Expected and found content.
        message: String,
    },
    /// Text that a tokenizer cannot encode.
    #[error("{0}")]
    Text(String),
    /// Bytes that are no text, for a tokenizer that needs text.
    #[error("{}{message}", prefix(path))]
    NotText {
        /// The file, unless the bytes came from memory.
        path: Option<PathBuf>,
        /// The first wrong byte and its offset.
        message: String,
    },
    /// A tokenizer rewrites text across tokens, so that constraints on the text cannot judge single tokens.
    #[error(
        "the tokenizer's decoder rewrites text across tokens, so that what one token adds is not known"
    )]
    TokenBytes,
    /// A folder in which a training run is to begin holds something already.
    #[error("{}: already holds {by} ({name})", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// A file or folder in it.
        name: String,
        /// Its owner.
        by: Occupant,
    },
    /// A training run has no checkpoint to resume from.
    #[error("{}: expected a checkpoint step-N to resume from, found none", path.display())]
    NoCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
    },
    /// The training loss or a gradient is not a finite number.
    #[error(
        "step {step}: the {what} is {value}, not a finite number, at a learning rate of {lr}; nothing was saved \
         since the last good checkpoint"
    )]
    NotFinite {
        /// The step at which it happened, counted from 1.
        step: usize,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The learning rate of that step.
        lr: f64,
    },
    /// The Hugging Face Hub, or the way to it, refused or failed.
    #[error("{place}: {message}")]
    Hub {
        /// The repository, with its revision and the file where it is about one.
        place: String,
        /// The HTTP status, if the server answered.
        status: Option<u16>,
        /// The failure, and how to mend it.
        message: String,
    },
    /// An error of candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// `std::result::Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The owner of what an [`Error::Occupied`] folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// A run with a checkpoint, which can be resumed.
    Run,
    /// A run that ended before its first checkpoint.
    UnsavedRun,
    /// Files that have the names of a run's and belong to none.
    Others,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "a run",
            Self::UnsavedRun => "a run without a checkpoint",
            Self::Others => "files of the names that a run uses, but no run.json of one",
        })
    }
}

/// The file's name in front of a message about it.
fn prefix(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()))
}

impl Error {
    /// A value that is not allowed: `field`, what was `expected`, what was `found`.
    pub fn invalid(
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Invalid { field: field.into(), expected: expected.into(), found: found.to_string() }
    }

    /// Checks a value: an error unless it `is_allowed`.
    pub(crate) fn require(
        is_allowed: bool,
        field: &str,
        expected: &str,
        found: impl ToString,
    ) -> Result<()> {
        match is_allowed {
            true => Ok(()),
            false => Err(Self::invalid(field, expected, found)),
        }
    }

    /// A tensor that is not what the model asks for: its `name`, what was `expected`, what was `found`.
    #[cfg(feature = "models")]
    pub(crate) fn tensor(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Tensor { name: name.into(), expected: expected.into(), found: found.to_string() }
    }

    /// A size that overflows or is beyond reason.
    pub fn too_large(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::TooLarge { what: what.into(), detail: detail.into() }
    }

    /// A system error on `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A failure of the Hub at `place`, with the HTTP `status` if there was an answer.
    pub fn hub(place: impl Into<String>, status: Option<u16>, message: impl Into<String>) -> Self {
        Self::Hub { place: place.into(), status, message: message.into() }
    }

    /// A file whose content is not what it should be.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), message: message.into() }
    }
}

/// A result of the system whose error has no file name yet.
pub trait AtPath<T> {
    /// Adds the file or folder to an error.
    ///
    /// # Errors
    /// [`Error::Io`] instead of the system's own.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::AtPath;
    /// let error = std::fs::read("no such file").at("no such file").unwrap_err();
    /// assert!(error.to_string().starts_with("no such file: "));
    /// ```
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::io(path, source))
    }
}

/// Lets `?` work inside candle's `CustomOp` and `SimpleBackend` methods.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
