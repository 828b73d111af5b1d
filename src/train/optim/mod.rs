//! Optimizers whose whole state can be saved, and the gradients they take.

mod adamw;
mod gradients;
mod muon;
mod rmsprop;
mod sgd;

use std::collections::HashMap;

use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};
use serde::{Deserialize, Serialize};

pub use adamw::AdamWConfig;
pub use gradients::Gradients;
pub use muon::MuonConfig;
pub use rmsprop::RmsPropConfig;
pub use sgd::SgdConfig;

use crate::graph::Graph;
use crate::kernels::parallel;
use crate::ops::inplace;
use crate::{Error, Result};

/// An optimizer and its settings; in JSON an object whose `name` chooses one.
///
/// Settings left out have PyTorch's default values, unknown ones are refused. The learning rate is
/// not among them: it comes from the [schedule](super::schedule) at every step.
///
/// # Example
///
/// ```
/// use candle_tcn::train::optim::{OptimizerConfig, SgdConfig};
///
/// let config: OptimizerConfig = serde_json::from_str(r#"{"name": "sgd", "momentum": 0.9}"#)?;
/// let sgd = SgdConfig { momentum: 0.9, ..Default::default() };
/// assert_eq!(config, OptimizerConfig::Sgd(sgd));
/// assert!(config.validate().is_ok());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    AdamW(AdamWConfig),
    /// Adam for embeddings, heads, biases and gains; the other weights turn instead of growing.
    Muon(MuonConfig),
    /// Gradient descent, with or without momentum.
    Sgd(SgdConfig),
    /// Steps divided by a running root mean square of the gradient.
    RmsProp(RmsPropConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl OptimizerConfig {
    /// The name that chooses this optimizer in JSON.
    pub fn name(&self) -> &'static str {
        self.rule().name()
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the field, unless `beta1`, `beta2`, `alpha` and `momentum` are in
    /// 0 ≤ x < 1 and `eps` and `weight_decay` are finite and not negative.
    pub fn validate(&self) -> Result<()> {
        self.rule().validate()
    }

    fn rule(&self) -> &dyn Rule {
        match self {
            Self::AdamW(config) => config,
            Self::Muon(config) => config,
            Self::Sgd(config) => config,
            Self::RmsProp(config) => config,
        }
    }
}

/// The update rule of an optimizer.
trait Rule: Sync {
    /// The name that chooses it in JSON.
    fn name(&self) -> &'static str;
    /// Checks every setting.
    fn validate(&self) -> Result<()>;
    /// The names of the tensors that are kept of a parameter, which is perhaps a weight between hidden channels.
    fn slots(&self, hidden: bool) -> &'static [&'static str];
    /// Updates one parameter and its slots.
    fn update(&self, update: &ParamUpdate) -> CandleResult<()>;
}

/// Updates parameters from their gradients.
///
/// Weight decay acts only on parameters with at least two axes whose name does not end in
/// `weight_g`: not on biases, norms, or the gains of weight-normalised convolutions. A parameter
/// without a gradient is left as it is in that step, its moments too; the step count of AdamW is
/// common to all parameters.
///
/// # Numerics
///
/// On the CPU an f32 or f64 parameter is updated in place, computed in f64 and rounded once; other
/// dtypes and devices use tensor arithmetic in the parameter's dtype. Each element is updated by
/// itself, so the result does not depend on the number of threads.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_tcn::train::optim::{Gradients, NamedOptimizer, OptimizerConfig, SgdConfig};
///
/// let w = Var::new(&[1f64, 2.], &Device::Cpu)?;
/// let params = vec![("w".to_string(), w.clone())];
/// let config = OptimizerConfig::Sgd(SgdConfig::default());
/// let mut optimizer = NamedOptimizer::new(config, params.clone())?;
/// let loss = w.sqr()?.sum_all()?; // ∂loss/∂w = 2w
/// optimizer.step(&Gradients::from_store(&loss.backward()?, &params), 0.25)?;
/// assert_eq!(w.to_vec1::<f64>()?, [0.5, 1.0]); // w − 0.25 · 2w
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct NamedOptimizer {
    config: OptimizerConfig,
    params: Vec<(String, Var)>,
    /// for each parameter, `true` for a weight between hidden channels
    hidden: Vec<bool>,
    /// type of what is multiplied where matrices are
    products: DType,
    /// for each parameter its moments, in the order of `Rule::slots`
    slots: Vec<Vec<Var>>,
    step: usize,
}

impl NamedOptimizer {
    /// An optimizer of `params` with all moments zero. Every parameter with two axes and more that decays is taken for
    /// a weight between hidden channels, which matters to Muon alone; see [`of_graph`](Self::of_graph).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a setting is out of range, or if the parameters are not sorted by
    /// name, each name once.
    pub fn new(config: OptimizerConfig, params: Vec<(String, Var)>) -> Result<Self> {
        Self::of(config, params, |name, param| decays(name, param.rank()))
    }

    /// An optimizer of `params`, parameters of a network of this graph, which tells apart its
    /// [hidden weights](Graph::hidden_weights).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_graph(
        config: OptimizerConfig,
        params: Vec<(String, Var)>,
        graph: &Graph,
    ) -> Result<Self> {
        let hidden = graph.hidden_weights();
        Self::of(config, params, |name, _| hidden.contains(name))
    }

    /// The same optimizer, of which matrices are multiplied in this type: f32 (or that of the parameters, where it is
    /// larger) or bf16. Only Muon multiplies any.
    pub fn with_products(self, products: DType) -> Self {
        Self { products, ..self }
    }

    fn of(
        config: OptimizerConfig,
        params: Vec<(String, Var)>,
        is_hidden: impl Fn(&str, &Var) -> bool,
    ) -> Result<Self> {
        config.validate()?;
        if let Some(pair) = params.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            let found = format!("{} before {}", pair[0].0, pair[1].0);
            let expected = "sorted by name, each name once";
            return Err(Error::invalid("parameters", expected, found));
        }
        let zeros = |param: &Var| Var::zeros(param.shape(), param.dtype(), param.device());
        let hidden: Vec<bool> = params.iter().map(|(name, param)| is_hidden(name, param)).collect();
        let slots = params
            .iter()
            .zip(&hidden)
            .map(|((_, param), &hidden)| {
                config.rule().slots(hidden).iter().map(|_| zeros(param)).collect()
            })
            .collect::<CandleResult<_>>()?;
        let products = DType::F32;
        Ok(Self { config, params, hidden, products, slots, step: 0 })
    }

    /// The parameters, in the order in which [`Gradients`] are expected.
    pub fn params(&self) -> &[(String, Var)] {
        &self.params
    }

    /// The number of steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Updates every parameter that has a gradient, with learning rate `lr`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `lr` is negative or not finite or if the number of gradients is not
    /// that of the parameters; [`Error::Tensor`] if a gradient has another shape or dtype than its
    /// parameter. Nothing was updated then.
    pub fn step(&mut self, grads: &Gradients, lr: f64) -> Result<()> {
        check_non_negative("lr", lr)?;
        let norm = grads.norm()?;
        Error::require(norm.is_finite(), "gradients", "finite numbers", norm)?;
        let (grads, factor) = grads.parts();
        gradients::check_len(self.params.len(), grads.len())?;
        for ((name, param), grad) in self.params.iter().zip(grads) {
            if let Some(grad) = grad {
                check_like(&format!("gradient of {name}"), param, grad)?;
            }
        }
        self.step += 1;
        let (rule, step) = (self.config.rule(), self.step as f64);
        let tasks = self.params.iter().zip(&self.hidden).zip(&self.slots).zip(grads);
        let updated = parallel::map(tasks, |((((name, param), &hidden), slots), grad)| {
            let Some(grad) = grad else { return Ok(()) };
            Ok(rule.update(&ParamUpdate {
                param,
                grad: &grad.contiguous()?,
                factor,
                slots,
                step,
                lr,
                decays: decays(name, param.rank()),
                hidden,
                products: self.products,
                in_place: inplace::is_supported(param),
            })?)
        });
        updated.into_iter().collect()
    }

    /// A copy of everything [`Self::load_state`] needs to continue exactly: the step count and the
    /// moments, named `adamw.step` (i64 scalar), `adamw.m.<parameter>`, `adamw.v.<parameter>`;
    /// `muon.momentum.<parameter>` or `muon.m`, `muon.v`; `sgd.momentum.<parameter>`; `rmsprop.v.<parameter>`, `rmsprop.momentum.<parameter>`.
    ///
    /// # Errors
    ///
    /// [`Error::Candle`] if a tensor cannot be copied.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let step = Tensor::new(self.step as i64, &Device::Cpu)?;
        let mut state = vec![(self.step_name(), step)];
        for (name, slot) in self.named_slots() {
            // a copy of the data: the moments are changed in place by later steps
            state.push((name, slot.as_detached_tensor().copy()?));
        }
        Ok(state)
    }

    /// Takes over what [`Self::state`] returned for the same configuration and parameters; other
    /// entries of `state` are ignored. The weights themselves are not part of it.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] if a tensor is missing or has another shape or dtype. Nothing was changed
    /// then.
    pub fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let get = |name: &str| {
            let found = "no such tensor";
            let expected = "part of the optimizer's state";
            state.get(name).ok_or_else(|| Error::Tensor {
                name: name.to_string(),
                expected: expected.to_string(),
                found: found.to_string(),
            })
        };
        let name = self.step_name();
        let step = get(&name)?;
        check_like(&name, &Tensor::new(0i64, &Device::Cpu)?, step)?;
        let step = step.to_scalar::<i64>()?;
        let step = usize::try_from(step).map_err(|_| Error::Tensor {
            name,
            expected: "a count of steps".to_string(),
            found: step.to_string(),
        })?;
        let mut moments = Vec::new();
        for (name, slot) in self.named_slots() {
            let moment = get(&name)?;
            check_like(&name, slot, moment)?;
            moments.push((slot, moment.to_device(slot.device())?));
        }
        for (slot, moment) in moments {
            slot.set(&moment)?;
        }
        self.step = step;
        Ok(())
    }

    fn step_name(&self) -> String {
        format!("{}.step", self.config.name())
    }

    fn named_slots(&self) -> impl Iterator<Item = (String, &Var)> {
        let optimizer = self.config.name();
        let params = self.params.iter().zip(&self.hidden).zip(&self.slots);
        params.flat_map(move |(((param, _), &hidden), slots)| {
            let named = self.config.rule().slots(hidden).iter().zip(slots);
            named.map(move |(kind, slot)| (format!("{optimizer}.{kind}.{param}"), slot))
        })
    }
}

/// One parameter's share of a step.
struct ParamUpdate<'a> {
    param: &'a Var,
    /// contiguous
    grad: &'a Tensor,
    /// what `grad` is to be multiplied by
    factor: f64,
    slots: &'a [Var],
    /// counted from 1
    step: f64,
    lr: f64,
    decays: bool,
    /// `true` for a weight between hidden channels
    hidden: bool,
    /// type of what is multiplied where matrices are
    products: DType,
    /// `true` if `ops::inplace` works on this parameter
    in_place: bool,
}

impl ParamUpdate<'_> {
    fn decay(&self, weight_decay: f64) -> f64 {
        if self.decays { weight_decay } else { 0. }
    }

    /// The gradient times its factor plus `decay` · p, as a tensor.
    fn full_grad(&self, decay: f64) -> CandleResult<Tensor> {
        let mut grad = self.grad.clone();
        if self.factor != 1. {
            grad = grad.affine(self.factor, 0.)?;
        }
        if decay != 0. {
            grad = (grad + (self.param.as_detached_tensor() * decay)?)?;
        }
        Ok(grad)
    }
}

fn decays(name: &str, rank: usize) -> bool {
    rank >= 2 && !name.ends_with("weight_g")
}

fn check_like(name: &str, expected: &Tensor, found: &Tensor) -> Result<()> {
    if expected.shape() != found.shape() || expected.dtype() != found.dtype() {
        let describe = |t: &Tensor| format!("{:?} of {}", t.dims(), t.dtype().as_str());
        return Err(Error::Tensor {
            name: name.to_string(),
            expected: describe(expected),
            found: describe(found),
        });
    }
    Ok(())
}

fn check_non_negative(field: &str, value: f64) -> Result<()> {
    let allowed = value.is_finite() && value >= 0.;
    Error::require(allowed, field, "a finite number of at least 0", value)
}

fn check_unit(field: &str, value: f64) -> Result<()> {
    let expected = "a number of at least 0 and below 1";
    Error::require((0. ..1.).contains(&value), field, expected, value)
}

#[cfg(test)]
mod tests;
