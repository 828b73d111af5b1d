//! From the Hub into the cache.

use std::collections::BTreeMap;
use std::path::Path;

use candle_tcn::hub::{Hub, HubConfig};

use crate::server::{READER, Repo};
use crate::{World, done, failed, files, model_files, says, silent};

#[test]
fn a_model_is_pulled_once_in_the_layout_of_the_ecosystem() {
    let world = World::new();
    let (result, _) = world.json("pull org/model");
    assert_eq!(result["repository"], "org/model");
    assert_eq!(result["revision"], "main");
    assert_eq!(result["commit"], world.commit);
    let path = world.cached(&format!("snapshots/{}", world.commit));
    assert_eq!(Path::new(result["path"].as_str().unwrap()), path);

    assert_eq!(world.snapshot(), model_files(), "what is needed and nothing else");
    assert_eq!(std::fs::read_to_string(world.cached("refs/main")).unwrap(), world.commit);
    assert_eq!(files(world.cached("blobs")).len(), 4, "and nothing unfinished");
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(path.join("README.md")).unwrap(),
        // git hash-object README.md
        Path::new("../../blobs/c06b64da4b222b355e7a83daac91e2572f67e525").to_path_buf(),
    );

    let before = world.server.count("/resolve/");
    world.json("pull org/model");
    assert_eq!(world.server.count("/resolve/"), before, "nothing twice");
    assert_eq!(world.server.count("optimizer"), 0);
}

#[test]
fn a_model_is_used_by_its_name_and_then_without_a_network() {
    let world = World::new();
    let generate = "generate --model org/model --seed 1 --max-tokens 20";
    let (online, _) = world.json(generate);
    assert_eq!(online["tokens"], 20);
    let requests = world.server.state().seen.len();
    let offline = world.command(&format!("{generate} --json")).env("HF_HUB_OFFLINE", "1").output();
    let offline: serde_json::Value = serde_json::from_slice(&offline.unwrap().stdout).unwrap();
    assert_eq!(offline["text"], online["text"]);
    assert_eq!(world.server.state().seen.len(), requests);

    std::fs::write(world.home.path().join("text.txt"), "In the beginning").unwrap();
    assert!(world.json("eval --model org/model --data text.txt").0["loss"].is_f64());
    let (field, _) = world.json("receptive-field --model org/model@main");
    assert!(field["receptive_field"].as_u64() > Some(1));
}

#[test]
fn a_directory_goes_before_a_model_of_the_same_name() {
    let world = World::new();
    let dir = world.home.path().join("org/model");
    std::fs::create_dir_all(&dir).unwrap();
    for (name, bytes) in model_files() {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    world.json("generate --model org/model --max-tokens 5");
    assert!(world.server.state().seen.is_empty());
}

#[test]
fn branches_tags_commits_and_pull_requests() {
    let world = World::new();
    let mut commits = BTreeMap::new();
    for revision in ["v1.0", "feature/x", "refs/pr/1"] {
        let mut state = world.server.state();
        let repo = state.repos.get_mut("org/model").unwrap();
        let mut files = model_files();
        files.insert("README.md".into(), revision.into());
        commits.insert(revision.to_string(), repo.commit(revision, files));
    }
    let by_commit = commits["v1.0"].clone();
    commits.insert(by_commit.clone(), by_commit);
    for (revision, commit) in &commits {
        let (result, _) = world.json(&format!("pull org/model@{revision}"));
        assert_eq!(&result["commit"], commit);
        let readme =
            std::fs::read_to_string(world.cached(&format!("snapshots/{commit}/README.md")));
        let expected = if revision == commit { "v1.0" } else { revision };
        assert_eq!(readme.unwrap(), expected);
    }
    let kept = std::fs::read_to_string(world.cached("refs/refs/pr/1")).unwrap();
    assert_eq!(kept, commits["refs/pr/1"]);
    let offline =
        done(world.command("pull org/model@refs/pr/1 --json").env("HF_HUB_OFFLINE", "true"));
    assert_eq!(offline.0["commit"], commits["refs/pr/1"]);
}

#[test]
fn weights_in_shards_and_pickles() {
    let world = World::new();
    let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}}"#;
    world.server.add(
        "org/sharded",
        &[
            ("config.json", b"{}"),
            ("model.safetensors.index.json", index),
            ("model-1.safetensors", b"one"),
            ("model-2.safetensors", b"two"),
            ("model-3.safetensors", b"of another time"),
            ("tokenizer_config.json", b"{}"),
            ("vocab.txt", b"a\nb\n"),
        ],
    );
    let dir = world.hub().pull("org/sharded", &silent()).unwrap();
    assert_eq!(std::fs::read(dir.join("model-1.safetensors")).unwrap(), b"one");
    assert_eq!(std::fs::read(dir.join("model-2.safetensors")).unwrap(), b"two");
    assert!(dir.join("vocab.txt").exists() && dir.join("tokenizer_config.json").exists());
    assert!(!dir.join("model-3.safetensors").exists());

    let config = HubConfig { offline: true, ..HubConfig::new(world.home.path().join("hub")) };
    let offline = Hub::new(config).unwrap();
    assert_eq!(offline.pull("org/sharded", &silent()).unwrap(), dir);
    std::fs::remove_file(dir.join("model-2.safetensors")).unwrap();
    let error = offline.pull("org/sharded", &silent()).unwrap_err().to_string();
    says(&error, &["org/sharded@main", "model-2.safetensors", "HF_HUB_OFFLINE"]);

    world.server.add("org/pickle", &[("config.json", b"{}"), ("pytorch_model.bin", b"pickle")]);
    let dir = world.hub().pull("org/pickle", &silent()).unwrap();
    assert_eq!(std::fs::read(dir.join("pytorch_model.bin")).unwrap(), b"pickle");
}

#[test]
fn the_variables_of_the_ecosystem() {
    let world = World::new();
    let elsewhere = world.home.path().join("elsewhere");
    done(world.command("pull org/model --json").env("HF_HUB_CACHE", &elsewhere));
    assert!(elsewhere.join("models--org--model/refs/main").exists());
    assert!(!world.cached("").exists());

    world.server.state().repos.get_mut("org/model").unwrap().private = true;
    says(&world.fails("pull org/model"), &["401", "HF_TOKEN"]);
    done(world.command("pull org/model --json").env("HF_TOKEN", READER));
    std::fs::write(world.home.path().join("token"), format!("{READER}\n")).unwrap();
    world.json("pull org/model");
    let file = world.home.path().join("other");
    std::fs::write(&file, "hf_expired").unwrap();
    let message = failed(world.command("pull org/model").env("HF_TOKEN_PATH", &file));
    says(&message, &["401", "was not accepted"]);
}

#[test]
fn a_repository_that_has_moved() {
    let world = World::new();
    {
        let mut state = world.server.state();
        let repo = state.repos.remove("org/model").unwrap();
        state.repos.insert("new-org/renamed".into(), repo);
        state.moved.insert("org/model".into(), "new-org/renamed".into());
    }
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
}

#[test]
fn the_last_copy_serves_where_the_hub_cannot_be_reached() {
    let world = World::new();
    world.json("pull org/model");
    // nobody listens on port 9
    let nowhere = |command: &str| {
        let mut command = world.command(command);
        command.env("HF_ENDPOINT", "http://127.0.0.1:9");
        command
    };
    let (result, messages) = done(&mut nowhere("pull org/model --json"));
    assert_eq!(result["commit"], world.commit);
    says(&messages, &["could not reach http://127.0.0.1:9", "copy in the cache"]);
    let message = failed(&mut nowhere("pull org/other"));
    says(&message, &["org/other@main", "could not reach", "HF_ENDPOINT"]);
    let message = failed(&mut nowhere("generate --model org/other"));
    says(&message, &["is not a folder", "could not reach"]);
}

#[test]
fn a_damaged_copy_is_noticed_and_replaced() {
    let world = World::new();
    world.json("pull org/model");
    let weights = world.cached(&format!("snapshots/{}/model.safetensors", world.commit));
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    let offline = failed(world.command("pull org/model").env("HF_HUB_OFFLINE", "1"));
    says(&offline, &["model.safetensors", "hash", "damaged"]);
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
    std::fs::write(&weights, &bytes[..500]).unwrap();
    world.json("pull org/model");
    assert_eq!(world.snapshot(), model_files());
}

#[test]
fn without_a_token_none_is_taken_from_the_environment() {
    const ENDPOINT: &str = "CANDLE_TCN_TEST_ENDPOINT";
    const CACHE: &str = "CANDLE_TCN_TEST_CACHE";
    // the child, whose environment has a token, is this test again
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        let config = HubConfig { endpoint, ..HubConfig::new(std::env::var(CACHE).unwrap()) };
        Hub::new(config).unwrap().pull("org/model", &silent()).unwrap();
        return;
    }
    let world = World::new();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pull::without_a_token_none_is_taken_from_the_environment"])
        .env(ENDPOINT, &world.server.url)
        .env(CACHE, world.home.path().join("hub"))
        .env("HF_TOKEN", READER)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let state = world.server.state();
    assert!(state.seen.len() > 4);
    assert!(state.seen.iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let world = World::new();
    for (index, part) in [
        (r#"{"weight_map":{"a":"../../../escape"}}"#, "escape"),
        (r#"{"weight_map":{"a":"lost.safetensors"}}"#, "lost.safetensors"),
        (r#"{"weight_map":[]}"#, "model.safetensors.index.json"),
    ] {
        let mut repo = Repo::default();
        let files = [("config.json", "{}"), ("model.safetensors.index.json", index)];
        repo.commit("main", files.map(|(n, b)| (n.to_string(), b.into())).into());
        world.server.state().repos.insert("org/bad".into(), repo);
        let error = world.hub().pull("org/bad", &silent()).unwrap_err().to_string();
        says(&error, &[part]);
    }
}
