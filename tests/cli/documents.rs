//! Documents: trained, evaluated and generated one by one.

use serde_json::Value;

use super::models::fixture;
use super::{Bench, stderr};

const WORDS: [&str; 6] =
    ["amber fox", "blue whale", "cold", "dusty road ahead", "echo", "fine day"];
const FLAGS: &str =
    "--config net.json --batch-size 4 --seq-len 32 --valid-every 40 --seed 3 --dtype f32";

fn bench() -> Bench {
    let bench = Bench::new();
    let lines: Vec<&str> = (0..240).map(|i| WORDS[i * 7 % 6]).collect();
    bench.write("lines.txt", lines.join("\n"));
    bench.write("separated.txt", lines.join("\n---\n"));
    let json = |line: &&str| serde_json::json!({"n": 1, "text": line}).to_string();
    bench.write("lines.jsonl", lines.iter().map(json).collect::<Vec<_>>().join("\n"));
    bench
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_model_of_documents_ends_its_texts() {
    let bench = bench();
    let tokenizer = fixture("faults/eos_tok.json").display().to_string();
    bench.ok(&format!("train --data lines.txt --documents lines --tokenizer {tokenizer} --steps 700 --weight-decay 0.01 --out run {FLAGS}"));
    let config: Value = serde_json::from_slice(&bench.bytes("run/config.json")).unwrap();
    assert_eq!(config["eos_token_id"], 0);
    let texts =
        lines(&bench.ok("generate --model run --num-samples 100 --seed 1 --json --max-tokens 100"));
    let ended: Vec<&Value> = texts.iter().filter(|text| text["finish_reason"] == "eos").collect();
    assert!(ended.len() >= 95, "{}", ended.len());
    // each is a document of its own, from its beginning
    let whole = ended.iter().filter(|text| WORDS.contains(&text["text"].as_str().unwrap()));
    assert!(
        whole.count() >= 80,
        "{:?}",
        ended.iter().map(|text| &text["text"]).collect::<Vec<_>>()
    );
    let one = |flags: &str| {
        lines(&bench.ok(&format!("generate --model run --seed 1 --json {flags}"))).remove(0)
    };
    let prompted = one("--prompt dusty --temperature 0");
    assert_eq!(
        (prompted["text"].as_str(), prompted["finish_reason"].as_str()),
        (Some(" road ahead"), Some("eos"))
    );
    let ignored = one("--ignore-eos --max-tokens 60");
    assert_eq!(
        (ignored["finish_reason"].as_str(), ignored["tokens"].as_u64()),
        (Some("length"), Some(60))
    );
    let long = one("--prompt cold --min-tokens 9 --max-tokens 40");
    assert!(long["tokens"].as_u64().unwrap() > 9);
    // the name of a special token is text, unless the flag says otherwise
    let begun = one("--special --temperature 0 --prompt nonsense<|endoftext|>dusty");
    assert_eq!(begun["text"], " road ahead");
    let stopped = one("--special --ignore-eos --stop <|endoftext|> --temperature 0 --prompt dusty");
    assert_eq!(
        (&stopped["text"], &stopped["finish_reason"]),
        (&" road ahead".into(), &"eos".into())
    );
}

#[test]
fn documents_are_the_same_in_every_form() {
    let bench = bench();
    let train = |data: &str, out: &str| {
        bench.json(&format!("train --data {data} --steps 20 --out {out} {FLAGS}"))["valid_loss"]
            .clone()
    };
    let expected = train("lines.txt --documents lines", "a");
    assert_eq!(train("separated.txt --documents \\n---\\n", "b"), expected);
    assert_eq!(train("separated.txt --documents ---", "c"), expected);
    assert_eq!(train("lines.jsonl --field text", "d"), expected);
    assert_eq!(bench.bytes("a/model.safetensors"), bench.bytes("d/model.safetensors"));
    // none sees another: the loss of all is that of each alone
    let scored = bench.json("score --model a cold");
    assert_eq!(scored["tokens"], 4, "the first letter is predicted, too");
    let config: Value = serde_json::from_slice(&bench.bytes("a/config.json")).unwrap();
    assert_eq!(
        config["eos_token_id"].as_u64().unwrap() + 1,
        config["vocab_size"].as_u64().unwrap()
    );
    let nats = |text: &str, flags: &str| {
        bench.write("some.txt", text);
        let found = bench.json(&format!("eval --model a --data some.txt {flags}"));
        let number = |key: &str| found[key].as_f64().unwrap();
        assert_eq!(
            number("tokens") as usize,
            text.lines().count() + text.lines().map(str::len).sum::<usize>()
        );
        number("loss") * number("tokens")
    };
    let alone: f64 = WORDS.iter().map(|word| nats(word, "")).sum();
    let joined = nats(&WORDS.join("\n"), "--documents lines");
    assert!((joined - alone).abs() < 1e-6 * alone, "{joined} {alone}");
    // in two parts as in one
    let constant = format!("--data lines.txt --documents lines --schedule constant {FLAGS}");
    bench.ok(&format!("train {constant} --steps 10 --out e"));
    bench.ok("train --resume --out e --steps 20");
    bench.ok(&format!("train {constant} --steps 20 --out f"));
    let checkpoint =
        |out: &str| bench.bytes(format!("{out}/checkpoints/step-20/model.safetensors"));
    assert_eq!(checkpoint("e"), checkpoint("f"));
}

#[test]
fn a_base_of_running_text_learns_where_documents_end() {
    let bench = bench();
    bench.write("running.txt", WORDS.join(" ").repeat(60));
    bench.ok(&format!("train --data running.txt --steps 20 --out base {FLAGS}"));
    let rest = "--batch-size 4 --seq-len 32 --dtype f32";
    bench.ok(&format!(
        "train --data lines.txt --documents lines --init-from base --steps 20 --out fine {rest}"
    ));
    let [base, fine] = ["base", "fine"].map(|run| {
        let config: Value =
            serde_json::from_slice(&bench.bytes(format!("{run}/config.json"))).unwrap();
        config
    });
    assert_eq!(fine["eos_token_id"], base["vocab_size"]);
    // and a model of documents goes on as one
    bench.ok(&format!(
        "train --data lines.txt --documents lines --init-from fine --steps 2 --out again {rest}"
    ));
    let again: Value = serde_json::from_slice(&bench.bytes("again/config.json")).unwrap();
    assert_eq!(again["eos_token_id"], fine["eos_token_id"]);
    // also where the flags do not say so, and when it is resumed
    bench.ok(&format!(
        "train --data lines.txt --init-from fine --unknown map --steps 2 --out whole {rest}"
    ));
    bench.ok("train --resume --out whole --steps 4");
    let whole: Value = serde_json::from_slice(&bench.bytes("whole/config.json")).unwrap();
    assert_eq!(whole["eos_token_id"], fine["eos_token_id"]);
    let card = String::from_utf8(bench.bytes("whole/README.md")).unwrap();
    assert!(card.contains("--documents files"), "{card}");
}

#[test]
fn what_is_no_document_is_one_line() {
    let bench = bench();
    bench.trained("plain", "");
    bench.write("broken.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n");
    bench.write("blank.txt", "\n\n\n");
    bench.write("binary.txt", b"good\n\xff\xfe\xfa\n");
    for (code, command, expected) in [
        (
            1,
            "train --data broken.jsonl --field text",
            "broken.jsonl: line 2: expected text in \"text\"",
        ),
        (1, "train --data lines.jsonl --field body", "expected a field \"body\", found n, text"),
        (1, "train --data lines.txt --field text", "line 1: expected a JSON object"),
        (1, "train --data blank.txt --documents lines", "no document to train on"),
        (1, "train --data binary.txt --documents lines", "binary.txt"),
        (
            2,
            "eval --model plain --data text.txt --documents lines",
            "expected a model of documents",
        ),
        (2, "train --data text.txt --documents lines --token-cache c", "--token-cache"),
        (2, "generate --model plain --ignore-eos", "a model of documents"),
        (2, "generate --model plain --min-tokens 3", "--stop TEXT, or a model of documents"),
        (2, "train --data text.txt --documents lines --field x", "cannot be used with"),
    ] {
        let message = bench.fails(code, command);
        assert!(message.contains(expected), "{command}: {message}");
    }
    let empty = bench.command("train --data text.txt --documents").arg("").output().unwrap();
    assert!(stderr(&empty).contains("a separator"), "{}", stderr(&empty));
}
