//! Texts whose tokens lie in a file.

use std::path::PathBuf;

use super::{Bench, SMALL};

fn files(bench: &Bench) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(bench.path("cache")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "tokens"));
    files.sort();
    files
}

#[test]
fn tokens_in_a_file_train_as_those_in_memory() {
    let bench = Bench::new();
    let train = |data: &str, out: &str, more: &str| {
        bench.ok(&format!("train --data {data} --out {out} {SMALL} {more}"));
        bench.bytes(format!("{out}/model.safetensors"))
    };
    bench.write("wide.txt", "naïve ‘words’ – 龍 and plain ones\n".repeat(150));
    for (i, (data, more)) in [
        ("text.txt", ""),
        ("wide.txt", ""),
        ("wide.txt", "--tokenizer byte"),
        ("wide.txt", "--tokenizer bpe:300"),
        ("wide.txt", "--context overlap --valid text.txt"),
    ]
    .into_iter()
    .enumerate()
    {
        let memory = train(data, &format!("m{i}"), more);
        let file = train(data, &format!("f{i}"), &format!("{more} --token-cache cache"));
        assert!(memory == file, "{data} {more}");
        assert_eq!(files(&bench).len(), i + 1);
        // and once more, from the file
        let again = train(data, &format!("a{i}"), &format!("{more} --token-cache cache"));
        assert!(again == file && files(&bench).len() == i + 1, "{data} {more}");
    }
}

#[test]
fn the_tokens_of_another_text_are_never_taken() {
    let bench = Bench::new();
    let train = |out: &str| {
        let output =
            bench.run(&format!("train --data text.txt --out {out} {SMALL} --token-cache cache"));
        assert!(output.status.success());
        super::stderr(&output)
    };
    assert!(train("a").contains("the tokens go to"));
    assert!(train("b").contains("the tokens of"));
    let text = String::from_utf8(bench.bytes("text.txt")).unwrap();
    bench.write("text.txt", text.replacen("quick", "quack", 1));
    assert!(train("c").contains("the tokens go to"));
    assert_eq!(files(&bench).len(), 2);
    // one that was cut short is made anew
    for path in files(&bench) {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let told = train("d");
    assert!(told.contains("made anew") && told.contains("found"), "{told}");
    assert!(bench.bytes("c/model.safetensors") == bench.bytes("d/model.safetensors"));
    // a run goes on with them
    let constant = format!("--data text.txt --token-cache cache --schedule constant {SMALL}");
    bench.ok(&format!("train {} --out e", constant.replace("--steps 30", "--steps 10")));
    bench.ok("train --resume --out e --steps 30");
    bench.ok(&format!("train {constant} --out f"));
    let [e, f] =
        ["e", "f"].map(|run| bench.bytes(format!("{run}/checkpoints/step-30/model.safetensors")));
    assert!(e == f);
    bench.write("bad.txt", b"good text and \xff\xfe then none".repeat(40));
    let message = bench.fails(1, "train --data bad.txt --token-cache cache");
    assert!(message.contains("bad.txt") && message.contains("offset 14"), "{message}");
}
