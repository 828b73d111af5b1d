//! What a newcomer types: the program alone, names that are wrong, prompts and budgets of any size.

use serde_json::Value;

use super::{Bench, SMALL, stderr};

impl Bench {
    /// Runs with arguments that hold spaces, expects success, gives standard output.
    fn with(&self, flags: &str, more: &[&str]) -> String {
        let output = self.command(flags).args(more).output().unwrap();
        assert!(output.status.success(), "{flags} {more:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn alone_it_says_what_to_try() {
    let bench = Bench::new();
    let text = bench.ok("");
    assert_eq!(text.lines().count(), 5, "{text}");
    for command in ["generate", "train", "receptive-field", "bench", "--help"] {
        assert!(text.contains(command), "{text}");
    }
    // what it says can be typed
    assert!(bench.ok("receptive-field --levels 6 --kernel-size 3").contains("127"));
    assert!(bench.ok("generate --prompt God --max-tokens 3").starts_with("God"));
}

#[test]
fn it_tells_what_it_is() {
    let bench = Bench::new();
    let version = bench.ok("--version");
    for part in ["tcn ", "features: cli", "kernel: ", "portable", "processor: "] {
        assert!(version.contains(part), "{version}");
    }
    assert_eq!(bench.ok("-V").lines().count(), 1);
    let help = bench.ok("--help");
    for part in ["TCN_KERNEL", "HF_TOKEN", "130, 143, 129", "completions"] {
        assert!(help.contains(part), "{help}");
    }
    // what every command has stands at the end
    let train = bench.ok("train --help");
    assert!(train.find("--threads") > train.find("--dtype"), "{train}");
    for (shell, part) in
        [("bash", "complete -F"), ("zsh", "#compdef tcn"), ("fish", "complete -c tcn")]
    {
        assert!(bench.ok(&format!("completions {shell}")).contains(part), "{shell}");
    }
    assert!(bench.ok("man").contains(".TH tcn 1"));
    assert!(bench.ok("man train").contains("log\\-every"));
    assert!(bench.fails(2, "man trian").contains("train"));
}

#[test]
fn tips_are_given() {
    let bench = Bench::new();
    assert!(bench.fails(2, "train --minute 3").contains("'--minutes'"));
    assert!(bench.fails(2, "trian").contains("'train'"));
    assert!(bench.fails(2, "train --optimizer adam").contains("adamw"));
}

#[test]
fn texts_may_look_like_flags() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "generate --model run --temperature 0 --max-tokens 40";
    assert!(bench.with(flags, &["--prompt", "-- x"]).starts_with("-- x"));
    let text = bench.with(flags, &["--prompt", "The", "--stop", "---"]);
    assert!(text.starts_with("The"), "{text}");
    // the text of the run has a line end after every dog
    let until = |stop: &str| bench.with(flags, &["--prompt", "The quick", "--stop", stop]);
    let line = until("\\n");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_eq!(until("\\u{a}"), line);
    assert!(!until("\\t").is_empty());
    assert!(bench.with(flags, &["--ban", "\\n", "--prompt", "The"]).lines().count() == 1);
    let wrong = bench.command(flags).args(["--stop", "\\u{zz}"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("code point"), "{}", stderr(&wrong));
}

#[test]
fn characters_that_look_alike_are_told_apart() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "generate --model run --temperature 0 --max-tokens 1";
    let said = |more: &[&str]| stderr(&bench.command(flags).args(more).output().unwrap());
    let message = said(&["--prompt", "caf\u{e9}"]);
    assert!(message.contains("does not know \"\u{e9}\" (U+00E9)"), "{message}");
    let message = said(&["--logit-bias", "e\u{301}=3"]);
    assert!(message.contains("(U+0065 U+0301)"), "{message}");
}

#[test]
fn flags_without_effect_are_refused() {
    let bench = Bench::new();
    for (flags, part) in [
        ("generate --temperature 0 --top-k 3", "--top-k"),
        ("generate --temperature 0 --min-p 0.1", "--min-p"),
        ("generate --penalty-window 3", "--penalty-window"),
        ("generate --min-tokens 3", "--stop"),
        ("train --schedule constant --warmup 0.1", "--warmup"),
        ("train --valid text.txt --valid-fraction 0.2", "--valid-fraction"),
        ("train --quiet --log-every 3", "--log-every"),
    ] {
        let message = bench.fails(2, flags);
        assert!(message.contains(part), "{flags}: {message}");
    }
}

#[test]
fn a_sample_is_the_same_in_text_and_json() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "generate --model run --seed 7 --max-tokens 12 --num-samples 3 --prompt The";
    let text = bench.ok(flags);
    for line in bench.ok(&format!("{flags} --json")).lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&sample["seed"], &sample["prompt"]), (&7.into(), &"The".into()));
        let (number, written) = (&sample["sample"], sample["text"].as_str().unwrap());
        let shown = format!("--- sample {number} ---\nThe{written}\n");
        assert!(text.contains(&shown), "{text}: {shown}");
    }
}

#[test]
fn the_likeliest_tokens_are_told() {
    let bench = Bench::new();
    bench.trained("run", "");
    let line = bench
        .ok("generate --model run --temperature 0 --max-tokens 4 --prompt The --json --logprobs 3");
    let sample: Value = serde_json::from_str(&line).unwrap();
    for token in sample["logprobs"].as_array().unwrap() {
        let top = token["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // the likeliest is the one taken
        assert_eq!(top[0]["id"], token["id"]);
        assert_eq!(top[0]["logprob"], token["logprob"]);
        let logprobs: Vec<f64> = top.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.is_sorted_by(|a, b| a >= b), "{logprobs:?}");
        assert!(logprobs.iter().map(|p| p.exp()).sum::<f64>() <= 1.0 + 1e-6);
        let text = token["token"].as_str().unwrap();
        assert_eq!(token["bytes"], serde_json::json!(text.as_bytes()));
    }
}

#[test]
fn a_wrong_folder_is_no_name_on_the_hub() {
    let bench = Bench::new();
    bench.trained("runs/fox", "");
    let message = bench.fails(1, "generate --model runs/typo");
    assert!(message.contains("runs/typo is not a folder; runs has fox"), "{message}");
    assert!(!message.contains("Hub"), "{message}");
    let message = bench.fails(1, "convert runs/typo out");
    assert!(
        message.contains("runs/typo is not a folder") && !message.contains("--model"),
        "{message}"
    );
    let message = bench.fails(1, "info a/b/c");
    assert!(message.contains("a/b/c is not a folder"), "{message}");
}

#[test]
fn a_checkpoint_is_a_model() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "--temperature 0 --max-tokens 20 --prompt The";
    let from = |model: &str| bench.ok(&format!("generate --model {model} {flags}"));
    assert_eq!(from("run/checkpoints/step-30").len(), from("run").len());
    let info = bench.json("info run/checkpoints/step-30");
    let run = bench.json("info run");
    assert_eq!(info["parameters"], run["parameters"]);
    assert_eq!(info["tokenizer"], run["tokenizer"]);
    let loss = bench.json("eval --model run/checkpoints/step-30 --data text.txt");
    assert!(loss["loss"].as_f64().unwrap() > 0.0);
    bench.ok("convert run/checkpoints/step-30 converted");
    assert_eq!(from("converted"), from("run/checkpoints/step-30"));
    // a folder that is no checkpoint of a run has no configuration
    std::fs::create_dir_all(bench.path("checkpoints/step-1")).unwrap();
    assert!(bench.fails(1, "info checkpoints/step-1").contains("step-1"));
}

#[test]
fn a_file_of_weights_is_listed() {
    let bench = Bench::new();
    bench.trained("run", "");
    let listed = bench.json("info run/model.safetensors");
    let tensors = listed["tensors"].as_array().unwrap();
    let numbers: u64 = tensors
        .iter()
        .map(|t| {
            t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>()
        })
        .sum();
    assert_eq!(numbers, bench.json("info run")["parameters"].as_u64().unwrap());
    let text = bench.ok("info run/model.safetensors");
    assert!(text.ends_with(&format!("{} tensors, {numbers} numbers\n", tensors.len())), "{text}");
}

/// Lines that tell how far a run is.
fn progress(output: &std::process::Output) -> usize {
    let text = stderr(output);
    text.lines().filter(|line| line.contains("tokens/s ETA")).count()
}

#[test]
fn progress_is_told_as_often_as_asked() {
    let bench = Bench::new();
    let run =
        |more: &str| bench.run(&format!("train --data text.txt --force --out run {SMALL} {more}"));
    let output = run("--log-every 10");
    assert_eq!(progress(&output), 3, "{}", stderr(&output));
    let quiet = run("--quiet");
    assert!(quiet.status.success());
    assert_eq!(stderr(&quiet), "");
    assert!(String::from_utf8_lossy(&quiet.stdout).starts_with("30 steps"));
}

#[test]
fn the_first_line_says_what_it_computes_in() {
    let bench = Bench::new();
    for dtype in ["f32", "bf16"] {
        let output =
            bench.run(&format!("train --data text.txt --out {dtype} --dtype {dtype} {SMALL}"));
        let text = stderr(&output);
        let first = text.lines().next().unwrap();
        assert!(first.contains(&format!("parameters in {dtype} (")), "{first}");
    }
}

#[test]
fn validations_take_a_tenth() {
    let bench = Bench::new();
    let validations = |flags: &str| {
        let output = bench.run(&format!(
            "train --data text.txt --config net.json --batch-size 2 --seq-len 16 --out run --force {flags}"
        ));
        let text = stderr(&output);
        assert!(output.status.success(), "{text}");
        text.lines().filter(|line| line.contains("validation loss")).count()
    };
    // 540 tokens of validation cost as much as 180 of training: a tenth of 100 · 32 pays for one
    assert_eq!(validations("--steps 100"), 1);
    assert_eq!(validations("--steps 300"), 5);
    // who names a number has it, who waits for validations too
    assert_eq!(validations("--steps 100 --valid-every 20"), 5);
    assert!(validations("--steps 100 --patience 100") >= 20);
    // the last one is always there
    assert_eq!(validations("--minutes 0.0001"), 1);
}

/// Number of the byte at which a text of lines begins to repeat itself, so that its end is like no other part.
fn long_text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    let mut number = 7u64;
    while text.len() < bytes {
        number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let word =
            ["The quick brown fox", "jumps over", "the lazy dog.\n"][(number >> 61) as usize % 3];
        text += word;
        text.push(' ');
    }
    text
}

#[test]
fn of_a_long_prompt_the_end_is_read() {
    let bench = Bench::new();
    bench.trained("run", "");
    let text = long_text(300_000);
    bench.write("long.txt", &text);
    bench.write("end.txt", &text[text.len() - 2000..]);
    for more in ["--dtype f32", "--repetition-penalty 1.3 --penalty-window 1000", "--dtype int8"] {
        let flags = format!("generate --model run --temperature 0 --max-tokens 60 {more}");
        let from = |file: &str, state: &str| {
            bench.ok(&format!("{flags} --prompt-file {file} --save-state {state} --force"))
        };
        let expected = from("end.txt", "end.state");
        assert_eq!(from("long.txt", "long.state"), expected, "{more}");
        // a pipe has no end to seek
        let piped = bench
            .command(&format!("{flags} --prompt-file -"))
            .write_stdin(text.clone())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&piped.stdout), expected, "{more}");
        let go_on = |state: &str| bench.ok(&format!("{flags} --load-state {state}"));
        assert_eq!(go_on("long.state"), go_on("end.state"), "{more}");
    }
}

/// Peak memory of a command, from the system.
#[cfg(target_os = "linux")]
#[test]
fn a_prompt_of_a_hundred_megabytes_takes_no_memory() {
    let bench = Bench::new();
    bench.trained("run", "");
    let part = long_text(1 << 20);
    let file = std::fs::File::create(bench.path("huge.txt")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    for _ in 0..100 {
        std::io::Write::write_all(&mut file, part.as_bytes()).unwrap();
    }
    drop(file);
    let tcn = assert_cmd::cargo::cargo_bin("tcn");
    let limited = |flags: &str| {
        // address space, in KiB: what the program maps beside its threads' stacks
        let line = format!("ulimit -v 400000; exec {} {flags} --threads 1", tcn.display());
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .current_dir(bench.dir.path())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{flags}: {}", stderr(&output));
        output.stdout
    };
    let flags = "generate --model run --temperature 0 --max-tokens 5 --prompt-file";
    bench.write("end.txt", &part[part.len() - 5000..]);
    assert_eq!(limited(&format!("{flags} huge.txt")), limited(&format!("{flags} end.txt")));
}
