//! Files of weights as people have them: wrapped, half, tied, doubled, damaged, or no weights at all.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_tcn::files::weights;
use candle_tcn::files::write_tensors;

use super::models::{assert_close, fixture, tensor};
use super::{Bench, stderr};

fn fault(name: &str) -> PathBuf {
    fixture("faults").join(name)
}

impl Bench {
    fn convert(&self, file: &Path, out: &str, flags: &str) -> std::process::Output {
        self.run(&format!("convert {} {out} {flags}", file.display()))
    }

    /// Converts a file, runs the model on an input and compares its output.
    fn converts_to(&self, file: &Path, flags: &str, io: &Path) {
        let what = format!("{} {flags}", file.display());
        let out = format!("model-{}", std::fs::read_dir(self.dir.path()).unwrap().count());
        let output = self.convert(file, &out, flags);
        assert!(output.status.success(), "{what}: {}", stderr(&output));
        self.ok(&format!("run --model {out} --input {} --output {out}.safetensors", io.display()));
        let found = tensor(self.path(&format!("{out}.safetensors")), "output");
        assert_close(&what, &found, &tensor(io, "output"));
    }

    /// Expects a refusal that holds these words.
    fn refuses(&self, file: &Path, flags: &str, words: &[&str]) {
        let output = self.convert(file, "refused", flags);
        let message = stderr(&output);
        assert!(!output.status.success(), "{} {flags}", file.display());
        assert!(!message.contains("panicked"), "{message}");
        for word in words {
            assert!(message.contains(word), "{} {flags}: {word} in {message}", file.display());
        }
        assert!(!self.path("refused").exists(), "{}", file.display());
    }
}

fn io(network: &str) -> PathBuf {
    fixture(network).join("io.safetensors")
}

#[test]
fn wrapped_networks_are_found() {
    let bench = Bench::new();
    let (char, ptcn) = (io("locuslab/char_cnn"), io("pytorch_tcn/weight_norm_causal"));
    bench.converts_to(&fault("compiled.pt"), "", &char);
    bench.converts_to(&fault("b2_net.pt"), "", &char);
    bench.converts_to(&fault("tied.safetensors"), "", &char);
    bench.converts_to(&fault("pre_tcn.pt"), "", &io("locuslab/tcn_k3_downsample"));
    bench.refuses(&fault("swa.pt"), "", &["1 tensor", "n_averaged", "--allow-left-over"]);
    bench.converts_to(&fault("swa.pt"), "--allow-left-over", &char);
    let arguments = fixture("pytorch_tcn/weight_norm_causal/config.json");
    let arguments = format!("--arguments {}", arguments.display());
    bench.refuses(&fault("light.pt"), &arguments, &["1 tensor", "criterion.weight"]);
    bench.converts_to(&fault("light.pt"), &format!("{arguments} --allow-left-over"), &ptcn);
    let tied = bench.json(&format!("convert {} tied", fault("tied.safetensors").display()));
    assert_eq!(tied["left_over"], serde_json::json!([]));
    let config = String::from_utf8(bench.bytes("tied/config.json")).unwrap();
    assert!(config.contains("\"tie_weights\": true"), "{config}");
}

/// The state dict of a fixture with each name as `name` makes it.
fn renamed(bench: &Bench, network: &str, name: impl Fn(&str) -> Option<String>) -> PathBuf {
    let tensors = weights::read(fixture(network).join("state_dict.safetensors")).unwrap().tensors;
    let tensors = tensors.into_iter().filter_map(|(old, tensor)| Some((name(&old)?, tensor)));
    let path = bench.path(&format!(
        "renamed-{}.safetensors",
        std::fs::read_dir(bench.dir.path()).unwrap().count()
    ));
    write_tensors(&path, &tensors.collect()).unwrap();
    path
}

#[test]
fn any_nesting_of_prefixes_is_found_and_a_flag_chooses() {
    let bench = Bench::new();
    let char = io("locuslab/char_cnn");
    for prefix in ["module.", "_orig_mod.module.", "net.backbone.model._orig_mod.", "a.b.c.d.e."] {
        let file = renamed(&bench, "locuslab/char_cnn", |name| Some(format!("{prefix}{name}")));
        bench.converts_to(&file, "", &char);
        bench.converts_to(&file, &format!("--prefix {}", prefix.trim_end_matches('.')), &char);
        bench.refuses(&file, "--prefix elsewhere", &["state dict"]);
    }
    let ptcn = "pytorch_tcn/weight_norm_causal";
    let inside = renamed(&bench, ptcn, |name| Some(format!("tcn.{name}")));
    let arguments = format!("--arguments {}", fixture(ptcn).join("config.json").display());
    bench.converts_to(&inside, &arguments, &io(ptcn));
}

#[test]
fn several_dicts_of_tensors_are_named() {
    let bench = Bench::new();
    // two state dicts in one file, as scripts with a moving average write it
    let message = stderr(&bench.convert(&fault("two_dicts.pt"), "two", ""));
    assert!(
        message.contains("net (") && message.contains("ema.model (") && message.contains("--key"),
        "{message}"
    );
    bench.converts_to(&fault("two_dicts.pt"), "--key ema.model", &io("locuslab/tcn_k3_downsample"));
    bench.refuses(&fault("two_dicts.pt"), "--key optimizer", &["ema.model"]);
}

/// What Lightning writes: callbacks, random generators and an optimizer keep tensors of their own.
#[test]
fn a_whole_checkpoint_of_lightning() {
    let bench = Bench::new();
    let plain = io("locuslab/tcn_k3_downsample");
    bench.converts_to(&fault("lightning.ckpt"), "", &plain);
}

#[test]
fn arguments_are_heard_and_contradictions_refused() {
    let bench = Bench::new();
    for (name, text) in [
        ("d3.json", r#"{"dilations": [3]}"#),
        ("d33.json", r#"{"dilations": [3, 3]}"#),
        ("k.json", r#"{"kernel_size": 5}"#),
        ("unknown.json", r#"{"kernel": 2}"#),
        (
            "ptcn.json",
            r#"{"num_inputs": 1, "num_channels": [1], "kernel_size": 2, "use_norm": null, "dilations": [2]}"#,
        ),
        ("tied.json", r#"{"input_size": 13}"#),
    ] {
        bench.write(name, text);
    }
    bench.converts_to(&fault("lmini.pt"), "--arguments d3.json", &fault("lmini_io.safetensors"));
    bench.refuses(&fault("lmini.pt"), "--arguments d33.json", &["dilations"]);
    bench.refuses(&fault("lmini.pt"), "--arguments k.json", &["kernel_size", "2", "5"]);
    bench.refuses(&fault("lmini.pt"), "--arguments unknown.json", &["kernel"]);
    bench.refuses(&fault("compiled.pt"), "--arguments tied.json", &["input_size", "12", "13"]);
    let mini = format!("--arguments {}", fault("mini.json").display());
    bench.converts_to(&fault("mini.pt"), &mini, &fault("mini_io.safetensors"));
    bench.refuses(&fault("mini.pt"), "--arguments ptcn.json", &["dilations", "[3]", "[2]"]);
}

#[test]
fn one_tensor_under_two_names_with_different_numbers() {
    let bench = Bench::new();
    bench.refuses(&fault("b5_both.pt"), "", &["weight_g", "parametrizations.weight.original0"]);
    bench.refuses(&fault("b5_netdiff.pt"), "", &[".net.", ".conv"]);
}

#[test]
fn numbers_that_are_not_finite() {
    let bench = Bench::new();
    for dtype in ["f32", "bf16", "int8"] {
        bench.refuses(&fault("nanw.pt"), &format!("--dtype {dtype}"), &["NaN", "weight"]);
    }
    let bad = renamed(&bench, "locuslab/char_cnn", |name| Some(name.to_string()));
    let mut tensors = weights::read(&bad).unwrap().tensors;
    let infinite = Tensor::full(f32::INFINITY, 50, &Device::Cpu).unwrap();
    tensors.insert("decoder.bias".into(), infinite);
    write_tensors(&bad, &tensors).unwrap();
    bench.refuses(&bad, "--dtype int8", &["inf"]);

    // a model that became so after it was written
    bench.trained("run", "");
    let mut tensors = weights::read(bench.path("run/model.safetensors")).unwrap().tensors;
    let (name, tensor) = tensors.iter().next().map(|(name, t)| (name.clone(), t.clone())).unwrap();
    tensors.insert(name, (tensor * f64::NAN).unwrap());
    write_tensors(bench.path("run/model.safetensors"), &tensors).unwrap();
    for command in [
        "eval --model run --data text.txt",
        "generate --model run",
        "embed --model run --input text.txt --output e.npy",
    ] {
        let message = bench.fails(1, command);
        assert!(message.contains("finite"), "{command}: {message}");
    }
}

#[test]
fn half_precision_is_quantised_and_folded() {
    let bench = Bench::new();
    let half = fault("b8_f16.safetensors");
    let char = io("locuslab/char_cnn");
    let run = |model: &str| {
        bench.ok(&format!(
            "run --model {model} --input {} --output {model}.safetensors",
            char.display()
        ));
        tensor(bench.path(&format!("{model}.safetensors")), "output")
    };
    let near = |what: &str, found: &Tensor, tolerance: f64| {
        let expected = tensor(&char, "output").to_dtype(DType::F64).unwrap();
        let difference = (found.to_dtype(DType::F64).unwrap() - &expected).unwrap();
        let squares = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let error = (squares(&difference) / squares(&expected)).sqrt();
        assert!(error < tolerance, "{what}: {error}");
    };
    bench.ok(&format!("convert {} folded --fold-weight-norm", half.display()));
    near("folded", &run("folded"), 2e-3);
    bench.ok(&format!("convert {} int8 --dtype int8", half.display()));
    near("int8", &run("int8"), 2e-2);
    bench.ok(&format!("convert {} bf16 --dtype bf16", half.display()));
    bench.ok("convert bf16 again --dtype int8");
    near("bf16, then int8", &run("again"), 3e-2);
}

#[test]
fn a_file_that_holds_no_network_never_makes_a_random_one() {
    let bench = Bench::new();
    let flags = "--allow-left-over --allow-missing";
    let arguments = fixture("pytorch_tcn/weight_norm_causal/config.json");
    let stranger = renamed(&bench, "pytorch_tcn/weight_norm_causal", |name| {
        name.starts_with("network.0.conv1").then(|| name.to_string())
    });
    bench.refuses(
        &stranger,
        &format!("{flags} --arguments {}", arguments.display()),
        &["tensors of a pytorch_tcn network are there"],
    );
    let unknown = renamed(&bench, "locuslab/char_cnn", |name| {
        Some(name.replace("network", "netz").replace("encoder", "e"))
    });
    bench.refuses(&unknown, flags, &["state dict"]);
    // what starts anew is named
    let most = renamed(&bench, "locuslab/char_cnn", |name| {
        (name != "decoder.bias").then(|| name.to_string())
    });
    let output = bench.convert(&most, "most", "--allow-missing");
    assert!(
        output.status.success() && stderr(&output).contains("decoder.bias"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_vocabulary_comes_along() {
    let bench = Bench::new();
    let carp = fixture("carp-tiny");
    bench.ok(&format!("convert {} carp", carp.display()));
    let tokenizer = bench.bytes("carp/tokenizer.json");
    assert!(!tokenizer.is_empty());
    bench.ok("fill-mask --model carp MK<mask>LL");
}

#[test]
fn what_a_state_dict_does_not_tell_is_said() {
    let bench = Bench::new();
    let file = fixture("locuslab/poly_music/state_dict.safetensors");
    let output = bench.convert(&file, "music", "");
    assert!(output.status.success());
    assert!(stderr(&output).contains("output_activation"), "{}", stderr(&output));
}

#[test]
fn files_that_are_no_weights_say_what_they_are() {
    let bench = Bench::new();
    let utf16: Vec<u8> = "\u{feff}weights".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&str, &[u8], &str); 13] = [
        ("page.bin", b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML"),
        ("page.safetensors", b"\n  <html lang=en>", "HTML"),
        (
            "lfs.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "git lfs pull",
        ),
        ("model.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0", "Keras"),
        ("model.gguf", b"GGUF\x03\0\0\0", "GGUF"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", "ONNX"),
        ("saved_model.pb", b"\x08\x01\x12\x99", "TensorFlow"),
        ("text.pt", &utf16, "UTF-16"),
        ("empty.pt", b"", "an empty file"),
        ("config.json.pt", b"{\"model_type\": \"tcn\"}", "JSON"),
        ("array.npy", b"\x93NUMPY\x01\0v\0", "NumPy"),
        ("packed.gz", b"\x1f\x8b\x08\0", "gzip"),
        ("notes.bin", b"just some words", "text"),
    ];
    for (name, bytes, kind) in cases {
        bench.write(name, bytes);
        bench.refuses(&bench.path(name), "", &[name, kind]);
    }
}

#[test]
fn ids_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    bench.ok(&format!("convert {} char", fault("compiled.pt").display()));
    for bad in [1i64 << 32, -1, 50, i64::MAX] {
        let ids = Tensor::new(&[[1i64, bad, 2]], &Device::Cpu).unwrap();
        write_tensors(bench.path("in.safetensors"), &[("input_ids".to_string(), ids)].into())
            .unwrap();
        let message =
            bench.fails(1, "run --model char --input in.safetensors --output out.safetensors");
        assert!(message.contains(&bad.to_string()) && message.contains("input"), "{message}");
    }
}

#[test]
fn an_output_is_not_overwritten_unasked() {
    let bench = Bench::new();
    bench.ok(&format!("convert {} char", fault("compiled.pt").display()));
    bench.write("out.safetensors", "mine");
    let run = format!("run --model char --input {} --output", io("locuslab/char_cnn").display());
    assert!(bench.fails(2, &format!("{run} out.safetensors")).contains("--force"));
    assert_eq!(bench.bytes("out.safetensors"), b"mine");
    bench.ok(&format!("{run} out.safetensors --force"));
    #[cfg(unix)]
    bench.ok(&format!("{run} /dev/null"));
}

#[test]
fn int8_weights_are_evaluated_as_they_are_generated_with() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.ok("convert run int8 --dtype int8");
    let loss = |flags: &str| {
        bench.json(&format!("eval --model int8 --data text.txt {flags}"))["loss"].as_f64().unwrap()
    };
    assert_eq!(loss("--dtype auto"), loss("--dtype int8"));
    assert_ne!(loss("--dtype auto"), loss("--dtype f32"));
}
