//! Texts that are made of given strings only.

use std::sync::Arc;

use super::sorted_tokens::{SortedTokens, clear};

/// The automaton of all beginnings of sequences of the allowed strings.
///
/// A text may be on the way through several strings at once ("ab" and "abc" after "ab"), so the state
/// is a set of nodes of their tree. All of them are beginnings that the text ends with, of different
/// lengths: the set has never more nodes than the longest string has bytes.
#[derive(Debug, Clone)]
pub(super) struct Allow {
    tree: Arc<Vec<Beginning>>,
    /// The nodes at which the text may be.
    at: Vec<u32>,
    /// The nodes that the bytes of a token lead to: the set after each byte, one behind the other.
    sets: Vec<u32>,
    /// `ends[i]`: the end, in `sets`, of the set after `i` bytes.
    ends: Vec<usize>,
}

/// A beginning of allowed strings; node 0 is the empty one.
#[derive(Debug, Default)]
struct Beginning {
    children: Vec<(u8, u32)>,
    /// `true` if it is an allowed string itself.
    complete: bool,
}

impl Allow {
    /// The strings must not be empty.
    pub fn new(strings: &[String]) -> Self {
        let mut tree = vec![Beginning::default()];
        for string in strings {
            let mut node = 0;
            for byte in string.bytes() {
                node = match child(&tree[node], byte) {
                    Some(child) => child as usize,
                    None => {
                        let new = tree.len();
                        tree[node].children.push((byte, new as u32));
                        tree.push(Beginning::default());
                        new
                    }
                };
            }
            tree[node].complete = true;
        }
        Self { tree: Arc::new(tree), at: vec![0], sets: Vec::new(), ends: Vec::new() }
    }

    /// Reads one byte of the text.
    pub fn advance(&mut self, byte: u8) {
        let mut next = std::mem::take(&mut self.sets);
        next.clear();
        for &node in &self.at {
            follow(&self.tree, node, byte, 0, &mut next);
        }
        self.sets = std::mem::replace(&mut self.at, next);
    }

    /// Clears the flags of tokens after which the text is no beginning of a sequence; whether any was
    /// set.
    pub fn forbid(&mut self, tokens: &SortedTokens, allowed: &mut [bool]) -> bool {
        self.sets.clear();
        self.sets.extend_from_slice(&self.at);
        self.ends.clear();
        self.ends.push(self.sets.len());
        let mut any = false;
        // how many bytes of the last token fit
        let mut fitting = 0;
        for (id, bytes, shared) in tokens.iter() {
            // otherwise it shares the byte that did not fit
            if shared <= fitting {
                self.back_to(shared);
                let rest = bytes[shared..].iter();
                fitting = shared + rest.take_while(|&&byte| self.try_byte(byte)).count();
            }
            if fitting < bytes.len() {
                any |= clear(allowed, id);
            }
        }
        any
    }

    fn back_to(&mut self, bytes: usize) {
        self.ends.truncate(bytes + 1);
        self.sets.truncate(self.ends[bytes]);
    }

    /// Reads one byte of a token; false, and no change, if it does not fit.
    fn try_byte(&mut self, byte: u8) -> bool {
        let end = self.sets.len();
        let start = match self.ends.len() {
            1 => 0,
            sets => self.ends[sets - 2],
        };
        for at in start..end {
            let node = self.sets[at];
            follow(&self.tree, node, byte, end, &mut self.sets);
        }
        let fits = self.sets.len() > end;
        if fits {
            self.ends.push(self.sets.len());
        }
        fits
    }
}

fn child(node: &Beginning, byte: u8) -> Option<u32> {
    let mut children = node.children.iter();
    children.find(|child| child.0 == byte).map(|child| child.1)
}

/// Appends to `nodes`, whose next set begins at `start`, where `byte` leads from `node`.
fn follow(tree: &[Beginning], node: u32, byte: u8, start: usize, nodes: &mut Vec<u32>) {
    let Some(next) = child(&tree[node as usize], byte) else {
        return;
    };
    let reached = &tree[next as usize];
    if !reached.children.is_empty() {
        nodes.push(next);
    }
    if reached.complete && !nodes[start..].contains(&0) {
        nodes.push(0);
    }
}
