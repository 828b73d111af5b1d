//! The bytes that each token adds, against decoding.

use candle_tcn::text::{TokenBytes, Tokenizer};

use super::{MIXED, all_kinds};

/// Every decoder that writes spaces between words: a vocabulary and its decoder.
const FILES: [(&str, &str); 6] = [
    (
        r###"{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "un": 1, "##do": 2, "do": 3, ".": 4}}"###,
        r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###,
    ),
    (
        r#"{"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "▁the": 1, "▁fox": 2, "es": 3}}"#,
        r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#,
    ),
    (r#"{"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "the": 1, "fox": 2}}"#, "null"),
    (
        r#"{"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "the</w>": 1, "fox</w>": 2, "fo": 3}}"#,
        r#"{"type": "BPEDecoder", "suffix": "</w>"}"#,
    ),
    (
        r#"{"type": "WordLevel", "unk_token": "?",
            "vocab": {"?": 0, "▁": 1, "▁fox": 2, "es": 3, "<0xC3>": 4, "<0xA9>": 5}}"#,
        r#"{"type": "Sequence", "decoders": [
             {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
             {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#,
    ),
    (
        r#"{"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "|": 3, "<pad>": 4}}"#,
        r#"{"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": false}"#,
    ),
];

fn file(at: usize) -> Tokenizer {
    let (model, decoder) = FILES[at];
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": {decoder}, "model": {model}}}"#
    );
    Tokenizer::from_json(json.as_bytes()).unwrap()
}

fn joined(tokens: &TokenBytes, ids: &[u32]) -> String {
    let mut bytes = Vec::new();
    for (at, &id) in ids.iter().enumerate() {
        let table = tokens.first().filter(|_| at == 0);
        bytes.extend_from_slice(&table.unwrap_or(tokens.later())[id as usize]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_tokens_of_own_tokenizers_join_to_the_text() {
    for tokenizer in all_kinds(MIXED) {
        let tokens = tokenizer.token_bytes().unwrap();
        assert_eq!(tokens.later().len(), tokenizer.vocab_size());
        assert!(tokens.first().is_none());
        assert_eq!(joined(&tokens, &tokenizer.encode(MIXED).unwrap()), MIXED);
        for id in tokenizer.banned_ids() {
            assert!(tokens.later()[id as usize].is_empty());
        }
    }
}

#[test]
fn the_tokens_of_other_decoders_join_to_what_is_decoded() {
    let texts: [(&[u32], &str); 5] = [
        (&[1, 2, 3, 4, 3, 2], "undo do. dodo"),
        (&[1, 2, 3, 2], "the foxes fox"),
        (&[2, 1, 2], "fox the fox"),
        (&[3, 2, 1, 3], "fofox the fo"),
        (&[2, 3, 4, 5, 1, 3], "foxesé es"),
    ];
    for (at, (ids, text)) in texts.into_iter().enumerate() {
        let tokenizer = file(at);
        let tokens = tokenizer.token_bytes().unwrap();
        assert_eq!(tokenizer.decode(ids).unwrap(), text);
        assert_eq!(joined(&tokens, ids), text);
        assert!(tokens.later()[0].is_empty() && tokens.first().unwrap()[0].is_empty());
        assert!(tokens.after_text().first().is_none());
    }
}

#[test]
fn a_decoder_that_rewrites_across_tokens_is_refused() {
    let message = file(5).token_bytes().unwrap_err().to_string();
    assert!(message.contains("rewrites text across tokens"), "{message}");
}
