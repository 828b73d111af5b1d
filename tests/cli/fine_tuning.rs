//! Runs that begin with a trained model, and evaluation that goes on learning.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::Bench;

/// Steps whose number does not change the learning rate.
const FLAGS: &str =
    "--data other.txt --batch-size 4 --seq-len 32 --schedule constant --valid-every 100";

/// A trained model in `base`, and another text of the same characters and two more.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.trained("base", "");
    bench.write("other.txt", "a lazy fox quickly jumps over the brown dog.\n".repeat(100));
    bench.write("new.txt", "a lazy fox, quickly: over the brown dog.\n".repeat(100));
    bench
}

fn weights(bench: &Bench, run: &str) -> HashMap<String, Tensor> {
    let file = bench.path(&format!("{run}/model.safetensors"));
    candle_core::safetensors::load(file, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_run_begins_with_the_weights_of_a_model() {
    let bench = bench();
    let before = bench.json("eval --model base --data other.txt")["loss"].as_f64().unwrap();
    let fresh = format!("train {FLAGS} --config net.json --steps 5 --out fresh");
    let fresh = bench.json(&fresh)["valid_loss"].as_f64().unwrap();
    let tuned = bench.json(&format!("train {FLAGS} --init-from base --steps 5 --out tuned"));
    let tuned = tuned["valid_loss"].as_f64().unwrap();
    assert!(tuned < before - 0.1 && tuned < fresh - 0.1, "{before} {tuned} {fresh}");
    let card = String::from_utf8(bench.bytes("tuned/README.md")).unwrap();
    assert!(card.contains("began with the weights of `base`"), "{card}");
    // a checkpoint is a model, too
    bench.ok(&format!("train {FLAGS} --init-from base/checkpoints/step-30 --steps 1 --out again"));
}

#[test]
fn an_interrupted_run_goes_on_and_frozen_parameters_stay() {
    let bench = bench();
    let flags = format!("{FLAGS} --init-from base --freeze encoder* *.0.*");
    bench.ok(&format!("train {flags} --steps 6 --out whole"));
    bench.ok(&format!("train {flags} --steps 3 --out parts"));
    bench.ok("train --resume --steps 6 --out parts");
    let [whole, parts] = ["whole", "parts"]
        .map(|run| bench.bytes(format!("{run}/checkpoints/step-6/model.safetensors")));
    assert!(whole == parts);
    let [base, tuned] = ["base", "whole"].map(|run| weights(&bench, run));
    let mut counts = [0, 0];
    for (name, tensor) in &base {
        let frozen = name.starts_with("encoder") || name.contains(".0.");
        let same = numbers(tensor) == numbers(&tuned[name]);
        assert_eq!(same, frozen, "{name}");
        counts[usize::from(frozen)] += 1;
    }
    assert!(counts[0] > 0 && counts[1] > 1, "{counts:?}");
}

#[test]
fn characters_that_a_model_lacks_are_named_refused_mapped_or_added() {
    let bench = bench();
    let flags = FLAGS.replace("other", "new") + " --init-from base --steps 4";
    let message = bench.fails(2, &format!("train {flags} --out refused"));
    for part in [
        "2 characters",
        "\",\" 100 times",
        "\":\" 100 times",
        "--extend-vocabulary",
        "--unknown map",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!bench.path("refused").exists());
    bench.ok(&format!("train {flags} --unknown map --out mapped"));
    bench.ok(&format!("train {flags} --extend-vocabulary --out larger"));
    let [base, mapped, larger] = ["base", "mapped", "larger"].map(|run| weights(&bench, run));
    let name = base.keys().find(|name| name.starts_with("encoder")).unwrap();
    let (old, rows) = (base[name].dims()[0], larger[name].dims()[0]);
    assert_eq!((mapped[name].dims()[0], rows), (old, old + 2));
    // both began as the mean of the others, and were trained
    let [comma, colon] = [old, old + 1].map(|row| numbers(&larger[name].get(row).unwrap()));
    assert_ne!(comma, colon);
    assert_ne!(comma, numbers(&base[name].mean(0).unwrap()));
    let text = bench.ok("generate --model larger --max-tokens 5 --prompt fox,");
    assert!(text.starts_with("fox,"), "{text}");
}

#[test]
fn what_does_not_fit_is_one_clear_line() {
    let bench = bench();
    let message =
        bench.fails(2, &format!("train {FLAGS} --init-from base --freeze convolution* --out x"));
    assert!(message.contains("freeze") && message.contains("convolution*"), "{message}");
    let message = bench.fails(2, &format!("train {FLAGS} --init-from base --freeze * --out x"));
    assert!(message.contains("freeze"), "{message}");
    let message = bench.fails(1, &format!("train {FLAGS} --init-from nothing/here --out x"));
    assert!(message.contains("--init-from"), "{message}");
    for flag in ["--preset char", "--tokenizer byte", "--config net.json"] {
        bench.fails(2, &format!("train {FLAGS} --init-from base {flag} --out x"));
    }
    bench.fails(2, &format!("train {FLAGS} --config net.json --extend-vocabulary --out x"));
    assert!(!bench.path("x").exists());
    let message = bench.fails(2, &format!("train {FLAGS} --init-from base --force --out base"));
    assert!(message.contains("--init-from"), "{message}");
}

#[test]
fn a_dynamic_evaluation_learns_from_what_it_has_read() {
    let bench = bench();
    let eval = |flags: &str| {
        let found = bench.json(&format!("eval --model base --data other.txt --dynamic {flags}"));
        [&found["loss"], &found["dynamic"]["loss"]].map(|loss| loss.as_f64().unwrap())
    };
    let [still, followed] = eval("--lr 0.001 --segment 50");
    assert!(followed < still - 0.1, "{still} {followed}");
    // weights that stay give what they give alone
    let [still, followed] = eval("--lr 0 --segment 7");
    assert!((still - followed).abs() < 1e-5, "{still} {followed}");
    assert!(bench.json("eval --model base --data other.txt")["dynamic"].is_null());
    let message = bench.fails(2, "eval --model base --data other.txt --dynamic --decay 2");
    assert!(message.contains("--decay"), "{message}");
    bench.fails(2, "eval --model base --data other.txt --lr 0.1");
}
