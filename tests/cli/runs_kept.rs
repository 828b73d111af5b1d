//! What a run is never to lose: itself, files of others, the text it was trained on.

use std::process::{Child, Command, Stdio};

use super::{Bench, SMALL, wait_for};

/// A training that goes on until it is stopped.
const ENDLESS: &str =
    "--config net.json --batch-size 4 --seq-len 32 --steps 100000000 --valid-every 100000000";

fn start(bench: &Bench, before: &str, arguments: &str) -> Child {
    let tcn = assert_cmd::cargo::cargo_bin("tcn");
    let child = Command::new("sh")
        .args(["-c", &format!("{before} exec {} {arguments}", tcn.display())])
        .current_dir(bench.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.unwrap()
}

/// Waits until a training is under way.
fn wait_for_steps(bench: &Bench, run: &str) {
    let log = bench.path(run).join("metrics.jsonl");
    wait_for("training", || std::fs::read(&log).map_or(0, |log| log.len()) > 200);
}

fn names(bench: &Bench, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(bench.path(folder)).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[cfg(unix)]
#[test]
fn force_takes_only_what_the_run_made() {
    let bench = Bench::new();
    bench.trained("run", "");
    let before = bench.bytes("run/model.safetensors");
    std::fs::create_dir(bench.path("elsewhere")).unwrap();
    for file in [
        "elsewhere/a.txt",
        "run/notes.txt",
        "run/checkpoints/.DS_Store",
        "run/checkpoints/.nfs0001",
    ] {
        bench.write(file, "mine");
    }
    std::fs::create_dir(bench.path("run/checkpoints/step-anything")).unwrap();
    bench.write("run/checkpoints/step-anything/a.txt", "mine");
    std::os::unix::fs::symlink("../../elsewhere", bench.path("run/checkpoints/step-7")).unwrap();

    bench.trained("run", "--force --seed 9");
    assert_ne!(bench.bytes("run/model.safetensors"), before);
    for file in [
        "elsewhere/a.txt",
        "run/notes.txt",
        "run/checkpoints/.DS_Store",
        "run/checkpoints/.nfs0001",
        "run/checkpoints/step-anything/a.txt",
        "run/checkpoints/step-7/a.txt",
    ] {
        assert_eq!(bench.bytes(file), b"mine", "{file}");
    }
    assert!(!names(&bench, "run").iter().any(|name| name.starts_with('.')));
}

#[cfg(unix)]
#[test]
fn checkpoints_behind_a_link_stay() {
    let bench = Bench::new();
    bench.trained("run", "");
    std::fs::rename(bench.path("run/checkpoints"), bench.path("disk")).unwrap();
    std::os::unix::fs::symlink("../disk", bench.path("run/checkpoints")).unwrap();
    bench.ok("train --resume --out run --steps 45");
    bench.trained("run", "--force --seed 9");
    assert!(bench.path("disk/step-45/model.safetensors").exists());
    assert!(!bench.path("run/checkpoints").is_symlink());
    assert!(bench.path("run/checkpoints/step-30/model.safetensors").exists());
}

#[test]
fn a_folder_without_run_json_is_nobodys_run() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("mine/checkpoints/step-5")).unwrap();
    for file in
        ["mine/metrics.jsonl", "mine/README.md", "mine/checkpoints/step-5/a", "mine/run.json"]
    {
        bench.write(file, "{}");
    }
    let message = bench.fails(1, &format!("train --data text.txt --out mine {SMALL} --force"));
    assert!(message.contains("run.json"), "{message}");
    assert_eq!(names(&bench, "mine"), ["README.md", "checkpoints", "metrics.jsonl", "run.json"]);
    assert_eq!(bench.bytes("mine/checkpoints/step-5/a"), b"{}");
}

#[test]
fn force_refuses_to_remove_the_text_it_is_to_read() {
    let bench = Bench::new();
    bench.trained("run", "");
    let card = bench.bytes("run/README.md");
    for flags in ["--data run/README.md", "--data text.txt --valid run/metrics.jsonl"] {
        let message = bench.fails(2, &format!("train {flags} --out run {SMALL} --force"));
        assert!(message.contains("belongs to the run"), "{message}");
    }
    assert_eq!(bench.bytes("run/README.md"), card);
    assert!(bench.path("run/checkpoints/step-30").exists());
}

#[test]
fn a_replacement_that_fails_leaves_the_old_run() {
    let bench = Bench::new();
    bench.trained("run", "");
    let files = || {
        ["model.safetensors", "config.json", "run.json", "metrics.jsonl", "README.md"]
            .map(|name| bench.bytes(format!("run/{name}")))
    };
    let before = files();
    let message = bench.fails(
        1,
        &format!(
            "train --data text.txt --out run {SMALL} --force --optimizer sgd --lr 1e30 --clip 0"
        ),
    );
    assert!(message.contains("the old run is back"), "{message}");
    assert!(before == files());
    assert_eq!(bench.json("train --resume --out run --steps 45")["steps"], 45);
}

#[cfg(unix)]
#[test]
fn a_replacement_that_is_killed_leaves_the_old_run() {
    let bench = Bench::new();
    bench.trained("run", "");
    let mut child =
        start(&bench, "", &format!("train --data text.txt --out run --force --seed 9 {ENDLESS}"));
    wait_for("replacement", || {
        names(&bench, "run").iter().any(|name| name.starts_with(".replaced-"))
    });
    wait_for_steps(&bench, "run");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bench.path("run/model.safetensors").exists());
    let output = bench.run("train --resume --out run --steps 45");
    assert!(super::stderr(&output).contains("the old run is back"));
    assert_eq!(bench.bytes("run/checkpoints/step-45/trainer.json").first(), Some(&b'{'));
    let started = String::from_utf8(bench.bytes("run/run.json")).unwrap();
    assert!(!started.contains("--force"), "{started}");
}

#[test]
fn an_edited_card_stays() {
    let bench = Bench::new();
    bench.trained("run", "");
    let card = String::from_utf8(bench.bytes("run/README.md")).unwrap();
    bench.ok("train --resume --out run --steps 45");
    let again = String::from_utf8(bench.bytes("run/README.md")).unwrap();
    assert!(again.contains("| optimizer steps | 45 |"), "{again}");
    let edited = card + "\n## Licence\n\nMIT\n";
    bench.write("run/README.md", &edited);
    for flags in [
        "--resume --out run --steps 60".to_string(),
        format!("--force --data text.txt --out run {SMALL}"),
    ] {
        let output = bench.run(&format!("train {flags}"));
        assert!(output.status.success());
        assert!(
            super::stderr(&output).contains("README.md was edited"),
            "{}",
            super::stderr(&output)
        );
        assert_eq!(bench.bytes("run/README.md"), edited.as_bytes());
    }
}

#[test]
fn a_card_and_its_command_name_no_folder() {
    let bench = Bench::new();
    let text = bench.path("text.txt");
    bench.ok(&format!(
        "train --data {} --out {} {SMALL}",
        text.display(),
        bench.path("run").display()
    ));
    let card = String::from_utf8(bench.bytes("run/README.md")).unwrap();
    assert!(card.contains("tcn train --data text.txt --out run --config net.json"), "{card}");
    assert!(!card.contains(&bench.dir.path().display().to_string()), "{card}");
}

#[test]
fn a_text_that_changed_is_refused_and_one_that_moved_is_named() {
    let bench = Bench::new();
    let flags = SMALL.replace("--steps 30", "--steps 30 --valid valid.txt");
    let text = String::from_utf8(bench.bytes("text.txt")).unwrap();
    bench.write("valid.txt", &text[..800]);
    bench.ok(&format!("train --data text.txt --out run {flags}"));

    bench.write("text.txt", text.replace("quick", "quirk"));
    let message = bench.fails(2, "train --resume --out run --steps 45");
    assert!(message.contains("--data") && message.contains("as many others"), "{message}");

    std::fs::remove_file(bench.path("text.txt")).unwrap();
    let message = bench.fails(1, "train --resume --out run --steps 45");
    assert!(message.contains("text.txt") && message.contains("--data"), "{message}");
    bench.write("moved.txt", &text);
    bench.ok("train --resume --out run --steps 45 --data moved.txt");
    bench.ok("train --resume --out run --steps 60");

    bench.write("valid.txt", text[..800].replace("quick", "quirk"));
    let message = bench.fails(2, "train --resume --out run --steps 75");
    assert!(message.contains("--valid"), "{message}");
    bench.write("other.txt", &text[..800]);
    bench.ok("train --resume --out run --steps 75 --valid other.txt");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let bench = Bench::new();
    let flags = "--data text.txt --config net.json --batch-size 4 --seq-len 32 --valid-every 15 --schedule constant";
    bench.ok(&format!("train {flags} --steps 60 --out whole"));
    bench.ok(&format!("train {flags} --steps 30 --out cut"));
    let weights = "cut/checkpoints/step-30/model.safetensors";
    let mut bytes = bench.bytes(weights);
    // no length and no header tells
    *bytes.last_mut().unwrap() ^= 1;
    bench.write(weights, bytes);
    let output = bench.run("train --resume --out cut --steps 60");
    let said = super::stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("step-30/model.safetensors: damaged") && said.contains("from step 15"),
        "{said}"
    );
    for file in ["model.safetensors", "checkpoints/step-60/optimizer.safetensors"] {
        assert!(
            bench.bytes(format!("whole/{file}")) == bench.bytes(format!("cut/{file}")),
            "{file}"
        );
    }
    assert_eq!(names(&bench, "cut/checkpoints"), ["damaged-step-30", "step-45", "step-60"]);
}

#[cfg(unix)]
#[test]
fn signals_save_and_are_told_apart() {
    let bench = Bench::new();
    let flags = "--data text.txt --config net.json --batch-size 4 --seq-len 32 --steps 1000 --schedule constant \
                 --valid-every 500";
    bench.ok(&format!("train {flags} --out whole"));
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let mut child = start(&bench, "", &format!("train {flags} --out {signal}"));
        wait_for_steps(&bench, signal);
        super::send(signal, &child);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        bench.ok(&format!("train --resume --out {signal}"));
        assert!(
            bench.bytes("whole/model.safetensors")
                == bench.bytes(format!("{signal}/model.safetensors"))
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let bench = Bench::new();
    let mut child =
        start(&bench, "trap '' HUP;", &format!("train --data text.txt --out run {ENDLESS}"));
    wait_for_steps(&bench, "run");
    super::send("HUP", &child);
    let length = || std::fs::metadata(bench.path("run/metrics.jsonl")).unwrap().len();
    let before = length();
    wait_for("further step", || length() > before + 500);
    assert!(child.try_wait().unwrap().is_none());
    super::send("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
