//! The `tcn` command as a user runs it, with small networks on small texts.

mod bad_input;
mod bench;
#[cfg(unix)]
mod bounds;
#[path = "../common/close.rs"]
mod close;
mod documents;
mod files_people_have;
mod fine_tuning;
mod first_hour;
mod generate;
mod inputs;
mod large_texts;
mod masked;
mod models;
mod not_mixed;
mod pairs;
mod receptive_field;
mod run;
mod runs_kept;
mod score;
mod series;
#[cfg(feature = "serve")]
mod serve;
#[cfg(target_os = "linux")]
mod terminal;
mod texts;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

/// A folder with a text and a small network, in which commands run.
struct Bench {
    dir: tempfile::TempDir,
}

const NETWORK: &str = r#"{
    "model_type": "tcn", "embedding_dim": 16, "tie_weights": true,
    "network": { "num_channels": [16, 16], "kernel_size": 3, "norm": "rms", "gate": "glu", "pre_norm": true }
}"#;

/// Flags of a run that ends in a moment.
const SMALL: &str = "--config net.json --steps 30 --batch-size 4 --seq-len 32 --valid-every 15";

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        bench.write("net.json", NETWORK);
        bench.write("text.txt", "The quick brown fox jumps over the lazy dog.\n".repeat(120));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::cargo_bin("tcn").unwrap();
        command.current_dir(self.dir.path()).args(arguments.split_whitespace());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs, expects success, gives standard output.
    fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{arguments} --json"))).unwrap()
    }

    /// Runs, expects this exit code and nothing on standard output, gives the message.
    fn fails(&self, code: i32, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments}");
        let message = stderr(&output);
        assert!(
            message.contains("tcn: ") && !message.contains("panicked"),
            "{arguments}: {message}"
        );
        message
    }

    /// A trained model.
    fn trained(&self, out: &str, more: &str) {
        self.ok(&format!("train --data text.txt --out {out} {SMALL} {more}"));
    }

    fn bytes(&self, file: impl AsRef<Path>) -> Vec<u8> {
        std::fs::read(self.dir.path().join(file)).unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until it is so, a minute at most.
fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "no {what} within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ctrl-C.
#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    send("INT", child);
}

#[cfg(unix)]
fn send(signal: &str, child: &std::process::Child) {
    // the shell has `kill` built in; the program of that name may not be installed
    let kill = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{signal} {}", child.id())])
        .status()
        .unwrap();
    assert!(kill.success());
}
