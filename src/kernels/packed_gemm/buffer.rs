//! Aligned scratch memory that is kept from call to call.

use std::cell::RefCell;

/// Words of a cache line.
pub const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} lines)", self.0.len())
    }
}

/// Words in whole, aligned cache lines. New ones are zero, kept ones hold what was left in them.
#[derive(Default)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// At least `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self(vec![Line([0; LINE]); len.div_ceil(LINE)])
    }

    /// The first `len` words, at least; grows where it is shorter.
    fn reserve(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if self.0.len() < lines {
            // not `resize`: what it holds need not be copied
            self.0 = vec![Line([0; LINE]); lines];
        }
    }

    /// All words.
    pub fn words(&self) -> &[u32] {
        let len = self.0.len() * LINE;
        // SAFETY: a `Line` is 16 words without padding, aligned more strictly than a word, and every
        // bit pattern is a word; the borrow of `self` lasts as long as the slice.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) }
    }

    /// All words.
    pub fn words_mut(&mut self) -> &mut [u32] {
        let len = self.0.len() * LINE;
        // SAFETY: as in `words`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// All words as numbers.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        let len = self.0.len() * LINE;
        // SAFETY: as in `words_mut`; every bit pattern is an f32 too.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

thread_local! {
    static KEPT: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Longer buffers are freed after use: 64 MiB.
const KEPT_LINES: usize = 1 << 20;

/// A buffer of at least `len` words for `work`; its memory is kept for the next call on this thread.
pub fn with_buffer<R>(len: usize, work: impl FnOnce(&mut Buffer) -> R) -> R {
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
    buffer.reserve(len);
    let result = work(&mut buffer);
    if buffer.0.len() <= KEPT_LINES {
        KEPT.with_borrow_mut(|kept| kept.push(buffer));
    }
    result
}
