//! Numbers: as they are computed with, and as they lie in a buffer.

use std::borrow::Cow;

use half::bf16;

use super::conv::{self, ConvShape, Operands};
use super::{Kernel, math, unpacked};

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
    /// A convolution product of this type.
    #[doc(hidden)]
    fn convolve<X: Stored<Real = Self>, Y: Stored<Real = Self>>(
        kernel: Kernel,
        shape: &ConvShape,
        operands: Operands<Self, X, Y>,
    );
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn f64(self) -> f64 {
        f64::from(self)
    }
    fn convolve<X: Stored<Real = Self>, Y: Stored<Real = Self>>(
        kernel: Kernel,
        shape: &ConvShape,
        operands: Operands<Self, X, Y>,
    ) {
        conv::single(kernel, shape, operands);
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn f64(self) -> f64 {
        self
    }
    fn convolve<X: Stored<Real = Self>, Y: Stored<Real = Self>>(
        kernel: Kernel,
        shape: &ConvShape,
        operands: Operands<Self, X, Y>,
    ) {
        unpacked::run(kernel, shape, operands);
    }
}

/// A number as it lies in a buffer: `f32` and `f64` as they are computed with, `bf16` in half the bytes
/// of the `f32` it is computed with.
pub trait Stored: Copy + Send + Sync + 'static {
    /// The type that is computed with.
    type Real: Real;
    /// The number as bf16, the nearest one (ties to even).
    #[inline(always)]
    fn bf16_bits(self) -> u16
    where
        Self: Stored<Real = f32>,
    {
        bf16::store(self.load()).to_bits()
    }
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
