//! Losses of frames: numbers, quantiles, and several classes at once.

use candle_core::{Device, Tensor};

use super::super::batch::Batch;
use super::{Loss, LossValue, factors, numbers};
use crate::kernels::parallel;
use crate::{Error, Result};

/// Numbers of outputs whose losses one thread sums up, so that the sum is the same for any number of threads.
const PIECE: usize = 1 << 12;

/// Distance of outputs from targets of the same shape, (batch, time, channels) or any other that begins with batch: the
/// mean over the numbers that count.
///
/// A target that is NaN is missing and does not count, nor do those that the batch's mask hides.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::train::{Batch, loss::{Loss, PointLoss}};
///
/// let outputs = Tensor::new(&[[[1f32], [4.], [0.]]], &Device::Cpu)?;
/// let batch = Batch::new(vec![], Tensor::new(&[[[0f32], [1.], [f32::NAN]]], &Device::Cpu)?);
/// let mean = |loss: PointLoss| Ok::<_, candle_tcn::Error>(loss.value(std::slice::from_ref(&outputs), &batch)?.mean);
/// assert_eq!(mean(PointLoss::Mse)?, 5.); // (1² + 3²) / 2
/// assert_eq!(mean(PointLoss::Mae)?, 2.);
/// assert_eq!(mean(PointLoss::Huber { delta: 1. })?, 1.5); // (½·1² + (3 − ½)) / 2
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.MSELoss`, `torch.nn.L1Loss`, `torch.nn.HuberLoss`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PointLoss {
    /// Square of the distance.
    Mse,
    /// The distance.
    Mae,
    /// Half its square up to `delta`, from there on `delta` times what it exceeds `delta / 2` by.
    Huber {
        /// The distance at which the square ends, above 0.
        delta: f64,
    },
}

impl PointLoss {
    /// The loss and its slope at a distance.
    fn at(self, distance: f64) -> (f64, f64) {
        match self {
            Self::Mse => (distance * distance, 2.0 * distance),
            Self::Mae => (distance.abs(), slope_of_abs(distance)),
            Self::Huber { delta } if distance.abs() <= delta => {
                (0.5 * distance * distance, distance)
            }
            Self::Huber { delta } => {
                (delta * (distance.abs() - 0.5 * delta), delta * slope_of_abs(distance))
            }
        }
    }
}

/// Slope of the absolute value; 0 at 0, as PyTorch has it.
fn slope_of_abs(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

impl Loss for PointLoss {
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue> {
        if let Self::Huber { delta } = *self {
            Error::require(delta > 0.0 && delta.is_finite(), "delta", "a number above 0", delta)?;
        }
        pointwise(outputs, batch, 1, 1, |outputs, target, slopes| {
            let (loss, slope) = self.at(outputs[0] - target);
            slopes[0] = slope;
            loss
        })
    }
}

/// Pinball loss of quantiles: outputs (…, channels · levels), the levels of a channel side by side, with targets (…,
/// channels). Mean over the targets that count of the sum over their levels.
///
/// Its least value is at the quantiles of what the target may be: an output for the level 0.9 is exceeded by one target
/// in ten. Missing targets as in [`PointLoss`].
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::train::{Batch, loss::{Loss, Quantiles}};
///
/// let loss = Quantiles::new(vec![0.1, 0.9])?;
/// let outputs = Tensor::new(&[[[1f64, 3.]]], &Device::Cpu)?;
/// let batch = Batch::new(vec![], Tensor::new(&[[[2f64]]], &Device::Cpu)?);
/// let value = loss.value(&[outputs], &batch)?;
/// assert!((value.mean - (0.1 * 1. + 0.1 * 1.)).abs() < 1e-12);
/// assert_eq!(value.gradients[0].flatten_all()?.to_vec1::<f64>()?, [-0.1, 1. - 0.9]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// Koenker and Bassett, *Regression Quantiles*, Econometrica 46 (1978), equation 3.1.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantiles {
    levels: Vec<f64>,
}

impl Quantiles {
    /// The loss of some levels, as 0.1, 0.5 and 0.9.
    ///
    /// # Errors
    /// [`Error::Invalid`] without levels, for one that is not between 0 and 1, or where they do not rise.
    pub fn new(levels: Vec<f64>) -> Result<Self> {
        let inside = levels.iter().all(|&level| level > 0.0 && level < 1.0);
        let rise = levels.is_sorted_by(|a, b| a < b);
        let expected = "one or several numbers between 0 and 1 that rise";
        let allowed = !levels.is_empty() && inside && rise;
        Error::require(allowed, "quantiles", expected, format!("{levels:?}"))?;
        Ok(Self { levels })
    }

    /// The levels.
    pub fn levels(&self) -> &[f64] {
        &self.levels
    }
}

impl Loss for Quantiles {
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue> {
        pointwise(outputs, batch, self.levels.len(), 1, |outputs, target, slopes| {
            let mut loss = 0.0;
            for ((&output, slope), level) in outputs.iter().zip(slopes).zip(&self.levels) {
                *slope = if target > output { -level } else { 1.0 - level };
                loss += (output - target) * *slope;
            }
            loss
        })
    }
}

/// Cross-entropy of several classes that may hold at once: logits (…, classes) with targets of 0 and 1 in the same shape.
/// Mean over frames of the sum over their classes: the negative log-likelihood of a frame, as piano rolls are measured.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::train::{Batch, loss::{Loss, MultiLabel}};
///
/// let logits = Tensor::zeros((2, 5, 88), candle_core::DType::F32, &Device::Cpu)?;
/// let value = MultiLabel.value(&[logits.clone()], &Batch::new(vec![], logits))?;
/// assert!((value.mean - 88. * 2f64.ln()).abs() < 1e-9);
/// assert_eq!(value.count, 10);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.BCEWithLogitsLoss`, summed over classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MultiLabel;

impl Loss for MultiLabel {
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue> {
        let classes = batch.targets.dims().last().copied().unwrap_or(1).max(1);
        pointwise(outputs, batch, 1, classes, |outputs, target, slopes| {
            let logit = outputs[0];
            // e^−|x| cannot overflow
            let small = (-logit.abs()).exp();
            let probability = if logit >= 0.0 { 1.0 } else { small } / (1.0 + small);
            slopes[0] = probability - target;
            logit.max(0.0) - logit * target + small.ln_1p()
        })
    }
}

/// The mean of a loss of single targets, each with `outputs_each` outputs side by side; of targets `together` count as one.
///
/// `loss` gives that of a target and writes its slope by each of the outputs.
fn pointwise(
    outputs: &[Tensor],
    batch: &Batch,
    outputs_each: usize,
    together: usize,
    loss: impl Fn(&[f64], f64, &mut [f64]) -> f64 + Sync,
) -> Result<LossValue> {
    let [output] = outputs else {
        return Err(Error::invalid("outputs", "one", outputs.len()));
    };
    let mut expected = batch.targets.dims().to_vec();
    if let Some(channels) = expected.last_mut() {
        *channels *= outputs_each;
    }
    if output.dims() != expected {
        let found = format!("{:?}", output.dims());
        return Err(Error::invalid("outputs", format!("{expected:?} beside the targets"), found));
    }
    let targets = numbers(&batch.targets)?;
    let mut weights = factors(batch)?;
    for (weight, target) in weights.iter_mut().zip(&targets) {
        if target.is_nan() {
            *weight = 0.0;
        }
    }
    let total = weights.iter().sum::<f64>() / together as f64;
    let numbers = numbers(output)?;
    let mut gradient = vec![0.0; numbers.len()];
    let pieces =
        gradient.chunks_mut(PIECE * outputs_each).zip(numbers.chunks(PIECE * outputs_each));
    let pieces = pieces.zip(targets.chunks(PIECE).zip(weights.chunks(PIECE)));
    let sums = parallel::map(pieces, |((slopes, outputs), (targets, weights))| {
        let outputs = outputs.chunks_exact(outputs_each);
        let places =
            outputs.zip(slopes.chunks_exact_mut(outputs_each)).zip(targets.iter().zip(weights));
        let mut sum = 0.0;
        for ((outputs, slopes), (&target, &weight)) in
            places.filter(|(_, (_, weight))| **weight > 0.0)
        {
            sum += weight * loss(outputs, target, slopes);
            slopes.iter_mut().for_each(|slope| *slope *= weight / total);
        }
        sum
    });
    let mean = if total > 0.0 { sums.iter().sum::<f64>() / total } else { 0.0 };
    let frames = weights.chunks(together).filter(|frame| frame.iter().any(|&weight| weight > 0.0));
    let gradient = Tensor::from_vec(gradient, output.shape(), &Device::Cpu)?;
    Ok(LossValue {
        mean,
        weight: total,
        count: frames.count() as u64,
        gradients: vec![gradient.to_dtype(output.dtype())?.to_device(output.device())?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::length_mask;
    use candle_core::DType;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const BATCH: usize = 3;
    const TIME: usize = 5;
    const CHANNELS: usize = 2;

    fn losses() -> Vec<(&'static str, Box<dyn Loss>, usize)> {
        vec![
            ("mse", Box::new(PointLoss::Mse), 1),
            ("mae", Box::new(PointLoss::Mae), 1),
            ("huber", Box::new(PointLoss::Huber { delta: 0.7 }), 1),
            ("quantiles", Box::new(Quantiles::new(vec![0.1, 0.5, 0.9]).unwrap()), 3),
            ("multilabel", Box::new(MultiLabel), 1),
        ]
    }

    fn draw(rng: &mut ChaCha8Rng, len: usize) -> Vec<f64> {
        (0..len).map(|_| rng.random_range(-2.0..2.0)).collect()
    }

    fn tensor(numbers: &[f64], channels: usize) -> Tensor {
        let shape = (numbers.len() / TIME / channels, TIME, channels);
        Tensor::from_slice(numbers, shape, &Device::Cpu).unwrap()
    }

    /// Unequal lengths, a missing target, one of weight 0 and one of weight 2.5.
    fn batch(rng: &mut ChaCha8Rng, binary: bool) -> Batch {
        let mut targets = draw(rng, BATCH * TIME * CHANNELS);
        if binary {
            targets.iter_mut().for_each(|x| *x = f64::from(u8::from(*x > 0.0)));
        }
        targets[3] = f64::NAN;
        let mut batch = Batch::new(vec![], tensor(&targets, CHANNELS));
        batch.mask = Some(length_mask(&[5, 1, 4], TIME).unwrap());
        let mut weights = vec![1.0; targets.len()];
        (weights[8], weights[21]) = (0.0, 2.5);
        batch.weights = Some(tensor(&weights, CHANNELS));
        batch
    }

    #[test]
    fn gradients_are_those_of_differences() {
        const STEP: f64 = 1e-6;
        for (name, loss, each) in losses() {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let batch = batch(&mut rng, name == "multilabel");
            let outputs = draw(&mut rng, BATCH * TIME * CHANNELS * each);
            let value =
                |outputs: &[f64]| loss.value(&[tensor(outputs, CHANNELS * each)], &batch).unwrap();
            let found = numbers(&value(&outputs).gradients[0]).unwrap();
            assert!(found.iter().any(|&x| x != 0.0), "{name}");
            for (i, found) in found.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut outputs = outputs.clone();
                    outputs[i] += by;
                    value(&outputs).mean
                };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                assert!((found - expected).abs() < 1e-7, "{name} [{i}]: {found}, {expected}");
            }
        }
    }

    /// Each sequence alone, and all in a batch.
    #[test]
    fn padding_changes_no_number() {
        for (name, loss, each) in losses() {
            let mut rng = ChaCha8Rng::seed_from_u64(2);
            let batch = batch(&mut rng, name == "multilabel");
            let outputs = tensor(&draw(&mut rng, BATCH * TIME * CHANNELS * each), CHANNELS * each);
            let together = loss.value(std::slice::from_ref(&outputs), &batch).unwrap();
            let (mut sum, mut weight, mut count) = (0.0, 0.0, 0);
            for (row, len) in [5, 1, 4].into_iter().enumerate() {
                let cut = |xs: &Tensor| {
                    xs.narrow(0, row, 1).unwrap().narrow(1, 0, len).unwrap().contiguous().unwrap()
                };
                let mut alone = Batch::new(vec![], cut(&batch.targets));
                alone.weights = batch.weights.as_ref().map(cut);
                let alone = loss.value(&[cut(&outputs)], &alone).unwrap();
                sum += alone.mean * alone.weight;
                weight += alone.weight;
                count += alone.count;
                let gradient = numbers(&cut(&together.gradients[0])).unwrap();
                for (a, b) in gradient.iter().zip(numbers(&alone.gradients[0]).unwrap()) {
                    assert!((a * together.weight - b * alone.weight).abs() < 1e-12, "{name}");
                }
            }
            assert!((together.mean - sum / weight).abs() < 1e-12, "{name}");
            assert_eq!((together.weight, together.count), (weight, count), "{name}");
        }
    }

    /// The sums neither overflow nor lose what is small.
    #[test]
    fn extreme_logits_stay_finite() {
        let logits = Tensor::new(&[[[1000f32, -1000., 1000., -1000.]]], &Device::Cpu).unwrap();
        let targets = Tensor::new(&[[[1f32, 0., 0., 1.]]], &Device::Cpu).unwrap();
        let value = MultiLabel.value(&[logits], &Batch::new(vec![], targets)).unwrap();
        assert_eq!((value.mean, value.count), (2000.0, 1));
        assert_eq!(numbers(&value.gradients[0]).unwrap(), [0., 0., 1., -1.]);
    }

    #[test]
    fn nothing_to_learn_is_no_error_and_wrong_shapes_are() {
        let outputs = Tensor::ones((1, 2, 1), DType::F32, &Device::Cpu).unwrap();
        let missing = Tensor::new(&[[[f32::NAN], [f32::NAN]]], &Device::Cpu).unwrap();
        let batch = Batch::new(vec![], missing);
        let value = PointLoss::Mse.value(std::slice::from_ref(&outputs), &batch).unwrap();
        assert_eq!((value.mean, value.weight, value.count), (0.0, 0.0, 0));
        assert_eq!(numbers(&value.gradients[0]).unwrap(), [0., 0.]);

        let error = |loss: &dyn Loss| {
            loss.value(std::slice::from_ref(&outputs), &batch).unwrap_err().to_string()
        };
        let quantiles = Quantiles::new(vec![0.2, 0.8]).unwrap();
        assert!(error(&quantiles).contains("[1, 2, 2] beside the targets"));
        assert!(error(&PointLoss::Huber { delta: 0.0 }).contains("a number above 0"));
        for levels in [vec![], vec![0.0], vec![1.5], vec![0.9, 0.1], vec![f64::NAN]] {
            assert!(Quantiles::new(levels.clone()).is_err(), "{levels:?}");
        }
    }
}
