//! The rate of the multiply-add instructions alone, without a single load: the measure of the products.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::time::Instant;

use super::super::Kernel;
use super::super::register_blocks::dot_pairs;
use super::amx::{self, Amx};
use super::x86::has_bf16_pairs;
use super::{Format, MicroKernel};

/// Runs multiply-adds `times` times on registers alone and says how many FLOP that were.
type Loop = fn(usize) -> f64;

/// FLOP/s that the multiply-add of `kernel` (for bf16 operands or not) reaches on `threads` threads at
/// once; nothing where the kernel has no instruction of its own. Takes about 50 ms.
pub fn ceiling(kernel: Kernel, bf16: bool, threads: usize) -> Option<f64> {
    let run: Loop = match (kernel, bf16) {
        (Kernel::Amx, true) => |n| Amx::new().map_or(0.0, |amx| tiles(amx, n)),
        (Kernel::Avx512, true) if has_bf16_pairs() => avx512_pairs,
        (Kernel::Amx | Kernel::Avx512, _) => avx512,
        (Kernel::Avx2, _) => avx2,
        (Kernel::Portable | Kernel::Reference | Kernel::Candle, _) => return None,
    };
    if !kernel.is_available() {
        return None;
    }
    let one = || {
        run(1000);
        let start = Instant::now();
        let (mut flop, mut seconds) = (0.0, 0.0);
        while seconds < 0.05 {
            flop += run(10_000);
            seconds = start.elapsed().as_secs_f64();
        }
        flop / seconds
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().ok()).sum()
    })
}

/// A loop of independent multiply-adds on vectors.
macro_rules! vector_loop {
    ($name:ident, $feature:literal, $accumulators:literal, $flop:expr, $zero:ident,
     |$acc:ident, $x:ident| $multiply_add:expr) => {
        /// Only called where the kernel is available.
        fn $name(times: usize) -> f64 {
            #[target_feature(enable = $feature)]
            fn run(times: usize) {
                let $x = black_box($zero());
                let mut block = [$x; $accumulators];
                for _ in 0..times {
                    for $acc in &mut block {
                        *$acc = $multiply_add;
                    }
                }
                black_box(block);
            }
            // SAFETY: `ceiling` asks for this loop only where `Kernel::is_available` (and, for pairs,
            // `has_bf16_pairs`) says that the processor has the features.
            unsafe { run(times) };
            (times * $accumulators * $flop) as f64
        }
    };
}

vector_loop!(avx2, "avx2,fma", 12, 2 * 8, _mm256_setzero_ps, |acc, x| {
    _mm256_fmadd_ps(x, x, *acc)
});
vector_loop!(avx512, "avx512f", 24, 2 * 16, _mm512_setzero_ps, |acc, x| _mm512_fmadd_ps(
    x, x, *acc
));
vector_loop!(
    avx512_pairs,
    "avx512f,avx512bf16",
    24,
    4 * 16,
    _mm512_setzero_ps,
    |acc, x| dot_pairs(*acc, 0, x)
);

/// Tile multiplies on the four tiles of C.
fn tiles(amx: Amx, times: usize) -> f64 {
    amx::multiply_tiles(amx, times);
    let flop = 2 * 2 * Amx::STEP * Amx::ROWS * Amx::COLS;
    debug_assert_eq!(Amx::FORMAT, Format::Pairs);
    (times * flop) as f64
}
