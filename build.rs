//! Tells `tcn --version` the commit that it is built from, where it is built in a clone.

use std::process::Command;

/// What the program is made of. With another commit of the same files it need not be built again.
const SOURCES: [&str; 5] = ["src", "models", "build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let commit = git(&["rev-parse", "--short=10", "HEAD"]);
    let Some(commit) = commit.filter(|_| is_our_clone()) else {
        return;
    };
    let status = [&["status", "--porcelain", "--"], &SOURCES[..]].concat();
    let changed = git(&status).map_or("", |_| " and changes");
    println!("cargo::rustc-env=TCN_COMMIT={commit}{changed}");
}

/// `true` unless another project's clone holds this folder.
fn is_our_clone() -> bool {
    let top = git(&["rev-parse", "--show-toplevel"]).map(std::fs::canonicalize);
    let here = std::fs::canonicalize(".");
    matches!((top, here), (Some(Ok(top)), Ok(here)) if top == here)
}

/// What git says, if there is a git and it says something.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !text.is_empty()).then_some(text)
}
