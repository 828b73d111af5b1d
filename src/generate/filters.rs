//! The filters between temperature and draw: each removes candidates.
//!
//! Comparisons are those of Hugging Face `transformers`: a candidate that is exactly at a threshold
//! stays, except that top-p ends as soon as its sum is reached.

use std::cmp::Ordering;

use super::SamplerConfig;

/// Candidates sorted at once; most filters keep few of a large vocabulary.
const CHUNK: usize = 64;

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub id: u32,
    pub logit: f64,
    /// Its probability times a constant: 1 for the likeliest. Different logits may have the same
    /// weight (both round to 1, or to 0), so the order is always taken from the logits.
    pub weight: f64,
}

impl Choice {
    /// Larger logits first; equal ones in order of id, so that every cut is deterministic.
    fn best_first(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

pub(super) fn sum(candidates: &[Choice]) -> f64 {
    candidates.iter().map(|candidate| candidate.weight).sum()
}

/// All filters of `config`; `best` is the largest logit. The survivors are in order of id again.
pub(super) fn apply(config: &SamplerConfig, best: f64, candidates: &mut Vec<Choice>) {
    if let Some(k) = config.top_k {
        top_k(candidates, k);
    }
    if let Some(p) = config.top_p.filter(|&p| p < 1.0) {
        top_p(candidates, p);
    }
    if let Some(p) = config.min_p {
        // the largest weight is 1, and no earlier filter removes it
        candidates.retain(|candidate| candidate.weight >= p);
    }
    if let Some(p) = config.typical_p.filter(|&p| p < 1.0) {
        typical_p(candidates, p, best, config.temperature);
    }
    if config.top_k.is_some() || config.top_p.is_some() || config.typical_p.is_some() {
        candidates.sort_unstable_by_key(|candidate| candidate.id);
    }
}

/// Those not below the k-th largest.
fn top_k(candidates: &mut Vec<Choice>, k: usize) {
    if k >= candidates.len() {
        return;
    }
    let (_, last, _) = candidates.select_nth_unstable_by(k - 1, Choice::best_first);
    let last = last.logit;
    candidates.retain(|candidate| candidate.logit >= last);
}

/// The first, and every one before which the sum is still less than `p`.
fn top_p(candidates: &mut Vec<Choice>, p: f64) {
    let nucleus = p * sum(candidates);
    let mut before = 0.0;
    let end = first_in_order(candidates, Choice::best_first, |candidate| {
        let ends = before > 0.0 && before >= nucleus;
        before += candidate.weight;
        ends
    });
    candidates.truncate(end.unwrap_or(candidates.len()));
}

/// Those whose −ln p is not farther from the entropy than that of the one at which the sum, nearest
/// first, reaches `p`.
fn typical_p(candidates: &mut Vec<Choice>, p: f64, best: f64, temperature: f64) {
    let total = sum(candidates);
    let ln_total = total.ln();
    let information = |c: &Choice| ln_total - (c.logit - best) / temperature;
    let possible = candidates.iter().filter(|candidate| candidate.weight > 0.0);
    let entropy: f64 = possible.map(|c| information(c) * c.weight / total).sum();
    let distance = |candidate: &Choice| (information(candidate) - entropy).abs();
    let nearest = |a: &Choice, b: &Choice| distance(a).total_cmp(&distance(b));
    let mut sum = 0.0;
    let last = first_in_order(candidates, nearest, |candidate| {
        sum += candidate.weight;
        sum >= p * total
    });
    if let Some(last) = last {
        let farthest = distance(&candidates[last]);
        candidates.retain(|candidate| distance(candidate) <= farthest);
    }
}

/// The place of the first candidate, in this order, for which `found` is true. Sorts the candidates up
/// to it and puts the rest behind them.
fn first_in_order(
    candidates: &mut [Choice],
    order: impl Fn(&Choice, &Choice) -> Ordering,
    mut found: impl FnMut(&Choice) -> bool,
) -> Option<usize> {
    let mut sorted = 0;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let chunk = sorted.max(CHUNK).min(rest.len());
        if chunk < rest.len() {
            rest.select_nth_unstable_by(chunk, &order);
        }
        rest[..chunk].sort_unstable_by(&order);
        if let Some(at) = rest[..chunk].iter().position(&mut found) {
            return Some(sorted + at);
        }
        sorted += chunk;
    }
    None
}
