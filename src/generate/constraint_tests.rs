use proptest::prelude::*;

use super::*;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|string| string.to_string()).collect()
}

fn config(ban: &[&str], allow: &[&str], min_tokens: usize) -> ConstraintConfig {
    ConstraintConfig { ban: strings(ban), allow: strings(allow), min_tokens }
}

fn tokens(list: &[&[u8]]) -> TokenBytes {
    TokenBytes::new(list.iter().map(|bytes| bytes.to_vec()))
}

fn permitted(constraints: &mut Constraints, vocab: usize) -> Vec<u32> {
    let mut allowed = vec![true; vocab];
    constraints.permit(&mut allowed).unwrap();
    (0..vocab as u32).filter(|&id| allowed[id as usize]).collect()
}

#[test]
fn a_ban_is_seen_inside_a_token_and_across_tokens() {
    let tokens = tokens(&[b"a", b"bc", b"xabcx", b"ab", b"c"]);
    let mut constraints = Constraints::new(&config(&["abc"], &[], 0), &[], &tokens).unwrap();
    assert_eq!(permitted(&mut constraints, 5), [0, 1, 3, 4]);
    constraints.push(0);
    assert_eq!(permitted(&mut constraints, 5), [0, 3, 4]);
    constraints.push(3);
    assert_eq!(permitted(&mut constraints, 5), [0, 1, 3]);
}

#[test]
fn a_banned_character_is_seen_byte_by_byte() {
    // é is C3 A9, è is C3 A8
    let tokens = tokens(&[b"\xc3", b"\xa9", b"\xa8"]);
    let mut constraints = Constraints::new(&config(&["é"], &[], 0), &[], &tokens).unwrap();
    assert_eq!(permitted(&mut constraints, 3), [0, 1, 2]);
    constraints.push(0);
    assert_eq!(permitted(&mut constraints, 3), [0, 2]);
}

#[test]
fn allowed_strings_follow_each_other_and_may_share_beginnings() {
    let tokens = tokens(&[b"a", b"b", b"c", b"bca"]);
    let mut constraints =
        Constraints::new(&config(&[], &["ab", "abca", "c"], 0), &[], &tokens).unwrap();
    assert_eq!(permitted(&mut constraints, 4), [0, 2]);
    constraints.push(0);
    assert_eq!(permitted(&mut constraints, 4), [1, 3]);
    constraints.push(3);
    // "abca" is complete, or "ab", "c" and the beginning "a"
    assert_eq!(permitted(&mut constraints, 4), [0, 1, 2, 3]);
}

#[test]
fn a_stop_string_waits_for_the_minimum_length() {
    let tokens = tokens(&[b"a", b".", b"a.b"]);
    let stop = strings(&["a."]);
    let mut constraints = Constraints::new(&config(&[], &[], 2), &stop, &tokens).unwrap();
    assert_eq!(permitted(&mut constraints, 3), [0, 1]);
    constraints.push(0);
    assert_eq!(permitted(&mut constraints, 3), [0]);
    assert!(!constraints.is_idle());
    constraints.push(0);
    assert!(constraints.is_idle());
    assert_eq!(permitted(&mut constraints, 3), [0, 1, 2]);
}

#[test]
fn no_constraint_is_idle_and_permits_everything() {
    let tokens = tokens(&[b"a", b""]);
    let mut constraints = Constraints::new(&config(&[], &[], 9), &[], &tokens).unwrap();
    assert!(constraints.is_idle());
    assert_eq!(permitted(&mut constraints, 3), [0, 1, 2]);
    constraints.push(0);
    constraints.push(7);
    assert!(constraints.is_idle());
}

#[test]
fn where_nothing_is_left_the_options_are_named() {
    let tokens = tokens(&[b"a", b"b"]);
    let message = |config: &ConstraintConfig, stop: &[&str], pushed: &[u32]| {
        let mut constraints = Constraints::new(config, &strings(stop), &tokens).unwrap();
        pushed.iter().for_each(|&id| constraints.push(id));
        let error = constraints.permit(&mut [true, true]).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        message(&config(&[], &["x"], 0), &[], &[]),
        "allow: expected that at least one token may still be drawn, found none that may follow \
         after 0 tokens of text; are its strings made of what the model's vocabulary has?"
    );
    assert!(message(&config(&["a", "b"], &["ab"], 1), &["a"], &[]).starts_with("ban: "));
    assert!(message(&config(&["ab"], &["abb"], 0), &[], &[0]).starts_with("ban with allow: "));
    assert!(message(&config(&["b"], &[], 5), &["aa"], &[0]).starts_with("ban with min_tokens: "));
    assert!(
        Constraints::new(&config(&[], &[], 1), &strings(&[""]), &tokens)
            .unwrap_err()
            .to_string()
            .starts_with("stop: ")
    );
}

#[test]
fn the_first_token_has_its_own_bytes() {
    // as `tokenizers` writes a word-level vocabulary with Metaspace: words begin with ▁
    let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "WordLevel", "vocab": {"▁the": 0, "▁fox": 1, "?": 2}, "unk_token": "?"}}"#;
    let tokens = crate::text::Tokenizer::from_json(json.as_bytes()).unwrap();
    let tokens = tokens.token_bytes().unwrap();
    let allow = config(&[], &["fox", " the"], 0);
    let mut constraints = Constraints::new(&allow, &[], &tokens).unwrap();
    assert_eq!(permitted(&mut constraints, 2), [1]);
    constraints.push(1);
    assert_eq!(permitted(&mut constraints, 2), [0]);
    let mut shown = Constraints::new(&allow, &[], &tokens.after_text()).unwrap();
    assert_eq!(permitted(&mut shown, 2), [0]);
}

#[test]
fn a_constrained_sampler_draws_and_remembers() {
    use crate::generate::{Sampler, SamplerConfig};
    let tokens = tokens(&[b"a", b"b", b"c"]);
    let constraints = Constraints::new(&config(&["aa"], &["a", "b"], 0), &[], &tokens).unwrap();
    let greedy = SamplerConfig { temperature: 0.0, ..Default::default() };
    let mut sampler = Sampler::new(greedy, &[], 3).unwrap().constrained(constraints);
    let logits = [2.0, 1.0, 3.0];
    for expected in [0, 1, 0, 1] {
        let left: Vec<(u32, f64)> = sampler.distribution(&logits, &[]).unwrap().collect();
        assert_eq!(left, [(expected, 1.0)]);
        assert_eq!(sampler.sample(&logits, &[]).unwrap(), expected);
    }
    // b is banned too: nothing may follow an a
    let constraints =
        Constraints::new(&config(&["aa", "b"], &["a", "b"], 0), &[], &tokens).unwrap();
    let mut sampler =
        Sampler::new(SamplerConfig::default(), &[], 3).unwrap().constrained(constraints);
    assert_eq!(sampler.sample(&logits, &[]).unwrap(), 0);
    let message = sampler.sample(&logits, &[]).unwrap_err().to_string();
    assert!(message.starts_with("ban with allow: "), "{message}");
}

/// Few letters, one of two bytes of which the first is also a token, so that matches are common.
fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let letter = prop::sample::select(vec!['a', 'b', 'é']);
    prop::collection::vec(letter, length).prop_map(String::from_iter)
}

fn token() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"ab\xc3\xa9".to_vec());
    prop_oneof![prop::collection::vec(byte, 0..4), text(1..4).prop_map(String::into_bytes)]
}

fn contains(text: &[u8], strings: &[String]) -> bool {
    let is_in = |string: &String| text.windows(string.len()).any(|part| part == string.as_bytes());
    strings.iter().any(is_in)
}

/// `true` if `text` is the beginning of a sequence of `strings`.
fn is_beginning(text: &[u8], strings: &[String]) -> bool {
    let mut sequence_ends = vec![false; text.len() + 1];
    sequence_ends[0] = true;
    for at in 0..text.len() {
        if sequence_ends[at] {
            for string in strings.iter().map(String::as_bytes) {
                if string.starts_with(&text[at..]) {
                    return true;
                }
                if text[at..].starts_with(string) {
                    sequence_ends[at + string.len()] = true;
                }
            }
        }
    }
    sequence_ends[text.len()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_token_is_forbidden_exactly_if_the_text_would_be_wrong(
        first in prop::option::of(prop::collection::vec(token(), 12)),
        later in prop::collection::vec(token(), 12),
        ban in prop::collection::vec(text(1..5), 0..3),
        allow in prop::collection::vec(text(1..5), 0..5),
        stop in prop::collection::vec(text(1..4), 0..3),
        min_tokens in 0usize..8,
        choices in prop::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let tokens = TokenBytes::for_test(first.clone(), later.clone());
        let config = ConstraintConfig { ban, allow, min_tokens };
        let mut constraints = Constraints::new(&config, &stop, &tokens).unwrap();
        let mut text: Vec<u8> = Vec::new();
        for (drawn, choice) in choices.iter().enumerate() {
            let bytes = first.as_ref().filter(|_| drawn == 0).unwrap_or(&later);
            let fine = |token: &Vec<u8>| {
                let text = [&text[..], token].concat();
                !contains(&text, &config.ban)
                    && (drawn >= min_tokens || !contains(&text, &stop))
                    && (config.allow.is_empty() || is_beginning(&text, &config.allow))
            };
            let expected: Vec<bool> = bytes.iter().map(fine).collect();
            let mut allowed = vec![true; bytes.len()];
            let answer = constraints.permit(&mut allowed);
            prop_assert_eq!(&allowed, &expected);
            prop_assert_eq!(answer.is_ok(), expected.contains(&true));
            prop_assert!(!constraints.is_idle() || !expected.contains(&false));
            let ids: Vec<usize> = (0..bytes.len()).filter(|&id| allowed[id]).collect();
            if ids.is_empty() {
                break;
            }
            let id = ids[choice.index(ids.len())];
            text.extend_from_slice(&bytes[id]);
            constraints.push(id as u32);
        }
        prop_assert!(!contains(&text, &config.ban));
        prop_assert!(config.allow.is_empty() || is_beginning(&text, &config.allow));
    }
}
