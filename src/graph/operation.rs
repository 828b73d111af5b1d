//! The closed list of operations, and the parameters they read.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result as CandleResult, Tensor, WithDType};
use candle_nn::Init;

use super::{ConvTranspose1dConfig, Edge, Value};
use crate::geometry::effective_kernel;
use crate::kernels::elementwise::{Activation, Gate};
use crate::kernels::rows::RowNorm;
use crate::kernels::{Kernel, Stored};
use crate::ops::op::{Arg, Computed, Grads, Keep, Op, dispatch, on_cpu};
use crate::ops::{DropoutKind, PaddingMode, Pool, filled, tensor};

/// A named tensor of a network.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Dotted name.
    pub name: String,
    /// Shape, as PyTorch has it.
    pub shape: Vec<usize>,
    /// First values.
    pub init: Init,
    /// `false` for running statistics, which a run updates and no optimizer.
    pub trained: bool,
    /// Names under which other programs save the same numbers again: of tied weights.
    pub copies: Vec<String>,
}

/// Number of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Param(pub usize);

/// The weight of a convolution: a parameter, or derived from some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Plain(Param),
    /// Directions and lengths.
    Norm {
        v: Param,
        g: Param,
    },
}

/// A convolution along time, or along height and width.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    pub weight: Weight,
    pub bias: Option<Param>,
    pub in_channels: usize,
    pub out_channels: usize,
    /// Along the height (1 over time) and along the width or time; so the fields below.
    pub kernel_size: [usize; 2],
    pub dilation: [usize; 2],
    pub stride: [usize; 2],
    /// Before and after.
    pub padding: [(usize, usize); 2],
    pub padding_mode: PaddingMode,
    pub groups: usize,
    /// The result is f32 whatever the type of the activations: logits.
    pub to_f32: bool,
}

impl Conv {
    /// Rows along time between the first and the last tap.
    pub fn span(&self) -> usize {
        (self.kernel_size[1] - 1) * self.dilation[1]
    }

    /// `true` if an output reads one row alone, of the same number.
    pub fn is_pointwise(&self) -> bool {
        self.kernel_size == [1, 1] && self.stride == [1, 1] && self.padding == [(0, 0); 2]
    }
}

/// A transposed convolution along time.
#[derive(Debug, Clone)]
pub(crate) struct ConvTranspose {
    pub weight: Param,
    pub bias: Option<Param>,
    pub in_channels: usize,
    pub kernel_size: usize,
    pub config: ConvTranspose1dConfig,
}

impl ConvTranspose {
    pub fn effective(&self) -> usize {
        effective_kernel(self.kernel_size, self.config.dilation).unwrap_or(usize::MAX)
    }

    /// Earlier inputs that an output sees.
    pub fn span(&self) -> usize {
        (self.effective() - 1) / self.config.stride
    }
}

/// Token ids with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokensConfig {
    /// Steps of this id are hidden where no mask is given.
    pub hidden: Option<u32>,
    /// A sequence begins anew with this id: neither it nor what follows sees what came before, in a whole run, in a
    /// carried state and in single steps alike.
    pub restart: Option<u32>,
}

/// A value that a network takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Token ids `u32`, (batch, time), below `vocab_size`.
    Tokens {
        /// Ids are below it.
        vocab_size: usize,
        /// Ids with a meaning of their own.
        cfg: TokensConfig,
    },
    /// Numbers, (batch, time, channels).
    Frames {
        /// Numbers of a step.
        channels: usize,
    },
    /// Numbers, (batch, height, width, channels).
    Images {
        /// Numbers of a pixel.
        channels: usize,
    },
    /// Numbers, (batch, channels) for whole sequences or (batch, time, channels) for their steps; may be left out.
    Condition {
        /// Numbers of a sequence or a step.
        channels: usize,
    },
}

/// A row-wise operation of a user, with its gradient.
///
/// Rows of `in_channels` numbers become rows of [`out_channels`](Self::out_channels); a row depends on nothing but its
/// own input row. It runs in training, in evaluation and in steps alike, always in f32.
///
/// # Example
///
/// ```
/// use candle_tcn::graph::RowOperation;
///
/// /// `y = x²`
/// #[derive(Debug)]
/// struct Square;
///
/// impl RowOperation for Square {
///     fn name(&self) -> &'static str { "square" }
///     fn out_channels(&self, in_channels: usize) -> usize { in_channels }
///     fn forward(&self, x: &[f32], y: &mut [f32]) {
///         x.iter().zip(y).for_each(|(x, y)| *y = x * x);
///     }
///     fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
///         dx.iter_mut().zip(x).zip(dy).for_each(|((dx, x), dy)| *dx = 2.0 * x * dy);
///     }
/// }
/// let mut ys = [0.0; 2];
/// Square.forward(&[3.0, -1.0], &mut ys);
/// assert_eq!(ys, [9.0, 1.0]);
/// ```
pub trait RowOperation: Debug + Send + Sync {
    /// Name in error messages and in a network's fingerprint.
    fn name(&self) -> &'static str;

    /// Numbers of a row that comes out.
    fn out_channels(&self, in_channels: usize) -> usize;

    /// One row.
    fn forward(&self, x: &[f32], y: &mut [f32]);

    /// Gradient of one row: `dx` for `dy`, at `x`.
    fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]);
}

/// An operation of a node.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Input(Input),
    /// Rows of a table.
    Embed {
        table: Param,
        padding: Option<u32>,
    },
    OneHot,
    Conv(Conv),
    ConvTranspose(ConvTranspose),
    RowNorm {
        norm: RowNorm,
        weight: Param,
        bias: Option<Param>,
    },
    /// With weight, bias, running mean and running variance.
    BatchNorm([Param; 4]),
    Activate(Activation),
    Gate(Gate),
    Add,
    Multiply,
    Concat,
    /// Number among the graph's dropouts, from 1.
    Dropout {
        p: f64,
        kind: DropoutKind,
        number: u64,
    },
    /// Over all rows of a sequence or an image, those that a mask hides left out.
    Pool(Pool),
    /// The first input, a vector, for each row of the second.
    Spread,
    /// Over the sequences of the batch.
    BatchSoftmax {
        log: bool,
    },
    /// The first input where the inputs that it depends on were given, else the second.
    Otherwise,
    Custom(Arc<dyn RowOperation>),
}

impl Operation {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Embed { .. } => "embed",
            Self::OneHot => "one_hot",
            Self::Conv(_) => "convolution",
            Self::ConvTranspose(_) => "transposed convolution",
            Self::RowNorm { .. } => "norm",
            Self::BatchNorm(_) => "batch norm",
            Self::Activate(_) => "activation",
            Self::Gate(_) => "gate",
            Self::Add => "sum",
            Self::Multiply => "product",
            Self::Concat => "concatenation",
            Self::Dropout { .. } => "dropout",
            Self::Pool(_) => "pooling",
            Self::Spread => "spread",
            Self::BatchSoftmax { .. } => "softmax over the batch",
            Self::Otherwise => "choice",
            Self::Custom(op) => op.name(),
        }
    }
}

/// A node of a graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Dotted path of what it belongs to.
    pub name: String,
    pub operation: Operation,
    pub inputs: Vec<Value>,
    pub edge: Edge,
}

impl Node {
    /// `true` if its rows depend on which steps are of a sequence.
    pub fn has_use_for_masks(&self) -> bool {
        let counts = matches!(self.operation, Operation::Pool(_) | Operation::BatchNorm(_));
        counts || self.edge.right() > 0
    }
}

/// A user's operation as one of ours.
pub(crate) struct Rows(pub Arc<dyn RowOperation>);

impl Rows {
    fn run<T: WithDType + Stored>(&self, x: Arg) -> Computed {
        let (width, mut dims) = (x.channels(), x.shape().dims().to_vec());
        let out = self.0.out_channels(width);
        if let Some(last) = dims.last_mut() {
            *last = out;
        }
        let (mut from, mut to) = (vec![0.0; width], vec![0.0; out]);
        let xs = x.slice::<T>()?;
        Ok(filled::<T>(&dims.into(), |ys| {
            for (x, y) in xs.chunks_exact(width).zip(ys.chunks_exact_mut(out)) {
                load(x, &mut from);
                self.0.forward(&from, &mut to);
                store(&to, y);
            }
        }))
    }

    fn grad<T: WithDType + Stored>(&self, x: Arg, dy: Arg) -> Computed {
        let (width, out) = (x.channels(), dy.channels());
        let [mut from, mut to, mut grad] = [width, out, width].map(|len| vec![0.0; len]);
        let (xs, dys) = (x.slice::<T>()?, dy.slice::<T>()?);
        Ok(filled::<T>(x.shape(), |dxs| {
            let rows = xs.chunks_exact(width).zip(dys.chunks_exact(out));
            for ((x, dy), dx) in rows.zip(dxs.chunks_exact_mut(width)) {
                load(x, &mut from);
                load(dy, &mut to);
                self.0.backward(&from, &to, &mut grad);
                store(&grad, dx);
            }
        }))
    }
}

fn load<T: Stored>(from: &[T], to: &mut [f32]) {
    to.iter_mut()
        .zip(from)
        .for_each(|(to, from)| *to = num_traits::cast(from.load()).unwrap_or(f32::NAN));
}

fn store<T: Stored>(from: &[f32], to: &mut [T]) {
    use crate::kernels::Real;
    to.iter_mut().zip(from).for_each(|(to, from)| *to = T::store(T::Real::of(f64::from(*from))));
}

impl Op for Rows {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn keep(&self) -> Keep {
        Keep::Inputs
    }

    fn forward(&self, _: Kernel, inputs: &[Arg]) -> Computed {
        dispatch!(self.name(), inputs[0].dtype(), T => self.run::<T>(inputs[0]), bf16)
    }

    fn backward(&self, _: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let dx = on_cpu(
            &[&inputs[0], dy],
            |args| dispatch!(self.name(), dy.dtype(), T => self.grad::<T>(args[0], args[1]), bf16),
        )?;
        Ok(vec![Some(tensor(dx))])
    }

    /// Through the CPU: a user's code runs nowhere else.
    fn primitives(&self, inputs: &[&Tensor]) -> CandleResult<Tensor> {
        let xs = inputs[0].to_device(&candle_core::Device::Cpu)?;
        crate::ops::op::apply(Self(self.0.clone()), &[&xs])?.to_device(inputs[0].device())
    }
}
