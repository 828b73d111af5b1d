//! Masked language models: trained, continued, used.

use serde_json::Value;

use super::Bench;
use super::models::fixture;

const CARP: &str =
    r#"{"model_type": "carp", "hidden_size": 16, "num_hidden_layers": 4, "max_dilation": 4}"#;
const FLAGS: &str =
    "--batch-size 8 --seq-len 24 --valid-every 30 --weight-decay 0.01 --dtype f32 --seed 2";

/// Sequences in which every letter is told by its neighbours.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("carp.json", CARP);
    let sequence = |i: usize| "ACDEFGHIKLMN".repeat(3)[i % 12..12 + i % 19].to_string();
    let sequences: Vec<String> = (0..300).map(sequence).collect();
    bench.write("proteins.txt", sequences.join("\n"));
    let fasta: Vec<String> = (0..).zip(&sequences).map(|(i, s)| format!(">p{i}\n{s}\n")).collect();
    bench.write("proteins.fasta", fasta.concat());
    bench
}

#[test]
fn a_masked_model_is_trained_and_used() {
    let bench = bench();
    let train = |more: &str| bench.json(&format!("train {more} {FLAGS}"));
    let result = train("--data proteins.txt --config carp.json --steps 150 --out run");
    let loss = result["valid_loss"].as_f64().unwrap();
    // of twelve letters, all alike
    assert!(loss < 1.5 && result["valid_bpc"].is_null(), "{result}");
    let filled = bench.json("fill-mask --model run ACDEF<mask>HIKLM");
    let masks: &Value = &filled["masks"][0];
    assert_eq!((&masks["position"], &masks["candidates"][0]["token"]), (&5.into(), &"G".into()));
    bench.write("v.txt", "G6W");
    let scores = bench.ok("score --model run ACDEFGHIKLM --variants v.txt");
    assert!(scores.trim().rsplit('\t').next().unwrap().parse::<f64>().unwrap() < -1.0, "{scores}");
    let card = String::from_utf8(bench.bytes("run/README.md")).unwrap();
    assert!(card.contains("tcn fill-mask") && !card.contains("tcn generate"), "{card}");
    // FASTA is the same, and so is what goes on
    let same =
        train("--data proteins.fasta --config carp.json --steps 20 --schedule constant --out a");
    train("--data proteins.txt --config carp.json --steps 10 --schedule constant --out b");
    bench.ok("train --resume --out b --steps 20");
    let [a, b] =
        ["a", "b"].map(|run| bench.bytes(format!("{run}/checkpoints/step-20/model.safetensors")));
    assert!(a == b && same["steps"] == 20);
    // from weights that exist
    let tuned = train("--data proteins.txt --init-from run --steps 20 --out tuned");
    assert!(tuned["valid_loss"].as_f64().unwrap() < loss + 0.3, "{tuned}");
}

#[test]
fn every_masked_architecture_is_trained() {
    let bench = bench();
    bench.write("dna.txt", "ACGTACGTTGCA\nACGTACGT\nTTGCATTGCA\n".repeat(30));
    let gpn = fixture("gpn-tiny").display().to_string();
    let bytenet = r#"{"model_type": "bytenet", "d_embedding": 4, "d_model": 16, "n_layers": 3, "kernel_size": 3, "r": 4}"#;
    bench.write("bytenet.json", bytenet);
    for (out, network) in [
        ("gpn", format!("--init-from {gpn}")),
        ("bytenet", "--config bytenet.json --task mlm".into()),
    ] {
        let result =
            bench.json(&format!("train --data dna.txt {network} --steps 20 --out {out} {FLAGS}"));
        assert!(result["valid_loss"].as_f64().unwrap() < 2.5, "{result}");
    }
    let filled = bench.json("fill-mask --model bytenet ACG<mask>ACG");
    assert_eq!(filled["masks"][0]["position"], 3);
}

#[test]
fn what_does_not_fit_masked_training_is_one_line() {
    let bench = bench();
    bench.write("blank.txt", "\n\n");
    bench.write("masks.txt", "<mask>\n<mask><mask>\n");
    for (code, command, expected) in [
        (2, "--data proteins.txt --task mlm --config net.json", "which sees both sides"),
        (2, "--data proteins.txt --task lm --config carp.json", "which predicts the next token"),
        (2, "--data proteins.txt --mask-share 0.2 --config net.json", "--task mlm"),
        (2, "--data proteins.txt --config carp.json --mask-share 0", "--mask-share"),
        (2, "--data proteins.txt --config carp.json --mask-random 0.3", "--mask-random"),
        (1, "--data blank.txt --config carp.json", "found none"),
        (2, "--data masks.txt --config carp.json", "a token to look for"),
        (2, "--config carp.json", "--data"),
        (2, "--data proteins.txt --config carp.json --documents lines", "one a line or FASTA"),
    ] {
        let message = bench.fails(code, &format!("train {command} --steps 2"));
        assert!(
            message.contains(expected) && message.trim().lines().count() == 1,
            "{command}: {message}"
        );
    }
}
