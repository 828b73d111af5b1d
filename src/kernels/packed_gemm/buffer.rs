//! Aligned memory, and scratch memory that is kept from call to call.

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

/// Words of a cache line.
pub const LINE: usize = 16;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

/// Words in whole, aligned cache lines.
#[derive(Default)]
pub struct Buffer(Vec<Line>);

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} lines)", self.0.len())
    }
}

impl Buffer {
    /// At least `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self(vec![Line([0; LINE]); len.div_ceil(LINE)])
    }

    /// All words.
    pub fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.0)
    }

    /// All words.
    pub fn words_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

thread_local! {
    static KEPT: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Longer buffers are freed after use: 64 MiB.
const KEPT_LINES: usize = 1 << 20;

/// Memory for a while; this thread's next call gets it again.
pub struct Scratch {
    buffer: Buffer,
    len: usize,
}

impl Scratch {
    /// `len` words: zeros, or what was left in them.
    pub fn new(len: usize) -> Self {
        let kept = KEPT.with_borrow_mut(|kept| {
            // the smallest that is long enough, or the longest
            let best = (0..kept.len()).min_by_key(|&i| {
                let lines = kept[i].0.len();
                let short = lines * LINE < len;
                (short, if short { usize::MAX - lines } else { lines })
            });
            best.map(|i| kept.swap_remove(i))
        });
        let mut buffer = kept.unwrap_or_default();
        if buffer.0.len() < len.div_ceil(LINE) {
            // not `resize`: what it holds need not be copied
            buffer = Buffer::zeros(len);
        }
        Self { buffer, len }
    }

    /// Its words.
    pub fn words(&mut self) -> &mut [u32] {
        &mut self.buffer.words_mut()[..self.len]
    }

    /// Its words as numbers.
    pub fn floats(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.words())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.0.len() <= KEPT_LINES {
            KEPT.with_borrow_mut(|kept| kept.push(buffer));
        }
    }
}
