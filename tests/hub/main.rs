//! Models from the Hub and back, against a Hub on the loopback.

mod commands;
mod contents;
mod errors;
mod faults;
#[cfg(unix)]
mod planted;
mod pull;
mod push;
#[cfg(unix)]
mod readme;
mod secrets;
mod server;
mod shards;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use candle_tcn::hub::{Hub, HubConfig, Progress};
use serde_json::Value;
use server::Server;

/// The files of a small model that works.
const CONFIG: &[u8] = include_bytes!("../../models/kjv-tiny/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../models/kjv-tiny/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../models/kjv-tiny/tokenizer.json");

/// A Hub with one model, `org/model`, and a user with an empty cache.
struct World {
    server: Server,
    commit: String,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        let commit = server.add(
            "org/model",
            &[
                (".gitattributes", b"* text"),
                ("README.md", b"# A model\n"),
                ("config.json", CONFIG),
                ("model.safetensors", WEIGHTS),
                ("optimizer.bin", b"not needed"),
                ("tokenizer.json", TOKENIZER),
            ],
        );
        Self { server, commit, home: tempfile::tempdir().unwrap() }
    }

    /// `tcn` with these arguments and no other variables of the Hub than where it is.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcn"));
        for (name, _) in std::env::vars() {
            if name.starts_with("HF_") || name.starts_with("HUGGING") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.home.path())
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", &self.server.url)
            .args(arguments.split_whitespace());
        command
    }

    /// Runs, expects success, gives the JSON result and the messages.
    fn json(&self, arguments: &str) -> (Value, String) {
        done(&mut self.command(&format!("{arguments} --json")))
    }

    /// Runs, expects exit code 1 and nothing on standard output, gives the message.
    fn fails(&self, arguments: &str) -> String {
        failed(&mut self.command(arguments))
    }

    /// A path in the cache of `org/model`.
    fn cached(&self, path: &str) -> PathBuf {
        self.home.path().join("hub/models--org--model").join(path)
    }

    /// The model's snapshot as its files and their contents.
    fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        files(self.cached(&format!("snapshots/{}", self.commit)))
    }

    /// The same Hub and cache from the library.
    fn hub(&self) -> Hub {
        let config = HubConfig {
            endpoint: self.server.url.clone(),
            ..HubConfig::new(self.home.path().join("hub"))
        };
        Hub::new(config).unwrap()
    }
}

/// What `pull` must have made of `org/model`.
fn model_files() -> BTreeMap<String, Vec<u8>> {
    let files: [(&str, &[u8]); 4] = [
        ("README.md", b"# A model\n"),
        ("config.json", CONFIG),
        ("model.safetensors", WEIGHTS),
        ("tokenizer.json", TOKENIZER),
    ];
    let owned = |(name, bytes): (&str, &[u8])| (name.to_string(), bytes.to_vec());
    files.into_iter().map(owned).collect()
}

fn files(dir: PathBuf) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        (name, std::fs::read(path).unwrap())
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(command: &mut Command) -> (Value, String) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), stderr(&output))
}

fn failed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(output.stdout.is_empty());
    message
}

/// Everything that `text` must say.
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn silent() -> Progress {
    Progress::silent()
}
