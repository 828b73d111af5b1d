//! Whole sequences through a model: batches of similar lengths, hidden states, masks filled in.

use candle_core::{DType, Device, Tensor};

use crate::graph::{Network, Run};
use crate::{Error, Result};

/// Gives whole sequences to a model, many at a time.
///
/// Sequences of one batch are filled up to the longest and masked, so that each gives what it gives by
/// itself; those of a causal model need no mask for that, and other models that know none get batches of one length.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::models::{Encoder, ModelConfig};
/// use candle_tcn::nn::Params;
///
/// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let model = config.build(params.builder())?.freeze()?;
/// let encoder = Encoder::new(&model, 4096, DType::F32)?;
/// let mut dims = vec![Vec::new(); 2];
/// encoder.run(&[vec![3, 1, 4], vec![1, 5]], "hidden.1", |i, hidden| {
///     dims[i] = hidden.dims().to_vec();
///     Ok(())
/// })?;
/// assert_eq!(dims, [[3, 112], [2, 112]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Encoder<'a> {
    network: &'a Network,
    batch_tokens: usize,
    dtype: DType,
}

impl<'a> Encoder<'a> {
    /// An encoder whose batches have `batch_tokens` tokens at the most, filled ones included (a longer
    /// sequence is a batch by itself), with activations of `dtype`, `F32` or `BF16`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network on frames, or batches of no token.
    pub fn new(network: &'a Network, batch_tokens: usize, dtype: DType) -> Result<Self> {
        network.graph().expect_tokens()?;
        Error::require(batch_tokens > 0, "batch_tokens", "at least 1", batch_tokens)?;
        Ok(Self { network, batch_tokens, dtype })
    }

    /// The name of the output of layer `layer` (0: what the first layer gets; by default the last).
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no such layer.
    pub fn layer(&self, layer: Option<usize>) -> Result<String> {
        let layers = self.network.graph().hidden_layers();
        let layer = layer.unwrap_or(layers);
        let expected = format!("a layer from 0 to {layers}");
        Error::require(layer <= layers, "layer", &expected, layer)?;
        Ok(format!("hidden.{layer}"))
    }

    /// Gives `f` for each sequence its number and what the model has under `name` for it: `hidden.{layer}`
    /// or `logits`, (time, width) of `F32`. The order is that of the batches; empty sequences are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary, or a name that the model does not know;
    /// those of `f`.
    pub fn run(
        &self,
        sequences: &[Vec<u32>],
        name: &str,
        mut f: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        for batch in self.batches(sequences) {
            let rows = self.batch(sequences, &batch, name)?;
            for (row, &i) in batch.iter().enumerate() {
                let row = rows.get(row)?.narrow(0, 0, sequences[i].len())?;
                f(i, &row)?;
            }
        }
        Ok(())
    }

    /// The numbers of the sequences of each batch, longest first: what does not fit the memory shows at once.
    fn batches(&self, sequences: &[Vec<u32>]) -> Vec<Vec<usize>> {
        let len = |&i: &usize| sequences[i].len();
        let mut order: Vec<usize> = (0..sequences.len()).filter(|i| len(i) > 0).collect();
        order.sort_by_key(|i| std::cmp::Reverse(len(i)));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let graph = self.network.graph();
        let fills_up = graph.takes_mask() || graph.is_causal();
        for i in order {
            let fits = |batch: &&mut Vec<usize>| {
                let longest = len(&batch[0]);
                let same = fills_up || longest == len(&i);
                same && longest * (batch.len() + 1) <= self.batch_tokens
            };
            match batches.last_mut().filter(fits) {
                Some(batch) => batch.push(i),
                None => batches.push(vec![i]),
            }
        }
        batches
    }

    /// (batch, time, width)
    fn batch(&self, sequences: &[Vec<u32>], batch: &[usize], name: &str) -> Result<Tensor> {
        let time = sequences[batch[0]].len();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (row, &i) in (1..).zip(batch) {
            ids.extend_from_slice(&sequences[i]);
            mask.resize(ids.len(), 1u8);
            // any id will do: it is hidden, or behind all that a causal model sees
            ids.resize(row * time, 0);
            mask.resize(row * time, 0);
        }
        let shape = (batch.len(), time);
        let ids = Tensor::from_vec(ids, shape, self.network.device())?;
        let mut run = Run::eval().with_dtype(self.dtype).recording(|noted| noted == name);
        if self.network.graph().takes_mask() {
            let mut mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
            if let Some(own) = self.network.attention_mask(&ids)? {
                mask = mask.to_dtype(own.dtype())?.mul(&own)?;
            }
            run = run.with_mask(&mask)?;
        }
        if let Some((_, rows)) = self.network.run(&[&ids], run)?.recorded.pop() {
            return Ok(rows.to_dtype(DType::F32)?);
        }
        let layers = self.network.graph().hidden_layers();
        let expected = format!("hidden.0 to hidden.{layers}, or logits");
        Err(Error::invalid("hidden state", expected, name))
    }
}

/// The natural logarithm of a token's probability under the logits of its place.
///
/// # Errors
/// [`Error::Invalid`] for an id without a logit, and where a logit is not finite.
pub(crate) fn log_probability(logits: &[f32], id: u32) -> Result<f64> {
    let Some(&logit) = logits.get(id as usize) else {
        return Err(Error::invalid("token id", format!("one below {}", logits.len()), id));
    };
    expect_finite(logits)?;
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above = |logit: f32| f64::from(logit) - f64::from(best);
    let total: f64 = logits.iter().map(|&logit| above(logit).exp()).sum();
    Ok(above(logit) - total.ln())
}

/// Refuses logits of which one is not finite.
pub(crate) fn expect_finite(logits: &[f32]) -> Result<()> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(id) => {
            let found = format!("{} for token {id}", logits[id]);
            Err(Error::invalid("logits", "finite numbers (are the weights damaged?)", found))
        }
    }
}

/// A token that may stand in the place of a mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability.
    pub probability: f64,
}

/// The `count` likeliest tokens by the `logits` of one position, likeliest first; the lowest id first among
/// equals.
///
/// # Errors
/// [`Error::Invalid`] where a logit is not finite.
///
/// # Example
///
/// ```
/// use candle_tcn::models::candidates;
/// let best = candidates(&[0.0, 3f32.ln(), 0.0], 2)?; // 1 : 3 : 1
/// assert!(best[0].id == 1 && (best[0].probability - 0.6).abs() < 1e-6);
/// assert!(best[1].id == 0 && (best[1].probability - 0.2).abs() < 1e-6);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn candidates(logits: &[f32], count: usize) -> Result<Vec<Candidate>> {
    expect_finite(logits)?;
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit) - f64::from(best)).exp();
    let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let candidate = |id: u32| Candidate { id, probability: weight(logits[id as usize]) / total };
    Ok(likeliest(logits, count).into_iter().map(candidate).collect())
}

/// The `count` tokens of the largest logits, the largest first; the lowest id first among equals.
pub(crate) fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let likelier =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, likelier);
        order.truncate(count);
    }
    order.sort_unstable_by(likelier);
    order
}
