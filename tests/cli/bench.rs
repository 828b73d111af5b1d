//! `tcn bench`: that it measures, not how fast.

use super::Bench;

const TINY: &str = "--config net.json --batch-size 2 --seq-len 8 --runs 2 --warmup 0";

#[test]
fn every_figure_is_told() {
    let bench = Bench::new();
    for what in ["train", "forward"] {
        let json = bench.json(&format!("bench {what} {TINY} --threads 2 --dtype f32"));
        assert_eq!(json["what"], what);
        assert_eq!(json["dtype"], "f32");
        for (field, expected) in
            [("threads", 2), ("batch_size", 2), ("seq_len", 8), ("vocab_size", 50), ("runs", 2)]
        {
            assert_eq!(json[field], expected, "{field}: {json}");
        }
        assert!(json["parameters"].as_u64().unwrap() > 3 * 4 * 16 * 16);
        let (speed, gflops) = (&json["tokens_per_s"], &json["gflops"]);
        let flop = 1e9 * gflops.as_f64().unwrap() / speed.as_f64().unwrap();
        // convolutions of 16 and 2·16 outputs a block, softmax of 50; three times that in training
        let forward = f64::from(2 * (2 * 3 * 16 * (32 + 16) + 16 * 50));
        let expected = if what == "train" { 3.0 } else { 1.0 } * forward;
        assert!((flop / expected - 1.0).abs() < 1e-6, "{flop}, {expected}");
        assert!(json["kernel"].is_string());
        assert!(json["ceiling_gflops"].is_null() || json["ceiling_gflops"].as_f64() > Some(0.0));
        if cfg!(target_os = "linux") {
            assert!(json["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
        }
        assert!(json.get("profile").is_none());
    }
}

#[test]
fn the_defaults_are_the_reference_model() {
    let bench = Bench::new();
    let json = bench.json("bench forward --batch-size 1 --seq-len 4 --runs 1 --warmup 0");
    assert_eq!(json["parameters"], 2_222_100);
    assert_eq!(json["vocab_size"], 50);
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_that_training_takes_is_foreseen() {
    use candle_core::DType;
    use candle_tcn::models::ModelConfig;

    let bench = Bench::new();
    for (preset, vocab_size) in [("char-ptb", 50), ("char", 50), ("char", 8000)] {
        let model = ModelConfig::preset(preset).unwrap().with_vocab_size(vocab_size);
        for (name, dtype) in [("f32", DType::F32), ("bf16", DType::BF16)] {
            let flags = format!(
                "--batch-size 8 --seq-len 200 --runs 1 --warmup 1 --threads 2 --vocab-size {vocab_size}"
            );
            let json = bench.json(&format!("bench train --preset {preset} --dtype {name} {flags}"));
            let used = json["peak_memory_bytes"].as_f64().unwrap();
            let foreseen = model.graph().unwrap().training_bytes(8, 200, dtype).unwrap() as f64;
            let factor = foreseen / used;
            assert!((1.0..2.0).contains(&factor), "{preset} {vocab_size} {name}: {factor}");
        }
    }
}

#[test]
fn a_profile_adds_up() {
    let bench = Bench::new();
    let json = bench.json(&format!("bench train {TINY} --profile"));
    let parts = json["profile"].as_object().unwrap();
    let seconds = |part: &str| parts[part].as_f64().unwrap();
    for part in ["forward", "grad_input", "grad_weight", "elementwise", "loss", "optimizer"] {
        assert!(seconds(part) > 0.0, "{part}: {json}");
    }
    // means of the runs' parts together are at least half of the median run, whatever the clock says
    let sum: f64 = parts.keys().map(|part| seconds(part)).sum();
    let step = 2.0 * 8.0 / json["tokens_per_s"].as_f64().unwrap();
    assert!(sum.is_finite() && sum > 0.4 * step, "{sum} of {step}: {json}");
    let text = bench.ok(&format!("bench train {TINY} --profile"));
    for word in ["tokens/s", "GFLOP/s", "grad_weight"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_model_directory_brings_its_vocabulary() {
    let bench = Bench::new();
    let folder = bench.path("model");
    std::fs::create_dir(&folder).unwrap();
    let config =
        super::NETWORK.replace("\"embedding_dim\"", "\"vocab_size\": 7, \"embedding_dim\"");
    std::fs::write(folder.join("config.json"), config).unwrap();
    let flags = "--batch-size 1 --seq-len 4 --runs 1 --warmup 0";
    let json = bench.json(&format!("bench forward --model model {flags}"));
    assert_eq!(json["vocab_size"], 7);
    let json = bench.json(&format!("bench forward --model model --vocab-size 9 {flags}"));
    assert_eq!(json["vocab_size"], 9);
}

#[test]
fn generation_is_measured() {
    let bench = Bench::new();
    for dtype in ["f32", "bf16", "int8"] {
        let json = bench.json(&format!(
            "bench generate --preset char-tiny --batch-size 3 --seq-len 20 --runs 1 --dtype {dtype}"
        ));
        assert_eq!(json["dtype"], dtype);
        assert_eq!(json["batch_size"], 3);
        for figure in ["tokens_per_s", "prefill_tokens_per_s", "step_p99_us", "weight_bytes"] {
            assert!(json[figure].as_f64().unwrap() > 0.0, "{figure}: {json}");
        }
        assert_eq!(json["input_bits"].is_null(), dtype != "int8");
    }
}

#[test]
fn the_rates_of_many_streams_are_drawn() {
    let bench = Bench::new();
    let flags = "--preset char-tiny --seq-len 20 --runs 1 --warmup 0 --svg streams.svg";
    let json = bench.json(&format!("bench generate {flags}"));
    let streams = json["streams"].as_array().unwrap();
    let numbers: Vec<_> = streams.iter().map(|pair| pair[0].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 4, 8, 16, 32, 64, 128]);
    assert!(streams.iter().all(|pair| pair[1].as_f64().unwrap() > 0.0), "{json}");
    let svg = std::fs::read_to_string(bench.path("streams.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("128"), "{svg}");
}

#[test]
fn misuse_is_told() {
    let bench = Bench::new();
    for (flags, named) in [
        ("", "train|forward|generate"),
        ("sleep", "train, forward, generate"),
        ("train --runs 0", "--runs"),
        ("train --warmup -1", "--warmup"),
        ("train --batch-size 0", "--batch-size"),
        ("train --seq-len 99999999999999999999999", "--seq-len"),
        ("train --batch-size 100000 --seq-len 1000000", "--batch-size"),
        ("forward --batch-size 100000 --seq-len 10000000", "--seq-len"),
        ("forward --batch-size 4000000000 --seq-len 4000000000", "--batch-size"),
        ("train --vocab-size 99999999", "--vocab-size: "),
        ("train --dtype f16", "f16"),
        ("train --dtype int8", "int8"),
        ("generate --batch-size 0", "--batch-size"),
        ("generate --profile", "--profile"),
        ("train --svg rates.svg", "--svg"),
        ("generate --svg nowhere/rates.svg", "--svg: there is no folder nowhere"),
        ("generate --svg .", "--svg"),
        ("generate --batch-size 4000000000", "--batch-size"),
        ("train --preset nothing", "char-ptb"),
        ("train --preset char --config net.json", "--preset"),
        ("train --config net.json --model model", "--config"),
        ("train --threads 0", "--threads"),
    ] {
        let message = bench.fails(2, &format!("bench {flags}"));
        assert!(message.contains(named), "{flags}: {message}");
        assert_eq!(message.lines().count(), 1, "{flags}: {message}");
    }
    let message = bench.fails(1, "bench train --config missing.json");
    assert!(message.contains("missing.json"), "{message}");
}
