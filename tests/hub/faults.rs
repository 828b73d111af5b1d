//! Servers and connections that fail, and what must come of it all the same.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::server::{Spoilt, What};
use crate::{WEIGHTS, World, done, files, model_files, says};

/// Requests for the weights, as the store of large files sees them.
const STORE: &str = "GET file/org/model";

/// What was asked for of the weights.
fn ranges(world: &World) -> Vec<Option<String>> {
    let state = world.server.state();
    let asked = state.seen.iter().filter(|request| request.line().contains(STORE));
    asked.map(|request| request.header("range").map(String::from)).collect()
}

#[test]
fn too_many_requests_are_made_again_when_the_server_says() {
    let world = World::new();
    let later = What::Status(429, vec![("Retry-After", "1")]);
    world.server.fault("revision/main", 1, later.clone());
    world.server.fault("resolve", 1, later);
    let start = Instant::now();
    let (_, messages) = world.json("pull org/model");
    assert!(start.elapsed() >= Duration::from_secs(2));
    says(&messages, &["HTTP 429", "trying again in 1 s"]);
    assert_eq!(world.snapshot(), model_files());

    let world = World::new();
    world.server.fault("revision/main", 1, What::Status(429, vec![("Retry-After", "3600")]));
    says(&world.fails("pull org/model"), &["HTTP 429", "too many requests"]);
}

#[test]
fn a_server_that_stumbles_twice() {
    for on in ["revision/main", "tree/", "resolve/", STORE] {
        let world = World::new();
        world.server.fault(on, 2, What::Status(500, vec![]));
        world.json("pull org/model");
        assert_eq!(world.snapshot(), model_files(), "{on}");
    }
}

#[test]
fn a_server_that_does_not_get_up() {
    let world = World::new();
    world.server.fault("tree/", usize::MAX, What::Status(503, vec![]));
    let message = world.fails("pull org/model");
    says(&message, &["org/model@main", "HTTP 503 in 5 tries", "try again later"]);
}

#[test]
fn a_connection_cut_at_half_is_resumed() {
    let world = World::new();
    let half = WEIGHTS.len() / 2;
    world.server.fault(STORE, 1, What::Spoilt(Spoilt::CutAfter(half)));
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
    assert_eq!(ranges(&world), [None, Some(format!("bytes={half}-"))]);
}

#[test]
fn what_an_interrupted_process_left_is_continued() {
    let world = World::new();
    let cut = What::Spoilt(Spoilt::CutAfter(1000));
    world.server.fault(STORE, 1, cut);
    world.server.fault(STORE, 4, What::Status(502, vec![]));
    let message = world.fails("pull org/model");
    says(&message, &["model.safetensors", "HTTP 502"]);
    assert!(!world.cached("refs/main").exists());
    world.json("pull org/model");
    assert_eq!(ranges(&world).last().unwrap().as_deref(), Some("bytes=1000-"));
    assert_eq!(world.snapshot(), model_files());
    assert_eq!(files(world.cached("blobs")).len(), 4);
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let world = World::new();
    world.server.fault(STORE, 1, What::Spoilt(Spoilt::CutAfter(1000)));
    world.server.fault(STORE, 1, What::NoRanges);
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
}

#[test]
fn a_wrong_hash_is_never_used() {
    let world = World::new();
    world.server.fault(STORE, 1, What::Spoilt(Spoilt::Flipped));
    let (_, messages) = world.json("pull org/model");
    says(&messages, &["model.safetensors", "wrong hash", "anew"]);
    assert_eq!(world.snapshot(), model_files());

    let world = World::new();
    world.server.fault(STORE, usize::MAX, What::Spoilt(Spoilt::Flipped));
    let message = world.fails("pull org/model");
    says(&message, &["org/model@main: model.safetensors", "hash", "damaged"]);
    assert!(!world.snapshot().contains_key("model.safetensors"));
    assert_eq!(files(world.cached("blobs")).len(), 3, "nothing of it is kept");
}

#[test]
fn rubbish_left_in_the_cache_does_not_poison_a_download() {
    let world = World::new();
    world.json("pull org/model");
    let weights = world.cached(&format!("snapshots/{}/model.safetensors", world.commit));
    let blob = std::fs::canonicalize(weights).unwrap();
    std::fs::remove_file(&blob).unwrap();
    for rubbish in [vec![7; 500], vec![7; WEIGHTS.len()], vec![7; WEIGHTS.len() + 1]] {
        std::fs::write(blob.with_extension("incomplete"), rubbish).unwrap();
        world.json("pull org/model");
        assert_eq!(world.snapshot(), model_files());
        std::fs::remove_file(&blob).unwrap();
    }
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_asked_again() {
    let world = World::new();
    let piece = WEIGHTS.len() / 10 + 1;
    let slow = Spoilt::Slow(piece, Duration::from_millis(100));
    world.server.fault(STORE, 1, What::Spoilt(slow));
    let patience = |world: &World| {
        let mut command = world.command("pull org/model --json");
        command.env("HF_HUB_DOWNLOAD_TIMEOUT", "0.5");
        command
    };
    done(&mut patience(&world));
    assert_eq!(world.snapshot(), model_files());
    assert_eq!(ranges(&world), [None], "slow is not broken");

    let world = World::new();
    let silent = What::Spoilt(Spoilt::Silent(Duration::from_secs(5)));
    world.server.fault("revision/main", 1, silent.clone());
    world.server.fault(STORE, 1, silent);
    done(&mut patience(&world));
    assert_eq!(world.snapshot(), model_files());
}

#[test]
fn of_two_processes_one_downloads() {
    let world = World::new();
    let slow = Spoilt::Slow(WEIGHTS.len() / 10 + 1, Duration::from_millis(100));
    world.server.fault(STORE, 1, What::Spoilt(slow));
    let pull = || world.command("pull org/model").stdout(Stdio::null()).spawn().unwrap();
    let children = [pull(), pull(), pull()];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(ranges(&world), [None], "the weights were sent once");
    assert_eq!(world.snapshot(), model_files());
    assert_eq!(files(world.cached("blobs")).len(), 4);
}

#[test]
fn a_process_that_is_killed_leaves_the_lock_free() {
    let world = World::new();
    let slow = Spoilt::Slow(WEIGHTS.len() / 20 + 1, Duration::from_millis(200));
    world.server.fault(STORE, 1, What::Spoilt(slow));
    let mut child = world.command("pull org/model").stdout(Stdio::null()).spawn().unwrap();
    // more than any other file of the model has
    let begun = || {
        let entries = std::fs::read_dir(world.cached("blobs")).ok()?.flatten();
        let mut grown =
            entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())));
        grown.find(|(path, size)| path.extension().is_some() && *size > 10_000)
    };
    while begun().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.json("pull org/model");
    let asked = ranges(&world);
    assert!(asked.len() == 2 && asked[1].is_some(), "{asked:?}");
    assert_eq!(world.snapshot(), model_files());
}
