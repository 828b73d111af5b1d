//! Vector instructions: which of them the processor has, and code compiled for them.

use super::Kernel;

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// AVX2 and FMA.
pub fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return V3::is_available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// AVX-512 F, BW, CD, DQ and VL.
pub fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return V4::is_available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// AMX tiles of bf16, granted by the system.
pub fn has_amx() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::products::has_amx();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

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
