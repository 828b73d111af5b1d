//! From a directory to the Hub.

use std::path::PathBuf;

use crate::server::{READER, Spoilt, WRITER, What};
use crate::{WEIGHTS, World, failed, model_files, says};

/// A model directory as a training run leaves it.
fn run_dir(world: &World) -> PathBuf {
    let dir = world.home.path().join("run");
    std::fs::create_dir_all(dir.join("checkpoints/step-1")).unwrap();
    std::fs::write(dir.join("checkpoints/step-1/model.safetensors"), "big").unwrap();
    std::fs::write(dir.join(".tmp-1"), "half").unwrap();
    for (name, bytes) in model_files() {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    dir
}

fn push(world: &World, arguments: &str) -> serde_json::Value {
    let mut command = world.command(&format!("push {arguments} --json"));
    crate::done(command.env("HF_TOKEN", WRITER)).0
}

/// What the Hub then has, but for its own `.gitattributes`.
fn arrived(world: &World, id: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = world.server.state().repos[id].head().clone();
    assert!(files.remove(".gitattributes").is_some());
    files
}

#[test]
fn a_directory_becomes_a_repository_and_comes_back() {
    let world = World::new();
    run_dir(&world);
    let result = push(&world, "run org/new --private");
    assert_eq!(result["url"], format!("{}/org/new", world.server.url));
    assert_eq!(result["private"], true);
    assert_eq!(arrived(&world, "org/new"), model_files());
    assert!(world.server.state().repos["org/new"].private);

    let (back, _) = crate::done(world.command("pull org/new --json").env("HF_TOKEN", READER));
    let dir = PathBuf::from(back["path"].as_str().unwrap());
    assert_eq!(crate::files(dir), model_files());
}

#[test]
fn what_is_there_is_not_sent_again() {
    let world = World::new();
    let dir = run_dir(&world);
    push(&world, "run org/new");
    assert_eq!(world.server.count("PUT put/"), 1);
    std::fs::write(dir.join("README.md"), "# Better\n").unwrap();
    push(&world, "run org/new");
    assert_eq!(world.server.count("PUT put/"), 1);
    assert_eq!(arrived(&world, "org/new")["README.md"], b"# Better\n");
    assert!(!world.server.state().repos["org/new"].private);
}

#[test]
fn large_files_in_parts() {
    let world = World::new();
    run_dir(&world);
    let part = WEIGHTS.len() / 3 + 1;
    world.server.state().part_size = Some(part);
    world.server.fault("PUT part/", 1, What::Status(500, vec![]));
    push(&world, "run org/new");
    assert_eq!(world.server.count("PUT part/"), 4, "three, one of them twice");
    assert_eq!(arrived(&world, "org/new"), model_files());
}

#[test]
fn faults_on_the_way_up() {
    for on in
        ["repos/create", "preupload", "objects/batch", "PUT put/", "lfs/verify", "commit/main"]
    {
        let world = World::new();
        run_dir(&world);
        world.server.fault(on, 2, What::Status(500, vec![]));
        push(&world, "run org/new");
        assert_eq!(arrived(&world, "org/new"), model_files(), "{on}");
    }
    let world = World::new();
    run_dir(&world);
    world.server.fault("PUT put/", 1, What::Spoilt(Spoilt::Silent(std::time::Duration::ZERO)));
    push(&world, "run org/new");
    assert_eq!(arrived(&world, "org/new"), model_files());
}

#[test]
fn a_public_repository_is_not_filled_in_the_belief_that_it_is_private() {
    let world = World::new();
    run_dir(&world);
    let mut command = world.command("push run org/model --private");
    let message = failed(command.env("HF_TOKEN", WRITER));
    says(&message, &["org/model", "expected a private repository", "--private"]);
    assert_eq!(world.server.count("preupload"), 0);
}

#[test]
fn who_may_not_write() {
    let world = World::new();
    run_dir(&world);
    says(&world.fails("push run org/new"), &["org/new", "HTTP 401", "HF_TOKEN", "write"]);
    let mut command = world.command("push run org/new");
    let message = failed(command.env("HF_TOKEN", READER));
    says(&message, &["org/new", "HTTP 403", "write permission"]);
    let mut command = world.command("push . org/new");
    let message = failed(command.env("HF_TOKEN", WRITER));
    says(&message, &["config.json"]);
}
