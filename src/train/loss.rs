//! Losses: how far the outputs of a network are from the targets of a batch, and which way is down.

mod frames;

pub use frames::{MultiLabel, PointLoss, Quantiles};

use candle_core::{DType, Device, Tensor, Var};

use super::batch::Batch;
use crate::kernels::rows::Target;
use crate::{Error, Result, ops};

/// A loss that [`Trainer`](super::Trainer) makes small.
///
/// A closure that computes a scalar with candle's operations is one: candle differentiates it down to the outputs of the
/// network, which it is given in `f32` at least. It applies the batch's mask and weights itself; beside other batches its
/// mean counts as many targets as the batch has. Spell out its argument types: `|outputs: &[Tensor], batch: &Batch|`.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::train::{Batch, loss::Loss};
///
/// let squared = |outputs: &[Tensor], batch: &Batch| -> candle_tcn::Result<Tensor> {
///     Ok(candle_nn::loss::mse(&outputs[0], &batch.targets)?)
/// };
/// let xs = Tensor::new(&[[[1f32], [4.]]], &Device::Cpu)?;
/// let value = squared.value(&[xs.clone()], &Batch::new(vec![xs.clone()], xs.zeros_like()?))?;
/// assert_eq!((value.mean, value.count), (8.5, 2));
/// assert_eq!(value.gradients[0].flatten_all()?.to_vec1::<f32>()?, [1., 4.]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub trait Loss: Send {
    /// The loss of a batch.
    ///
    /// # Errors
    /// [`Error::Invalid`] for outputs or targets that it is not made for.
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue>;
}

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct LossValue {
    /// Mean over the targets that count.
    pub mean: f64,
    /// The weight of this mean beside those of other batches: the sum of the weights of its targets.
    pub weight: f64,
    /// Number of targets that count.
    pub count: u64,
    /// Gradient of the mean by each output.
    pub gradients: Vec<Tensor>,
}

/// A loss that is chosen while the program runs.
impl Loss for Box<dyn Loss> {
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue> {
        (**self).value(outputs, batch)
    }
}

impl<F: Fn(&[Tensor], &Batch) -> Result<Tensor> + Send> Loss for F {
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue> {
        let wide = |output: &Tensor| match output.dtype() {
            DType::BF16 | DType::F16 => output.to_dtype(DType::F32),
            _ => Ok(output.clone()),
        };
        let types: Vec<DType> = outputs.iter().map(Tensor::dtype).collect();
        let vars = outputs.iter().map(|output| Var::from_tensor(&wide(output)?.detach()));
        let vars = vars.collect::<candle_core::Result<Vec<Var>>>()?;
        let outputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let loss = self(&outputs, batch)?;
        let store = loss.backward()?;
        let gradient = |(output, &dtype): (&Tensor, &DType)| match store.get(output) {
            Some(gradient) => gradient.detach().to_dtype(dtype),
            None => output.zeros_like()?.to_dtype(dtype),
        };
        let count = batch.targets.elem_count();
        Ok(LossValue {
            mean: loss.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?,
            weight: count as f64,
            count: count as u64,
            gradients: outputs
                .iter()
                .zip(&types)
                .map(gradient)
                .collect::<candle_core::Result<_>>()?,
        })
    }
}

/// Cross-entropy of logits (batch, time, classes) with targets (batch, time), or (batch, classes) with (batch); ids of
/// `u32`.
///
/// Mean over the targets that count, each by the weight of its class times that of its place in the batch.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::train::{Batch, loss::{CrossEntropy, Loss}};
///
/// let loss = CrossEntropy { ignored: Some(9), class_weights: Some(vec![1., 3.]) };
/// let logits = Tensor::new(&[[0f32, 0.], [0., 0.], [0., 0.]], &Device::Cpu)?;
/// let targets = Tensor::new(&[0u32, 9, 1], &Device::Cpu)?;
/// let value = loss.value(&[logits.clone()], &Batch::new(vec![logits], targets))?;
/// assert!((value.mean - 2f64.ln()).abs() < 1e-6);
/// assert_eq!((value.weight, value.count), (4., 2));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.CrossEntropyLoss` with `weight` and `ignore_index`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CrossEntropy {
    /// A target that marks a place which does not count.
    pub ignored: Option<u32>,
    /// A factor for each class; 1 for all without.
    pub class_weights: Option<Vec<f64>>,
}

impl CrossEntropy {
    fn targets(&self, batch: &Batch) -> Result<Vec<Target>> {
        if batch.targets.dtype() != DType::U32 {
            let found = format!("numbers of {}", batch.targets.dtype().as_str());
            return Err(Error::invalid("targets", "classes of u32 for a cross-entropy", found));
        }
        let ids = batch.targets.flatten_all()?.to_vec1::<u32>()?;
        let mut targets: Vec<Target> = ids.into_iter().map(Target::from).collect();
        for target in &mut targets {
            target.weight = self.class_weight(target.class)?;
        }
        for (target, factor) in targets.iter_mut().zip(factors(batch)?) {
            target.weight *= factor;
        }
        Ok(targets)
    }

    fn class_weight(&self, class: u32) -> Result<f64> {
        match &self.class_weights {
            _ if self.ignored == Some(class) => Ok(0.0),
            None => Ok(1.0),
            Some(weights) => weights.get(class as usize).copied().ok_or_else(|| {
                let expected =
                    format!("an id below {}, the number of class weights", weights.len());
                Error::invalid("target", expected, class)
            }),
        }
    }
}

/// The factor of each target: that of its step in the mask, which says nothing of targets without steps, times its weight.
fn factors(batch: &Batch) -> Result<Vec<f64>> {
    let dims = batch.targets.dims();
    let mut all = vec![1.0; batch.targets.elem_count()];
    let mask = batch.mask.as_ref().filter(|mask| dims.starts_with(mask.dims()));
    if let Some(weights) = batch.weights.as_ref().filter(|weights| weights.dims() != dims) {
        let found = format!("{:?}", weights.dims());
        return Err(Error::invalid("weights", format!("{dims:?}, as the targets"), found));
    }
    for factors in [mask, batch.weights.as_ref()].into_iter().flatten() {
        // of a step all channels
        let each = all.len() / factors.elem_count().max(1);
        for (all, factor) in all.chunks_mut(each.max(1)).zip(numbers(factors)?) {
            all.iter_mut().for_each(|all| *all *= factor);
        }
    }
    Ok(all)
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    let wide = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(wide.flatten_all()?.to_vec1()?)
}

impl Loss for CrossEntropy {
    fn value(&self, outputs: &[Tensor], batch: &Batch) -> Result<LossValue> {
        let [logits] = outputs else {
            return Err(Error::invalid("outputs", "one, the logits", outputs.len()));
        };
        let targets = self.targets(batch)?;
        if !targets.is_empty() && targets.iter().all(|target| target.weight == 0.0) {
            // a part of a longer text of which nothing is asked
            let gradients = vec![logits.zeros_like()?];
            return Ok(LossValue { mean: 0.0, weight: 0.0, count: 0, gradients });
        }
        let (mean, gradient) = ops::cross_entropy_with_gradient(logits, &targets)?;
        Ok(LossValue {
            mean,
            weight: targets.iter().map(|target| target.weight).sum(),
            count: targets.iter().filter(|target| target.weight > 0.0).count() as u64,
            gradients: vec![gradient],
        })
    }
}
