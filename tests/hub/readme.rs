//! Everything that the README tells people to type.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::server::WRITER;
use crate::{World, stderr};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const README: &str = include_str!("../../README.md");

/// Lines of the README's shell examples.
fn lines() -> impl Iterator<Item = &'static str> {
    let blocks = README.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty())
}

/// The line with less work in it: the point is that it can be typed.
fn shorter(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let is_training = line.contains("tcn train");
    if let Some(at) = words.iter().position(|word| *word == "--minutes")
        && is_training
    {
        words.drain(at..at + 2);
    }
    let more: &[[&str; 2]] = match line {
        _ if line.contains("--resume") => &[["--steps", "15"]],
        _ if line.contains("--init-from") => {
            &[["--steps", "10"], ["--batch-size", "2"], ["--seq-len", "32"]]
        }
        _ if is_training && line.contains("--out runs/visits") => {
            &[["--steps", "10"], ["--batch-size", "2"]]
        }
        _ if is_training && line.contains("moves.ts") => &[["--steps", "5"], ["--batch-size", "2"]],
        _ if is_training && line.contains("--preset") => {
            &[["--steps", "10"], ["--batch-size", "2"], ["--seq-len", "32"]]
        }
        _ if is_training => &[
            ["--steps", "10"],
            ["--preset", "char-tiny"],
            ["--batch-size", "2"],
            ["--seq-len", "32"],
        ],
        _ if line.contains("tcn bench") => {
            &[["--runs", "1"], ["--warmup", "0"], ["--batch-size", "1"], ["--seq-len", "50"]]
        }
        _ if line.starts_with("tcn generate") => &[["--max-tokens", "5"]],
        _ => &[],
    };
    // before a remark
    let at = words.iter().position(|word| *word == "#");
    words.truncate(at.unwrap_or(words.len()));
    for flag in more {
        if !words.contains(&flag[0]) {
            words.extend(flag);
        }
    }
    words.join(" ")
}

fn fixture(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/fixtures").join(name)
}

/// A folder with the files that the examples name, and a Hub with their models.
fn world() -> World {
    let world = World::new();
    let home = world.home.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(home.join(name), bytes).unwrap();
    let text = "The quick brown fox jumps over the lazy dog.\nROMEO: and JULIET: too\n".repeat(60);
    for name in ["shakespeare.txt", "book.txt", "other.txt", "letters.txt"] {
        write(name, text.as_bytes());
    }
    std::fs::create_dir(home.join("notes")).unwrap();
    write("notes/one.txt", text.as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(text.as_bytes()).unwrap();
    write("shakespeare.txt.gz", &gzip.finish().unwrap());
    write("proteins.fasta", b">a\nMANLGG\n>b\nMKV\n");
    write("names.txt", "anna\nbea\nclara\ndora\n".repeat(40).as_bytes());
    write("pairs.txt", "one\tONE\ntwo\tTWO\nsix\tSIX\n".repeat(60).as_bytes());
    write("words.txt", b"one\ntwo\n");
    let visits = (0..200).map(|day| format!("{day},{}\n", day % 7 + day / 10));
    write("visits.csv", format!("day,visits\n{}", visits.collect::<String>()).as_bytes());
    for name in ["moves.ts", "moves_test.ts"] {
        let moves = "@problemName moves\n@classLabel true up down\n@data\n1,2,3,4:up\n4,3,2:down\n";
        write(name, moves.as_bytes());
    }
    write("genome.fasta", b">1\nACGTACGTACGT\n");
    write("variants.vcf", b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n1\t2\t.\tC\tT\n");
    write(
        "network.json",
        br#"{"model_type": "tcn", "embedding_dim": 8, "vocab_size": 20, "network": {"num_channels": [8, 8], "kernel_size": 3}}"#,
    );
    let read = |folder: &str, name: &str| std::fs::read(fixture(folder).join(name)).unwrap();
    let add = |id: &str, folder: &str, names: &[&str]| {
        let files: Vec<_> = names.iter().map(|name| (*name, read(folder, name))).collect();
        let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        world.server.add(id, &files)
    };
    let carp = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"];
    add("multimolecule/carp-600k", "carp-tiny", &carp);
    let gpn = ["config.json", "model.safetensors", "tokenizer.json"];
    add("songlab/gpn-brassicales", "gpn-tiny", &gpn);
    let files = gpn.iter().map(|name| (name.to_string(), read("gpn-tiny", name))).collect();
    let mut state = world.server.state();
    let repo = state.repos.get_mut("songlab/gpn-brassicales").unwrap();
    repo.commit("refs/pr/1", files);
    drop(state);
    world
}

/// What Python makes in an example: weights, arguments and an input of a network of pytorch-tcn.
fn make_python_files(home: &Path) {
    use serde_json::Value;
    let case = fixture("pytorch_tcn/batch_norm_skip");
    let config: Value =
        serde_json::from_slice(&std::fs::read(case.join("config.json")).unwrap()).unwrap();
    std::fs::write(home.join("net.json"), config["kwargs"].to_string()).unwrap();
    std::fs::copy(case.join("state_dict.safetensors"), home.join("net.pt")).unwrap();
    let device = candle_core::Device::Cpu;
    let input = candle_core::Tensor::zeros((1, 3, 100), candle_core::DType::F32, &device).unwrap();
    let tensors = std::collections::HashMap::from([("input", input)]);
    candle_core::safetensors::save(&tensors, home.join("in.safetensors")).unwrap();
}

#[test]
fn every_example_of_the_readme_runs() {
    let world = world();
    let home = world.home.path();
    let tcn = env!("CARGO_BIN_EXE_tcn");
    let mut seen = 0;
    for line in lines() {
        if line.starts_with("python3 -c") {
            make_python_files(home);
        }
        let of_tcn = line.starts_with("tcn ") || line.contains("| tcn ");
        if !of_tcn {
            continue;
        }
        seen += 1;
        // the function stands for the program on the path
        let mut script = format!("tcn() {{ \"{tcn}\" \"$@\"; }}; {}", shorter(line));
        if line.starts_with("tcn serve") {
            // a server runs until it is told to stop
            let line = shorter(line).replacen("tcn", tcn, 1);
            script = format!("{line} --port 0 & sleep 2; kill $!; wait $!");
        }
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(home)
            .env("HF_HOME", home)
            .env("HF_ENDPOINT", &world.server.url)
            .env("HF_TOKEN", WRITER)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}\n{script}\n{}", stderr(&output));
    }
    assert!(seen >= 25, "{seen} examples");
}

#[test]
fn what_else_the_readme_names_is_there() {
    for line in lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        for word in &words {
            if word.starts_with("scripts/") {
                assert!(Path::new(ROOT).join(word).exists(), "{line}");
            }
        }
        if let Some(at) = words.iter().position(|word| *word == "--example") {
            let example = format!("examples/{}.rs", words[at + 1]);
            assert!(Path::new(ROOT).join(example).exists(), "{line}");
        }
    }
    for name in README.split("](docs/").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(Path::new(ROOT).join("docs").join(name).exists(), "{name}");
    }
}
