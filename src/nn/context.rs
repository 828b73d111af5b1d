//! The context module: dilated 3×3 convolutions in a row that see far without losing resolution.

use candle_core::{Tensor, Var};
use candle_nn::VarBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Conv2d, Conv2dConfig, MAX_CHANNELS, in_range, total_channels};
use crate::geometry::{Layer, Padding, Stack, Stack2d};
use crate::ops::{Epilogue, PaddingMode};
use crate::{Error, Result};

/// The dilations of the published module's 3×3 layers.
const DILATIONS: [usize; 7] = [1, 1, 2, 4, 8, 16, 1];

/// How much wider than the input each of them is in the large form.
const WIDTHS: [usize; 7] = [2, 2, 4, 8, 16, 32, 32];

/// How wide the layers of a [`ContextModule`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextForm {
    /// As many channels in every layer as in the input.
    #[default]
    Basic,
    /// 2, 2, 4, 8, 16, 32 and 32 times as many.
    Large,
}

/// The options of a [`ContextModule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextConfig {
    /// Numbers per pixel of the input and of the output.
    pub channels: usize,
    /// How wide the layers between are.
    pub form: ContextForm,
    /// Dilation of each 3×3 layer; of the large form seven.
    pub dilations: Vec<usize>,
    /// What stands around the input of each layer.
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

    /// What an output pixel sees, along each axis.
    ///
    /// # Errors
    /// As [`Layer::centred`].
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
        let layer = |(i, &dilation): (usize, &usize)| {
            Layer::new(format!("layers.{i}"), 3, dilation, Padding::Same)
        };
        let layers = self.dilations.iter().enumerate().map(layer);
        let mut layers = layers.collect::<Result<Vec<_>>>()?;
        layers.push(Layer::centred(format!("layers.{}", layers.len()), 1, 1)?);
        Ok(Stack2d::square(Stack::series(layers)))
    }
}

/// 3×3 convolutions with growing dilation, each followed by `max(0, ·)`, then a 1×1 convolution: as many
/// outputs as inputs, of which each sees 67×67 inputs with the published dilations.
///
/// # Shapes
/// (batch, height, width, channels), in and out. On disk `layers.{i}.weight`, `layers.{i}.bias` as of
/// [`Conv2d`].
///
/// # Example
///
/// Right after [`init_identity`](Self::init_identity), what is not negative passes unchanged:
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::nn::{ContextConfig, ContextForm, ContextModule, Params};
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let config = ContextConfig::new(2, ContextForm::Basic);
/// let context = ContextModule::new(&config, params.builder())?;
/// context.init_identity(1)?;
/// let xs = Tensor::new(&[3f32, 0., 5., 7.], &Device::Cpu)?.reshape((1, 1, 2, 2))?;
/// let ys = context.forward(&xs)?;
/// assert_eq!(ys.flatten_all()?.to_vec1::<f32>()?, [3., 0., 5., 7.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", arXiv:1511.07122, section 3
/// and table 1.
#[derive(Debug, Clone)]
pub struct ContextModule {
    layers: Vec<Conv2d>,
    channels: usize,
}

impl ContextModule {
    /// A module with the tensors of `vb`. To train one from the start, call
    /// [`init_identity`](Self::init_identity) next.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that do not fit; those of [`Conv2d::new`].
    pub fn new(config: &ContextConfig, vb: VarBuilder) -> Result<Self> {
        let widths = config.widths()?;
        total_channels(widths.iter().copied())?;
        let vb = vb.pp("layers");
        let mut layers = Vec::with_capacity(widths.len() + 1);
        let mut channels = config.channels;
        for (i, (&width, &dilation)) in widths.iter().zip(&config.dilations).enumerate() {
            let cfg = Conv2dConfig {
                dilation: (dilation, dilation),
                padding_mode: config.padding_mode,
                ..Conv2dConfig::same()
            };
            layers.push(Conv2d::new(channels, width, (3, 3), cfg, vb.pp(i))?);
            channels = width;
        }
        let (cfg, last) = (Conv2dConfig::same(), vb.pp(widths.len()));
        layers.push(Conv2d::new(channels, config.channels, (1, 1), cfg, last)?);
        Ok(Self { layers, channels: config.channels })
    }

    /// Applies the module.
    ///
    /// # Errors
    /// As [`Conv2d::forward`].
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let relu = Epilogue { relu: true, ..Epilogue::default() };
        let Some((last, layers)) = self.layers.split_last() else {
            return Ok(xs.clone());
        };
        let mut xs = xs.clone();
        for layer in layers {
            xs = layer.forward_then(&xs, relu)?;
        }
        last.forward(&xs)
    }

    /// Sets every layer so that the module passes on what it is given (where not negative): the initial
    /// weights without which it did not train in the paper. Where a layer has more channels than the input,
    /// those that share an input channel are told apart by noise drawn from `seed`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the tensors are not variables, as those of [`Params`](super::Params) are.
    pub fn init_identity(&self, seed: u64) -> Result<()> {
        for (i, layer) in self.layers.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(i as u64);
            let weight = identity(layer.weight(), self.channels, &mut rng)?;
            variable(layer.weight())?.set(&weight)?;
            if let Some(bias) = layer.bias() {
                variable(bias)?.set(&bias.zeros_like()?)?;
            }
        }
        Ok(())
    }
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
