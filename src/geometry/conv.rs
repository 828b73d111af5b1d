//! One convolution along one axis: its span, its padding and its output length.

use super::at_least_one;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Zeros (or mirrored steps) before and after the input along one axis.
///
/// With `span = (kernel_size − 1) · dilation`, drawn for kernel 3 and dilation 1 on `1234`:
///
/// | padding | left | right | drawn |
/// |---|---|---|---|
/// | `Causal` | span | 0 | `001234` |
/// | `Same` | span / 2 | span − span / 2 | `012340` |
/// | `Valid` | 0 | 0 | `1234` |
/// | `Explicit` | left | right | |
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::Padding;
/// assert_eq!(Padding::Causal.split(3, 4)?, (8, 0));
/// assert_eq!(Padding::Same.split(4, 1)?, (1, 2)); // an odd span: the extra step on the right
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
///
/// `Same` is PyTorch's `padding="same"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Everything on the left: no output sees a later input.
    Causal,
    /// Split in halves, so that with stride 1 the output is as long as the input.
    Same,
    /// None.
    Valid,
    /// As given, in steps.
    Explicit {
        /// Steps before the input.
        left: usize,
        /// Steps after the input.
        right: usize,
    },
}

impl Padding {
    /// The padding `(left, right)` in steps.
    ///
    /// # Errors
    ///
    /// As [`effective_kernel`].
    pub fn split(self, kernel_size: usize, dilation: usize) -> Result<(usize, usize)> {
        let span = effective_kernel(kernel_size, dilation)? - 1;
        Ok(match self {
            Self::Causal => (span, 0),
            Self::Same => (span / 2, span - span / 2),
            Self::Valid => (0, 0),
            Self::Explicit { left, right } => (left, right),
        })
    }
}

/// The steps from a kernel's first tap to its last, both included:
/// `(kernel_size − 1) · dilation + 1`.
///
/// # Errors
///
/// [`Error::Invalid`] where an argument is 0, [`Error::TooLarge`] on overflow.
///
/// # Example
///
/// ```
/// assert_eq!(candle_tcn::geometry::effective_kernel(3, 4)?, 9);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn effective_kernel(kernel_size: usize, dilation: usize) -> Result<usize> {
    let taps = at_least_one("kernel_size", kernel_size)?;
    let dilation = at_least_one("dilation", dilation)?;
    (taps - 1).checked_mul(dilation).and_then(|span| span.checked_add(1)).ok_or_else(|| {
        Error::too_large(
            "the effective kernel",
            format!("kernel_size {taps} at dilation {dilation} overflows; lower one of them"),
        )
    })
}

/// The output steps of a convolution along one axis:
/// `⌊(len + pad_left + pad_right − effective) / stride⌋ + 1`.
///
/// # Errors
///
/// [`Error::Invalid`] where the padded input is shorter than the effective kernel, or where
/// `kernel_size`, `dilation` or `stride` is 0; [`Error::TooLarge`] on overflow.
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::output_length;
/// // kernel 3 at dilation 2 spans 5 steps: it fits at 0, 2, 4 and 6 in 10 + 2 padded steps
/// assert_eq!(output_length(10, 3, 2, 2, 1, 1)?, 4);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
///
/// PyTorch's `Conv1d`, section "Shape".
pub fn output_length(
    len: usize,
    kernel_size: usize,
    dilation: usize,
    stride: usize,
    pad_left: usize,
    pad_right: usize,
) -> Result<usize> {
    let effective = effective_kernel(kernel_size, dilation)?;
    let stride = at_least_one("stride", stride)?;
    let padded =
        len.checked_add(pad_left).and_then(|n| n.checked_add(pad_right)).ok_or_else(|| {
            Error::too_large(
                "the padded input",
                format!("{len} steps padded by {pad_left} and {pad_right} overflow"),
            )
        })?;
    match padded.checked_sub(effective) {
        Some(room) => Ok(room / stride + 1),
        None => Err(Error::invalid(
            "input length with padding",
            format!(
                "at least {effective} steps, the effective size of kernel_size {kernel_size} at \
                 dilation {dilation}"
            ),
            format!("{len} + {pad_left} + {pad_right} = {padded}"),
        )),
    }
}
