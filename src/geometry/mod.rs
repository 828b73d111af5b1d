//! Geometry of dilated convolutions, in integers only: dilation schedules, padding, output length,
//! receptive field, holes, and the search for stacks that reach a wanted context.
//!
//! Two dimensions are two axes done alone: [`output_length`] and [`Padding::split`] for each axis,
//! [`Stack2d`] for the field.
//!
//! # Units
//!
//! Everything is counted in steps (of time, or pixels along one axis). Offsets are relative to the
//! output step: 0 is that step, −1 the one before it. A receptive field counts the step itself, so
//! a field of 1 sees nothing else.
//!
//! # Example
//!
//! The reference character model: three residual blocks of two causal convolutions.
//!
//! ```
//! use candle_tcn::geometry::{Padding, Stack};
//! let stack = Stack::uniform(3, &[1, 2, 4], 2, Padding::Causal)?;
//! let field = stack.receptive_field()?;
//! assert_eq!(field.total, 29); // 1 + 2 convolutions · (3 − 1) · (1 + 2 + 4)
//! assert_eq!((field.left, field.right), (28, 0));
//! # Ok::<(), candle_tcn::Error>(())
//! ```

mod conv;
mod plan;
mod reach;
mod schedule;
mod stack;
mod stack2d;
#[cfg(test)]
mod tests;

pub use conv::{Padding, effective_kernel, output_length};
pub use plan::{Plan, PlanOptions, plan};
pub use reach::{Holes, Reach};
pub use schedule::{Dilations, Growth};
pub use stack::{Block, Field, Layer, Row, Stack};
pub use stack2d::Stack2d;

use crate::{Error, Result};

/// The most layers that a schedule or a stack may have. Far beyond any published network, and
/// small enough that a mistyped number cannot exhaust the memory.
pub const MAX_LAYERS: usize = 65_536;

/// The widest receptive field, 2^60 steps where `usize` has 64 bits: offsets, which are signed, and
/// sums of a few of them cannot overflow.
const MAX_FIELD: usize = 1 << (usize::BITS - 4);

/// `value`, where it is at least 1.
fn at_least_one(field: &str, value: usize) -> Result<usize> {
    Error::require(value > 0, field, "a whole number of at least 1", value)?;
    Ok(value)
}

/// The number of layers `a · b`, where it is at most [`MAX_LAYERS`].
fn layer_count(a: usize, b: usize) -> Result<usize> {
    match a.checked_mul(b) {
        Some(count) if count <= MAX_LAYERS => Ok(count),
        _ => Err(Error::too_large(
            "the number of layers",
            format!("{a} x {b}; at most {MAX_LAYERS} are supported"),
        )),
    }
}
