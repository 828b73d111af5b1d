//! Training, evaluation and generation that go well.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Bench, SMALL, stderr};

#[test]
fn a_run_leaves_a_whole_model_directory() {
    let bench = Bench::new();
    let result = bench.json(&format!("train --data text.txt --out run {SMALL}"));
    assert_eq!(result["steps"], 30);
    assert_eq!(result["tokens"], 30 * 4 * 32);
    let loss = result["valid_loss"].as_f64().unwrap();
    // 29 distinct characters: ln 29 = 3.4 before training
    assert!(loss < 3.0, "{loss}");
    let bpc = result["valid_bpc"].as_f64().unwrap();
    assert!((bpc - loss / std::f64::consts::LN_2).abs() < 1e-9, "one token a character");
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "metrics.jsonl",
        "loss.svg",
    ] {
        assert!(!bench.bytes(format!("run/{file}")).is_empty(), "{file}");
    }
    assert!(bench.path("run/checkpoints/step-30/optimizer.safetensors").exists());
    let card = String::from_utf8(bench.bytes("run/README.md")).unwrap();
    assert!(card.contains("text.txt") && card.contains("--steps 30"), "{card}");
}

#[test]
fn eval_equals_the_runs_own_validation() {
    let bench = Bench::new();
    let result = bench.json(&format!("train --data text.txt --out run {SMALL}"));
    let text = bench.bytes("text.txt");
    bench.write("tail.txt", &text[text.len() * 9 / 10..]);
    let measured = bench.json("eval --model run --data tail.txt");
    for (ours, theirs) in [("loss", "valid_loss"), ("bits_per_character", "valid_bpc")] {
        let (ours, theirs) = (measured[ours].as_f64().unwrap(), result[theirs].as_f64().unwrap());
        assert!((ours - theirs).abs() < 1e-6, "{ours} against {theirs}");
    }
    assert_eq!(measured["tokens"], text.len() - text.len() * 9 / 10 - 1);
}

#[test]
fn dropout_follows_from_how_often_a_text_is_read() {
    let bench = Bench::new();
    bench.write("poem.txt", "The quick brown fox jumps over the lazy dog.\n".repeat(6));
    let train = |flags: &str| {
        let output = bench.run(&format!("train --data poem.txt --out run --force {flags}"));
        let config: serde_json::Value =
            serde_json::from_slice(&bench.bytes("run/config.json")).unwrap();
        (stderr(&output), config["network"]["dropout"].as_f64().unwrap())
    };
    let (said, dropout) = train("--epochs 2");
    assert!(said.contains("2.0 passes over 243 tokens: --preset char --dropout 0\n"), "{said}");
    assert_eq!(dropout, 0.0);
    let (said, dropout) = train("--preset char-tiny --epochs 24");
    assert!(said.contains("--preset char-tiny --dropout 0.04\n"), "{said}");
    assert_eq!(dropout, 0.04);
    assert_eq!(train("--epochs 2 --dropout 0.3").1, 0.3);
    // a clock of which some is measured
    let (said, _) = train("--minutes 0.01");
    assert!(said.contains("passes over 243 tokens: --preset char --dropout"), "{said}");
    // a network of one's own is left alone
    let (said, dropout) = train("--config net.json --epochs 24");
    assert!(!said.contains("passes over"), "{said}");
    assert_eq!(dropout, 0.0);
}

#[test]
fn a_seed_decides_weights_and_text() {
    let bench = Bench::new();
    bench.trained("a", "--seed 3 --dropout 0.1");
    bench.trained("b", "--seed 3 --dropout 0.1 --threads 1");
    bench.trained("c", "--seed 4 --dropout 0.1");
    assert_eq!(bench.bytes("a/model.safetensors"), bench.bytes("b/model.safetensors"));
    assert_ne!(bench.bytes("a/model.safetensors"), bench.bytes("c/model.safetensors"));
    let text = |model: &str, seed: u32| {
        bench.ok(&format!("generate --model {model} --prompt The --seed {seed}"))
    };
    assert_eq!(text("a", 1), text("b", 1));
    assert_ne!(text("a", 1), text("a", 2));
    assert!(text("a", 1).starts_with("The"));
}

#[test]
fn samples_are_many_short_and_stop_where_told() {
    let bench = Bench::new();
    // learned by heart
    bench.ok(
        "train --data text.txt --out run --config net.json --steps 300 --batch-size 4 --seq-len 32 --lr 0.03 --weight-decay 0.5",
    );
    let lines = bench.ok("generate --model run --num-samples 3 --max-tokens 40 --seed 1 --json");
    let samples: Vec<serde_json::Value> =
        lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0]["tokens"], 40);
    assert_eq!(samples[0]["finish_reason"], "length");
    assert_ne!(samples[0]["text"], samples[1]["text"]);
    // each letter is a token: the stop string crosses token borders
    let stopped = bench.json("generate --model run --prompt The --stop lazy --temperature 0");
    assert_eq!(stopped["finish_reason"], "stop");
    let text = stopped["text"].as_str().unwrap();
    assert!(!text.contains("lazy") && text.ends_with("over the "), "{text:?}");
}

#[test]
fn what_may_be_written_is_constrained() {
    let bench = Bench::new();
    bench.trained("run", "");
    let written = |flags: &str| {
        let flags = format!("generate --model run --max-tokens 60 --seed 2 {flags}");
        let json = bench.json(&flags);
        json["text"].as_str().unwrap().to_string()
    };
    let text = written("--allow-chars oxe");
    assert!(text.len() == 60 && text.chars().all(|c| "oxe".contains(c)), "{text:?}");
    assert!(!written("--ban-chars eo").contains(['e', 'o']));
    let text = written("--allow fox --allow dog");
    assert_eq!(text.replace("fox", "").replace("dog", ""), "");
    assert!(written("--logit-bias z=1000").chars().all(|c| c == 'z'));
    let text = written("--stop e --min-tokens 30");
    assert!(text.len() >= 30 && !text.contains('e'), "{text:?}");
    for dtype in ["f32", "bf16", "int8"] {
        assert_eq!(written(&format!("--dtype {dtype} --typical-p 0.9")).len(), 60);
    }
    for (flags, named) in [
        ("--logit-bias z", "TEXT=X"),
        ("--logit-bias zz=1", "--logit-bias"),
        ("--typical-p 2", "--typical-p"),
        ("--dtype int4", "int8"),
    ] {
        let message = bench.fails(2, &format!("generate --model run {flags}"));
        assert!(message.contains(named), "{flags}: {message}");
    }
}

#[test]
fn text_that_is_not_ascii_trains_and_prints_valid_utf8() {
    let bench = Bench::new();
    // four-byte characters among the three-byte ones
    bench.write("zh.txt", "床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉𠮷。\n".repeat(60));
    for tokenizer in ["char", "byte", "bpe:300"] {
        bench.ok(&format!(
            "train --data zh.txt --out {tokenizer} --tokenizer {tokenizer} --config net.json --steps 30 \
             --batch-size 4 --seq-len 16"
        ));
        // `ok` takes it as UTF-8; an early model writes many broken characters with `byte`
        let text = bench
            .ok(&format!("generate --model {tokenizer} --prompt 明月 --seed 1 --max-tokens 200"));
        assert!(text.starts_with("明月"), "{text}");
    }
}

#[test]
fn a_run_goes_on_exactly_after_ctrl_c() {
    let bench = Bench::new();
    let flags = "--config net.json --batch-size 4 --seq-len 32 --valid-every 200 --schedule constant --dropout 0.1";
    bench.ok(&format!("train --data text.txt --out whole --steps 400 {flags}"));
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tcn"))
        .current_dir(bench.dir.path())
        .args(format!("train --data text.txt --out cut --steps 400 {flags}").split_whitespace())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_a_record(&bench);
    let mut child = child;
    super::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    bench.ok("train --resume --out cut");
    assert_eq!(bench.bytes("whole/model.safetensors"), bench.bytes("cut/model.safetensors"));
    let last = "checkpoints/step-400/optimizer.safetensors";
    assert_eq!(bench.bytes(format!("whole/{last}")), bench.bytes(format!("cut/{last}")));
}

fn wait_for_a_record(bench: &Bench) {
    let start = Instant::now();
    while std::fs::read(bench.path("cut/metrics.jsonl")).map_or(0, |log| log.len()) < 200 {
        assert!(start.elapsed() < Duration::from_secs(60), "no training within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn bf16_trains_and_a_resumed_run_keeps_it() {
    let bench = Bench::new();
    let flags = "--config net.json --batch-size 4 --seq-len 32 --schedule constant --dropout 0.1";
    let train = |out: &str, more: &str| {
        bench.json(&format!("train --data text.txt --out {out} {flags} {more}"))
    };
    let result = train("whole", "--steps 60 --dtype bf16");
    let loss = result["valid_loss"].as_f64().unwrap();
    assert!(loss < 3.0, "{loss}");
    train("cut", "--steps 30 --dtype bf16");
    bench.ok("train --resume --out cut --steps 60");
    train("f32", "--steps 60 --dtype f32");
    let weights = |run: &str| bench.bytes(format!("{run}/checkpoints/step-60/model.safetensors"));
    assert_eq!(weights("whole"), weights("cut"));
    assert_ne!(weights("whole"), weights("f32"));
    assert!(bench.ok("generate --model cut --prompt The --seed 1").starts_with("The"));
}

#[test]
fn a_finished_run_can_be_prolonged() {
    let bench = Bench::new();
    bench.trained("run", "");
    let result = bench.json("train --resume --out run --steps 60 --lr 0.001");
    assert_eq!(result["steps"], 60);
    let log = String::from_utf8(bench.bytes("run/metrics.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"step\":60,")).count(), 1);
}

#[test]
fn a_prolonged_run_is_validated_on_its_way() {
    let bench = Bench::new();
    let flags = "--config net.json --batch-size 4 --seq-len 32";
    bench.ok(&format!("train --data text.txt --out run --steps 10 {flags}"));
    bench.ok("train --resume --out run --steps 100");
    let log = String::from_utf8(bench.bytes("run/metrics.jsonl")).unwrap();
    let validated = log.lines().filter(|line| line.contains("valid_loss")).count();
    assert_eq!(validated, 1 + 5, "ten steps pay for the last one alone, a hundred for five");
}

#[test]
fn bits_count_the_text_and_not_the_tokens_names() {
    let bench = Bench::new();
    bench.trained("run", "");
    // the model never saw the first character, whose token is called <unk>
    bench.write("one.txt", "\u{fc}The quick brown");
    let result = bench.json("eval --model run --data one.txt");
    assert_eq!(result["bits_per_character"], result["bits_per_token"]);
    let bytes = result["bits_per_byte"].as_f64().unwrap();
    assert!((bytes - result["bits_per_token"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn runs_started_together_do_not_meet() {
    let bench = Bench::new();
    let run = || {
        std::process::Command::new(assert_cmd::cargo::cargo_bin("tcn"))
            .current_dir(bench.dir.path())
            .args(format!("train --data text.txt {SMALL}").split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for child in [run(), run(), run()] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", super::stderr(&output));
    }
    for name in ["text-net", "text-net-2", "text-net-3"] {
        bench.ok(&format!("generate --model runs/{name} --seed 1 --max-tokens 5"));
    }
}

#[test]
fn a_run_in_use_is_refused() {
    let bench = Bench::new();
    bench.trained("run", "");
    let folder = std::fs::File::open(bench.path("run")).unwrap();
    folder.lock().unwrap();
    for flags in ["--resume", "--data text.txt --config net.json --force"] {
        let message = bench.fails(1, &format!("train --out run {flags}"));
        assert!(message.contains("in use"), "{message}");
    }
    assert!(bench.path("run/checkpoints/step-30").exists());
}

#[test]
fn a_single_step_trains() {
    let bench = Bench::new();
    let flags = "--data text.txt --config net.json --batch-size 4 --seq-len 32 --seed 2";
    bench.ok(&format!("train {flags} --steps 1 --out one"));
    bench.ok(&format!("train {flags} --steps 1 --lr 0.01 --out other"));
    assert_ne!(
        bench.bytes("one/model.safetensors"),
        bench.bytes("other/model.safetensors"),
        "the rate of the only step is not zero"
    );
}

#[test]
fn text_without_tokens_is_counted_and_said() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.write("zh.txt", "床前明月光\n");
    let output = bench.run("eval --model run --data zh.txt --json");
    assert!(super::stderr(&output).contains("5 tokens"), "{}", super::stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["unknown_tokens"], 5);
}

#[test]
fn without_arguments_generate_uses_the_built_in_model() {
    let bench = Bench::new();
    let text = bench.ok("generate --seed 1 --max-tokens 120");
    assert!(text.chars().count() >= 120);
    assert_eq!(text, bench.ok("generate --seed 1 --max-tokens 120"));
    let result = bench.json("eval --data text.txt");
    assert!(result["perplexity"].as_f64().unwrap() > 1.0);
}

#[test]
fn overlapping_windows_and_other_optimizers_train() {
    let bench = Bench::new();
    for flags in [
        "--context overlap --history 8 --accumulate 2",
        "--optimizer sgd --momentum 0.9 --lr 0.1 --schedule plateau",
        "--optimizer rmsprop --clip 0 --patience 1",
    ] {
        let out = flags.split_whitespace().nth(1).unwrap();
        let result = bench.json(&format!("train --data text.txt --out {out} {SMALL} {flags}"));
        assert!(result["valid_loss"].as_f64().unwrap() < 3.4, "{flags}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let bench = Bench::new();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tcn"))
        .args(["generate", "--seed", "1", "--max-tokens", "20000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(bench.dir.path())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", super::stderr(&output));
}
