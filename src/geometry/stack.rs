//! Layers in series, with or without residual paths around them, and their receptive field.

use super::{MAX_FIELD, MAX_LAYERS, Padding, at_least_one, effective_kernel, layer_count};
use crate::{Error, Result};

/// One convolution of a stack, reduced to what decides which steps it reads.
///
/// Output step `t` reads the input steps `t · stride − left + j · dilation` for `j` from 0 to
/// `kernel_size − 1`, so it reaches `left` steps back and `right` steps ahead, and
/// `left + right = (kernel_size − 1) · dilation`.
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::Layer;
/// let layer = Layer::causal("conv", 3, 4)?;
/// assert_eq!((layer.left(), layer.right()), (8, 0));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    name: String,
    kernel_size: usize,
    dilation: usize,
    stride: usize,
    left: usize,
    right: usize,
}

impl Layer {
    /// A layer of stride 1 whose left reach is its left padding.
    ///
    /// With [`Padding::Valid`] step `t` of the shorter output therefore reads step `t` and later
    /// ones.
    ///
    /// # Errors
    ///
    /// As [`effective_kernel`], and [`Error::Invalid`] where an explicit left padding is wider
    /// than the kernel's span.
    pub fn new(
        name: impl Into<String>,
        kernel_size: usize,
        dilation: usize,
        padding: Padding,
    ) -> Result<Self> {
        let span = effective_kernel(kernel_size, dilation)? - 1;
        let (left, _) = padding.split(kernel_size, dilation)?;
        let right = span.checked_sub(left).ok_or_else(|| {
            Error::invalid(
                "left padding",
                format!(
                    "at most {span}, the span of kernel_size {kernel_size} at dilation {dilation}"
                ),
                left,
            )
        })?;
        Ok(Self { name: name.into(), kernel_size, dilation, stride: 1, left, right })
    }

    /// A layer that sees no later step.
    ///
    /// # Errors
    ///
    /// As [`effective_kernel`].
    pub fn causal(name: impl Into<String>, kernel_size: usize, dilation: usize) -> Result<Self> {
        Self::new(name, kernel_size, dilation, Padding::Causal)
    }

    /// A layer that sees as far ahead as back; where the span is odd, one step farther ahead.
    ///
    /// # Errors
    ///
    /// As [`effective_kernel`].
    pub fn centred(name: impl Into<String>, kernel_size: usize, dilation: usize) -> Result<Self> {
        Self::new(name, kernel_size, dilation, Padding::Same)
    }

    /// The same layer with another stride.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where `stride` is 0.
    pub fn with_stride(mut self, stride: usize) -> Result<Self> {
        self.stride = at_least_one("stride", stride)?;
        Ok(self)
    }

    /// Its name in tables and pictures.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Taps.
    pub fn kernel_size(&self) -> usize {
        self.kernel_size
    }

    /// Steps from one tap to the next.
    pub fn dilation(&self) -> usize {
        self.dilation
    }

    /// Input steps from one output step to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Input steps that it reaches back.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Input steps that it reaches ahead.
    pub fn right(&self) -> usize {
        self.right
    }
}

/// Layers in series that a residual path may bypass.
///
/// A residual path (identity, or a 1×1 convolution) never widens the field, but it reads the step
/// itself: a block with one reaches offset 0 beside what its layers reach. The skip connections
/// of a WaveNet or TCN add nothing to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub(super) layers: Vec<Layer>,
    pub(super) residual: bool,
}

impl Block {
    /// Layers with no path around them.
    pub fn plain(layers: Vec<Layer>) -> Self {
        Self { layers, residual: false }
    }

    /// Layers with an identity or 1×1 path around all of them.
    pub fn residual(layers: Vec<Layer>) -> Self {
        Self { layers, residual: true }
    }

    /// Its layers, from the input on.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// `true` if a path leads around its layers.
    pub fn is_residual(&self) -> bool {
        self.residual
    }
}

/// The receptive field of one output step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Steps from the earliest that is reached to the latest, both included:
    /// `left + 1 + right`.
    pub total: usize,
    /// Steps it reaches back.
    pub left: usize,
    /// Steps it reaches ahead.
    pub right: usize,
    /// Input steps from one output step to the next: the product of the strides.
    pub jump: usize,
}

impl Field {
    /// The field without any layer: the step itself.
    const POINT: Self = Self { total: 1, left: 0, right: 0, jump: 1 };

    /// The field after one more layer, whose steps are `jump` input steps wide.
    fn extend(self, layer: &Layer) -> Option<Self> {
        let left = self.left.checked_add(layer.left.checked_mul(self.jump)?)?;
        let right = self.right.checked_add(layer.right.checked_mul(self.jump)?)?;
        let total = left.checked_add(right)?.checked_add(1)?;
        (total <= MAX_FIELD).then_some(Self {
            total,
            left,
            right,
            jump: self.jump.checked_mul(layer.stride)?,
        })
    }
}

/// One line of a stack's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// The field of the stack up to and with this layer.
    pub field: Field,
}

/// Blocks in series, from the input to the output.
///
/// # Example
///
/// Two strided layers: `1 + (3 − 1)·1 + (3 − 1)·1·2 = 7`.
///
/// ```
/// use candle_tcn::geometry::{Layer, Stack};
/// let stack = Stack::series(vec![
///     Layer::causal("a", 3, 1)?.with_stride(2)?,
///     Layer::causal("b", 3, 1)?,
/// ]);
/// assert_eq!(stack.receptive_field()?.total, 7);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    pub(super) blocks: Vec<Block>,
}

impl Stack {
    /// These blocks in series.
    pub fn new(blocks: Vec<Block>) -> Self {
        Self { blocks }
    }

    /// These layers in series, with no path around any.
    pub fn series(layers: Vec<Layer>) -> Self {
        Self::new(vec![Block::plain(layers)])
    }

    /// One block of `convs_per_block` equal convolutions for each dilation, in series and with no
    /// path around any, named `network.0.conv1` and so on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a 0 anywhere or no dilation; [`Error::TooLarge`] on overflow or for
    /// more than [`MAX_LAYERS`] layers.
    pub fn uniform(
        kernel_size: usize,
        dilations: &[usize],
        convs_per_block: usize,
        padding: Padding,
    ) -> Result<Self> {
        at_least_one("convs_per_block", convs_per_block)?;
        if dilations.is_empty() {
            return Err(Error::invalid("dilations", "at least one", "an empty list"));
        }
        layer_count(dilations.len(), convs_per_block)?;
        let block = |(index, &dilation)| -> Result<Block> {
            let layers = (1..=convs_per_block).map(|conv| {
                let name = format!("network.{index}.conv{conv}");
                Layer::new(name, kernel_size, dilation, padding)
            });
            layers.collect::<Result<_>>().map(Block::plain)
        };
        let blocks = dilations.iter().enumerate().map(block);
        blocks.collect::<Result<_>>().map(Self::new)
    }

    /// The same stack with a stride for each block, which its first layer takes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where there are not as many strides as blocks, or one is 0.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::geometry::{Padding, Stack};
    /// let stack = Stack::uniform(3, &[1, 1], 1, Padding::Same)?.with_strides(&[2, 1])?;
    /// assert_eq!(stack.receptive_field()?.total, 7); // 1 + 2 + 2·2
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn with_strides(mut self, strides: &[usize]) -> Result<Self> {
        if strides.len() != self.blocks.len() {
            let expected = format!("{}, one for each dilation", self.blocks.len());
            return Err(Error::invalid("strides", expected, strides.len()));
        }
        for (block, &stride) in self.blocks.iter_mut().zip(strides) {
            at_least_one("stride", stride)?;
            if let Some(layer) = block.layers.first_mut() {
                layer.stride = stride;
            }
        }
        Ok(self)
    }

    /// Its blocks, from the input on.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// All layers, from the input on.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = &Layer> {
        self.blocks.iter().flat_map(|block| &block.layers)
    }

    /// The field of one output step: `total = 1 + Σ (kernel_size − 1) · dilation · jump`, where
    /// `jump` is the product of the strides of the earlier layers; `left` and `right` likewise.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] on overflow, which includes a field of more than 2^60 steps.
    ///
    /// # References
    ///
    /// Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks",
    /// Distill 2019.
    pub fn receptive_field(&self) -> Result<Field> {
        self.layers().try_fold(Field::POINT, extend)
    }

    /// Each layer with the field of the stack up to it; the last line's is the stack's.
    ///
    /// # Errors
    ///
    /// As [`Stack::receptive_field`], and [`Error::TooLarge`] for more than [`MAX_LAYERS`] layers.
    pub fn table(&self) -> Result<Vec<Row<'_>>> {
        layer_count(self.layers().take(MAX_LAYERS + 1).count(), 1)?;
        let rows = self.layers().scan(Field::POINT, |field, layer| {
            Some(extend(*field, layer).map(|next| {
                *field = next;
                Row { layer, field: next }
            }))
        });
        rows.collect()
    }
}

fn extend(field: Field, layer: &Layer) -> Result<Field> {
    field.extend(layer).ok_or_else(|| {
        Error::too_large(
            "the receptive field",
            format!(
                "kernel_size {} at dilation {} (layer {}) after a field of {} is too far; \
                 lower the dilation",
                layer.kernel_size, layer.dilation, layer.name, field.total
            ),
        )
    })
}
