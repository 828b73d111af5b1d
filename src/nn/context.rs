//! The context module: dilated 3×3 convolutions in a row that see far without losing resolution.

use candle_core::{Tensor, Var};
use candle_nn::VarBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Activation, total_channels};
use crate::geometry::Stack2d;
use crate::graph::{Conv2dConfig, Graph, MAX_CHANNELS, Network, Value, in_range};
use crate::ops::PaddingMode;
use crate::{Error, Result};

/// The dilations of the published module's 3×3 layers.
const DILATIONS: [usize; 7] = [1, 1, 2, 4, 8, 16, 1];

/// Widths of the layers in the large form, in widths of the input.
const WIDTHS: [usize; 7] = [2, 2, 4, 8, 16, 32, 32];

/// Width of the layers of a [`context_module`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextForm {
    /// As many channels in every layer as in the input.
    #[default]
    Basic,
    /// 2, 2, 4, 8, 16, 32 and 32 times as many.
    Large,
}

/// The options of a [`context_module`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextConfig {
    /// Numbers per pixel of the input and of the output.
    pub channels: usize,
    /// Width of the layers between.
    pub form: ContextForm,
    /// Dilation of each 3×3 layer; of the large form seven.
    pub dilations: Vec<usize>,
    /// Content of the border around the input of each layer.
    pub padding_mode: PaddingMode,
}

impl ContextConfig {
    /// The published module: dilations 1, 1, 2, 4, 8, 16, 1, and zeros around.
    pub fn new(channels: usize, form: ContextForm) -> Self {
        Self { channels, form, dilations: DILATIONS.to_vec(), padding_mode: PaddingMode::Zeros }
    }

    /// Output channels of each 3×3 layer.
    fn widths(&self) -> Result<Vec<usize>> {
        in_range("channels", self.channels, MAX_CHANNELS / 32)?;
        if self.dilations.is_empty() {
            return Err(Error::invalid("dilations", "at least one", "an empty list"));
        }
        match self.form {
            ContextForm::Basic => Ok(vec![self.channels; self.dilations.len()]),
            ContextForm::Large if self.dilations.len() == WIDTHS.len() => {
                Ok(WIDTHS.map(|times| times * self.channels).to_vec())
            }
            ContextForm::Large => Err(Error::invalid(
                "dilations",
                format!("{} of them in the large form", WIDTHS.len()),
                self.dilations.len(),
            )),
        }
    }

    /// Reach of an output pixel along each axis.
    ///
    /// # Errors
    /// As [`Layer::centred`](crate::geometry::Layer::centred).
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::nn::{ContextConfig, ContextForm};
    /// let (height, width) =
    ///     ContextConfig::new(21, ContextForm::Basic).geometry()?.receptive_field()?;
    /// assert_eq!((height.total, width.total), (67, 67)); // 1 + 2·(1 + 1 + 2 + 4 + 8 + 16 + 1)
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn geometry(&self) -> Result<Stack2d> {
        let mut g = Graph::new();
        let xs = g.images(self.channels)?;
        let ys = self.append(&mut g, xs)?;
        g.output(ys)?;
        Ok(Stack2d::square(g.stack()?))
    }

    /// Adds the module to a graph, from `xs` (batch, height, width, channels) to the value that is returned.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that do not fit.
    pub fn append(&self, g: &mut Graph, xs: Value) -> Result<Value> {
        let widths = self.widths()?;
        total_channels(widths.iter().copied())?;
        let mut xs = xs;
        for (i, (&width, &dilation)) in widths.iter().zip(&self.dilations).enumerate() {
            let cfg = Conv2dConfig {
                dilation: (dilation, dilation),
                padding_mode: self.padding_mode,
                ..Conv2dConfig::same()
            };
            xs = g.conv2d(&format!("layers.{i}"), xs, width, (3, 3), cfg)?;
            xs = g.activate(xs, Activation::Relu)?;
        }
        let last = format!("layers.{}", widths.len());
        g.conv2d(&last, xs, self.channels, (1, 1), Conv2dConfig::same())
    }

    /// Sets every layer so that the module passes on what it is given (where not negative): the initial
    /// weights without which it did not train in the paper. Where a layer has more channels than the input,
    /// those that share an input channel are told apart by noise drawn from `seed`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the tensors are not variables, as those of [`Params`](super::Params) are.
    pub fn init_identity(&self, module: &Network, seed: u64) -> Result<()> {
        // it may be part of a larger network
        let own =
            module.parameters().filter(|(name, _)| name.split('.').rev().nth(2) == Some("layers"));
        for (name, tensor) in own {
            let value =
                match name.strip_suffix(".weight").and_then(|layer| layer.rsplit('.').next()) {
                    None => tensor.zeros_like()?,
                    Some(layer) => {
                        let mut rng = ChaCha8Rng::seed_from_u64(seed);
                        rng.set_stream(layer.parse().unwrap_or(0));
                        identity(tensor, self.channels, &mut rng)?
                    }
                };
            variable(tensor)?.set(&value)?;
        }
        Ok(())
    }
}

/// Builds 3×3 convolutions with growing dilation, each followed by `max(0, ·)`, then a 1×1 convolution: as many
/// outputs as inputs, of which each sees 67×67 inputs with the published dilations.
///
/// # Shapes
/// (batch, height, width, channels), in and out. On disk `layers.{i}.weight`, `layers.{i}.bias` as of
/// [`dilated_conv2d`](super::dilated_conv2d).
///
/// # Example
///
/// Right after [`ContextConfig::init_identity`], what is not negative passes unchanged:
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_tcn::nn::{ContextConfig, ContextForm, Params, context_module};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let config = ContextConfig::new(2, ContextForm::Basic);
/// let context = context_module(&config, params.builder())?;
/// config.init_identity(&context, 1)?;
/// let xs = Tensor::new(&[3f32, 0., 5., 7.], &Device::Cpu)?.reshape((1, 1, 2, 2))?;
/// let ys = context.forward(&xs)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [3., 0., 5., 7.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", arXiv:1511.07122, section 3
/// and table 1.
pub fn context_module(config: &ContextConfig, vb: VarBuilder) -> Result<Network> {
    let mut g = Graph::new();
    let xs = g.images(config.channels)?;
    let ys = config.append(&mut g, xs)?;
    g.output(ys)?;
    Network::new(g, vb)
}

/// The variable that a tensor is.
fn variable(tensor: &Tensor) -> Result<Var> {
    match tensor.is_variable() {
        true => Ok(Var::from_tensor(tensor)?),
        false => Err(Error::invalid(
            "tensors of the context module",
            "variables, such as those of Params",
            "tensors that are fixed",
        )),
    }
}

/// `C/out` at the middle tap from each input channel to those that stand for the same of `C` channels;
/// elsewhere zeros, or noise far below `C/out` where a channel is not alone.
fn identity(weight: &Tensor, channels: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let (outputs, inputs, height, width) = weight.dims4()?;
    let middle = height / 2 * width + width / 2;
    let share = channels as f64 / outputs as f64;
    let alone = (inputs, outputs) == (channels, channels);
    let noise = if alone { 0.0 } else { 0.01 * share };
    let mut data = Vec::with_capacity(weight.elem_count());
    for out in 0..outputs {
        for input in 0..inputs {
            for tap in 0..height * width {
                let same = input * channels / inputs == out * channels / outputs;
                data.push(match tap == middle && same {
                    true => share,
                    false => noise * normal(rng),
                });
            }
        }
    }
    let tensor = Tensor::from_vec(data, weight.dims(), weight.device())?;
    Ok(tensor.to_dtype(weight.dtype())?)
}

/// A draw from the standard normal distribution (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let mut unit = || (f64::from(rng.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
    let (radius, angle) = ((-2.0 * unit().ln()).sqrt(), std::f64::consts::TAU * unit());
    radius * angle.cos()
}
