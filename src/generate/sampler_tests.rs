use proptest::prelude::*;

use super::*;

/// Ids still in the race after the filters, with their probabilities.
fn distribution(config: SamplerConfig, logits: &[f32], history: &[u32]) -> Vec<(u32, f64)> {
    let mut sampler = Sampler::new(config, &[], logits.len()).unwrap();
    sampler.distribution(logits, history).unwrap().collect()
}

#[track_caller]
fn assert_distribution(actual: &[(u32, f64)], expected: &[(u32, f64)]) {
    let close = |(a, e): (&(u32, f64), &(u32, f64))| a.0 == e.0 && (a.1 - e.1).abs() < 1e-6;
    assert!(
        actual.len() == expected.len() && actual.iter().zip(expected).all(close),
        "found {actual:?}, expected {expected:?}"
    );
}

/// Logits whose softmax is 0.1, 0.4, 0.2, 0.3.
fn logits() -> [f32; 4] {
    [1.0f32, 4.0, 2.0, 3.0].map(f32::ln)
}

fn config() -> SamplerConfig {
    SamplerConfig::default()
}

#[test]
fn the_default_is_the_softmax() {
    let expected = [(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)];
    assert_distribution(&distribution(config(), &logits(), &[]), &expected);
}

#[test]
fn temperature_is_a_power_of_the_probabilities() {
    // p^(1/0.5): 1, 16, 4, 9 of 30
    let temperature = 0.5;
    let config = SamplerConfig { temperature, ..config() };
    let expected = [(0, 1.0 / 30.0), (1, 16.0 / 30.0), (2, 4.0 / 30.0), (3, 9.0 / 30.0)];
    assert_distribution(&distribution(config, &logits(), &[]), &expected);
}

#[test]
fn top_k_keeps_the_likeliest() {
    let config = SamplerConfig { top_k: Some(2), ..config() };
    let expected = [(1, 4.0 / 7.0), (3, 3.0 / 7.0)];
    assert_distribution(&distribution(config, &logits(), &[]), &expected);
}

#[test]
fn top_k_beyond_the_vocabulary_keeps_all_and_ties_with_the_last_stay() {
    let all = SamplerConfig { top_k: Some(usize::MAX), ..config() };
    assert_eq!(distribution(all, &logits(), &[]).len(), 4);
    let two = SamplerConfig { top_k: Some(2), ..config() };
    let logits = [1.0, 2.0, 1.0, 0.5];
    let ids = distribution(two, &logits, &[]).into_iter().map(|(id, _)| id);
    assert_eq!(ids.collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn top_p_keeps_the_token_that_crosses_the_threshold() {
    // likeliest first: 0.4, 0.3, 0.2, 0.1; 0.4 + 0.3 < 0.75, so the third stays
    let three = SamplerConfig { top_p: Some(0.75), ..config() };
    let expected = [(1, 4.0 / 9.0), (2, 2.0 / 9.0), (3, 3.0 / 9.0)];
    assert_distribution(&distribution(three, &logits(), &[]), &expected);
    let one = SamplerConfig { top_p: Some(0.0), ..config() };
    assert_distribution(&distribution(one, &logits(), &[]), &[(1, 1.0)]);
}

#[test]
fn top_p_sees_the_probabilities_that_top_k_left() {
    // top-k leaves 4/9, 3/9, 2/9: 4/9 + 3/9 = 0.777 reaches 0.75, where 0.7 did not
    let config = SamplerConfig { top_k: Some(3), top_p: Some(0.75), ..config() };
    let expected = [(1, 4.0 / 7.0), (3, 3.0 / 7.0)];
    assert_distribution(&distribution(config, &logits(), &[]), &expected);
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    // 0.45 · 0.4 = 0.18
    let config = SamplerConfig { min_p: Some(0.45), ..config() };
    let expected = [(1, 4.0 / 9.0), (2, 2.0 / 9.0), (3, 3.0 / 9.0)];
    assert_distribution(&distribution(config, &logits(), &[]), &expected);
}

#[test]
fn the_repetition_penalty_counts_an_id_once_and_by_its_sign() {
    // 2 / 2 = 1, −1 · 2 = −2, 1 is untouched
    let config = SamplerConfig { repetition_penalty: 2.0, ..config() };
    let weights = [1.0f64, -2.0, 1.0].map(f64::exp);
    let total: f64 = weights.iter().sum();
    let expected = [0, 1, 2].map(|id| (id as u32, weights[id] / total));
    let history = [0, 1, 0, 0, 1];
    assert_distribution(&distribution(config, &[2.0, -1.0, 1.0], &history), &expected);
}

#[test]
fn presence_counts_once_and_frequency_every_time_within_the_window() {
    // in the last four: 1 twice, 2 once, 3 once, and not 0; 2 − 0.5 − 0.25 · 2 = 1, 1 − 0.75 = 0.25
    let config = SamplerConfig {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        penalty_window: 4,
        ..config()
    };
    let history = [0, 0, 1, 2, 1, 3];
    let weights = [0.0f64, 1.0, 0.25, -0.75].map(f64::exp);
    let total: f64 = weights.iter().sum();
    let expected = [0, 1, 2, 3].map(|id| (id as u32, weights[id] / total));
    let logits = [0.0, 2.0, 1.0, 0.0];
    assert_distribution(&distribution(config.clone(), &logits, &history), &expected);
    // nothing is left of a call for the next one
    let mut sampler = Sampler::new(config, &[], 4).unwrap();
    sampler.sample(&logits, &history).unwrap();
    let again: Vec<(u32, f64)> = sampler.distribution(&logits, &history).unwrap().collect();
    assert_distribution(&again, &expected);
}

#[test]
fn bias_comes_before_the_repetition_penalty_and_presence_after_it() {
    // (3 − 1) / 2 − 0.5 = 0.5
    let config = SamplerConfig {
        logit_bias: vec![(1, -1.0)],
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        ..config()
    };
    let likely = 0.5f64.exp() / (1.0 + 0.5f64.exp());
    let expected = [(0, 1.0 - likely), (1, likely)];
    assert_distribution(&distribution(config, &[0.0, 3.0], &[1]), &expected);
}

#[test]
fn typical_p_may_drop_the_likeliest() {
    // 0.6 and four times 0.1: entropy 0.306 + 0.921 = 1.227; −ln p is 0.717 from it for the likeliest,
    // 1.075 for the others
    let logits = [6.0f32, 1.0, 1.0, 1.0, 1.0].map(f32::ln);
    let typical = |typical_p| SamplerConfig { typical_p: Some(typical_p), ..config() };
    assert_distribution(&distribution(typical(0.5), &logits, &[]), &[(0, 1.0)]);
    assert_eq!(distribution(typical(0.7), &logits, &[]).len(), 5);
    // 0.3 and seven times 0.1: 0.361 + 1.612 = 1.973; 0.769 from it for the likeliest, 0.330 for the
    // others
    let logits = [3.0f32, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0].map(f32::ln);
    let expected: Vec<(u32, f64)> = (1..8).map(|id| (id, 1.0 / 7.0)).collect();
    assert_distribution(&distribution(typical(0.5), &logits, &[]), &expected);
}

#[test]
fn a_long_vocabulary_is_cut_where_a_short_one_is() {
    // 1,000 tokens, each 1 % less likely than the next: more than one chunk has to be sorted
    let logits: Vec<f32> = (0..1000).map(|id| id as f32 * 0.01).collect();
    let weights: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp()).collect();
    let total: f64 = weights.iter().sum();
    let config = SamplerConfig { top_p: Some(0.9), ..config() };
    let mut before = 0.0;
    let likeliest_first = weights.iter().rev().take_while(|&&weight| {
        before += weight / total;
        before - weight / total < 0.9
    });
    let keep = likeliest_first.count();
    let left = distribution(config, &logits, &[]);
    let ids: Vec<u32> = left.iter().map(|&(id, _)| id).collect();
    assert_eq!(ids, (1000 - keep as u32..1000).collect::<Vec<_>>());
    assert!(keep > 200);
}

#[test]
fn logprob_is_the_log_softmax_of_all_logits() {
    for (id, p) in [0.1f64, 0.4, 0.2, 0.3].into_iter().enumerate() {
        let logprob = Sampler::logprob(&logits(), id as u32).unwrap();
        assert!((logprob - p.ln()).abs() < 1e-6, "{logprob}");
    }
    // e^-1000 is no f64, its logarithm is
    assert_eq!(Sampler::logprob(&[0.0, -1000.0], 1).unwrap(), -1000.0);
    assert_eq!(Sampler::logprob(&[f32::MAX, f32::MIN], 0).unwrap(), 0.0);
    assert!(Sampler::logprob(&[0.0], 1).is_err());
    assert!(Sampler::logprob(&[], 0).is_err());
    assert!(Sampler::logprob(&[0.0, f32::NAN], 0).is_err());
}

#[test]
fn a_hundred_thousand_draws_follow_the_probabilities() {
    let mut sampler = Sampler::new(SamplerConfig { seed: 7, ..config() }, &[], 4).unwrap();
    let mut counts = [0u32; 4];
    for _ in 0..100_000 {
        counts[sampler.sample(&logits(), &[]).unwrap() as usize] += 1;
    }
    for (count, p) in counts.into_iter().zip([0.1, 0.4, 0.2, 0.3]) {
        // four standard deviations
        let deviation = (100_000.0f64 * p * (1.0 - p)).sqrt();
        assert!((f64::from(count) - 100_000.0 * p).abs() < 4.0 * deviation, "{counts:?}");
    }
}

#[test]
fn the_seed_decides_and_samples_are_independent_streams() {
    let draw = |seed, index| {
        let config = SamplerConfig { seed, ..config() };
        let mut sampler = Sampler::new(config, &[], 4).unwrap().stream(index);
        let ids = (0..64).map(|_| sampler.sample(&logits(), &[]).unwrap());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(draw(1, 0), draw(1, 0));
    assert_ne!(draw(1, 0), draw(2, 0));
    assert_ne!(draw(1, 0), draw(1, 1));
    // pinned: a later version should not change what a seed writes
    assert_eq!(draw(1, 0)[..12], [1, 0, 2, 1, 1, 3, 1, 1, 3, 3, 1, 2]);
}

#[test]
fn a_call_allocates_no_new_buffer() {
    let config = SamplerConfig {
        top_k: Some(3),
        top_p: Some(0.9),
        typical_p: Some(0.9),
        frequency_penalty: 1.0,
        ..config()
    };
    let mut sampler = Sampler::new(config, &[], 4).unwrap();
    let before = (sampler.candidates.as_ptr(), sampler.candidates.capacity());
    for _ in 0..10 {
        sampler.sample(&logits(), &[1, 1, 2]).unwrap();
    }
    assert_eq!(before, (sampler.candidates.as_ptr(), sampler.candidates.capacity()));
}

#[test]
fn nothing_to_draw_and_ids_out_of_range_are_errors() {
    for (banned, vocab_size) in [(&[][..], 0), (&[], usize::MAX), (&[0, 1][..], 2), (&[2][..], 2)] {
        assert!(Sampler::new(config(), banned, vocab_size).is_err());
    }
    let bias = SamplerConfig { logit_bias: vec![(2, 1.0)], ..config() };
    assert!(Sampler::new(bias, &[], 2).is_err());
    let penalty = SamplerConfig { repetition_penalty: 1.2, ..config() };
    let mut sampler = Sampler::new(penalty, &[], 2).unwrap();
    assert_eq!(
        sampler.sample(&[0.0, 0.0], &[1, 2]).unwrap_err().to_string(),
        "history: expected token ids below 2, the size of the vocabulary, found 2"
    );
    assert!(sampler.sample(&[0.0], &[]).is_err());
    let message = sampler.sample(&[0.0, f32::NAN], &[]).unwrap_err().to_string();
    assert!(message.ends_with("found NaN for token 1"), "{message}");
    // an error leaves the sampler usable
    assert!(sampler.sample(&[0.0, 0.0], &[1]).is_ok());
}

/// Any finite logit, from the denormal to the largest, with many ties.
fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        -20.0f32..20.0,
        (-2i8..3).prop_map(f32::from),
        prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
    ]
}

prop_compose! {
    fn any_config()(
        temperature in prop_oneof![Just(0.0), 1e-300..1e300, 0.1..2.0],
        top_k in prop::option::of(1usize..20),
        top_p in prop::option::of(0.0..=1.0),
        min_p in prop::option::of(0.0..=1.0),
        typical_p in prop::option::of(1e-300..=1.0),
        repetition_penalty in prop_oneof![Just(1.0), 0.5..2.0, 1e-300..1e300],
        presence_penalty in prop_oneof![Just(0.0), -2.0..2.0, Just(f64::MAX), Just(f64::MIN)],
        frequency_penalty in prop_oneof![Just(0.0), -2.0..2.0, Just(f64::MAX), Just(f64::MIN)],
        penalty_window in prop_oneof![0usize..9, Just(usize::MAX)],
        bias in prop_oneof![Just(0.0), -2.0..2.0, Just(f64::MAX), Just(f64::MIN)],
        seed in any::<u64>(),
    ) -> SamplerConfig {
        SamplerConfig {
            logit_bias: vec![(0, bias), (1, -bias)],
            repetition_penalty, presence_penalty, frequency_penalty, penalty_window,
            temperature, top_k, top_p, min_p, typical_p, seed,
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == best).unwrap() as u32
}

proptest! {
    #[test]
    fn a_sample_is_always_an_allowed_id(
        config in any_config(),
        logits in prop::collection::vec(logit(), 2..16),
        banned in prop::collection::vec(0u32..16, 0..4),
        history in prop::collection::vec(0u32..16, 0..8),
    ) {
        let size = logits.len() as u32;
        let banned: Vec<u32> = banned.into_iter().map(|id| 1 + id % (size - 1)).collect();
        let history: Vec<u32> = history.into_iter().map(|id| id % size).collect();
        let mut sampler = Sampler::new(config, &banned, logits.len()).unwrap();
        for _ in 0..4 {
            let id = sampler.sample(&logits, &history).unwrap();
            prop_assert!(id < size && !banned.contains(&id));
        }
        let left: Vec<(u32, f64)> = sampler.distribution(&logits, &history).unwrap().collect();
        prop_assert!(left.iter().all(|(id, _)| *id < size && !banned.contains(id)));
        prop_assert!((left.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn greedy_and_every_filter_that_keeps_one_token_are_the_argmax(
        logits in prop::collection::vec(logit(), 1..16),
        seed in any::<u64>(),
    ) {
        let greedy = SamplerConfig { temperature: 0.0, seed, ..config() };
        let top_p = SamplerConfig { top_p: Some(0.0), seed, ..config() };
        for config in [greedy, top_p] {
            let mut sampler = Sampler::new(config, &[], logits.len()).unwrap();
            prop_assert_eq!(sampler.sample(&logits, &[]).unwrap(), argmax(&logits));
        }
        // of several likeliest tokens top-k keeps all
        let top_k = SamplerConfig { top_k: Some(1), seed, ..config() };
        let mut sampler = Sampler::new(top_k, &[], logits.len()).unwrap();
        let id = sampler.sample(&logits, &[]).unwrap();
        prop_assert_eq!(logits[id as usize], logits[argmax(&logits) as usize]);
    }

    #[test]
    fn filters_that_remove_nothing_do_not_change_the_draws(
        logits in prop::collection::vec(-20.0f32..20.0, 1..200),
        seed in any::<u64>(),
    ) {
        let plain = SamplerConfig { seed, ..config() };
        let idle = SamplerConfig {
            top_k: Some(999),
            top_p: Some(1.0),
            min_p: Some(0.0),
            typical_p: Some(1.0),
            logit_bias: vec![(0, 0.0)],
            ..plain.clone()
        };
        let mut a = Sampler::new(plain, &[], logits.len()).unwrap();
        let mut b = Sampler::new(idle, &[], logits.len()).unwrap();
        for _ in 0..4 {
            prop_assert_eq!(a.sample(&logits, &[]).unwrap(), b.sample(&logits, &[]).unwrap());
        }
    }

    #[test]
    fn hostile_input_never_panics(
        config in any_config(),
        vocab_size in 0usize..4,
        banned in prop::collection::vec(any::<u32>(), 0..2),
        logits in prop::collection::vec(any::<f32>(), 0..4),
        history in prop::collection::vec(any::<u32>(), 0..4),
    ) {
        if let Ok(mut sampler) = Sampler::new(config, &banned, vocab_size)
            && let Ok(id) = sampler.sample(&logits, &history)
        {
            prop_assert!((id as usize) < vocab_size);
        }
    }
}
