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
//! Rows before the first come from the *history* (what a carried window or a streaming state
//! remembers) and are zero beyond it; rows after the last are zero.
//!
//! Every function here is deterministic: work is cut into pieces of a fixed size, so the number of
//! threads never shows in a result.

pub mod conv1d;
pub mod dropout;
pub mod elementwise;
mod matmul;
mod portable;
pub mod reference;
pub mod rows;

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{Error, Result};

/// The element types of the kernels: `f32` for work, `f64` for checks.
pub trait Real:
    num_traits::Float
    + num_traits::FromPrimitive
    + std::iter::Sum
    + std::ops::AddAssign
    + Send
    + Sync
    + 'static
{
    /// The error function, for the exact GELU.
    fn erf(self) -> Self;
    /// A constant of the formulas.
    fn of(value: f64) -> Self;
    /// The value in double precision.
    fn f64(self) -> f64;
}

impl Real for f32 {
    fn erf(self) -> Self {
        libm::erff(self)
    }
    fn of(value: f64) -> Self {
        value as f32
    }
    fn f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn erf(self) -> Self {
        libm::erf(self)
    }
    fn of(value: f64) -> Self {
        value
    }
    fn f64(self) -> f64 {
        self
    }
}

/// Which implementation of the convolution products runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kernel {
    /// Naive loops: the oracle. Slow, never optimised.
    Reference = 0,
    /// Matrix products over shifted rows through the `gemm` crate, which picks the processor's
    /// vector instructions at run time.
    Portable = 1,
}

static KERNEL: AtomicU8 = AtomicU8::new(Kernel::Portable as u8);

impl Kernel {
    /// Every implementation, best first.
    pub const ALL: [Self; 2] = [Self::Portable, Self::Reference];

    /// The name that `TCN_KERNEL` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Portable => "portable",
        }
    }

    /// The implementation in use.
    pub fn current() -> Self {
        match KERNEL.load(Ordering::Relaxed) {
            0 => Self::Reference,
            _ => Self::Portable,
        }
    }

    /// Makes `self` the implementation in use, for the whole process.
    pub fn select(self) {
        KERNEL.store(self as u8, Ordering::Relaxed);
    }
}

impl std::str::FromStr for Kernel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(" or ");
                Error::invalid("TCN_KERNEL", names, name)
            })
    }
}
