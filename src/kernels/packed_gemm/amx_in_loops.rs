//! The blocks of AMX in plain loops, so that what surrounds them is checked on every processor.

use super::super::instructions::Instructions;
use super::{Amx, BlockRows, Format, MicroKernel, Term, Tuning};

/// The blocks of [`Amx`](super::Amx) in plain loops.
#[derive(Clone, Copy)]
pub struct Tiles;

impl Instructions for Tiles {}

impl MicroKernel for Tiles {
    const ROWS: usize = Amx::ROWS;
    const COLS: usize = Amx::COLS;
    const STEP: usize = Amx::STEP;
    const FORMAT: Format = Format::Pairs;
    const TUNING: Tuning = Amx::TUNING;

    fn block(
        self,
        (c, c_stride): (&mut [f32], usize),
        a: BlockRows,
        b: &[u32],
        terms: &[Term],
        (rows, half): (usize, bool),
        add: bool,
    ) {
        let halves = |word: u32| {
            let half = |bits: u32| f32::from_bits(bits << 16);
            [half(word & 0xffff), half(word >> 16)]
        };
        for i in 0..rows {
            for j in 0..if half { Self::COLS / 2 } else { Self::COLS } {
                let c = &mut c[i * c_stride + j];
                let mut sum = if add { *c } else { 0.0 };
                for term in terms {
                    assert!(term.depth.is_multiple_of(Self::STEP));
                    for k in 0..term.depth {
                        let a = halves(a.words[a.groups[0] + i * a.stride + term.a + k]);
                        let b = halves(b[term.b + k * Self::COLS + j]);
                        sum += a[0] * b[0] + a[1] * b[1];
                    }
                }
                *c = sum;
            }
        }
    }
}
