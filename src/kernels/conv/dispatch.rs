//! The choice of an implementation for one product of a convolution.

use super::super::{Kernel, Stored, unpacked};
use super::{ConvShape, RowEpilogue};

/// One of the three products with what it reads and writes; sizes are checked before.
///
/// The type of `x` says what is computed with: operands of `bf16` activations are rounded to bf16,
/// sums are not.
#[derive(Debug)]
pub enum Operands<'a, R, X, Y> {
    /// See [`forward`](super::forward); of `x` also the history.
    Forward {
        x: (&'a [X], &'a [X]),
        weight: &'a [R],
        epilogue: &'a RowEpilogue<'a, R>,
        y: &'a mut [Y],
    },
    /// See [`grad_input`](super::grad_input).
    GradInput { dy: &'a [Y], weight: &'a [R], dx: &'a mut [X] },
    /// See [`grad_weight`](super::grad_weight); of `x` also the history.
    GradWeight { x: (&'a [X], &'a [X]), dy: &'a [Y], dw: &'a mut [R] },
}

/// Products of `f32` and `bf16`: our kernels where the processor has the instructions.
pub fn single<X: Stored<Real = f32>, Y: Stored<Real = f32>>(
    kernel: Kernel,
    shape: &ConvShape,
    operands: Operands<f32, X, Y>,
) {
    /// Groups narrower than this waste most of a block of registers; loops over channels are faster.
    #[cfg(target_arch = "x86_64")]
    const NARROW: usize = 8;
    #[cfg(target_arch = "x86_64")]
    if shape.groups == 1 || shape.group_in().min(shape.group_out()) >= NARROW {
        use super::super::packed_gemm::{Amx, Avx2, Avx512, Avx512Pairs, run};
        /// Runs on the first of some kernels that the processor has.
        macro_rules! first_of {
            ($($micro:ty),+) => {{
                $(if let Some(micro) = <$micro>::new() {
                    return run(micro, shape, operands);
                })+
            }};
        }
        // known when this is compiled, so that only what may run is
        if const { size_of::<X>() < size_of::<f32>() } {
            match kernel {
                Kernel::Amx => first_of!(Amx, Avx512Pairs, Avx512<true>),
                Kernel::Avx512 => first_of!(Avx512Pairs, Avx512<true>),
                Kernel::Avx2 => first_of!(Avx2<true>),
                Kernel::Portable | Kernel::Reference | Kernel::Candle => {}
            }
        } else {
            match kernel {
                Kernel::Amx | Kernel::Avx512 => first_of!(Avx512<false>),
                Kernel::Avx2 => first_of!(Avx2<false>),
                Kernel::Portable | Kernel::Reference | Kernel::Candle => {}
            }
        }
    }
    unpacked::run(kernel, shape, operands);
}
