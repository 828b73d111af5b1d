//! Texts in pieces beside whole texts, for tokenizers with peculiarities.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Tokenizer;

/// A tokenizer of words with special tokens, one of which holds a space.
fn words(normalizer: Value, pre_tokenizer: Value, added: Value) -> Tokenizer {
    let vocab =
        ["<unk>", "a", "b", "ab", "ba", ",", "▁", "▁a", "▁b", "▁ab", "▁ba", "Ġ", "Ġa", "Ġb"];
    let vocab: serde_json::Map<_, _> =
        vocab.iter().enumerate().map(|(id, token)| (token.to_string(), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    });
    Tokenizer::from_json(tokenizer.to_string().as_bytes()).unwrap()
}

fn special(tokens: &[(&str, bool, bool)]) -> Value {
    let token = |(i, (content, lstrip, rstrip)): (usize, &(&str, bool, bool))| {
        json!({"id": 100 + i, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
               "normalized": false, "special": true})
    };
    tokens.iter().enumerate().map(token).collect()
}

fn all() -> Vec<(&'static str, Tokenizer)> {
    let spaces = || json!({"type": "WhitespaceSplit"});
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let prepend = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    ]});
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let by_character = json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    vec![
        ("plain", words(Value::Null, spaces(), json!([]))),
        (
            "special",
            words(Value::Null, spaces(), special(&[("<a b>", false, false), ("<b>", false, true)])),
        ),
        ("left", words(Value::Null, by_character.clone(), special(&[("<b>", true, false)]))),
        ("prepend", words(prepend, by_character.clone(), json!([]))),
        ("strip", words(strip, by_character, json!([]))),
        ("first", words(Value::Null, metaspace("first"), json!([]))),
        ("always", words(Value::Null, metaspace("always"), json!([]))),
        ("bytes", words(Value::Null, bytes, json!([]))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn pieces_are_encoded_as_the_whole(
        parts in prop::collection::vec("a|b|ab|ba| |  |\n|,|<a b>|<b>|<a |b>", 0..40), min in 3usize..9,
    ) {
        let text = parts.concat();
        for (name, tokenizer) in all() {
            let pieces = tokenizer.pieces(&text, min);
            // longer ones are cut within words
            if pieces.iter().any(|piece| piece.len() >= 4 * min) {
                continue;
            }
            let pieces = tokenizer.encode_pieces(&pieces, true).unwrap();
            let whole = tokenizer.hf().encode_fast(text.as_str(), false).unwrap();
            prop_assert_eq!(pieces, whole.get_ids(), "{} {:?}", name, text);
        }
    }
}

#[test]
fn a_long_text_is_streamed_as_it_is_encoded_whole() {
    use super::TokenStream;
    let text = " ab <a b> ba\nab, ba <b>  a\n".repeat(20_000) + "  ";
    for (name, tokenizer) in all() {
        let whole = tokenizer.hf().encode_fast(text.as_str(), false).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), whole.get_ids(), "{name}");
        let stream = TokenStream::new(text.as_bytes(), &tokenizer);
        let streamed: Vec<u32> = stream.flat_map(|piece| piece.unwrap()).collect();
        assert_eq!(streamed, whole.get_ids(), "{name}");
    }
}

#[test]
fn a_text_without_any_space_is_encoded_in_bounded_memory() {
    let tokenizer = Tokenizer::from_spec(
        &"bpe:300".parse().unwrap(),
        "the quick brown fox".repeat(40).as_bytes(),
    );
    let tokenizer = tokenizer.unwrap();
    let text = "thequickbrownfox".repeat(200_000);
    let used = allocation_counter::measure(|| {
        let stream = super::TokenStream::new(text.as_bytes(), &tokenizer);
        let ids: usize = stream.map(|piece| piece.unwrap().len()).sum();
        assert!(ids > text.len() / 20);
    });
    // of this thread; it was 110 bytes a byte
    assert!(used.bytes_max < 64 << 20, "{} bytes", used.bytes_max);
}
