//! Absurd numbers and closed streams: no panic, and no more memory than there is.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, stderr};

const MOST: u64 = u64::MAX;

/// What the command writes until it has written `bytes`, within an address space of 4 GB and 20 seconds.
fn first_bytes(bench: &Bench, arguments: &str, bytes: usize) -> String {
    let tcn = env!("CARGO_BIN_EXE_tcn");
    let command =
        format!("ulimit -v 4000000; timeout 20 {tcn} {arguments} --threads 2 | head -c {bytes}");
    let output =
        Command::new("sh").args(["-c", &command]).current_dir(bench.dir.path()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn any_number_of_samples_is_begun_one_after_the_other() {
    let bench = Bench::new();
    for flags in ["--max-tokens 0", "--max-tokens 1", "--allow-chars a --stop a", "--max-tokens 5"]
    {
        let generate = format!("generate --seed 1 --num-samples {MOST} {flags}");
        let start = Instant::now();
        let text = first_bytes(&bench, &generate, 10_000);
        assert_eq!(text.len(), 10_000, "{flags}");
        assert!(text.contains("--- sample 99 ---"), "{flags}: {text}");
        let json = first_bytes(&bench, &format!("{generate} --json"), 10_000);
        assert_eq!(json.len(), 10_000, "{flags}");
        assert!(start.elapsed() < Duration::from_secs(30), "{flags}");
    }
}

#[test]
fn any_number_of_runs_is_measured_until_the_user_has_enough() {
    let bench = Bench::new();
    for what in ["train", "forward", "generate"] {
        for flag in ["warmup", "runs"] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_tcn"))
                .args([
                    "bench",
                    what,
                    "--config",
                    "net.json",
                    "--batch-size",
                    "1",
                    "--seq-len",
                    "8",
                ])
                .args(["--threads", "1", &format!("--{flag}"), &MOST.to_string()])
                .current_dir(bench.dir.path())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(700));
            assert!(child.try_wait().unwrap().is_none(), "{what} --{flag}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_the_address_space_counts() {
    let bench = Bench::new();
    // about 6 GB, the states 5 GB
    for command in
        ["bench forward --batch-size 2000", "bench generate --batch-size 100000 --seq-len 1"]
    {
        let command =
            format!("ulimit -v 3000000; {} {command} --threads 2", env!("CARGO_BIN_EXE_tcn"));
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("GiB are free: lower --batch-size"), "{message}");
    }
    bench.ok("bench forward --config net.json --batch-size 2 --seq-len 8 --runs 1");
}

#[cfg(target_os = "linux")]
#[test]
fn messages_that_nobody_can_read_are_no_reason_to_stop() {
    let bench = Bench::new();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let run = |arguments: &str, stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcn"));
        command.current_dir(bench.dir.path());
        command.args(arguments.split_whitespace()).stdout(stdout).stderr(stderr);
        command.output().unwrap()
    };
    for command in [
        "receptive-field --kernel-size 3 --dilations 1,2 --svg a.svg",
        "receptive-field --kernel-size 3x3 --dilations 1,2 --svg b.svg",
        "generate --max-tokens 1",
        "train --data text.txt --config net.json --steps 2 --batch-size 2 --seq-len 8 --out run",
        "bench forward --config net.json --batch-size 2 --seq-len 8 --runs 1",
    ] {
        let output = run(command, Stdio::null(), full());
        assert_eq!(output.status.code(), Some(0), "{command}");
        if !command.starts_with("train") {
            // a result that is lost is an error
            let output = run(command, full(), Stdio::piped());
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{command}: {message}");
            assert!(!message.contains("panicked"), "{command}: {message}");
        }
    }
    for file in ["a.svg", "b.svg"] {
        assert!(bench.bytes(file).starts_with(b"<svg"), "{file}");
    }
    for (command, code) in [("--help", 0), ("generate --no-such-flag", 2), ("info nothing", 1)] {
        let output = run(command, full(), full());
        assert_eq!(output.status.code(), Some(code), "{command}");
    }
}
