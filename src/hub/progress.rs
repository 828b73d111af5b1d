//! Progress of a transfer.

use std::cell::Cell;
use std::sync::Arc;

use super::contents::Contents;

/// Something that happens during a transfer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The transfer of a file begins.
    File {
        /// Its name in the repository.
        name: &'a str,
        /// Its size.
        bytes: u64,
    },
    /// So much of everything has been transferred.
    Transferred {
        /// Bytes that are there.
        done: u64,
        /// Bytes of all files that have to be transferred.
        total: u64,
    },
    /// The files of an upload, before the first of them is sent.
    Contents(&'a Contents),
    /// Something worth telling: a wait, another try, a copy used instead.
    Message(&'a str),
}

/// Receiver of the events of transfers, called from several threads.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event<'_>) + Send + Sync>);

impl Progress {
    /// Calls `f` with every event.
    pub fn new(f: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Ignores every event.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        (self.0)(event);
    }

    pub(super) fn message(&self, text: &str) {
        self.tell(Event::Message(text));
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

/// Bytes of a transfer, reported as they are counted.
pub(super) struct ByteCounter<'a> {
    progress: &'a Progress,
    done: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> ByteCounter<'a> {
    pub(super) fn new(progress: &'a Progress, total: u64) -> Self {
        Self { progress, done: Cell::new(0), total: Cell::new(total) }
    }

    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }

    /// Counts `bytes` more that have to be transferred.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }

    /// Says that `done` bytes are there.
    pub(super) fn set(&self, done: u64) {
        self.done.set(done);
        self.progress.tell(Event::Transferred { done, total: self.total.get() });
    }

    /// Says that all bytes are there.
    pub(super) fn finish(&self) {
        self.set(self.total.get());
    }
}
