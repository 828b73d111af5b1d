//! Stacks of two-dimensional convolutions.

use super::{Field, Stack};
use crate::Result;

/// A stack of two-dimensional convolutions: one [`Stack`] for each axis.
///
/// # Example
///
/// The context module of Yu and Koltun: 3×3 kernels.
///
/// ```
/// use candle_tcn::geometry::{Padding, Stack, Stack2d};
/// let axis = Stack::uniform(3, &[1, 1, 2, 4, 8, 16, 1], 1, Padding::Same)?;
/// let (height, width) = Stack2d::square(axis).receptive_field()?;
/// assert_eq!((height.total, width.total), (67, 67)); // 1 + 2 · 33
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
///
/// Yu and Koltun, arXiv:1511.07122, table 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack2d {
    /// Along the height: rows.
    pub height: Stack,
    /// Along the width: columns.
    pub width: Stack,
}

impl Stack2d {
    /// The same along both axes.
    pub fn square(axis: Stack) -> Self {
        Self { height: axis.clone(), width: axis }
    }

    /// The field along the height and along the width, in pixels.
    ///
    /// # Errors
    ///
    /// As [`Stack::receptive_field`].
    pub fn receptive_field(&self) -> Result<(Field, Field)> {
        Ok((self.height.receptive_field()?, self.width.receptive_field()?))
    }
}
