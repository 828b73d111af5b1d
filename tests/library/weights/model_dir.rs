//! Model directories whose files ask for too much.

use std::path::Path;

use candle_tcn::LoadedModel;
use candle_tcn::files::{weights, write_tensors};

use super::{File, MAX_BYTES};

const TINY: &str = "models/kjv-tiny";

/// The built-in model with one file replaced; what loading it says.
fn refused(name: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(Path::new(TINY).join(file), folder.path().join(file)).expect("writable");
    }
    std::fs::write(folder.path().join(name), content).expect("writable");
    let mut message = String::new();
    let used = allocation_counter::measure(|| {
        message = LoadedModel::load(folder.path()).expect_err(name).to_string();
    });
    assert!(used.bytes_max < MAX_BYTES, "{message}: {} bytes", used.bytes_max);
    assert!(message.len() < 1000, "{} bytes", message.len());
    message
}

fn config(change: impl Fn(&mut serde_json::Value)) -> String {
    let config = std::fs::read_to_string(Path::new(TINY).join("config.json")).expect("the model");
    let mut config = serde_json::from_str(&config).expect("JSON");
    change(&mut config);
    config.to_string()
}

#[test]
fn a_configuration_that_asks_for_a_terabyte_allocates_nothing() {
    let widest = 1 << 19;
    let wide = config(|config| {
        config["vocab_size"] = (1 << 20).into();
        config["embedding_dim"] = widest.into();
        config["network"]["num_channels"] = vec![widest; 8].into();
    });
    let parameters = candle_tcn::models::ModelConfig::from_json(&wide, "").expect("valid");
    assert!(parameters.graph().expect("sizes").parameter_count().expect("no overflow") > 1 << 40);
    let message = refused("config.json", wide.as_bytes());
    assert!(
        message.contains(
            "model.safetensors: tensor encoder.weight: expected [1048576, 524288], found [73, 112]"
        ),
        "{message}"
    );

    // as many layers and channels as there may be, with statistics that are variables
    let deep = config(|config| {
        config["embedding_dim"] = 1024.into();
        config["network"]["num_channels"] = vec![1024; 4096].into();
        config["network"]["dilations"] = serde_json::json!(vec![1; 4096]);
        config["network"]["norm"] = "batch".into();
    });
    let message = refused("config.json", deep.as_bytes());
    assert!(
        message.contains("tensor encoder.weight: expected [73, 1024], found [73, 112]"),
        "{message}"
    );
    let more = config(|config| {
        config["network"]["num_channels"] = vec![128; 4097].into();
        config["network"]["dilations"] = serde_json::json!(vec![1; 4097]);
    });
    let message = refused("config.json", more.as_bytes());
    assert!(
        message.contains("config.json: the network is too large: 4097 layers; at most 4096"),
        "{message}"
    );

    let deeper = config(|config| config["network"]["num_channels"] = vec![widest; 100_000].into());
    assert!(refused("config.json", deeper.as_bytes()).contains("config.json: "), "{deeper:.100}");
    for (number, fault) in [
        ("1e30", "config.json: not a model"),
        ("18446744073709551615", "config.json: "),
        ("-1", "config.json: "),
        ("NaN", "config.json: "),
    ] {
        let huge = config(|config| config["network"]["kernel_size"] = "HERE".into())
            .replace("\"HERE\"", number);
        let message = refused("config.json", huge.as_bytes());
        assert!(message.contains(fault), "{message}");
    }
    let nested = "[".repeat(1 << 19);
    assert!(refused("config.json", nested.as_bytes()).contains("config.json: not a model"));
    assert!(refused("config.json", &vec![b' '; 2 << 20]).contains("found 2097152 bytes"));
}

#[test]
fn weights_of_another_model_are_not_read() {
    // a file as long as it says, almost all of it a hole
    let header = r#"{"encoder.weight":{"dtype":"F32","shape":[73,268435456],"data_offsets":[0,78383153152]}}"#;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(Path::new(TINY).join(file), folder.path().join(file)).expect("writable");
    }
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, super::bytes::safetensors(header, &[])).expect("writable");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
    file.set_len(8 + header.len() as u64 + 78_383_153_152).expect("a file with a hole");
    assert_eq!(weights::open(&path).expect("whole").tensors().len(), 1);
    let used = allocation_counter::measure(|| {
        let error = LoadedModel::load(folder.path()).expect_err("another shape").to_string();
        assert!(
            error.contains("tensor encoder.weight: expected [73, 112], found [73, 268435456]"),
            "{error}"
        );
    });
    assert!(used.bytes_max < MAX_BYTES);
}

#[test]
fn names_of_tensors_are_shown_in_one_short_line() {
    let tiny = weights::read(Path::new(TINY).join("model.safetensors")).expect("the model").tensors;
    let mut more = tiny.clone();
    more.insert("\u{1b}[31m".repeat(10_000), tiny["encoder.weight"].clone());
    let file = File::new("model.safetensors", b"");
    write_tensors(&file.path, &more).expect("writable");
    let message = refused("model.safetensors", &std::fs::read(&file.path).expect("written"));
    assert!(
        message.contains("no such tensor in this configuration") && !message.contains('\u{1b}'),
        "{message}"
    );
}

#[test]
fn a_model_directory_is_the_same_in_every_form_of_its_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(Path::new(TINY).join(file), folder.path().join(file)).expect("writable");
    }
    let tensors =
        weights::read(Path::new(TINY).join("model.safetensors")).expect("the model").tensors;
    let (names, mut map): (Vec<&String>, Vec<String>) = (tensors.keys().collect(), Vec::new());
    for (i, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let part = names.iter().map(|name| (name.to_string(), tensors[*name].clone()));
        write_tensors(folder.path().join(format!("{i}.safetensors")), &part.collect())
            .expect("writable");
        map.extend(names.iter().map(|name| format!(r#""{name}": "{i}.safetensors""#)));
    }
    let index = format!(r#"{{"weight_map": {{{}}}}}"#, map.join(","));
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).expect("writable");
    let ids = candle_core::Tensor::new(&[[1u32, 5, 3]], &candle_core::Device::Cpu).expect("ids");
    let logits = |dir: &Path| {
        let loaded = LoadedModel::load(dir).expect("a model");
        assert!(!loaded.int8);
        let logits =
            loaded.model.forward_with(&ids, candle_tcn::graph::Run::eval()).expect("logits");
        logits.flatten_all().and_then(|logits| logits.to_vec1::<f32>()).expect("floats")
    };
    assert_eq!(logits(folder.path()), logits(Path::new(TINY)));
}

#[test]
fn tokenizers_with_huge_or_contradictory_tables() {
    let file = |model: &str, rest: &str| {
        format!(r#"{{"version": "1.0", "added_tokens": [], "model": {model}{rest}}}"#)
    };
    let bpe = |vocab: &str, merges: &str| {
        format!(r#"{{"type": "BPE", "vocab": {{{vocab}}}, "merges": [{merges}]}}"#)
    };
    let many = |count: usize, entry: &dyn Fn(usize) -> String| {
        (0..count).map(entry).collect::<Vec<_>>().join(",")
    };
    let replace =
        r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"}"#;
    let grow = format!(
        r#", "normalizer": {{"type": "Sequence", "normalizers": [{}]}}"#,
        many(10, &|_| replace.into())
    );
    let shrink = format!(
        r#", "decoder": {{"type": "Sequence", "decoders": [{}]}}"#,
        many(10, &|_| replace.into())
    );
    let a = bpe(r#""a": 0, "b": 1"#, "");
    for (json, fault) in [
        (
            file(&bpe(&many(1_000_000, &|i| format!(r#""{i}":{i}"#)), ""), ""),
            "model.vocab: expected at most 16384 entries, found 1000000",
        ),
        (
            file(
                &format!(
                    r#"{{"type": "Unigram", "unk_id": 0, "vocab": [{}]}}"#,
                    many(1_000_000, &|i| format!(r#"["{i}",0]"#))
                ),
                "",
            ),
            "model.vocab: expected at most 16384 entries, found 1000000",
        ),
        (
            file(&bpe(r#""a": 0, "b": 1"#, &many(1_000_000, &|_| r#"["a","b"]"#.into())), ""),
            "model.merges: expected at most 131072 entries, found 1000000",
        ),
        (
            file(&a, "")
                .replace("[]", &format!("[{}]", many(100_000, &|i| format!(r#"{{"id":{i}}}"#)))),
            "added_tokens: expected at most 16384 entries, found 100000",
        ),
        (
            file(&bpe(r#""a": 4000000000"#, ""), ""),
            "expected token ids below 1000000, found 4000000000",
        ),
        (file(&bpe(r#""a": 0"#, r#"["a", "b"]"#), ""), "out of vocabulary"),
        (file(&bpe(r#""a": 0, "b": 1"#, r#"["a", "b"]"#), ""), "contradicts itself"),
        (file(&a, &grow), "normalizer: its replacements make a text more than 256 times longer"),
        (file(&a, &shrink), "decoder: its replacements make a text more than 256 times longer"),
        (
            file(
                &a,
                &format!(
                    r#", "normalizer": {}"#,
                    [
                        r#"{"type": "Sequence", "normalizers": ["#.repeat(100_000),
                        "]}".repeat(100_000),
                    ]
                    .concat()
                ),
            ),
            "recursion limit",
        ),
        (
            file(
                &a,
                &format!(
                    r#", "pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "{}"}}, "behavior": "Isolated", "invert": false}}"#,
                    "(".repeat(100_000)
                ),
            ),
            "not a usable",
        ),
        ("[".repeat(1 << 20), "not a usable"),
        ("{\"model\":".repeat(1 << 20), "not a usable"),
    ] {
        let message = refused("tokenizer.json", json.as_bytes());
        assert!(
            message.contains("tokenizer.json: not a usable Hugging Face tokenizer"),
            "{message}"
        );
        assert!(message.contains(fault), "{message}");
    }
    assert!(
        refused("tokenizer.json", &vec![b' '; (64 << 20) + 1])
            .contains("expected a tokenizer.json, found 67108865 bytes")
    );
}
