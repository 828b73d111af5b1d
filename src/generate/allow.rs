//! Texts that are made of given strings only.

use std::sync::Arc;

use super::sorted_tokens::{SortedTokens, clear};

/// The automaton of all beginnings of sequences of the allowed strings.
///
/// A text may be on the way through several strings at once ("ab" and "abc" after "ab"), so the state
/// is a set of beginnings. All of them are what the text ends with, of different lengths: the set has
/// never more than the longest string has bytes.
#[derive(Debug, Clone)]
pub(super) struct Allow {
    /// In order, no two the same.
    strings: Arc<Vec<String>>,
    /// The beginnings that the text ends with.
    at: Vec<Beginning>,
    /// Those that the bytes of a token lead to: the set after each byte, one behind the other.
    sets: Vec<Beginning>,
    /// `ends[i]`: the end, in `sets`, of the set after `i` bytes.
    ends: Vec<usize>,
}

/// The first `len` bytes of the allowed strings `from..to`, which are the same.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Beginning {
    from: usize,
    to: usize,
    len: usize,
}

impl Allow {
    /// The strings must not be empty.
    pub fn new(strings: &[String]) -> Self {
        let mut strings = strings.to_vec();
        strings.sort_unstable();
        strings.dedup();
        let start = Beginning { from: 0, to: strings.len(), len: 0 };
        Self { strings: Arc::new(strings), at: vec![start], sets: Vec::new(), ends: Vec::new() }
    }

    /// Reads one byte of the text.
    pub fn advance(&mut self, byte: u8) {
        let mut next = std::mem::take(&mut self.sets);
        next.clear();
        for &beginning in &self.at {
            follow(&self.strings, beginning, byte, 0, &mut next);
        }
        self.sets = std::mem::replace(&mut self.at, next);
    }

    /// Clears the flags of tokens after which the text is no beginning of a sequence; whether any was
    /// set.
    pub fn forbid(&mut self, tokens: &SortedTokens, allowed: &mut [bool]) -> bool {
        self.sets.clone_from(&self.at);
        self.ends.clear();
        self.ends.push(self.sets.len());
        let mut any = false;
        // how many bytes of the last token fit
        let mut fitting = 0;
        for (id, bytes, shared) in tokens.iter() {
            // otherwise it shares the byte that did not fit
            if shared <= fitting {
                self.ends.truncate(shared + 1);
                self.sets.truncate(self.ends[shared]);
                let rest = bytes[shared..].iter();
                fitting = shared + rest.take_while(|&&byte| self.try_byte(byte)).count();
            }
            if fitting < bytes.len() {
                any |= clear(allowed, id);
            }
        }
        any
    }

    /// Reads one byte of a token; false, and no change, if it does not fit.
    fn try_byte(&mut self, byte: u8) -> bool {
        let end = self.sets.len();
        let start = self.ends.iter().rev().nth(1).copied().unwrap_or(0);
        for at in start..end {
            follow(&self.strings, self.sets[at], byte, end, &mut self.sets);
        }
        let fits = self.sets.len() > end;
        if fits {
            self.ends.push(self.sets.len());
        }
        fits
    }
}

/// Appends to `sets`, whose next set begins at `start`, where `byte` leads from `beginning`.
fn follow(
    strings: &[String],
    Beginning { from, to, len }: Beginning,
    byte: u8,
    start: usize,
    sets: &mut Vec<Beginning>,
) {
    let all = &strings[from..to];
    let next = |string: &String| string.as_bytes().get(len).copied();
    let to = from + all.partition_point(|string| next(string) <= Some(byte));
    let from = from + all.partition_point(|string| next(string) < Some(byte));
    // the shortest comes first
    let is_whole = from < to && strings[from].len() == len + 1;
    if from + usize::from(is_whole) < to {
        sets.push(Beginning { from, to, len: len + 1 });
    }
    let anew = Beginning { from: 0, to: strings.len(), len: 0 };
    if is_whole && !sets[start..].contains(&anew) {
        sets.push(anew);
    }
}
