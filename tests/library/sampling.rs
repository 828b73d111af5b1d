//! The sampler against Hugging Face transformers; the cases are made by
//! scripts/make_sampling_fixtures.py.

use candle_tcn::generate::{Sampler, SamplerConfig};
use serde::Deserialize;

const DRAWS: usize = 100_000;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    logits: Vec<f32>,
    history: Vec<u32>,
    banned: Vec<u32>,
    config: SamplerConfig,
    expected: Option<Vec<f64>>,
    greedy: Option<u32>,
    #[serde(default)]
    draws: bool,
}

impl Case {
    fn sampler(&self, seed: u64) -> Sampler {
        let config = SamplerConfig { seed, ..self.config.clone() };
        Sampler::new(config, &self.banned, self.logits.len()).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let json = include_str!("../fixtures/sampling/transformers.json");
    serde_json::from_str::<Fixture>(json).unwrap().cases
}

#[test]
fn every_distribution_is_that_of_transformers() {
    let mut compared = 0;
    for (number, case) in cases().iter().enumerate() {
        let Some(expected) = &case.expected else {
            continue;
        };
        let mut sampler = case.sampler(0);
        let mut found = vec![0.0; expected.len()];
        for (id, p) in sampler.distribution(&case.logits, &case.history).unwrap() {
            found[id as usize] = p;
        }
        for (id, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() < 1e-6,
                "case {number}, token {id}: found {found}, transformers has {expected}; {:?}",
                case.config
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 292);
}

#[test]
fn greedy_picks_are_those_of_transformers() {
    let mut compared = 0;
    for (number, case) in cases().iter().enumerate() {
        if let Some(greedy) = case.greedy {
            let mut sampler = case.sampler(0);
            let found = sampler.sample(&case.logits, &case.history).unwrap();
            assert_eq!(found, greedy, "case {number}, {:?}", case.config);
            compared += 1;
        }
    }
    assert_eq!(compared, 16);
}

/// Pearson's statistic and its degrees of freedom; tokens expected less than 5 times are one class.
fn chi_square(counts: &[usize], expected: &[f64]) -> (f64, usize) {
    let (mut statistic, mut classes) = (0.0, 0);
    let (mut rare, mut rare_expected) = (0, 0.0);
    for (&count, &p) in counts.iter().zip(expected) {
        let mean = p * DRAWS as f64;
        if mean < 5.0 {
            rare += count;
            rare_expected += mean;
        } else {
            statistic += (count as f64 - mean).powi(2) / mean;
            classes += 1;
        }
    }
    if rare_expected >= 5.0 {
        statistic += (rare as f64 - rare_expected).powi(2) / rare_expected;
        classes += 1;
    } else {
        assert!(rare <= 25, "{rare} draws of tokens expected less than 5 times");
    }
    (statistic, classes - 1)
}

/// What chi-square of this freedom exceeds by chance about once in 10,000 (Wilson and Hilferty 1931).
fn upper_bound(freedom: f64) -> f64 {
    let spread = 2.0 / (9.0 * freedom);
    freedom * (1.0 - spread + 3.72 * spread.sqrt()).powi(3)
}

#[test]
fn a_hundred_thousand_draws_follow_the_distribution_of_transformers() {
    let mut compared = 0;
    for (number, case) in cases().iter().enumerate().filter(|(_, case)| case.draws) {
        let expected = case.expected.as_ref().unwrap();
        let mut sampler = case.sampler(number as u64);
        let mut counts = vec![0; expected.len()];
        for _ in 0..DRAWS {
            let id = sampler.sample(&case.logits, &case.history).unwrap();
            counts[id as usize] += 1;
        }
        for (id, (&count, &p)) in counts.iter().zip(expected).enumerate() {
            assert!(count == 0 || p > 0.0, "case {number} drew token {id}");
        }
        let (statistic, freedom) = chi_square(&counts, expected);
        let bound = upper_bound(freedom as f64);
        assert!(
            statistic < bound,
            "case {number}: chi-square {statistic} of {freedom} degrees of freedom, {:?}",
            case.config
        );
        compared += 1;
    }
    assert_eq!(compared, 12);
}
