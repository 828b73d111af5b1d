//! `tokenizer.json` files from elsewhere.

use candle_tcn::text::Tokenizer;

use super::decode_stepwise;

/// A `tokenizer.json` around a model.
fn file(model: &str, rest: &str) -> String {
    format!(r#"{{"version": "1.0", "added_tokens": [], "model": {model}{rest}}}"#)
}

#[test]
fn unusable_files_are_errors() {
    let bpe = |vocab: &str, merges: &str| {
        file(&format!(r#"{{"type": "BPE", "vocab": {vocab}, "merges": {merges}}}"#), "")
    };
    let no_words = file(
        r#"{"type": "BPE", "vocab": {"a": 0}, "merges": []}"#,
        r#", "pre_tokenizer": {"type": "FixedLength", "length": 0}"#,
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for (json, expected) in [
        ("", "not a usable"),
        ("{}", "not a usable"),
        (&bpe("{}", "[]"), "no tokens"),
        (&bpe(r#"{"a": 4294967295}"#, "[]"), "found 4294967295"),
        (&bpe(r#"{"a": 0, "b": 1}"#, r#"[["a", "b"]]"#), "contradicts itself"),
        (&bpe(r#"{"a": 0}"#, r#"[["a", "b"]]"#), "vocabulary"),
        (&no_words, "contradicts itself"),
    ] {
        std::fs::write(&path, json).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: ") && error.contains(expected), "{error}");
    }
    let error = make_error(folder.path().to_str().unwrap());
    assert!(error.contains("found a folder"), "{error}");
    let error = make_error("chars");
    assert!(error.contains("chars: no such file; a tokenizer is char, byte"), "{error}");
}

fn make_error(spec: &str) -> String {
    Tokenizer::from_spec(&spec.parse().unwrap(), b"abc").unwrap_err().to_string()
}

#[test]
fn truncation_padding_and_dropout_are_turned_off() {
    let json = file(
        r#"{"type": "BPE", "dropout": 0.5, "vocab": {"a": 0, "b": 1, "ab": 2},
            "merges": [["a", "b"]]}"#,
        r#", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
             "stride": 0},
           "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
             "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}"#,
    );
    let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("ababababab").unwrap(), [2; 5]);
}

#[test]
fn other_decoders_decode_stepwise_too() {
    let word_piece = file(
        r###"{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "un": 1, "##do": 2, "do": 3}}"###,
        r###", "pre_tokenizer": {"type": "WhitespaceSplit"},
           "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false}"###,
    );
    let tokenizer = Tokenizer::from_json(word_piece.as_bytes()).unwrap();
    let ids = tokenizer.encode("undo do xyz undo").unwrap();
    assert_eq!(ids, [1, 2, 3, 0, 1, 2]);
    assert_eq!(decode_stepwise(&tokenizer, &ids), "undo do [UNK] undo");
    assert_eq!(tokenizer.unknown_chars("x"), ['x']);
    assert_eq!(tokenizer.banned_ids(), [0]);

    let bytes: String = (0..256).map(|b| format!(r#""<0x{b:02X}>": {}, "#, b + 4)).collect();
    let sentence_piece = file(
        &format!(
            r#"{{"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "merges": [],
                "vocab": {{{bytes} "<unk>": 0, "</s>": 1, "▁": 2, "a": 3}}}}"#
        ),
        r#", "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
             "split": false},
           "decoder": {"type": "Sequence", "decoders": [
             {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
             {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#,
    )
    .replace(
        r#""added_tokens": []"#,
        r#""added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}]"#,
    );
    let tokenizer = Tokenizer::from_json(sentence_piece.as_bytes()).unwrap();
    let ids = tokenizer.encode("a 龍 a😀").unwrap();
    assert_eq!(decode_stepwise(&tokenizer, &ids), "a 龍 a😀");
    assert_eq!(tokenizer.banned_ids(), [0, 1]);
    // special tokens are left out; bytes that stay broken do not stall
    assert_eq!(decode_stepwise(&tokenizer, &[2, 3, 1, 3]), "aa");
    decode_stepwise(&tokenizer, &[4 + 0xf0; 50]);
}
