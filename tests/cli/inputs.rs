//! Texts as people have them: folders, patterns, pipes, packed files; and what is no text.

use std::io::Write;

use super::{Bench, SMALL, stderr};

impl Bench {
    /// Flags of a training on this text, with a short run.
    fn train_on(&self, data: &str, out: &str) -> String {
        let output = self.run(&format!("train --data {data} --out {out} {SMALL}"));
        assert!(output.status.success(), "{data}: {}", stderr(&output));
        stderr(&output)
    }

    fn weights(&self, out: &str) -> Vec<u8> {
        self.bytes(format!("{out}/model.safetensors"))
    }

    /// `text.txt` packed in both ways, in parts in `notes`, and a model of it.
    fn with_texts() -> Self {
        let bench = Self::new();
        bench.trained("run", "");
        let text = bench.bytes("text.txt");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(&text).unwrap();
        bench.write("text.gz", gzip.finish().unwrap());
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        bench.write("text.zst", compress_to_vec(&text[..], CompressionLevel::Fastest));
        std::fs::create_dir_all(bench.path("notes/later")).unwrap();
        let line = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let (first, rest) = text.split_at(line * 20);
        let (second, third) = rest.split_at(line * 30);
        bench.write("notes/1.txt", first);
        // what ends without a line end gets one
        bench.write("notes/2.txt", &second[..second.len() - 1]);
        bench.write("notes/later/3.txt", third);
        bench.write("notes/.hidden", "hidden");
        bench.write("notes/picture.png", b"\x89PNG\0\0");
        bench
    }
}

#[test]
fn a_text_is_the_same_from_anywhere() {
    let bench = Bench::with_texts();
    let expected = bench.weights("run");
    for (i, data) in ["text.gz", "text.zst", "notes", "notes/**/*.txt"].iter().enumerate() {
        let out = format!("run{i}");
        let said = bench.train_on(data, &out);
        assert!(bench.weights(&out) == expected, "{data}");
        let is_found = data.starts_with("notes");
        assert_eq!(said.contains("3 files of text"), is_found, "{said}");
        let passed =
            said.contains("passed over: 1 hidden, 1 not text") && said.contains("picture.png");
        assert_eq!(passed, *data == "notes", "{said}");
    }
    let piped = bench
        .command(&format!("train --data - --out piped {SMALL}"))
        .write_stdin(bench.bytes("text.gz"))
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", stderr(&piped));
    assert!(bench.weights("piped") == expected);

    let loss = |data: &str| bench.json(&format!("eval --model run --data {data}"));
    for data in ["text.gz", "text.zst", "notes", "notes/**/*.txt"] {
        assert_eq!(loss(data), loss("text.txt"), "{data}");
    }
    let prompt = |file: &str| {
        bench.ok(&format!(
            "generate --model run --temperature 0 --max-tokens 30 --prompt-file {file}"
        ))
    };
    for file in ["text.gz", "text.zst"] {
        assert_eq!(prompt(file), prompt("text.txt"), "{file}");
    }
}

#[test]
fn a_run_on_a_folder_goes_on() {
    let bench = Bench::with_texts();
    bench.train_on("notes", "folder");
    bench.json("train --resume --out folder --steps 40");
    bench.json("train --resume --out run --steps 40");
    assert!(bench.weights("folder") == bench.weights("run"));
    // a run within the folder is no text of it
    std::fs::rename(bench.path("folder"), bench.path("notes/folder")).unwrap();
    bench.json("train --resume --out notes/folder --steps 50");
    bench.write("notes/4.txt", "more\n");
    let message = bench.fails(2, "train --resume --out notes/folder --steps 60");
    assert!(message.contains("--data"), "{message}");
    // what a pipe gave has to be given again
    let text = bench.bytes("text.txt");
    let piped = |flags: &str| bench.command(flags).write_stdin(text.clone()).output().unwrap();
    assert!(piped(&format!("train --data - --out piped {SMALL}")).status.success());
    let nothing = bench.command("train --data - --out nothing").write_stdin("").output();
    let message = stderr(&nothing.unwrap());
    assert!(message.contains("standard input: expected text"), "{message}");
    let message = bench.fails(2, "train --resume --out piped --steps 40");
    assert!(message.contains("standard input") && message.contains("--data"), "{message}");
    let output = piped("train --resume --out piped --data - --steps 40");
    assert!(output.status.success(), "{}", stderr(&output));
    bench.json("train --resume --out piped --data text.gz --steps 50");
    let both = piped(&format!("train --data text.txt --valid - --out both {SMALL}"));
    assert!(both.status.success(), "{}", stderr(&both));
    // a text that is named says nothing of the other
    let message = bench.fails(2, "train --resume --out both --data text.txt --steps 40");
    assert!(message.contains("standard input"), "{message}");
    bench.json("train --resume --out both --valid text.txt --steps 40");
}

#[test]
fn sequences_come_packed_too() {
    let bench = Bench::new();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/carp-tiny");
    let sequences = ">a\nMANLG<mask>G\n>b\nM<mask>V\n";
    bench.write("some.fasta", sequences);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(sequences.as_bytes()).unwrap();
    bench.write("some.fasta.gz", gzip.finish().unwrap());
    std::fs::create_dir(bench.path("folder")).unwrap();
    bench.write("folder/1", ">a\nMANLG<mask>G");
    bench.write("folder/2", ">b\nM<mask>V");
    let filled =
        |input: &str| bench.ok(&format!("fill-mask --model {model} --json --input {input}"));
    let embedded = |input: &str| {
        bench.ok(&format!("embed --model {model} --input {input} --output {input}.npy --force"));
        bench.bytes(format!("{input}.npy"))
    };
    for input in ["some.fasta.gz", "folder"] {
        assert_eq!(filled(input), filled("some.fasta"), "{input}");
        assert!(embedded(input) == embedded("some.fasta"), "{input}");
    }
}

#[test]
fn what_holds_no_sequences_is_named() {
    let bench = Bench::new();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/carp-tiny");
    let wide: Vec<u8> =
        "MANLG<mask>G\n".repeat(20).encode_utf16().flat_map(u16::to_le_bytes).collect();
    bench.write("wide.txt", wide);
    bench.write("paper.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n");
    for (file, kind) in [("wide.txt", "iconv -f UTF-16"), ("paper.pdf", "a PDF")] {
        for command in ["fill-mask", "embed --output x.npy"] {
            let message = bench.fails(1, &format!("{command} --model {model} --input {file}"));
            assert!(message.contains(kind) && message.contains(file), "{message}");
        }
    }
    assert!(!bench.path("x.npy").exists());
}

#[test]
fn what_is_no_text_is_named() {
    let bench = Bench::new();
    let wide: Vec<u8> =
        "Plain words in UTF-16.\n".repeat(20).encode_utf16().flat_map(u16::to_le_bytes).collect();
    bench.write("wide.txt", &wide);
    bench.write("marked.txt", [&b"\xff\xfe"[..], &wide].concat());
    bench.write("latin.txt", b"caf\xe9 au lait\n".repeat(20));
    bench.write("paper.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n");
    bench.write("letter.docx", b"PK\x03\x04\x14\0\x06\0word/document.xml");
    bench.write("many.zip", b"PK\x03\x04\x14\0\x06\0a.txt");
    bench.write("picture.png", b"\x89PNG\r\n\x1a\n\0");
    for (file, parts) in [
        ("wide.txt", ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("marked.txt", ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("latin.txt", ["byte offset 3", "iconv -f WINDOWS-1252 -t UTF-8"]),
        ("paper.pdf", ["a PDF", "pdftotext"]),
        ("letter.docx", ["a Word document", "plain text"]),
        ("many.zip", ["a zip archive", "unpack it"]),
        ("picture.png", ["a picture", "expected text"]),
    ] {
        for command in ["train --out x --data", "generate --prompt-file", "eval --data"] {
            let message = bench.fails(1, &format!("{command} {file}"));
            for part in parts.iter().chain(&[file]) {
                assert!(message.contains(part), "{command} {file}: {message}");
            }
        }
    }
    // bytes may be anything
    bench.ok(&format!("train --data wide.txt --tokenizer byte --out bytes {SMALL}"));
    let message = bench.fails(1, "train --out x --data nothing/*.txt");
    assert!(message.contains("nothing/*.txt"), "{message}");
    std::fs::create_dir(bench.path("empty")).unwrap();
    assert!(bench.fails(1, "train --out x --data empty").contains("expected text files there"));
    // cut in the middle
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(&bench.bytes("text.txt")).unwrap();
    let packed = gzip.finish().unwrap();
    bench.write("cut.gz", &packed[..packed.len() - 9]);
    assert!(bench.fails(1, "train --out x --data cut.gz").contains("cut.gz"));
    assert!(!bench.path("x").exists());
}

#[test]
fn line_ends_that_differ_are_said() {
    let bench = Bench::new();
    let text = String::from_utf8(bench.bytes("text.txt")).unwrap();
    bench.write("windows.txt", text.replace('\n', "\r\n"));
    bench.trained("run", "");
    bench.ok(&format!("train --data windows.txt --out windows {SMALL}"));
    let said = |flags: &str| {
        let output = bench.run(flags);
        assert!(output.status.success(), "{flags}: {}", stderr(&output));
        stderr(&output).contains("CRLF")
    };
    for (model, text, expected) in [
        ("run", "windows.txt", true),
        ("run", "text.txt", false),
        ("windows", "text.txt", true),
        ("windows", "windows.txt", false),
    ] {
        assert_eq!(
            said(&format!("eval --model {model} --data {text}")),
            expected,
            "{model} {text}"
        );
        let prompt = format!("generate --model {model} --max-tokens 1 --prompt-file {text}");
        assert_eq!(said(&prompt), expected, "{prompt}");
        let mut piped = bench.command(&format!("eval --model {model} --data -"));
        let piped = piped.write_stdin(bench.bytes(text)).output().unwrap();
        assert_eq!(stderr(&piped).contains("CRLF"), expected, "{model} {text}");
    }
    assert!(said(&format!("train --data text.txt --valid windows.txt --out both {SMALL}")));
    assert!(!said(&format!("train --data text.txt --valid text.txt --out same {SMALL}")));
}

#[test]
fn short_texts_lower_the_defaults() {
    let bench = Bench::new();
    let poem = "The quick brown fox jumps over the lazy dog.\n".repeat(7);
    bench.write("poem.txt", &poem[..300]);
    bench.write("story.txt", poem.repeat(80));
    let train = |flags: &str| {
        bench.run(&format!("train --config net.json --steps 5 --force --out run {flags}"))
    };
    let output = train("--data poem.txt");
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("a short text of 270 tokens: batches of 4 rows, each of 64 tokens"),
        "{said}"
    );
    assert!(!stderr(&train("--data story.txt")).contains("short text"));
    // what was asked for is not changed
    let message =
        bench.fails(2, "train --data poem.txt --config net.json --steps 5 --out x --seq-len 300");
    assert!(message.contains("--seq-len"), "{message}");
    let output = train("--data poem.txt --seq-len 50");
    assert!(stderr(&output).contains("batches of 4 rows"), "{}", stderr(&output));
}

#[test]
fn a_text_larger_than_memory_is_refused_at_once() {
    let bench = Bench::new();
    let file = std::fs::File::create(bench.path("huge.txt")).unwrap();
    if file.set_len(1 << 42).is_err() {
        // not every file system keeps holes
        file.set_len(1 << 36).unwrap();
    }
    let start = std::time::Instant::now();
    // documents are held in memory, a running text is not
    let message = bench.fails(2, "train --data huge.txt --documents lines --out x");
    assert!(message.contains("memory") && message.contains("--data"), "{message}");
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "it was not read");
}
