//! Embeddings of one run are never mixed with those of another.

use std::process::{Child, Command, Stdio};

use super::models::fixture;
use super::{Bench, stderr, wait_for};

/// Some thousand sequences of different lengths: several groups that are kept one after the other.
fn sequences(first: char) -> String {
    let letters = "ACDEFGHIKLMNPQRSTVWY".repeat(3);
    (0..6000).map(|i| format!("{first}{}\n", &letters[i % 20..21 + i % 39])).collect()
}

/// A copy of the model, whose weights may change.
fn model(bench: &Bench) {
    std::fs::create_dir(bench.path("model")).unwrap();
    for entry in std::fs::read_dir(fixture("carp-tiny")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, bench.path("model").join(path.file_name().unwrap())).unwrap();
    }
}

fn embed(bench: &Bench, flags: &str) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("tcn"))
        .current_dir(bench.dir.path())
        .args(
            format!("embed --model model --input some.txt --output e.npy {flags}")
                .split_whitespace(),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the partial file has so many bytes.
fn wait_for_rows(bench: &Bench, bytes: u64) {
    let part = bench.path("e.npy.part");
    wait_for("rows", || std::fs::metadata(&part).map_or(0, |part| part.len()) >= bytes);
}

/// A run that was killed after some rows: its partial file.
fn killed(bench: &Bench) -> Vec<u8> {
    let mut child = embed(bench, "--force");
    wait_for_rows(bench, 200_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bench.path("e.npy").exists(), "it was done too soon");
    bench.bytes("e.npy.part")
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes_wherever_it_was_cut() {
    let bench = Bench::new();
    model(&bench);
    bench.write("some.txt", sequences('M'));
    bench.ok("embed --model model --input some.txt --output e.npy");
    let whole = bench.bytes("e.npy");
    std::fs::remove_file(bench.path("e.npy")).unwrap();
    let part = killed(&bench);
    for length in [part.len(), part.len() - 10, part.len() / 2, 300, 10, 0] {
        bench.write("e.npy.part", &part[..length]);
        let _ = std::fs::remove_file(bench.path("e.npy"));
        bench.ok("embed --model model --input some.txt --output e.npy");
        assert!(bench.bytes("e.npy") == whole, "cut at {length}");
        assert!(!bench.path("e.npy.part").exists());
    }
}

#[test]
fn other_sequences_weights_and_settings_are_refused() {
    let bench = Bench::new();
    model(&bench);
    bench.write("some.txt", sequences('M'));
    let part = killed(&bench);
    let resume = "embed --model model --input some.txt --output e.npy";
    let refused = |flags: &str| {
        bench.write("e.npy.part", &part);
        let message = bench.fails(2, &format!("{resume} {flags}"));
        assert!(message.contains("--force"), "{flags}: {message}");
        assert!(bench.bytes("e.npy.part") == part, "{flags}");
    };
    refused("--layer 1");
    refused("--batch-tokens 100");
    // of the same length and name
    bench.write("some.txt", sequences('A'));
    refused("");
    bench.write("some.txt", sequences('M'));
    let mut weights = bench.bytes("model/model.safetensors");
    *weights.last_mut().unwrap() ^= 1;
    bench.write("model/model.safetensors", weights);
    refused("");
    let mut command = bench.command("embed --model model --input - --output e.npy");
    let output = command.write_stdin(sequences('M')).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn standard_input_is_never_gone_on_with() {
    let bench = Bench::new();
    model(&bench);
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("tcn"))
        .current_dir(bench.dir.path())
        .args(["embed", "--model", "model", "--input", "-", "--output", "e.npy"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, sequences('A').as_bytes()).unwrap();
    wait_for_rows(&bench, 100_000);
    child.kill().unwrap();
    child.wait().unwrap();
    // what it left is of no use to anyone, and in nobody's way
    bench.write("some.txt", "MKV\nMM\n");
    let mut command = bench.command("embed --model model --input - --output e.npy --json");
    let output = command.write_stdin("MKV\nMM\n").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["sequences"], 2);
    bench.ok("embed --model model --input some.txt --output f.npy");
    assert_eq!(bench.bytes("e.npy"), bench.bytes("f.npy"));
}

#[cfg(unix)]
#[test]
fn a_second_run_into_the_same_output_is_refused() {
    let bench = Bench::new();
    model(&bench);
    bench.write("some.txt", sequences('M'));
    std::fs::write(bench.path("e.npy.part"), "").unwrap();
    let part = std::fs::File::open(bench.path("e.npy.part")).unwrap();
    part.lock().unwrap();
    for flags in ["", "--force"] {
        let message =
            bench.fails(1, &format!("embed --model model --input some.txt --output e.npy {flags}"));
        assert!(message.contains("in use"), "{message}");
    }
    drop(part);
    bench.ok("embed --model model --input some.txt --output e.npy");
}

#[test]
fn a_run_without_rows_leaves_nothing() {
    let bench = Bench::new();
    model(&bench);
    let embed = "embed --model model --input some.txt --output e.npy";
    for content in [&b""[..], b"\n\n", b"\xff\xfe\n"] {
        bench.write("some.txt", content);
        let message = bench.fails(1, embed);
        assert!(message.contains("some.txt"), "{message}");
        assert!(!bench.path("e.npy").exists() && !bench.path("e.npy.part").exists());
    }
    std::fs::remove_file(bench.path("some.txt")).unwrap();
    bench.fails(1, embed);
    assert!(!bench.path("e.npy.part").exists());
    bench.write("some.txt", "MKV\n");
    bench.ok(embed);
    assert!(!bench.path("e.npy.part").exists());
}

#[test]
fn somebodys_file_is_not_taken_for_a_partial_one() {
    let bench = Bench::new();
    model(&bench);
    bench.write("some.txt", "MKV\n");
    for content in ["half of a download", "{\"mine\": 1}\n", "\n"] {
        bench.write("e.npy.part", content);
        for flags in ["", "--force"] {
            let message = bench
                .fails(1, &format!("embed --model model --input some.txt --output e.npy {flags}"));
            assert!(message.contains("e.npy.part"), "{message}");
        }
        assert_eq!(bench.bytes("e.npy.part"), content.as_bytes());
    }
}

#[cfg(unix)]
#[test]
fn an_output_keeps_its_mode_and_a_device_stays_one() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let bench = Bench::new();
    model(&bench);
    bench.write("some.txt", "MKV\nMM\n");
    bench.write("e.npy", "old");
    std::fs::set_permissions(bench.path("e.npy"), std::fs::Permissions::from_mode(0o600)).unwrap();
    bench.ok("embed --model model --input some.txt --output e.npy --force");
    assert_eq!(std::fs::metadata(bench.path("e.npy")).unwrap().permissions().mode() & 0o777, 0o600);
    std::os::unix::fs::symlink("/dev/null", bench.path("null.npy")).unwrap();
    bench.ok("embed --model model --input some.txt --output null.npy");
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(bench.path("null.npy").is_symlink());
}

#[test]
fn fasta_as_people_have_it() {
    let bench = Bench::new();
    model(&bench);
    let ids = |text: &str| -> Result<Vec<String>, String> {
        bench.write("x.fasta", text);
        let output = bench.run("embed --model model --input x.fasta --output x.jsonl --force");
        if !output.status.success() {
            return Err(stderr(&output));
        }
        let lines = String::from_utf8(bench.bytes("x.jsonl")).unwrap();
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string();
        Ok(lines.lines().map(id).collect())
    };
    let two = Ok(vec!["\"a\"".to_string(), "\"b\"".to_string()]);
    assert_eq!(ids(">a x\nMKV\n>b\nMM\n"), two);
    assert_eq!(ids("\u{feff}>a\nMKV\n>b\nMM\n"), two);
    assert_eq!(ids("; a comment\n;another\n>a\nMK\n; within\nV\n>b\nMM\n"), two);
    assert_eq!(ids("\r\n>a\r\nMKV\r\n\r\n>b\r\nMM\r\n"), two);
    let stray = ids("stray\n>a\nMKV\n").unwrap_err();
    assert!(stray.contains("line 2") && stray.contains("FASTA"), "{stray}");
    assert_eq!(ids("MKV\nMM\n").unwrap(), ["null", "null"]);
}

#[test]
fn unknown_residues_are_said() {
    let bench = Bench::new();
    model(&bench);
    bench.write("odd.fasta", ">a\nMKV\n>b\nM1K2\n>c\nM3\n");
    let output = bench.run("embed --model model --input odd.fasta --output e.npy");
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("3 tokens in 2 sequences")
            && stderr(&output).contains("first in b"),
        "{}",
        stderr(&output)
    );
    let output = bench.run("fill-mask --model model M1<mask>");
    assert!(stderr(&output).contains("1 token in 1 sequence "), "{}", stderr(&output));
    bench.write("plain.fasta", ">a\nMKV\n");
    let output = bench.run("embed --model model --input plain.fasta --output f.npy");
    assert!(!stderr(&output).contains("no token"), "{}", stderr(&output));
}
