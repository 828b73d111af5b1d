//! Models of other projects from the command line: convert, run, info, fill-mask, embed.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::close::{Tolerance, compare};
use super::{Bench, stderr};

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn tensor(file: impl Into<PathBuf>, name: &str) -> Tensor {
    let file = file.into();
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    tensors[name].clone()
}

/// Compares every number, relative to itself or, where it is near zero, to the usual one.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let numbers = |t: &Tensor| {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    let (found, expected) = (numbers(found), numbers(expected));
    let tolerance = Tolerance::relative(1e-5, &expected);
    compare(&found, &expected, tolerance).unwrap_or_else(|message| panic!("{what}: {message}"));
}

impl Bench {
    /// Converts a fixture's state dict, runs the model on its input, compares the output.
    fn reproduces(&self, name: &str, flags: &str, output: &str) {
        let dir = fixture(name);
        let model = name.replace('/', "-");
        if !self.path(&model).exists() {
            let (src, arguments) = (dir.join("state_dict.safetensors"), dir.join("config.json"));
            self.ok(&format!(
                "convert {} {model} --arguments {}",
                src.display(),
                arguments.display()
            ));
        }
        let io = dir.join("io.safetensors");
        self.ok(&format!(
            "run --model {model} --input {} --output out.safetensors --force {flags}",
            io.display()
        ));
        let found = tensor(self.path("out.safetensors"), "output");
        assert_close(&format!("{name} {flags}"), &found, &tensor(io, output));
    }
}

#[test]
fn state_dicts_of_every_kind_run() {
    let bench = Bench::new();
    for name in ["char_cnn", "poly_music", "tcn_k3_downsample"] {
        bench.reproduces(&format!("locuslab/{name}"), "", "output");
        bench.reproduces(&format!("locuslab/{name}"), "--chunk 6", "output");
    }
    for name in [
        "batch_norm_skip",
        "conv_pad_reflect_causal",
        "gate_embed_concat_proj",
        "noncausal_even_kernel_skip",
        "weight_norm_causal",
    ] {
        bench.reproduces(&format!("pytorch_tcn/{name}"), "", "output");
    }
    for name in ["batch_norm_skip", "weight_norm_causal"] {
        bench.reproduces(&format!("pytorch_tcn/{name}"), "--chunk 7", "streaming_output");
    }
    bench.reproduces("bytenet_causal/relu_slim", "--no-mask", "logits");
    bench.reproduces("bytenet_causal/relu_slim", "", "logits_masked");
    bench.reproduces("bytenet_causal/relu_slim", "--no-mask --chunk 5", "logits_sequential");
    let error = bench.fails(
        2,
        &format!(
            "run --model pytorch_tcn-noncausal_even_kernel_skip --chunk 4 --output o --input {}",
            fixture("pytorch_tcn/noncausal_even_kernel_skip/io.safetensors").display()
        ),
    );
    assert!(error.contains("causal"), "{error}");
}

#[test]
fn models_of_the_hub_run_with_every_layer() {
    let bench = Bench::new();
    for (model, hidden) in [("carp-tiny", "hidden_states."), ("gpn-tiny", "row0.hidden_states.")] {
        let dir = fixture(model);
        let reference = dir.join("reference.safetensors");
        bench.ok(&format!(
            "run --model {} --input {} --output out.safetensors --force --record all",
            dir.display(),
            reference.display()
        ));
        let out = bench.path("out.safetensors");
        let logits = tensor(&out, "output");
        assert_close(model, &logits, &tensor(&reference, "logits"));
        let info = bench.json(&format!("info {}", dir.display()));
        let layers = info["layers"].as_u64().unwrap();
        for layer in 0..=layers {
            let expected = tensor(&reference, &format!("{hidden}{layer}"));
            let found = tensor(&out, &format!("hidden.{layer}"));
            let found = found.narrow(0, 0, expected.dim(0).unwrap()).unwrap();
            assert_close(&format!("{model} layer {layer}"), &found, &expected);
        }
        let message = bench.fails(
            2,
            &format!(
                "run --model {} --input {} --output o.safetensors --record hidden.99",
                dir.display(),
                reference.display()
            ),
        );
        assert!(message.contains("hidden.0"), "{message}");
    }
}

#[test]
fn what_is_left_over_or_missing_is_listed() {
    let bench = Bench::new();
    let file = fixture("locuslab/tcn_k3_downsample/state_dict.safetensors");
    let mut tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let bias = tensors.remove("network.1.conv2.bias").unwrap();
    tensors.remove("network.1.net.4.bias");
    tensors.insert("critic.weight".into(), bias);
    candle_core::safetensors::save(&tensors, bench.path("part.safetensors")).unwrap();
    let message = bench.fails(1, "convert part.safetensors m");
    assert!(
        message.contains("critic.weight") && message.contains("--allow-left-over"),
        "{message}"
    );
    let message = bench.fails(1, "convert part.safetensors m --allow-left-over");
    assert!(
        message.contains("network.1.conv2.bias") && message.contains("--allow-missing"),
        "{message}"
    );
    assert!(!bench.path("m").exists());
    let result = bench.json("convert part.safetensors m --allow-left-over --allow-missing");
    assert_eq!(result["left_over"][0], "critic.weight");
    assert_eq!(result["missing"][0], "network.1.conv2.bias");
    // what is there stays
    let message = bench.fails(2, "convert part.safetensors m --allow-left-over --allow-missing");
    assert!(message.contains("exists"), "{message}");
    assert!(bench.fails(1, "convert none.pt m2").contains("none.pt"));
    bench.write("bad.pt", "not a pickle");
    assert!(bench.fails(1, "convert bad.pt m2").contains("bad.pt"));
}

#[test]
fn weights_are_stored_folded_and_in_fewer_bits() {
    let bench = Bench::new();
    bench.write(
        "net.json",
        r#"{"model_type": "tcn", "embedding_dim": 16, "tie_weights": true,
        "network": {"num_channels": [32, 16], "kernel_size": 3}}"#,
    );
    bench.trained("run", "");
    let size = |model: &str| bench.bytes(format!("{model}/model.safetensors")).len();
    let text = |model: &str, flags: &str| {
        bench.ok(&format!("generate --model {model} --seed 3 --max-tokens 80 {flags}"))
    };
    bench.ok("convert run folded --fold-weight-norm");
    let config = String::from_utf8(bench.bytes("folded/config.json")).unwrap();
    assert!(config.contains(r#""norm": "none""#), "{config}");
    assert_eq!(text("folded", ""), text("run", ""));
    // a state belongs to the network, however its weights are written down
    bench.ok("generate --model run --max-tokens 9 --save-state s --seed 1");
    bench.ok("generate --model folded --max-tokens 9 --load-state s --seed 1");
    for (dtype, most) in [("bf16", 0.65), ("int8", 0.45)] {
        bench.ok(&format!("convert run {dtype} --dtype {dtype}"));
        assert!((size(dtype) as f64) < most * size("run") as f64, "{dtype}: {}", size(dtype));
        let bits = |model: &str| {
            let result = bench.json(&format!("eval --model {model} --data text.txt"));
            result["bits_per_character"].as_f64().unwrap()
        };
        assert!((bits(dtype) - bits("run")).abs() < 0.01, "{dtype}");
    }
    // what is stored as int8 is computed in int8
    assert_eq!(text("int8", ""), text("run", "--dtype int8"));
    let info = bench.json("info int8");
    assert!(info["stored_numbers"]["int8"].as_u64().unwrap() > 1000);
}

#[test]
fn info_tells_without_weights() {
    let bench = Bench::new();
    bench.trained("run", "");
    let info = bench.json("info run");
    assert_eq!(info["model_type"], "tcn");
    assert_eq!(info["training"]["steps"], 30);
    assert_eq!(info["tokenizer"]["vocab_size"], info["input"]["tokens"]);
    let text = bench.ok("info run");
    assert!(text.contains("receptive field: 13"), "{text}");
    assert!(bench.fails(1, "info nowhere").contains("nowhere"));
    let message = bench.fails(2, "receptive-field --model run/model.safetensors");
    assert!(message.contains("run/model.safetensors: expected the folder of a model"), "{message}");
}

#[test]
fn masks_are_filled() {
    let bench = Bench::new();
    let carp = fixture("carp-tiny");
    let filled = |flags: &str| {
        let lines = bench.ok(&format!("fill-mask --model {} --json {flags}", carp.display()));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    bench.write("some.fasta", ">first one\nMANLG\n<mask>GACDEF\n\n>second\nM<mask>V<mask>\n");
    let lines = filled("--input some.fasta --top-k 37");
    assert_eq!((lines[0]["id"].as_str(), lines[1]["id"].as_str()), (Some("first"), Some("second")));
    assert_eq!(lines[0]["masks"][0]["position"], 5);
    assert_eq!(lines[1]["masks"].as_array().unwrap().len(), 2);
    let candidates = lines[1]["masks"][1]["candidates"].as_array().unwrap();
    let probability = |c: &Value| c["probability"].as_f64().unwrap();
    let sum: f64 = candidates.iter().map(probability).sum();
    assert!(candidates.len() == 37 && (sum - 1.0).abs() < 1e-6, "{sum}");
    assert!(candidates.is_sorted_by(|a, b| probability(a) >= probability(b)));
    // alone as in a batch with a longer one
    let alone = &filled("m<mask>v<mask> --top-k 37")[0]["masks"][1]["candidates"];
    for (a, b) in alone.as_array().unwrap().iter().zip(candidates) {
        assert!((probability(a) - probability(b)).abs() < 1e-6);
    }
    let fails = |arguments: &str, code| {
        bench.fails(code, &format!("fill-mask --model {} {arguments}", carp.display()))
    };
    assert!(fails("MANLG", 1).contains("<mask>"));
    fails("", 2);
    bench.write("blank.txt", "\n");
    assert!(fails("--input blank.txt", 1).contains("found none"));
    bench.trained("run", "");
    assert!(bench.fails(2, "fill-mask --model run T<mask>").contains("tcn generate"));
    let output = bench.run(&format!("generate --model {}", carp.display()));
    assert!(stderr(&output).contains("fill-mask"));
}

#[test]
fn embeddings_in_every_form() {
    let bench = Bench::new();
    let carp = fixture("carp-tiny").display().to_string();
    let sequences: Vec<String> =
        (0..40).map(|i| "ACDEFGHIKLMNPQRSTVWY".repeat(3)[i % 20..20 + i].into()).collect();
    bench.write("some.txt", sequences.join("\n"));
    let embed = |more: &str| bench.json(&format!("embed --model {carp} --input some.txt {more}"));
    let result = embed("--output e.safetensors");
    assert_eq!((result["sequences"].as_u64(), result["width"].as_u64()), (Some(40), Some(32)));
    assert!(!bench.path("e.safetensors.part").exists());
    let all = tensor(bench.path("e.safetensors"), "embeddings");
    embed("--output e.npy --batch-tokens 60");
    let npy = Tensor::read_npy(bench.path("e.npy")).unwrap();
    assert_close("npy", &npy, &all);
    embed("--output p.safetensors --per-position");
    let one = tensor(bench.path("p.safetensors"), "7");
    assert_eq!(one.dims(), [sequences[7].len(), 32]);
    let mean = one.mean_keepdim(0).unwrap();
    assert_close("mean", &mean, &all.narrow(0, 7, 1).unwrap());
    embed("--output e.jsonl --layer 2");
    let text = String::from_utf8(bench.bytes("e.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() == 40 && lines[39]["index"] == 39);

    let flags = format!("embed --model {carp} --input some.txt --output e.npy --layer 1");
    assert!(bench.fails(2, &flags).contains("exists"));
    bench.ok(&format!("{flags} --force"));
    for (flags, named) in [
        ("--output e.txt", ".safetensors"),
        ("--output x.npy --per-position", "--per-position"),
        ("--output x.npy --layer 7", "layer"),
        ("--output x.npy --batch-tokens 0", "batch-tokens"),
    ] {
        let message = bench.fails(2, &format!("embed --model {carp} --input some.txt {flags}"));
        assert!(message.contains(named), "{flags}: {message}");
    }
    bench.write("empty.fasta", ">a\nMKV\n>b\n>c\nMM\n");
    let message =
        bench.fails(1, &format!("embed --model {carp} --input empty.fasta --output x.npy"));
    assert!(message.contains("line") && message.contains("\"b\""), "{message}");
}
