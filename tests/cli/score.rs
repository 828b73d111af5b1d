//! `tcn score`: sequences and variants against PyTorch and against `fill-mask`, and what is refused.

use std::process::Output;

use serde_json::Value;

use super::Bench;
use super::models::fixture;

/// Distance of f32 here from f64 there, of log-probabilities of about 5.
const TOLERANCE: f64 = 2e-5;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", super::stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Of the built-in model; arguments with spaces in them.
fn score_whole(bench: &Bench, arguments: &[&str]) -> Output {
    bench.command("score --json").args(arguments).output().unwrap()
}

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("scores.json")).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[track_caller]
fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
}

#[test]
fn sequences_score_as_in_pytorch() {
    let bench = Bench::new();
    for (name, cases) in golden().as_object().unwrap() {
        let sequences = cases["sequences"].as_array().unwrap();
        let texts: Vec<&str> =
            sequences.iter().map(|case| case["text"].as_str().unwrap()).collect();
        bench.write("some.txt", texts.join("\n"));
        let model = fixture(name).display().to_string();
        let score =
            |more: &str| {
                lines(&bench.ok(&format!(
                    "score --model {model} --input some.txt --json --per-token {more}"
                )))
            };
        let found = score("");
        assert_eq!(found.len(), sequences.len());
        for (found, case) in found.iter().zip(sequences) {
            let expected = case["per_token"].as_array().unwrap();
            let tokens = found["per_token"].as_array().unwrap();
            assert_eq!(tokens.len(), expected.len());
            for (token, expected) in tokens.iter().zip(expected) {
                assert_near(number(&token["logprob"]), number(expected), TOLERANCE);
            }
            let sum: f64 = expected.iter().map(number).sum();
            assert_near(number(&found["score"]), sum, TOLERANCE * expected.len() as f64);
        }
        // in batches of one
        for (one, all) in score("--batch-tokens 1").iter().zip(&found) {
            assert_near(number(&one["score"]), number(&all["score"]), 1e-4);
        }
    }
}

#[test]
fn variants_score_as_in_pytorch() {
    let bench = Bench::new();
    for (name, cases) in golden().as_object().unwrap() {
        for case in cases["variants"].as_array().unwrap() {
            bench.write("v.txt", case["form"].as_str().unwrap());
            let mut flags = String::new();
            if let Some(window) = case["window"].as_u64() {
                flags += &format!("--window {window} ");
            }
            flags += if case["strands"] == 2 { "--both-strands" } else { "" };
            let (model, text) = (fixture(name), case["text"].as_str().unwrap());
            let command =
                format!("score --model {} {text} --variants v.txt --json {flags}", model.display());
            let found = lines(&bench.ok(&command));
            assert_eq!(found[0]["variant"], case["form"]);
            assert_near(number(&found[0]["score"]), number(&case["score"]), TOLERANCE);
        }
    }
}

#[test]
fn variants_score_as_fill_mask_fills() {
    let bench = Bench::new();
    for (name, masked, form) in
        [("carp-tiny", "MA<mask>LG", "N3W"), ("gpn-tiny", "ac[MASK]ta", "g3t")]
    {
        let model = fixture(name).display().to_string();
        let filled = bench.ok(&format!("fill-mask --model {model} {masked} --top-k 40 --json"));
        let filled = lines(&filled);
        let candidates = filled[0]["masks"][0]["candidates"].as_array().unwrap();
        let [old, new] = [0, 2].map(|i| form[i..=i].to_string());
        let ln_p = |token: &str| {
            let found = candidates.iter().find(|c| c["token"] == *token).unwrap();
            number(&found["probability"]).ln()
        };
        let text = masked.replace("<mask>", &old).replace("[MASK]", &old);
        bench.write(
            "v.csv",
            format!("sequence,position,reference,alternative\n{text},3,{old},{new}\n"),
        );
        // the table names the sequence by its letters
        let found = lines(&bench.ok(&format!("score --model {model} --variants v.csv --json")));
        assert_near(number(&found[0]["score"]), ln_p(&new) - ln_p(&old), 1e-6);
    }
}

const GENOME: &str = ">one first\nACGTACGTAACC\nGGTTACGATTACAG\n>two\nttttgggg\n";
const VCF: &str = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\n\
    two\t5\t.\tG\tA,C\t.\none\t26\t.\tG\tT\t.\none\t13\t.\tGG\tAC\t.\none\t2\t.\tC\tCA,<DEL>,*\t.\n";

#[test]
fn a_vcf_is_scored_in_its_order() {
    let bench = Bench::new();
    let model = fixture("gpn-tiny").display().to_string();
    bench.write("genome.fa", GENOME);
    bench.write("v.vcf", VCF);
    let score =
        |more: &str| bench.run(&format!("score --model {model} --input genome.fa --json {more}"));
    let output = score("--variants v.vcf");
    let found = lines(&stdout(&output));
    let told = |line: &Value| {
        format!("{} {}", line["sequence"].as_str().unwrap(), line["variant"].as_str().unwrap())
    };
    let told: Vec<String> = found.iter().map(told).collect();
    assert_eq!(told, ["two G5A", "two G5C", "one G26T", "one G13A:G14C"]);
    assert!(super::stderr(&output).contains("passed over 3 alternatives"));
    // both strands, in a window
    let windowed = lines(&stdout(&score("--variants v.vcf --window 8")));
    let expected = |form: &str| {
        let golden = golden();
        let cases = golden["gpn-tiny"]["variants"].as_array().unwrap().clone();
        let case = cases.iter().find(|c| c["form"] == form && c["window"] == 8).unwrap();
        number(&case["score"])
    };
    assert_near(number(&windowed[2]["score"]), expected("G26T"), TOLERANCE);
    assert_near(number(&windowed[3]["score"]), expected("G13A:G14C"), TOLERANCE);
    // as forms with names
    bench.write("v.txt", "two G5A\none G26T\n");
    let forms = lines(&stdout(&score("--variants v.txt --both-strands")));
    assert_near(number(&forms[0]["score"]), number(&found[0]["score"]), 1e-6);
    assert_near(number(&forms[1]["score"]), number(&found[2]["score"]), 1e-6);
}

#[test]
fn a_causal_model_scores_whole_sequences() {
    let bench = Bench::new();
    let text = "And God said";
    let score = |sequence: &str| {
        let output = score_whole(&bench, &[sequence]);
        number(&lines(&stdout(&output))[0]["score"])
    };
    bench.write("v.txt", "d3t");
    let output = score_whole(&bench, &[text, "--variants", "v.txt"]);
    let found = number(&lines(&stdout(&output))[0]["score"]);
    assert_near(found, score("Ant God said") - score(text), 1e-4);
    // as eval measures it
    bench.write("text.txt", text);
    let loss = number(&bench.json("eval --data text.txt")["loss"]);
    assert_near(score(text), -loss * 11.0, 1e-3);
    bench.write("v.txt", "A1B");
    let output = score_whole(&bench, &[text, "--variants", "v.txt"]);
    assert!(super::stderr(&output).contains("first token"));
}

#[test]
fn what_does_not_fit_is_one_line() {
    let bench = Bench::new();
    let model = fixture("gpn-tiny").display().to_string();
    bench.write("genome.fa", GENOME);
    let head = "##fileformat=VCFv4.2\n";
    for (content, expected) in [
        ("C2T\nX\n", "line 2: expected a change such as A123G"),
        ("one G2T\n", "line 1: G2T: expected G at 2 of the sequence, found C"),
        ("one C27T\n", "the sequence ends at 26"),
        ("three A1C\n", "there is no sequence \"three\""),
        ("A1C\n", "expected the name of one of the sequences"),
        ("one A1N\n", "the model does not know N"),
        ("one A1C:A1G\n", "position 1 is changed twice"),
        ("sequence\tposition\nx\t1\n", "expected the columns position, reference and alternative"),
        ("position,reference,alternative\n0,A,C\n", "line 2: expected a position from 1"),
        (&format!("{head}one\t2\n"), "line 2: expected CHROM, POS, ID, REF and ALT"),
        (&format!("{head}one\t2\t.\tA\tT\n"), "line 2: A2T: expected A at 2"),
        (&format!("{head}one\t2\t.\tC\tC\n"), "found the same"),
        ("", "found none"),
    ] {
        bench.write("v", content);
        let error =
            bench.fails(1, &format!("score --model {model} --input genome.fa --variants v"));
        assert!(
            error.contains(expected) && error.trim().lines().count() == 1,
            "{content:?}: {error}"
        );
    }
    bench.write("v", "C2T");
    bench.fails(2, &format!("score --model {model}"));
    bench.write("blank.txt", "\n\n");
    let blank = bench.fails(1, &format!("score --model {model} --input blank.txt"));
    assert!(blank.contains("expected sequences, found none"), "{blank}");
    bench.fails(2, &format!("score --model {model} --variants v"));
    bench.fails(2, &format!("score --model {model} ACGT --window 3"));
    let error = bench.fails(1, &format!("score --model {model} ACGT --variants genome.fa"));
    assert!(error.contains("line 1: expected a change"), "{error}");
    bench.write("w", "A1C:G13A\n");
    let long = "ACGTACGTAACCGGTTACGATTACAG";
    let error = bench.fails(1, &format!("score --model {model} {long} --variants w --window 12"));
    assert!(error.contains("--window of 12"), "{error}");
}
