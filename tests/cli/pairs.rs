//! Pairs: what follows a separator is learned, scored and answered.

use serde_json::Value;

use super::Bench;

const FLAGS: &str = "--documents lines --config net.json --batch-size 8 --seq-len 32 --dtype f32 --weight-decay 0.01";
const WORDS: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];

/// Words and the same in capital letters, one of each a line, between `=`.
fn bench() -> Bench {
    let bench = Bench::new();
    let lines =
        (0..400).map(|i| WORDS[i * 5 % 8]).map(|word| format!("{word}={}\n", word.to_uppercase()));
    bench.write("pairs.txt", lines.collect::<String>());
    bench.write("words.txt", WORDS.join("\n"));
    bench
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn pairs_are_learned_and_answered() {
    let bench = bench();
    let trained = bench
        .json(&format!("train --data pairs.txt --target-after = --steps 300 --out run {FLAGS}"));
    // nothing of the words before the separator is learned, and they cost nothing
    assert!(trained["valid_loss"].as_f64().unwrap() < 0.2, "{trained}");
    let all = bench.json(&format!("train --data pairs.txt --steps 300 --out all {FLAGS}"));
    assert!(all["valid_loss"].as_f64().unwrap() > 0.2, "{all}");
    let answer = |more: &str| {
        bench.ok(&format!(
            "generate --model run --prompt-file words.txt --each-line --prompt-end = {more}"
        ))
    };
    let expected: Vec<String> = WORDS.iter().map(|word| word.to_uppercase()).collect();
    let greedy = answer("");
    assert_eq!(greedy.lines().collect::<Vec<_>>(), expected);
    let beams = lines(&answer("--beams 4 --json"));
    for (line, word) in beams.iter().zip(WORDS) {
        let reason = (&line["prompt"], &line["finish_reason"]);
        assert_eq!(reason, (&word.into(), &"eos".into()));
        assert_eq!(line["text"], word.to_uppercase());
        assert_eq!(line["tokens"], word.len() + 1);
    }
    // alone as among the others
    bench.write("one.txt", "three\n");
    let alone = lines(&bench.ok(
        "generate --model run --prompt-file one.txt --each-line --prompt-end = --beams 4 --json",
    ));
    assert_eq!(alone[0], beams[2]);
    let eval = bench.json("eval --model run --data pairs.txt --documents lines --target-after =");
    let targets: usize = (0..400).map(|i| WORDS[i * 5 % 8].len() + 1).sum();
    assert_eq!(eval["tokens"], targets);
    assert!(eval["loss"].as_f64().unwrap() < 0.2);
    // its sum is what the answers' probabilities say
    let nats: f64 = beams.iter().map(|line| -line["logprob"].as_f64().unwrap()).sum();
    let found = eval["loss"].as_f64().unwrap() * targets as f64;
    assert!((found - 50.0 * nats).abs() < 1e-3 * found.max(1.0), "{found} {nats}");
}

#[test]
fn what_is_no_pair_is_one_line() {
    let bench = bench();
    bench.write("broken.txt", "one=ONE\ntwo\n");
    bench.trained("plain", "");
    for (code, command, expected) in [
        (
            1,
            format!("train --data broken.txt --target-after = {FLAGS}"),
            "document 2: expected \"=\", found none in \"two\"",
        ),
        (2, "train --data pairs.txt --target-after =".into(), "--documents or --field"),
        (2, "generate --each-line".into(), "--prompt-file"),
        (2, "generate --prompt-file words.txt --each-line --beams 65".into(), "--beams"),
        (
            2,
            "generate --prompt-file words.txt --each-line --temperature 0.5".into(),
            "--temperature",
        ),
        (2, "generate --prompt-file words.txt --beams 3".into(), "--each-line"),
    ] {
        let message = bench.fails(code, &command);
        assert!(
            message.contains(expected) && message.trim().lines().count() == 1,
            "{command}: {message}"
        );
    }
}
