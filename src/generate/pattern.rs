//! A string to look for in bytes that arrive one by one.

use crate::{Error, Result};

/// Checks that all strings can be looked for: none is empty. Errors name `field`.
pub(super) fn not_empty(field: &str, strings: &[String]) -> Result<()> {
    let allowed = !strings.iter().any(String::is_empty);
    Error::require(allowed, field, "a text of at least one character", "an empty text")
}

/// One string and how much of it the bytes read so far end with.
///
/// # References
///
/// Knuth, Morris, Pratt 1977, "Fast pattern matching in strings".
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    bytes: Vec<u8>,
    /// `border[i]`: length of the longest proper prefix of `bytes[..=i]` that is also its suffix.
    border: Vec<usize>,
    /// Length of the longest proper prefix of the pattern that is a suffix of what was read.
    matched: usize,
}

impl Pattern {
    /// The pattern must not be empty.
    pub fn new(text: String) -> Self {
        let bytes = text.into_bytes();
        let mut border = vec![0; bytes.len()];
        for i in 1..bytes.len() {
            border[i] = extend(&bytes, &border, border[i - 1], bytes[i]);
        }
        Self { bytes, border, matched: 0 }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Length of the beginning of the pattern that was read last.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Reads one byte; true if the pattern ends there.
    pub fn advance(&mut self, byte: u8) -> bool {
        self.matched = extend(&self.bytes, &self.border, self.matched, byte);
        let complete = self.matched == self.bytes.len();
        if complete {
            self.matched = self.border[self.matched - 1];
        }
        complete
    }

    /// Forgets what was read.
    pub fn reset(&mut self) {
        self.matched = 0;
    }
}

/// The longest prefix that ends with `byte`, given that the first `length` bytes end before it.
fn extend(pattern: &[u8], border: &[usize], mut length: usize, byte: u8) -> usize {
    while length > 0 && pattern[length] != byte {
        length = border[length - 1];
    }
    if pattern[length] == byte { length + 1 } else { 0 }
}
