//! An index that the loader would refuse is refused before its files are downloaded.

use std::collections::BTreeMap;

use crate::server::Repo;
use crate::{World, says};

/// A repository with this index of weights, and a file for each name in it.
fn publish(world: &World, kind: &str, index: &str, shards: &[String]) {
    let mut files = BTreeMap::from([
        ("config.json".to_string(), b"{}".to_vec()),
        (format!("{kind}.index.json"), index.as_bytes().to_vec()),
    ]);
    files.extend(shards.iter().map(|name| (name.clone(), b"weights".to_vec())));
    let mut repo = Repo::default();
    repo.commit("main", files);
    world.server.state().repos.insert("org/bad".into(), repo);
}

fn index_of(shards: &[String]) -> String {
    let entries = shards.iter().enumerate();
    let entries: Vec<_> = entries.map(|(i, name)| format!("\"t{i}\":\"{name}\"")).collect();
    format!("{{\"weight_map\":{{{}}}}}", entries.join(","))
}

#[test]
fn the_hub_and_the_loader_agree() {
    let numbered = |count: usize| (0..count).map(|i| format!("m-{i}.bin")).collect::<Vec<_>>();
    let long = numbered(2);
    let spaces = index_of(&long) + &" ".repeat(1 << 22);
    let cases = [
        (vec!["deep/m-1.bin".to_string()], None, "same folder"),
        (vec![".m-1.bin".to_string()], None, "same folder"),
        (numbered(257), None, "256"),
        (vec![], None, "1 to 256"),
        (numbered(2), Some(r#"{"weight_map":{"a":"m-0.bin","a":"m-1.bin"}}"#), "a"),
        (long, Some(spaces.as_str()), "4194304"),
    ];
    for kind in ["model.safetensors", "pytorch_model.bin"] {
        for (shards, index, part) in &cases {
            let world = World::new();
            let made = index_of(shards);
            publish(&world, kind, index.unwrap_or(&made), shards);
            let message = world.fails("pull org/bad");
            says(&message, &[&format!("{kind}.index.json"), part]);
            assert_eq!(world.server.count("m-"), 0, "{message}");
        }
    }
}

#[test]
fn an_index_that_loads_is_downloaded() {
    let world = World::new();
    let shards: Vec<_> = (0..256).map(|i| format!("m-{i}.bin")).collect();
    publish(&world, "pytorch_model.bin", &index_of(&shards), &shards);
    let (pulled, _) = world.json("pull org/bad");
    let dir = std::path::PathBuf::from(pulled["path"].as_str().unwrap());
    assert!(shards.iter().all(|name| dir.join(name).is_file()));
}
