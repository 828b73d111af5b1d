//! Every command takes a model by its name on the Hub.

use crate::{World, done};

/// A masked language model as the Hub has CARP: no `tokenizer.json`, weights in a branch of their own.
const CARP: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../fixtures/carp-tiny/config.json")),
    ("model.safetensors", include_bytes!("../fixtures/carp-tiny/model.safetensors")),
    ("tokenizer_config.json", include_bytes!("../fixtures/carp-tiny/tokenizer_config.json")),
    ("vocab.txt", include_bytes!("../fixtures/carp-tiny/vocab.txt")),
];

#[test]
fn commands_take_names() {
    let world = World::new();
    world.server.add("org/carp", &CARP);
    let (info, _) = world.json("info org/carp");
    assert_eq!(info["model_type"], "carp");
    let (filled, _) = world.json("fill-mask --model org/carp MANLG<mask>G");
    assert_eq!(filled["masks"][0]["position"], 5);
    std::fs::write(world.home.path().join("some.txt"), "MANLG\nMKV\n").unwrap();
    let (embedded, _) = world.json("embed --model org/carp --input some.txt --output e.npy");
    assert_eq!(embedded["sequences"], 2);
    let (converted, _) = world.json("convert org/carp here --dtype bf16");
    assert_eq!(converted["model_type"], "carp");
    // the tokenizer of its vocab.txt comes along
    let (again, _) = world.json("fill-mask --model here MANLG<mask>G");
    assert_eq!(again["masks"][0]["position"], filled["masks"][0]["position"]);
    let (text, _) = world.json("generate --model org/model --max-tokens 10 --seed 1");
    assert_eq!(text["tokens"], 10);
    std::fs::write(world.home.path().join("text.txt"), "In the beginning\n").unwrap();
    world.json("eval --model org/model --data text.txt");
    // what was fetched is enough without the Hub
    let mut offline = world.command("info org/carp --json");
    let (again, _) =
        done(offline.env("HF_HUB_OFFLINE", "1").env("HF_ENDPOINT", "http://127.0.0.1:9"));
    assert_eq!(again, info);
}

#[test]
fn info_needs_no_weights() {
    let world = World::new();
    let (info, _) = world.json("info org/model");
    assert_eq!(info["model_type"], "tcn");
    assert_eq!(info["weights_bytes"]["model.safetensors"], crate::WEIGHTS.len());
    {
        let state = world.server.state();
        let lines: Vec<_> = state.seen.iter().map(|request| request.line()).collect();
        assert!(lines.iter().any(|line| line.contains("config.json")), "{lines:?}");
        let of_weights = |line: &String| line.contains("resolve") && line.contains("safetensors");
        assert!(!lines.iter().any(of_weights), "{lines:?}");
    }
    // what it left is no whole model, and in the way of none
    world.json("pull org/model");
    assert_eq!(world.snapshot(), crate::model_files());
    done(world.command("info org/model --json").env("HF_HUB_OFFLINE", "1"));
}

#[test]
fn what_lies_in_a_folder_is_not_asked_for() {
    let world = World::new();
    std::fs::create_dir_all(world.home.path().join("org/other")).unwrap();
    let message = world.fails("generate --model org/model");
    crate::says(&message, &["org/model is not a folder", "other"]);
    assert!(world.server.state().seen.is_empty());
}
