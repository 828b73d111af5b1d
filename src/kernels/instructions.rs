//! Code compiled for vector instructions.

use super::Kernel;

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// Instructions that the processor was found to have.
pub trait Instructions: Copy {
    /// Runs `work` compiled for them: unless said otherwise, for those that every processor has.
    #[inline(always)]
    fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

#[cfg(target_arch = "x86_64")]
impl Instructions for V3 {
    #[inline(always)]
    fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
        self.vectorize(Call(work))
    }
}

#[cfg(target_arch = "x86_64")]
impl Instructions for V4 {
    #[inline(always)]
    fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
        self.vectorize(Call(work))
    }
}

/// Compiles three times what it runs: where the instructions are known, their own value will do.
///
/// Functions that `work` calls must be `#[inline(always)]` to be compiled along; the compiler then
/// vectorises loops over slices.
impl Instructions for Kernel {
    #[inline(always)]
    fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Amx | Self::Avx512 => {
                if let Some(simd) = V4::try_new() {
                    return simd.vectorized(work);
                }
            }
            Self::Avx2 => {
                if let Some(simd) = V3::try_new() {
                    return simd.vectorized(work);
                }
            }
            Self::Portable | Self::Reference | Self::Candle => {}
        }
        work()
    }
}

#[cfg(target_arch = "x86_64")]
struct Call<F>(F);

#[cfg(target_arch = "x86_64")]
impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Call<F> {
    type Output = R;
    #[inline(always)]
    fn call(self) -> R {
        (self.0)()
    }
}
