//! Mistakes: each a clear message and the right exit code, and nothing is lost.

use candle_tcn::kernels::Kernel;

use super::{Bench, NETWORK, SMALL};

#[test]
fn files_that_cannot_be_trained_on() {
    let bench = Bench::new();
    bench.write("empty.txt", "");
    bench.write("short.txt", "abc");
    bench.write("latin1.txt", b"caf\xe9 au lait, plus de trente caracteres".repeat(50));
    bench.write("binary.bin", [1, 2, 0, 3].repeat(5000));
    let train = |file: &str| bench.fails(1, &format!("train --data {file} --out run {SMALL}"));
    assert!(train("missing.txt").contains("missing.txt"));
    assert!(train("empty.txt").contains("empty"));
    std::fs::create_dir(bench.path("empty")).unwrap();
    assert!(train("empty").contains("expected text files there"));
    let message = train("latin1.txt");
    assert!(
        message.contains("latin1.txt")
            && message.contains('3')
            && message.contains("--tokenizer byte"),
        "{message}"
    );
    assert!(train("binary.bin").contains("NUL"));
    let message = bench.run(&format!("train --data short.txt --out run {SMALL}"));
    let message = super::stderr(&message);
    assert!(message.contains("short.txt") && message.contains("--seq-len"), "{message}");
    assert!(!bench.path("run").exists(), "nothing is made for a run that cannot begin");
    // bytes train whatever they are
    bench.ok(&format!("train --data latin1.txt --tokenizer byte --out bytes {SMALL}"));
}

#[test]
fn numbers_out_of_range_are_usage_errors() {
    let bench = Bench::new();
    for (flag, named) in [
        ("--batch-size 0", "--batch-size"),
        ("--seq-len 0", "--seq-len"),
        ("--seq-len 99999999999999999999999", "--seq-len"),
        ("--batch-size 4000000000 --seq-len 4000000000", "--batch-size"),
        ("--batch-size 100000 --seq-len 1000000", "--batch-size"),
        ("--steps -3", "-3"),
        ("--lr 0", "--lr"),
        ("--lr nan", "--lr"),
        ("--lr inf", "--lr"),
        ("--clip -1", "-1"),
        ("--dropout 1", "dropout"),
        ("--valid-fraction 1.5", "valid"),
        ("--warmup 2", "warmup"),
        ("--tokenizer bpe:3", "bpe"),
        ("--threads 0", "--threads"),
        ("--optimizer adam", "adamw"),
        ("--history 4", "--context overlap"),
    ] {
        let kept =
            SMALL.replace("--steps 30", if flag.contains("--steps") { "" } else { "--steps 30" });
        let kept = kept.replace(
            "--batch-size 4 --seq-len 32",
            if flag.contains("-size") || flag.contains("-len") {
                ""
            } else {
                "--batch-size 4 --seq-len 32"
            },
        );
        let message = bench.fails(2, &format!("train --data text.txt --out run {kept} {flag}"));
        assert!(message.contains(named), "{flag}: {message}");
        assert_eq!(message.lines().count(), 1, "{flag}: {message}");
        assert!(!bench.path("run").exists(), "{flag}");
    }
}

#[test]
fn kernels_that_are_not_there() {
    let bench = Bench::new();
    let all = Kernel::ALL.into_iter();
    let (there, missing): (Vec<_>, Vec<_>) = all.partition(|kernel| kernel.is_available());
    // where the processor has every kernel, only the names that none has are left
    for name in missing.iter().map(|k| k.name()).chain(["nonsense", ""]) {
        let mut command =
            bench.command("bench forward --config net.json --batch-size 1 --seq-len 4");
        let output = command.env("TCN_KERNEL", name).output().unwrap();
        let message = super::stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert_eq!(message.lines().count(), 1, "{name}: {message}");
        let told = there.iter().all(|kernel| message.contains(kernel.name()));
        assert!(message.contains("TCN_KERNEL") && told, "{name}: {message}");
    }
}

#[test]
fn networks_that_do_not_hold_together() {
    let bench = Bench::new();
    for (change, to, named) in [
        ("\"kernel_size\": 3", "\"kernel_size\": 0", "kernel_size"),
        ("\"kernel_size\": 3", "\"kernel_size\": 99999999999999", "kernel_size"),
        ("\"kernel_size\": 3", "\"kernel_size\": -3", "-3"),
        ("[16, 16]", "[16, 0, 16]", "num_channels[1]"),
        ("[16, 16]", "[1000000, 16]", "num_channels[0]"),
        ("[16, 16]", "[500000, 500000, 16]", "GiB"),
        ("[16, 16]", "[]", "num_channels"),
        ("[16, 16]", "[16, 24]", "tie_weights"),
        ("\"rms\"", "\"rsm\"", "rsm"),
        ("\"kernel_size\": 3", "\"kernel_size\": 3, \"dilations\": [1]", "dilations"),
        (
            "\"kernel_size\": 3",
            "\"kernel_size\": 3, \"dilations\": [1, 18446744073709551615]",
            "dilation",
        ),
        ("\"tcn\"", "\"tnc\"", "tnc"),
    ] {
        bench.write("bad.json", NETWORK.replace(change, to));
        let output = bench.run("train --data text.txt --out run --config bad.json --steps 3");
        let message = super::stderr(&output);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{to}: {message}");
        assert!(message.contains(named) && !message.contains("panicked"), "{to}: {message}");
        assert!(!bench.path("run").exists(), "{to}");
    }
    let message = bench.fails(2, "train --data text.txt --preset char-ptt");
    assert!(message.contains("char-ptb") && message.contains("wavenet-char"), "{message}");
}

#[test]
fn a_run_is_never_overwritten_by_accident() {
    let bench = Bench::new();
    bench.trained("run", "");
    let before = bench.bytes("run/model.safetensors");
    let message = bench.fails(1, &format!("train --data text.txt --out run {SMALL}"));
    assert!(message.contains("--resume") && message.contains("--force"), "{message}");
    // --force with something that cannot begin leaves the old run as it is
    bench.write("short.txt", "abc");
    bench.run(&format!("train --data short.txt --out run {SMALL} --force"));
    assert_eq!(bench.bytes("run/model.safetensors"), before);
    assert!(bench.path("run/checkpoints/step-30").exists());
    bench.write("run/notes.txt", "mine");
    bench.trained("run", "--force --seed 9");
    assert_ne!(bench.bytes("run/model.safetensors"), before);
    assert_eq!(bench.bytes("run/notes.txt"), b"mine", "--force removes only what a run made");
    assert!(bench.fails(1, "train --resume --out elsewhere").contains("no such run"));
    assert!(bench.fails(2, "train --resume").contains("--out"));
}

#[test]
fn files_of_others_stay() {
    let bench = Bench::new();
    bench.write("README.md", "mine");
    let message = bench.fails(1, &format!("train --data text.txt --out . {SMALL}"));
    assert!(message.contains("README.md"), "{message}");
    bench.fails(1, &format!("train --data text.txt --out . {SMALL} --force"));
    assert_eq!(bench.bytes("README.md"), b"mine");
}

#[test]
fn dilations_that_no_memory_holds() {
    let bench = Bench::new();
    let huge = "\"kernel_size\": 3, \"dilations\": [1, 1000000000000]";
    bench.write("huge.json", NETWORK.replace("\"kernel_size\": 3", huge));
    let message = bench.fails(2, "train --data text.txt --out run --config huge.json --steps 3");
    assert!(message.contains("GiB"), "{message}");
    bench.trained("run", "");
    let config = String::from_utf8(bench.bytes("run/config.json")).unwrap();
    bench.write("run/config.json", config.replace("\"kernel_size\": 3", huge));
    let message = bench.fails(1, "generate --model run");
    assert!(message.contains("config.json") && message.contains("dilations"), "{message}");
}

#[test]
fn a_resume_refuses_what_it_would_ignore() {
    let bench = Bench::new();
    bench.trained("run", "");
    for flag in ["--batch-size 8", "--seed 2", "--tokenizer byte"] {
        let message = bench.fails(2, &format!("train --resume --out run {flag}"));
        assert!(message.contains("--resume"), "{flag}: {message}");
    }
}

#[test]
fn a_language_model_must_be_causal() {
    let bench = Bench::new();
    let centred = NETWORK.replace("\"kernel_size\": 3", "\"kernel_size\": 3, \"causal\": false");
    bench.write("centred.json", centred);
    let message = bench.fails(1, "train --data text.txt --config centred.json --steps 3");
    assert!(message.contains("centred.json: causal: "), "{message}");
}

#[test]
fn weights_that_are_not_the_configurations() {
    let bench = Bench::new();
    bench.trained("run", "");
    let config = String::from_utf8(bench.bytes("run/config.json")).unwrap();
    bench.write("run/config.json", config.replace("\"kernel_size\": 3", "\"kernel_size\": 2"));
    let message = bench.fails(1, "generate --model run");
    assert!(
        message.contains("conv1.weight")
            && message.contains("[32, 16, 2]")
            && message.contains("[32, 16, 3]"),
        "{message}"
    );
    bench.write("run/config.json", config);
    let weights = bench.bytes("run/model.safetensors");
    bench.write("run/model.safetensors", &weights[..weights.len() / 2]);
    assert!(bench.fails(1, "eval --model run --data text.txt").contains("model.safetensors"));
    assert!(bench.fails(1, "generate --model nowhere").contains("nowhere"));
    std::fs::remove_file(bench.path("run/tokenizer.json")).unwrap();
    bench.write("run/model.safetensors", &weights);
    assert!(bench.fails(1, "generate --model run").contains("tokenizer.json"));
}

#[test]
fn folders_that_contradict_themselves_are_named() {
    let bench = Bench::new();
    bench.trained("run", "");
    let config = String::from_utf8(bench.bytes("run/config.json")).unwrap();
    let absurd = config.replace("\"kernel_size\": 3", "\"kernel_size\": 99999999");
    bench.write("run/config.json", absurd);
    for command in ["info run", "convert run other", "generate --model run"] {
        let message = bench.fails(1, command);
        assert!(
            message.contains("config.json: kernel_size: expected") && message.contains("99999999"),
            "{message}"
        );
    }
    bench.write("run/config.json", config);
    let merges = r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b","ab a"]}}"#;
    bench.write("run/tokenizer.json", merges);
    let message = bench.fails(1, "info run");
    assert!(
        message.contains("tokenizer.json: not a usable") && !message.contains("panicked"),
        "{message}"
    );
}

#[test]
fn prompts_and_sampling_that_cannot_be() {
    let bench = Bench::new();
    bench.trained("run", "");
    for flag in [
        "--temperature -1",
        "--temperature nan",
        "--top-k 0",
        "--top-p 1.5",
        "--min-p -1",
        "--repetition-penalty 0",
    ] {
        bench.fails(2, &format!("generate --model run {flag}"));
    }
    let output = bench.command("generate --model run --stop").arg("").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_loss_that_leaves_the_numbers_stops_the_run() {
    let bench = Bench::new();
    let flags = "--optimizer sgd --lr 1e30 --clip 0 --schedule constant";
    let message = bench.fails(1, &format!("train --data text.txt --out run {SMALL} {flags}"));
    assert!(message.contains("step") && message.contains("--lr"), "{message}");
    // with a good checkpoint before it, that one stays
    bench.trained("good", "");
    let before = bench.bytes("good/checkpoints/step-30/model.safetensors");
    let flags = "--steps 60 --lr 1e30";
    bench.fails(1, &format!("train --resume --out good {flags}"));
    assert_eq!(bench.bytes("good/checkpoints/step-30/model.safetensors"), before);
}

#[test]
fn eval_of_what_cannot_be_read() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.write("one.txt", "T");
    bench.write("bad.txt", b"The quick\xff fox");
    assert!(bench.fails(1, "eval --model run --data one.txt").contains("two tokens"));
    assert!(bench.fails(1, "eval --model run --data bad.txt").contains('9'));
    assert!(bench.fails(1, "eval --model run --data none.txt").contains("none.txt"));
    assert!(bench.fails(2, "eval --model run").contains("--data"));
}
