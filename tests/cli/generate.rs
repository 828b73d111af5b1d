//! `tcn generate`: many samples, saved states, prompts from anywhere, a dialogue, Ctrl-C.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use serde_json::Value;

use super::{Bench, interrupt, stderr};

impl Bench {
    fn generate(&self, flags: &str) -> String {
        self.ok(&format!("generate --model run --seed 5 {flags}"))
    }

    /// The samples in order.
    fn samples(&self, flags: &str) -> Vec<Value> {
        let lines = self.generate(&format!("--json {flags}"));
        let mut samples: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        samples.sort_by_key(|sample| sample["sample"].as_u64());
        samples
    }

    fn text(&self, flags: &str) -> String {
        self.samples(flags)[0]["text"].as_str().unwrap().to_string()
    }

    /// Its standard input and output at hand.
    pub(super) fn started(&self, arguments: &str) -> Child {
        std::process::Command::new(assert_cmd::cargo::cargo_bin("tcn"))
            .current_dir(self.dir.path())
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[test]
fn a_sample_does_not_depend_on_the_others() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "--prompt The --dtype f32 --frequency-penalty 0.1 --max-tokens";
    let texts = |n: usize| -> Vec<String> {
        // more than go through the network at once
        let samples = bench.samples(&format!("{flags} 30 --stop fox --num-samples {n}"));
        assert_eq!(samples.len(), n);
        let text = |sample: &Value| sample["text"].as_str().unwrap().to_string();
        samples.iter().map(text).collect()
    };
    let many = texts(70);
    assert_eq!(texts(1), many[..1]);
    assert_eq!(texts(3), many[..3]);
    let distinct: std::collections::HashSet<_> = many.iter().collect();
    assert!(distinct.len() > 60, "{distinct:?}");
    // as text they come in order, each after its heading and the prompt
    let shown = bench.generate(&format!("{flags} 30 --stop fox --num-samples 3"));
    let expected: String =
        (0..3).map(|i| format!("--- sample {i} ---\nThe{}\n", many[i])).collect();
    assert_eq!(shown, expected);
    assert!(bench.samples(&format!("{flags} 0 --num-samples 2")).iter().all(|s| s["tokens"] == 0));
}

#[test]
fn a_saved_state_goes_on_as_if_nothing_had_been() {
    let bench = Bench::new();
    bench.trained("run", "");
    for more in ["--frequency-penalty 0.2", "--dtype int8", "--temperature 0"] {
        let whole = bench.text(&format!("--prompt The --max-tokens 90 {more}"));
        let first =
            bench.text(&format!("--prompt The --max-tokens 40 --save-state s --force {more}"));
        // a state is loaded, continued and saved again
        let second = bench.text(&format!("--load-state s --save-state s --max-tokens 20 {more}"));
        let third = bench.text(&format!("--load-state s --max-tokens 30 {more}"));
        assert_eq!(first + &second + &third, whole, "{more}");
    }
    // a prompt, read once, and several continuations of it
    bench.generate("--prompt The --max-tokens 0 --save-state p");
    let flags = "--max-tokens 30 --num-samples 3";
    let of = |flags: &str| -> Vec<Value> {
        bench.samples(flags).iter().map(|s| s["text"].clone()).collect()
    };
    assert_eq!(of(&format!("--load-state p {flags}")), of(&format!("--prompt The {flags}")));
    // more text after the state
    let both = bench.text("--prompt Thequick --max-tokens 20 --temperature 0");
    let after = bench.text("--load-state p --prompt quick --max-tokens 20 --temperature 0");
    assert_eq!(after, both);
}

#[test]
fn a_state_that_is_not_this_models_is_refused() {
    let bench = Bench::new();
    bench.trained("run", "");
    bench.trained("other", "--seed 9");
    bench.generate("--prompt The --max-tokens 5 --save-state s");
    let message = bench.fails(1, "generate --model other --load-state s");
    assert!(message.contains("s: ") && message.contains("another model"), "{message}");
    let bytes = bench.bytes("s");
    bench.write("cut", &bytes[..bytes.len() / 2]);
    let message = bench.fails(1, "generate --model run --load-state cut");
    assert!(message.contains("not whole"), "{message}");
    // the weights themselves are safetensors, and no state
    let message = bench.fails(1, "generate --model run --load-state run/model.safetensors");
    assert!(message.contains("expected a state"), "{message}");
    assert!(bench.fails(1, "generate --model run --load-state none").contains("none"));
    let message = bench.fails(2, "generate --model run --save-state s --num-samples 2");
    assert!(message.contains("--num-samples") && bench.bytes("s") == bytes, "{message}");
}

#[test]
fn prompts_come_from_files_and_standard_input() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "--max-tokens 30 --temperature 0";
    let expected = bench.text(&format!("--prompt Thequick {flags}"));
    bench.write("prompt.txt", "Thequick");
    assert_eq!(bench.text(&format!("--prompt-file prompt.txt {flags}")), expected);
    for dash in ["--prompt-file -", "--prompt -"] {
        let mut command = bench.command(&format!("generate --model run {dash} {flags}"));
        let output = command.write_stdin("Thequick").output().unwrap();
        // it is not shown, only what follows
        let message = stderr(&output);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_eq!(shown, format!("{expected}\n"), "{message}");
    }
    // longer than is read at once: the state is that of the whole
    let long = String::from_utf8(bench.bytes("text.txt")).unwrap().repeat(250);
    assert!(long.len() > 1 << 20);
    bench.write("long.txt", &long);
    bench.write("end.txt", &long[long.len() - 4500..]);
    assert_eq!(
        bench.text(&format!("--prompt-file long.txt {flags}")),
        bench.text(&format!("--prompt-file end.txt {flags}"))
    );
    // nothing is an empty prompt, wherever it comes from
    bench.write("empty.txt", "");
    let unprompted = bench.text(flags);
    assert_eq!(bench.text(&format!("--prompt-file empty.txt {flags}")), unprompted);
    let mut command = bench.command(&format!("generate --model run --prompt-file - {flags}"));
    let output = command.write_stdin("").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{unprompted}\n"));
    let message = bench.fails(1, "generate --model run --prompt-file none.txt");
    assert!(message.contains("none.txt"), "{message}");
    bench.fails(2, "generate --model run --prompt a --prompt-file prompt.txt");
    bench.write("bad.txt", b"The quick\xff fox");
    assert!(bench.fails(1, "generate --model run --prompt-file bad.txt").contains('9'));
}

#[test]
fn log_probabilities_are_those_of_the_tokens() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "--prompt The --max-tokens 20 --temperature 0 --logprobs --dtype f32";
    let sample = &bench.samples(flags)[0];
    let tokens = sample["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), 20);
    let text: String = tokens.iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(text, sample["text"].as_str().unwrap());
    let sum: f64 = tokens.iter().map(|t| t["logprob"].as_f64().unwrap()).sum();
    // the same text costs the same when it is evaluated
    let cost = |text: &str| {
        bench.write("scored.txt", text);
        let result = bench.json("eval --model run --data scored.txt");
        result["loss"].as_f64().unwrap() * result["tokens"].as_f64().unwrap()
    };
    let expected = cost(&format!("The{text}")) - cost("The");
    assert!((sum + expected).abs() < 1e-3, "{sum} {expected}");
    assert!(bench.fails(2, "generate --model run --logprobs").contains("--json"));
}

#[test]
fn a_dialogue_keeps_its_state() {
    let bench = Bench::new();
    bench.trained("run", "");
    let flags = "generate --model run --max-tokens 12 --temperature 0 --interactive";
    let talk = |flags: &str, lines: &str| {
        let output = bench.command(flags).write_stdin(lines).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let message = stderr(&output);
        (String::from_utf8(output.stdout).unwrap(), message)
    };
    let (text, _) = talk(flags, "The\n\nfox\n");
    // the same, piece by piece; the model reads the line ends that the screen shows
    let mut expected = String::new();
    let mut read = String::new();
    for line in ["The\n", "", "fox\n"] {
        read += line;
        bench.write("a.txt", &read);
        let mut text = bench.text("--max-tokens 12 --temperature 0 --prompt-file a.txt");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        expected += &text;
        read += &text;
    }
    assert_eq!(text, expected);
    // what the model has no token for is said
    let (text, message) = talk(flags, "→\nThe\n");
    assert!(message.contains("1 token of text") && !text.is_empty(), "{message}");
    let message = bench.fails(2, &format!("{flags} --prompt -"));
    assert!(message.contains("--interactive"), "{message}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_text_and_saves_the_state() {
    let bench = Bench::new();
    bench.trained("run", "");
    let mut child =
        bench.started("generate --model run --seed 5 --max-tokens 100000000 --save-state s");
    let mut out = child.stdout.take().unwrap();
    let mut text = vec![0; 100];
    out.read_exact(&mut text).unwrap();
    interrupt(&child);
    out.read_to_end(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(text.ends_with(b"\n"));
    // it goes on where it ended
    let written = text.len() - 1;
    let more = bench.text("--load-state s --max-tokens 30");
    let whole = bench.text(&format!("--max-tokens {}", written + 30));
    assert_eq!(String::from_utf8(text[..written].to_vec()).unwrap() + &more, whole);
    // as JSON
    let mut child =
        bench.started("generate --model run --max-tokens 3000000 --json --num-samples 2");
    std::thread::sleep(std::time::Duration::from_millis(500));
    interrupt(&child);
    let mut lines = String::new();
    child.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for line in lines.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        assert_eq!(sample["finish_reason"], "interrupted");
    }
    assert_eq!(lines.lines().count(), 2);
}

#[cfg(unix)]
#[test]
fn ctrl_c_in_a_dialogue_ends_the_answer_then_the_program() {
    let bench = Bench::new();
    bench.trained("run", "");
    let mut child =
        bench.started("generate --model run --max-tokens 100000000 --interactive --save-state s");
    let (mut input, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut some = [0; 100];
    for _ in 0..2 {
        input.write_all(b"The\n").unwrap();
        out.read_exact(&mut some).unwrap();
        interrupt(&child);
        // what was on its way still comes; then it waits
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).map(|_| rest)
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    assert!(reader.join().unwrap().unwrap().ends_with(b"\n"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!bench.bytes("s").is_empty());
}

#[test]
fn int8_costs_almost_nothing() {
    let bench = Bench::new();
    // of the built-in model, whose text it is
    let text = include_str!("../../src/bin/tcn/default/kjv.txt");
    bench.write("kjv.txt", &text[..40_000]);
    let bits = |dtype: &str| {
        let result = bench.json(&format!("eval --data kjv.txt --dtype {dtype}"));
        result["bits_per_character"].as_f64().unwrap()
    };
    let exact = bits("f32");
    for dtype in ["int8", "bf16"] {
        let rounded = bits(dtype);
        assert!((rounded - exact).abs() < 0.01, "{dtype}: {rounded}, {exact}");
        assert_ne!(rounded, exact, "{dtype} rounds");
    }
}
