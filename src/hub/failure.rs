//! Failures on the way to the Hub.

use std::io::ErrorKind;
use std::time::Duration;

use super::address::without_credentials;
use crate::Error;

/// A request that did not succeed.
#[derive(Debug)]
pub enum Trouble {
    /// The server answered with an error.
    Http(Answer),
    /// There was no whole answer.
    Transport {
        message: String,
        /// Not even a connection.
        connect: bool,
    },
    /// Nothing that another try could mend.
    Fatal(Error),
}

/// An answer that is an error.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The Hub's own name for it: `RepoNotFound`, `RevisionNotFound`, `EntryNotFound`, `GatedRepo`.
    pub code: Option<String>,
    pub message: Option<String>,
    pub retry_after: Option<Duration>,
}

impl Trouble {
    /// A request that came to nothing.
    pub fn broken(message: impl Into<String>) -> Self {
        Self::Transport { message: message.into(), connect: false }
    }

    /// `true` if another try may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(answer) => matches!(answer.status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Transport { .. } => true,
            Self::Fatal(_) => false,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(answer) => write!(f, "HTTP {}", answer.status),
            Self::Transport { message, .. } => f.write_str(message),
            Self::Fatal(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl From<ureq::Error> for Trouble {
    fn from(error: ureq::Error) -> Self {
        use ureq::{Error, Timeout};
        let connect = match &error {
            Error::HostNotFound | Error::ConnectionFailed => true,
            Error::Timeout(Timeout::Connect | Timeout::Resolve) => true,
            Error::Io(error) => matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::AddrNotAvailable
            ),
            _ => false,
        };
        let message = match &error {
            Error::BodyExceedsLimit(limit) => {
                let expected = format!("expected at most {limit} bytes");
                return crate::Error::too_large("an answer of the Hub", expected).into();
            }
            Error::Timeout(_) => "the server was silent for too long".to_string(),
            // the address is told once, by whoever reports
            Error::RequireHttpsOnly(_) => {
                "the server sends the request on to plain http".to_string()
            }
            Error::Tls(_) | Error::Rustls(_) => format!(
                "{error}; servers are checked by the system's certificates, or those that SSL_CERT_FILE names"
            ),
            _ => without_credentials(&error.to_string()),
        };
        Self::Transport { message, connect }
    }
}

/// A body that did not come whole.
impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        match error.downcast::<ureq::Error>() {
            Ok(error) => error.into(),
            Err(error) => ureq::Error::Io(error).into(),
        }
    }
}

/// The end of an operation: the error, and whether a copy in the cache may serve instead.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub unreachable: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, unreachable: false }
    }
}
