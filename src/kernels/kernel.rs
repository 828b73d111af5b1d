//! The choice between implementations, as a value.

use std::str::FromStr;

use crate::{Error, Result};

/// An implementation of the convolution products and of the loops around them.
///
/// # Example
///
/// ```
/// use candle_tcn::kernels::Kernel;
/// assert!(Kernel::best().is_available());
/// assert_eq!("portable".parse::<Kernel>()?, Kernel::Portable);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// None of ours: networks run on candle's own operations, as on other devices. Where a kernel is
    /// called all the same, it is the portable one.
    Candle,
    /// Naive loops: the oracle. Slow, never optimised.
    Reference,
    /// Matrix products over shifted rows through the `gemm` crate, which picks the processor's vector
    /// instructions at run time.
    Portable,
    /// Our products with 256-bit multiply-adds (AVX2 and FMA).
    Avx2,
    /// Our products with 512-bit multiply-adds (AVX-512 F, BW, DQ, VL), of bf16 pairs where it has them.
    Avx512,
    /// As AVX-512, with bf16 products in tiles (AMX).
    Amx,
}

impl Kernel {
    /// Every implementation, best first.
    pub const ALL: [Self; 6] =
        [Self::Amx, Self::Avx512, Self::Avx2, Self::Portable, Self::Reference, Self::Candle];

    /// The fastest that this processor has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Portable)
    }

    /// A name such as `avx2`, which [`str::parse`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Candle => "candle",
            Self::Reference => "reference",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// `true` if this processor (and system) can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Candle | Self::Reference | Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => super::packed_gemm::has_amx(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Amx => false,
        }
    }

    /// The kernel itself, where this processor can run it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it cannot, naming those that it can.
    pub fn available(self) -> Result<Self> {
        if self.is_available() {
            return Ok(self);
        }
        let names = names(|kernel| kernel.is_available());
        let expected = format!("{names} (what this processor has)");
        Err(Error::invalid("kernel", expected, self.name()))
    }

    /// `true` if it multiplies pairs of bf16 at once: twice the rate of `f32` and more.
    pub fn has_bf16_products(self) -> bool {
        match self {
            Self::Amx => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::packed_gemm::has_bf16_pairs(),
            _ => false,
        }
    }
}

/// Names of the kernels that are `wanted`.
fn names(wanted: impl Fn(&Kernel) -> bool) -> String {
    let names = Kernel::ALL.iter().filter(|kernel| wanted(kernel)).map(|kernel| kernel.name());
    names.collect::<Vec<_>>().join(" or ")
}

impl FromStr for Kernel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|kernel| kernel.name() == name);
        named.ok_or_else(|| Error::invalid("kernel", names(|_| true), name))
    }
}
