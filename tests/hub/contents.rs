//! What is uploaded of a directory: shown before, and nothing personal.

use std::path::PathBuf;

use serde_json::json;

use crate::server::WRITER;
use crate::{World, done, failed, model_files, says, stderr};

/// A model directory as a training run leaves it.
fn run_dir(world: &World) -> PathBuf {
    let dir = world.home.path().join("run");
    std::fs::create_dir_all(dir.join("checkpoints/step-1")).unwrap();
    let command = r#"{"command":"tcn train --data /home/me/diary.txt"}"#;
    std::fs::write(dir.join("run.json"), command).unwrap();
    std::fs::write(dir.join(".lock"), "").unwrap();
    for (name, bytes) in model_files() {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn what_is_personal_stays() {
    let world = World::new();
    run_dir(&world);
    let mut command = world.command("push run org/new --json");
    let (_, messages) = done(command.env("HF_TOKEN", WRITER));
    let mut arrived = world.server.state().repos["org/new"].head().clone();
    arrived.remove(".gitattributes");
    assert_eq!(arrived, model_files());
    // with sizes, and what is left out by name
    says(
        &messages,
        &["10 B  README.md", "model.safetensors", "4 files", "run.json", "checkpoints", ".lock"],
    );
}

#[test]
fn a_dry_run_lists_and_sends_nothing() {
    let world = World::new();
    run_dir(&world);
    let mut command = world.command("push run org/new --dry-run");
    let output = command.env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    says(&text, &["10 B  README.md", "4 files", "run.json: it holds paths"]);

    let (list, _) = world.json("push run org/new --dry-run");
    let names: Vec<_> = model_files().into_keys().collect();
    let listed: Vec<_> =
        list["files"].as_array().unwrap().iter().map(|file| &file["name"]).collect();
    assert_eq!(json!(listed), json!(names));
    assert_eq!(list["files"][0], json!({ "name": "README.md", "bytes": 10 }));
    assert_eq!(list["left_out"].as_array().unwrap().len(), 3);
    assert!(world.server.state().seen.is_empty());

    let output = world.command("push run org/new@v1 --dry-run").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&world.fails("push . org/new --dry-run"), &["config.json"]);
}

#[cfg(unix)]
#[test]
fn a_link_cannot_publish_what_is_elsewhere() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    let dir = run_dir(&world);
    let secret = world.home.path().join("id_ed25519");
    std::fs::write(&secret, "private key").unwrap();
    for (name, target) in [
        ("notes.txt", "../id_ed25519"),
        ("vocab.txt", secret.to_str().unwrap()),
        ("training.json", "run.json"),
    ] {
        symlink(target, dir.join(name)).unwrap();
        let mut command = world.command("push run org/new");
        let message = failed(command.env("HF_TOKEN", WRITER));
        says(&message, &[&format!("run/{name}"), "link", "cp -L"]);
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    assert!(world.server.state().seen.is_empty());
    // within the folder it is a file like others
    symlink("README.md", dir.join("MODEL_CARD.md")).unwrap();
    done(world.command("push run org/new --json").env("HF_TOKEN", WRITER));
    let state = world.server.state();
    assert_eq!(state.repos["org/new"].head()["MODEL_CARD.md"], b"# A model\n");
}
