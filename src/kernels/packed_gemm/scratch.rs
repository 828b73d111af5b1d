//! Memory that is kept from call to call.

use std::cell::RefCell;

use super::super::buffer::{Buffer, LINE};

thread_local! {
    static KEPT: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Longer buffers are freed after use: 64 MiB.
const KEPT_LINES: usize = 1 << 20;

/// Memory for a while; this thread's next call gets it again.
pub struct ScratchWords {
    buffer: Buffer,
    len: usize,
}

impl ScratchWords {
    /// `len` words: zeros, or what was left in them.
    pub fn new(len: usize) -> Self {
        let kept = KEPT.with_borrow_mut(|kept| {
            // the smallest that is long enough, or the longest
            let best = (0..kept.len()).min_by_key(|&i| {
                let lines = kept[i].lines();
                let short = lines * LINE < len;
                (short, if short { usize::MAX - lines } else { lines })
            });
            best.map(|i| kept.swap_remove(i))
        });
        let mut buffer = kept.unwrap_or_default();
        if buffer.lines() < len.div_ceil(LINE) {
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

impl Drop for ScratchWords {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.lines() <= KEPT_LINES {
            KEPT.with_borrow_mut(|kept| kept.push(buffer));
        }
    }
}
