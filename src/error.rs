//! The one error type of the crate: every message names what was expected, what was found and,
//! where there is one, what mends it.

use std::path::{Path, PathBuf};

/// What can go wrong in this crate.
///
/// Messages are written for people: they name the file, field or flag, what was expected and what
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
    /// A field, flag or argument has a value that is not allowed.
    #[error("{field}: expected {expected}, found {found}")]
    Invalid {
        /// The field, flag or argument.
        field: String,
        /// What would be allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Integer arithmetic on sizes left the range of `usize`, or a size is beyond what the program
    /// is willing to allocate.
    #[error("{what} is too large: {detail}")]
    TooLarge {
        /// The quantity.
        what: String,
        /// The numbers that make it too large, and what to lower.
        detail: String,
    },
    /// A tensor of a weights file is missing, left over, or of another shape than the model's.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's dotted name.
        name: String,
        /// The shape or presence that the configuration asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read, but what it holds is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// Text that a tokenizer cannot encode.
    #[error("{0}")]
    Text(String),
    /// The training loss or a gradient is not a finite number.
    #[error(
        "step {step}: the {what} is {value}, not a finite number; nothing was saved since the last good \
         checkpoint. Lower --lr (now {lr}) or --clip and start again with --force, or, where there is a \
         checkpoint, go on from it with --resume"
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
        /// What happened and what to do.
        message: String,
    },
    /// An error of candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// `std::result::Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A value that is not allowed: `field`, what was `expected`, what was `found`.
    pub fn invalid(
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Invalid { field: field.into(), expected: expected.into(), found: found.to_string() }
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

/// So that `?` works inside candle's `CustomOp` and `SimpleBackend` methods.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
