//! The context that a trained model really uses.

use candle_core::{DType, Device, Tensor};

use super::batch::Batch;
use super::loss::{CrossEntropy, Loss};
use crate::graph::{Network, Run};
use crate::{Error, Result};

/// Steps of a window at the most.
const MAX_WINDOW: usize = 1 << 13;

/// Tokens of the windows that are computed at once.
const TOKENS: usize = 1 << 13;

/// The gradient of a step's loss by the embeddings of the tokens that it sees: how much each of them matters.
///
/// # References
/// Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural networks"
/// (arXiv:1701.04128), with the gradient's length, averaged over places of a text, for its square.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveField {
    /// Mean length of the gradient by the embedding of the token so many steps before the present one, which is the
    /// first.
    pub gradient: Vec<f64>,
    /// Number of places of the text that it is the mean of.
    pub windows: usize,
}

impl EffectiveField {
    /// Measures `windows` places that are spread evenly over a text. Of a field of more than 8,192 steps, the nearest are
    /// measured.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network that is not a causal one on tokens with an embedding, for no window, and for a
    /// text that is shorter than what the network sees.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::LoadedModel;
    /// use candle_tcn::train::EffectiveField;
    ///
    /// let loaded = LoadedModel::load("models/kjv-tiny")?;
    /// let text = "In the beginning God created the heaven and the earth. ".repeat(20);
    /// let field = EffectiveField::measure(&loaded.model, &loaded.tokenizer()?.encode(&text)?, 20)?;
    /// assert!(field.within(0.5) < field.within(0.99));
    /// assert!(field.within(0.99) <= field.reach());
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn measure(network: &Network, tokens: &[u32], windows: usize) -> Result<Self> {
        let graph = network.graph();
        graph.expect_language_model()?;
        let embedded = graph.embedded();
        let embedded =
            embedded.ok_or_else(|| Error::invalid("model", "one with an embedding", "none"))?;
        Error::require(windows > 0, "windows", "at least 1", windows)?;
        let left = graph.edge(graph.first_output()?).left();
        let len = left.saturating_add(1).min(MAX_WINDOW);
        let expected = format!("at least {}, to fill what the network sees", len + 1);
        Error::require(tokens.len() > len, "tokens of the text", &expected, tokens.len())?;
        let places = tokens.len() - len;
        let windows = windows.min(places);
        let starts: Vec<usize> =
            (0..windows).map(|i| (i as u128 * places as u128 / windows as u128) as usize).collect();
        let mut gradient = vec![0.0; len];
        for starts in starts.chunks((TOKENS / len).max(1)) {
            let ids =
                starts.iter().flat_map(|&start| &tokens[start..start + len]).copied().collect();
            let last: Vec<u32> = starts.iter().map(|&start| tokens[start + len]).collect();
            let rows = gradients(network, embedded, ids, &last)?;
            for row in rows.chunks_exact(len) {
                gradient.iter_mut().zip(row.iter().rev()).for_each(|(sum, &one)| *sum += one);
            }
        }
        gradient.iter_mut().for_each(|sum| *sum /= windows as f64);
        Ok(Self { gradient, windows })
    }

    /// Steps before the present one within which this part of the whole gradient lies.
    pub fn within(&self, part: f64) -> usize {
        let total: f64 = self.gradient.iter().sum();
        let mut sum = 0.0;
        let reached = self.gradient.iter().position(|one| {
            sum += one;
            sum >= part * total
        });
        reached.unwrap_or(self.reach())
    }

    /// Steps to the furthest token that has any effect.
    pub fn reach(&self) -> usize {
        self.gradient.iter().rposition(|&one| one > 0.0).unwrap_or(0)
    }
}

/// Lengths of the gradients of each window's loss of its last step, (window, time).
fn gradients(
    network: &Network,
    embedded: crate::graph::Value,
    ids: Vec<u32>,
    last: &[u32],
) -> Result<Vec<f64>> {
    let shape = (last.len(), ids.len() / last.len());
    let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
    let (outputs, tape) = network.trace(&[&ids], Run::eval())?;
    let logits = &outputs.values[0];
    let at = shape.1 - 1;
    let targets = Tensor::new(last, &Device::Cpu)?.unsqueeze(1)?;
    let batch = Batch::new(vec![ids], targets);
    let loss = CrossEntropy::default().value(&[logits.narrow(1, at, 1)?.contiguous()?], &batch)?;
    // of each window's own loss, not of their mean
    let of_last = (&loss.gradients[0] * shape.0 as f64)?;
    let before = logits.narrow(1, 0, at)?.zeros_like()?;
    let gradients = Tensor::cat(&[&before, &of_last], 1)?;
    let found = tape.backward_to(vec![gradients], embedded)?;
    let squares = found.to_dtype(DType::F64)?.sqr()?.sum(2)?;
    Ok(squares.sqrt()?.flatten_all()?.to_vec1()?)
}
