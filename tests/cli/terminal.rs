//! Control characters of names and texts: shown on a terminal, given on as they are in a pipe.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Bench;

/// Sets the clipboard, clears the screen, changes the colour, and turns the direction of reading.
const HOSTILE: &str = "\u{1b}]52;c;cm0gLXJm\u{7}\u{1b}[2J\u{9b}31m\u{202e}\u{2066}";

/// How a terminal is shown it.
const SHOWN: &str = "\\u001b]52;c;cm0gLXJm\\u0007\\u001b[2J\\u009b31m\\u202e\\u2066";

/// What a shell command writes to a terminal that `script` of util-linux makes; `None` without it.
fn on_terminal(bench: &Bench, command: &str) -> Option<String> {
    let run = Command::new("script")
        .args(["-qec", &command.replace("tcn", env!("CARGO_BIN_EXE_tcn")), "/dev/null"])
        .env("TERM", "xterm")
        .current_dir(bench.dir.path())
        .stdin(Stdio::null())
        .output();
    match run {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n")),
        Err(error) => {
            // past the capture of the test harness
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED: output on a terminal, for want of `script` (util-linux): {error}"
            );
            None
        }
    }
}

/// Fails for a character that acts on a terminal, other than line ends and tabs.
fn expect_harmless(text: &str) {
    let acts =
        |c: char| c.is_control() && !matches!(c, '\n' | '\t') || "\u{202e}\u{2066}".contains(c);
    assert!(!text.contains(acts), "{text:?}");
}

#[test]
fn names_in_errors_and_results() {
    let bench = Bench::new();
    bench.write("a.json", "{}");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/kjv-tiny");
    std::os::unix::fs::symlink(model, bench.path("model")).unwrap();
    for (command, code) in [
        // an error of a file, one of clap, one of a flag, a result, the same as JSON
        (vec!["info", HOSTILE], 1),
        (vec![HOSTILE], 2),
        (vec!["info", "--threads", HOSTILE, "model"], 2),
        (vec!["generate", "--max-tokens", "1", "--load-state", HOSTILE], 1),
        (vec!["convert", "model", HOSTILE], 0),
    ] {
        let quoted: Vec<_> = command.iter().map(|word| format!("'{word}'")).collect();
        if let Some(text) = on_terminal(&bench, &format!("tcn {}", quoted.join(" "))) {
            // clap leaves out what it takes for colours
            assert!(code == 2 || text.contains(SHOWN), "{command:?}: {text:?}");
            expect_harmless(&text);
        }
        let _ = std::fs::remove_dir_all(bench.path(HOSTILE));
        let output = bench.command("").args(&command).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}");
        let piped = [output.stdout, output.stderr].concat();
        let piped = String::from_utf8(piped).unwrap();
        assert!(code == 2 || piped.contains(HOSTILE), "{command:?}: {piped:?}");
        let _ = std::fs::remove_dir_all(bench.path(HOSTILE));
    }
    let command = format!("tcn convert model '{HOSTILE}' --json");
    if let Some(json) = on_terminal(&bench, &command) {
        expect_harmless(&json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["out"], HOSTILE);
    }
}

#[test]
fn text_of_a_model() {
    let bench = Bench::new();
    // a sample of such a text is shown during training too
    bench.write("escapes.txt", "\u{1b}\u{7}".repeat(2000));
    let train = "train --data escapes.txt --tokenizer byte --config net.json --steps 30 --batch-size 4 --seq-len 32";
    let trained = on_terminal(&bench, &format!("tcn {train} --valid-every 15 --out shown"));
    if let Some(text) = trained {
        // the bar itself moves the cursor
        assert!(text.contains("\\u00") && !text.contains(['\u{7}', '\u{1}']), "{text:?}");
    }
    bench.ok(&format!("{train} --out run"));
    let prompt = format!("one\n\ttwo {HOSTILE}");
    for (flags, raw, shown) in [
        (
            format!("--prompt '{prompt}' --max-tokens 0"),
            format!("{prompt}\n"),
            format!("one\n\ttwo {SHOWN}\n"),
        ),
        (
            "--allow-chars '\u{1b}' --max-tokens 3".to_string(),
            "\u{1b}\u{1b}\u{1b}\n".to_string(),
            "\\u001b\\u001b\\u001b\n".to_string(),
        ),
    ] {
        let command = format!("tcn generate --model run --temperature 0 {flags}");
        if let Some(text) = on_terminal(&bench, &command) {
            // a terminal of `script` shows tabs as they are
            assert_eq!(text, shown);
        }
        let piped = on_terminal(&bench, &format!("{command} | od -An -vtx1 -w1000"));
        if let Some(piped) = piped {
            let hex: Vec<_> = raw.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(piped.split_whitespace().collect::<Vec<_>>(), hex);
        }
    }
    let dialogue = "echo | tcn generate --model run --interactive --allow-chars '\u{1b}' --max-tokens 3 --seed 1";
    if let Some(text) = on_terminal(&bench, dialogue) {
        assert!(text.contains("\\u001b\\u001b\\u001b"), "{text:?}");
        expect_harmless(&text);
    }
}
