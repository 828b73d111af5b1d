//! Texts from anywhere, any tokenizer, and what a state and a schedule see of them.

use std::process::Command;

use serde_json::{Value, json};

use super::{Bench, stderr};

/// Runs a line of shell in which `tcn` is the program.
#[cfg(unix)]
fn shell(bench: &Bench, line: &str) -> std::process::Output {
    let tcn = assert_cmd::cargo::cargo_bin("tcn");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("tcn() {{ {} \"$@\"; }}; {line}", tcn.display())]);
    command.current_dir(bench.dir.path()).output().unwrap()
}

#[cfg(unix)]
#[test]
fn pipes_are_read_where_files_are() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.write("prompt.txt", "The quick");
    let flags = "--model run --max-tokens 20 --temperature 0";
    let expected = bench.ok(&format!("generate {flags} --prompt-file prompt.txt"));
    for source in [
        format!("cat prompt.txt | tcn generate {flags} --prompt-file /dev/stdin"),
        format!("mkfifo f && (cat prompt.txt > f &) ; tcn generate {flags} --prompt-file f"),
    ] {
        let output = shell(&bench, &source);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{source}: {}",
            stderr(&output)
        );
    }
    let losses = [
        "tcn eval --model run --data text.txt --json",
        "cat text.txt | tcn eval --model run --data /dev/stdin --json",
    ];
    let [file, pipe] = losses.map(|line| shell(&bench, line).stdout);
    assert_eq!(file, pipe);
    // a file that says that it is empty and is not
    #[cfg(target_os = "linux")]
    {
        let output = shell(&bench, &format!("tcn generate {flags} --prompt-file /proc/version"));
        assert!(stderr(&output).contains("/proc/version"), "{}", stderr(&output));
    }
    let train = format!("cat text.txt | tcn train --data /dev/stdin --out piped {}", super::SMALL);
    assert!(shell(&bench, &train).status.success());
    bench.trained("filed", "");
    assert!(bench.bytes("piped/model.safetensors") == bench.bytes("filed/model.safetensors"));
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let bench = Bench::new();
    let text = String::from_utf8(bench.bytes("text.txt")).unwrap();
    bench.write("mark.txt", format!("\u{feff}{text}"));
    bench.trained("run", "");
    bench.ok(&format!("train --data mark.txt --out marked {}", super::SMALL));
    assert_eq!(bench.bytes("run/tokenizer.json"), bench.bytes("marked/tokenizer.json"));
    assert!(bench.bytes("run/model.safetensors") == bench.bytes("marked/model.safetensors"));
    let loss = |file: &str| bench.json(&format!("eval --model run --data {file}"));
    assert_eq!(loss("text.txt"), loss("mark.txt"));
    bench.write("prompt.txt", "\u{feff}The quick");
    let flags = "generate --model run --max-tokens 20 --temperature 0";
    let whole = bench.ok(&format!("{flags} --prompt-file prompt.txt"));
    bench.write("prompt.txt", "The quick");
    assert_eq!(whole, bench.ok(&format!("{flags} --prompt-file prompt.txt")));
}

/// Trains a model on words of a tokenizer of this kind.
fn word_model(bench: &Bench, kind: &str) {
    let words =
        ["<unk>", "The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "."];
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let mut model = json!({"type": kind, "vocab": vocab, "unk_token": "<unk>"});
    if kind == "WordPiece" {
        model["continuing_subword_prefix"] = "##".into();
        model["max_input_chars_per_word"] = 100.into();
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null, "model": model
    });
    bench.write("words.json", tokenizer.to_string());
    bench
        .ok(&format!("train --data text.txt --tokenizer words.json --out {kind} {}", super::SMALL));
}

#[test]
fn tokenizers_of_words_are_prompted() {
    let bench = Bench::new();
    for kind in ["WordLevel", "WordPiece"] {
        word_model(&bench, kind);
        bench.write("prompt.txt", "The quick");
        let flags = format!("generate --model {kind} --max-tokens 5 --temperature 0 --json");
        let text = |more: &[&str]| -> Value {
            let mut command = bench.command(&flags);
            let output = command.args(more).output().unwrap();
            assert!(output.status.success(), "{kind} {more:?}: {}", stderr(&output));
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            json["text"].clone()
        };
        assert_eq!(text(&["--prompt", "The quick"]), text(&["--prompt-file", "prompt.txt"]));
        assert_ne!(text(&["--prompt", "The quick"]), text(&["--prompt", "the lazy"]));
        let biased = text(&["--prompt", "The quick", "--logit-bias", "fox=1000"]);
        assert!(biased.as_str().unwrap().matches("fox").count() == 5, "{biased}");
    }
}

#[test]
fn unknown_characters_are_treated_alike_everywhere() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.write("prompt.txt", "Thé→");
    let flags = "generate --model run --max-tokens 5 --temperature 0";
    let mut texts = Vec::new();
    for (more, input) in
        [("--prompt Thé→", ""), ("--prompt-file prompt.txt", ""), ("--prompt -", "Thé→")]
    {
        let output =
            bench.command(&format!("{flags} --json {more}")).write_stdin(input).output().unwrap();
        assert!(output.status.success(), "{more}: {}", stderr(&output));
        // of a prompt that is shown, the characters are named
        let said = stderr(&output);
        let named = said.contains("U+00E9") && said.contains("U+2192");
        assert!(named || said.contains("2 tokens"), "{more}: {said}");
        texts.push(serde_json::from_slice::<Value>(&output.stdout).unwrap()["text"].clone());
    }
    assert!(texts[0] == texts[1] && texts[1] == texts[2], "{texts:?}");
    let output =
        bench.command(&format!("{flags} --interactive")).write_stdin("Thé→\n").output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("2 tokens"), "{}", stderr(&output));
}

#[test]
fn a_state_ends_where_the_shown_text_ends() {
    let bench = Bench::new();
    // learned by heart
    bench.ok(
        "train --data text.txt --out run --config net.json --steps 300 --batch-size 4 --seq-len 32 --lr 0.03 --weight-decay 0.5",
    );
    let flags = "generate --model run --temperature 0 --dtype f32";
    // in the middle of a word, in letters that are tokens
    bench.ok(&format!("{flags} --prompt The --stop lazy --max-tokens 200 --save-state s"));
    let shown = bench.json(&format!("{flags} --prompt The --stop lazy --max-tokens 200"))["text"]
        .as_str()
        .unwrap()
        .to_string();
    assert!(shown.ends_with("over the "), "{shown:?}");
    let after = bench.json(&format!("{flags} --load-state s --max-tokens 30"))["text"].clone();
    bench.write("prompt.txt", format!("The{shown}"));
    let expected =
        bench.json(&format!("{flags} --prompt-file prompt.txt --max-tokens 30"))["text"].clone();
    assert_eq!(after, expected);
    assert!(after.as_str().unwrap().starts_with("lazy"), "{after}");
    // a stop text that ends within a token
    bench.ok("train --data text.txt --tokenizer bpe:300 --out bpe --config net.json --steps 300 --batch-size 4 --seq-len 32");
    let flags = flags.replace("--model run", "--model bpe");
    for stop in ["azy", "umps ov", "ck br"] {
        let mut command = bench.command(&format!(
            "{flags} --prompt The --max-tokens 200 --save-state b --force --json"
        ));
        let output = command.args(["--stop", stop]).output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown["finish_reason"], "stop", "{stop}");
        let after = bench.json(&format!("{flags} --load-state b --max-tokens 20"))["text"].clone();
        let whole = format!("The{}", shown["text"].as_str().unwrap());
        assert!(!whole.contains(stop));
        assert!(!after.as_str().unwrap().is_empty());
        // nothing of the stop text was read: it can come again
        assert!(!after.as_str().unwrap().starts_with(&stop[1..]), "{stop}: {after}");
    }
}

#[test]
fn a_dialogue_reads_the_line_end_that_it_shows() {
    let bench = Bench::new();
    bench.ok(
        "train --data text.txt --out run --config net.json --steps 300 --batch-size 4 --seq-len 32",
    );
    let flags = "generate --model run --temperature 0 --dtype f32 --max-tokens 9";
    let mut command = bench.command(&format!("{flags} --interactive"));
    let output = command.write_stdin("The quick\n\n").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<&str> = shown.lines().collect();
    let of = |prompt: String| {
        bench.write("prompt.txt", prompt);
        bench.json(&format!("{flags} --prompt-file prompt.txt"))["text"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let first = of("The quick\n".into());
    assert_eq!(answers[0], first.trim_end_matches('\n'), "{shown:?}");
    let end = if first.ends_with('\n') { "" } else { "\n" };
    let second = of(format!("The quick\n{first}{end}"));
    assert!(
        shown[first.len() + end.len()..].starts_with(second.trim_end_matches('\n')),
        "{shown:?} {second:?}"
    );
}

#[test]
fn patience_and_plateau_can_act_by_default() {
    let bench = Bench::new();
    let flags = "train --data text.txt --config net.json --batch-size 4 --seq-len 32 --steps 100";
    let validated = |out: &str| {
        let log = String::from_utf8(bench.bytes(format!("{out}/metrics.jsonl"))).unwrap();
        log.lines().filter(|line| line.contains("valid_loss")).count()
    };
    bench.ok(&format!("{flags} --out plain"));
    assert_eq!(validated("plain"), 5);
    bench.ok(&format!("{flags} --out plateau --schedule plateau --optimizer sgd --lr 0.1"));
    assert_eq!(validated("plateau"), 24);
    // a rate at which nothing gets better
    let result =
        bench.json(&format!("{flags} --out patient --patience 3 --lr 1e-9 --optimizer sgd"));
    assert_eq!(validated("patient"), 4, "the first, and three that are no better");
    assert_eq!(result["steps"], 20);
    let output = bench.run(&format!("{flags} --out never --patience 9 --valid-every 20"));
    assert!(stderr(&output).contains("cannot act"), "{}", stderr(&output));
}

#[test]
fn a_saved_state_is_not_overwritten_unasked() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.write("s", "mine");
    let flags = "generate --model run --prompt The --max-tokens 5 --save-state s";
    assert!(bench.fails(2, flags).contains("--force"));
    assert_eq!(bench.bytes("s"), b"mine");
    bench.ok(&format!("{flags} --force"));
    // going on with one's own state
    bench.ok("generate --model run --load-state s --save-state s --max-tokens 5");
    assert!(bench.fails(2, "generate --model run --load-state s --force").contains("--save-state"));
}

#[test]
fn a_mask_that_nobody_reads_is_refused() {
    use candle_core::{DType, Device, Tensor};
    use candle_tcn::files::write_tensors;
    let bench = Bench::new();
    bench.trained("run", "");
    let ids = Tensor::zeros((2, 5), DType::U32, &Device::Cpu).unwrap();
    let mut inputs = std::collections::HashMap::from([("input_ids".to_string(), ids)]);
    for (ones, dims, refused) in
        [(true, (2, 5), false), (false, (2, 5), true), (true, (2, 4), true)]
    {
        let mask = match ones {
            true => Tensor::ones(dims, DType::U8, &Device::Cpu),
            false => Tensor::zeros(dims, DType::U8, &Device::Cpu),
        };
        inputs.insert("attention_mask".into(), mask.unwrap());
        write_tensors(bench.path("in.safetensors"), &inputs).unwrap();
        let flags = "run --model run --input in.safetensors --output out.safetensors --force";
        let output = bench.run(flags);
        assert_eq!(!output.status.success(), refused, "{ones} {dims:?}: {}", stderr(&output));
        assert!(!refused || stderr(&output).contains("mask"), "{}", stderr(&output));
        bench.ok(&format!("{flags} --no-mask"));
    }
}
