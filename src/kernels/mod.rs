//! Slices in, slices out: the arithmetic of the layers, without any tensor type.
//!
//! Activations are channels-last: a *row* is one time step, `in_channels` numbers wide. A dilated
//! convolution is then a sum of matrix products over shifted rows, one per tap:
//!
//! ```text
//! y[r]    = b + Σ_tap  x[r·stride + offset(tap)] · W[tap]        offset(tap) = tap·dilation − pad_left
//! dx[i]   =     Σ_tap dy[(i − offset(tap)) / stride] · W[tap]ᵀ
//! dW[tap] =     Σ_r    x[r·stride + offset(tap)]ᵀ · dy[r]
//! ```
//!
//! In two dimensions a row is one pixel, and taps, strides and offsets have a part along each axis; a
//! sequence is an image of one line, and the kernels are the same.
//!
//! Rows before the first come from the *history* (what a carried window or a streaming state
//! remembers) and are zero beyond it; rows after the last are zero.
//!
//! Every function here is deterministic: work is cut into pieces of a fixed size, so the number of
//! threads never shows in a result.

pub mod batch_norm;
pub mod conv;
pub mod dropout;
pub mod elementwise;
pub mod gather;
mod isa;
pub mod math;
mod matmul;
pub mod memory;
mod portable;
mod products;
pub mod reference;
pub mod rows;
pub mod step;
pub mod sum;
mod unpacked;
pub mod update;

use half::bf16;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::{Error, Result};

/// The element types of the kernels: `f32` for work, `f64` for checks.
pub trait Real:
    num_traits::Float
    + num_traits::FromPrimitive
    + std::iter::Sum
    + std::ops::AddAssign
    + math::Functions
    + Stored<Real = Self>
    + Send
    + Sync
    + 'static
{
    /// A constant of the formulas.
    fn of(value: f64) -> Self;
    /// The value in double precision.
    fn f64(self) -> f64;
    /// The convolution products of this type, sizes already checked.
    #[doc(hidden)]
    type Products: conv::Products<Self>;
}

impl Real for f32 {
    type Products = conv::Single;
    fn of(value: f64) -> Self {
        value as f32
    }
    fn f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    type Products = conv::Double;
    fn of(value: f64) -> Self {
        value
    }
    fn f64(self) -> f64 {
        self
    }
}

/// How a number lies in a buffer: `f32` and `f64` as they are computed with, `bf16` in half the bytes
/// of the `f32` it is computed with.
pub trait Stored: Copy + Send + Sync + 'static {
    /// What is computed with.
    type Real: Real;
    /// The number as bf16, the nearest one (ties to even).
    fn bf16_bits(self) -> u16;
    /// The number.
    fn load(self) -> Self::Real;
    /// The nearest number that fits (ties to even).
    fn store(value: Self::Real) -> Self;
    /// The numbers of a buffer as they are computed with; a copy only where they are stored otherwise.
    fn reals(stored: &[Self]) -> Cow<'_, [Self::Real]>;
}

impl Stored for f32 {
    type Real = f32;
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        bf16::store(self).to_bits()
    }
    #[inline(always)]
    fn load(self) -> f32 {
        self
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }
    fn reals(stored: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(stored)
    }
}

impl Stored for f64 {
    type Real = f64;
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        (self as f32).bf16_bits()
    }
    #[inline(always)]
    fn load(self) -> f64 {
        self
    }
    #[inline(always)]
    fn store(value: f64) -> Self {
        value
    }
    fn reals(stored: &[Self]) -> Cow<'_, [f64]> {
        Cow::Borrowed(stored)
    }
}

impl Stored for bf16 {
    type Real = f32;
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        self.to_bits()
    }
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    // Branch-free, so that loops over it vectorise. NaN stays NaN: its quiet bit is set.
    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let nan = (bits >> 16) | 0x40;
        Self::from_bits(if value.is_nan() { nan } else { rounded } as u16)
    }
    fn reals(stored: &[Self]) -> Cow<'_, [f32]> {
        Cow::Owned(stored.iter().map(|&x| x.load()).collect())
    }
}

/// Which implementation runs: of the convolution products, and of the loops around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kernel {
    /// Naive loops: the oracle. Slow, never optimised.
    Reference = 0,
    /// Matrix products over shifted rows through the `gemm` crate, which picks the processor's
    /// vector instructions at run time.
    Portable = 1,
    /// Our products with 256-bit multiply-adds (AVX2 and FMA).
    Avx2 = 2,
    /// Our products with 512-bit multiply-adds (AVX-512 F, BW, DQ, VL), of bf16 pairs where it has them.
    Avx512 = 3,
    /// As AVX-512, with bf16 products in tiles (AMX).
    Amx = 4,
}

/// The kernel in use; `UNSET` until somebody asks.
static KERNEL: AtomicU8 = AtomicU8::new(UNSET);
const UNSET: u8 = u8::MAX;

impl Kernel {
    /// Every implementation, best first.
    pub const ALL: [Self; 5] =
        [Self::Amx, Self::Avx512, Self::Avx2, Self::Portable, Self::Reference];

    /// The name that `TCN_KERNEL` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// Whether this processor (and system) can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Reference | Self::Portable => true,
            Self::Avx2 => isa::has_avx2(),
            Self::Avx512 => isa::has_avx512(),
            Self::Amx => isa::has_amx(),
        }
    }

    /// `true` if it multiplies pairs of bf16 at once: twice the rate of `f32` and more.
    pub fn has_bf16_products(self) -> bool {
        match self {
            Self::Amx => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => products::has_bf16_pairs(),
            _ => false,
        }
    }

    /// The implementation in use: the best available one, unless another is selected.
    pub fn current() -> Self {
        let stored = KERNEL.load(Ordering::Relaxed);
        if let Some(kernel) = Self::ALL.into_iter().find(|&k| k as u8 == stored) {
            return kernel;
        }
        let best = Self::ALL.into_iter().find(|k| k.is_available());
        let best = best.unwrap_or(Self::Portable);
        KERNEL.store(best as u8, Ordering::Relaxed);
        best
    }

    /// Makes `self` the implementation in use, for the whole process.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the processor cannot run it; it names those that it can.
    pub fn select(self) -> Result<()> {
        if !self.is_available() {
            let available: Vec<_> = Self::ALL.into_iter().filter(|k| k.is_available()).collect();
            let names = Self::names(&available);
            return Err(Error::invalid(
                "TCN_KERNEL",
                format!("{names} (what this processor has)"),
                self.name(),
            ));
        }
        KERNEL.store(self as u8, Ordering::Relaxed);
        Ok(())
    }

    fn names(kernels: &[Self]) -> String {
        let names: Vec<_> = kernels.iter().map(|k| k.name()).collect();
        names.join(" or ")
    }
}

impl std::str::FromStr for Kernel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| Error::invalid("TCN_KERNEL", Self::names(&Self::ALL), name))
    }
}

/// FLOP/s that the multiply-add instruction of the kernel in use (for `bf16` operands or `f32`) reaches
/// by itself on `threads` threads at once, measured now (about 50 ms): what a product can be at most.
/// Nothing where the kernel has no instruction of its own.
pub fn ceiling(bf16: bool, threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    return products::ceiling(Kernel::current(), bf16, threads);
    #[cfg(not(target_arch = "x86_64"))]
    return None;
}

/// Runs `work` compiled for the vector instructions of the kernel in use.
///
/// What `work` calls must be `#[inline(always)]` to be compiled along; loops over slices are then
/// vectorised by the compiler.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    isa::vectorized(Kernel::current(), work)
}
