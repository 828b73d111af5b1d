//! Every command takes a model by its name on the Hub.

use crate::{World, done};

/// A masked language model as the Hub has CARP: no `tokenizer.json`, weights in a branch of their own.
const CARP: [(&str, &[u8]); 4] = [
    (
        "config.json",
        include_bytes!("../fixtures/carp-tiny/config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../fixtures/carp-tiny/model.safetensors"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../fixtures/carp-tiny/tokenizer_config.json"),
    ),
    (
        "vocab.txt",
        include_bytes!("../fixtures/carp-tiny/vocab.txt"),
    ),
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
    assert_eq!(
        again["masks"][0]["position"],
        filled["masks"][0]["position"]
    );
    let (text, _) = world.json("generate --model org/model --max-tokens 10 --seed 1");
    assert_eq!(text["tokens"], 10);
    std::fs::write(world.home.path().join("text.txt"), "In the beginning\n").unwrap();
    world.json("eval --model org/model --data text.txt");
    // what was fetched is enough without the Hub
    let mut offline = world.command("info org/carp --json");
    let (again, _) = done(
        offline
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_ENDPOINT", "http://127.0.0.1:9"),
    );
    assert_eq!(again, info);
}
