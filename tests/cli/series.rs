//! Networks of series on the command line: train, measure, predict, follow, resume; bad tables.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};

use super::{Bench, stderr};

/// Hours with a season of twelve, a column of categories, two rows left out and a clock that changes.
fn flow() -> String {
    let mut table = String::from("time,flow,valve\n");
    for hour in (0..240).filter(|hour| ![100, 101].contains(hour)) {
        let (day, clock) = (1 + hour / 24, hour % 24);
        let offset = if hour < 150 { "+01:00" } else { "+02:00" };
        let (day, clock) =
            if hour < 150 { (day, clock) } else { ((hour + 1) / 24 + 1, (hour + 1) % 24) };
        let flow = 20.0
            + 5.0 * (f64::from(hour) * std::f64::consts::TAU / 12.0).sin()
            + f64::from(hour * 37 % 11) / 10.0;
        let valve = if hour % 12 < 6 { "open" } else { "shut" };
        writeln!(table, "2024-03-{day:02}T{clock:02}:00{offset},{flow:.3},{valve}").unwrap();
    }
    table
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("flow.csv", flow());
    let mut waves =
        String::from("# made up\n@problemName waves\n@classLabel true slow fast\n@data\n");
    for i in 0..24u32 {
        let (name, pace) = if i % 2 == 0 { ("slow", 0.3) } else { ("fast", 0.9) };
        let wave =
            (0..20 + i).map(|t| format!("{:.3}", (pace * f64::from(t) + f64::from(i)).sin()));
        writeln!(waves, "{}:{name}", wave.collect::<Vec<_>>().join(",")).unwrap();
    }
    bench.write("waves.ts", waves);
    bench
}

#[test]
fn classes_are_guessed_learned_measured_and_predicted() {
    let bench = bench();
    let run = bench.run(
        "train --data waves.ts --out waves --steps 60 --batch-size 6 --valid-fraction 0.25 --json",
    );
    assert!(run.status.success() && stderr(&run).contains("--task classify"), "{}", stderr(&run));
    for file in ["task.json", "confusion.svg", "loss.svg", "README.md"] {
        assert!(bench.path("waves").join(file).exists(), "{file}");
    }
    let card = std::fs::read_to_string(bench.path("waves").join("README.md")).unwrap();
    assert!(card.contains("most frequent class") && card.contains("tells 2 classes"), "{card}");
    let scores = bench.json("eval --model waves --data waves.ts --plot all.svg");
    assert!(scores["accuracy"].as_f64().unwrap() > 0.9, "{scores}");
    assert!(scores["naive_accuracy"].as_f64().unwrap() <= 0.6 && bench.path("all.svg").exists());
    let answers = bench.ok("predict --model waves --input waves.ts");
    let mut lines = answers.lines();
    assert_eq!(lines.next(), Some("series,class,p(slow),p(fast)"));
    assert_eq!(lines.count(), 24);
    // a class that training never saw
    bench.write("more.ts", "@problemName waves\n@classLabel true slow still\n@data\n1,2,1:still\n");
    let message = bench.fails(2, "eval --model waves --data more.ts");
    assert!(
        message.contains("expected one of slow, fast, as in training, found still"),
        "{message}"
    );
}

#[test]
fn forecasts_are_measured_beside_naive_ones_and_go_on_after_the_last_row() {
    let bench = bench();
    let flags = "--task forecast --target flow --horizon 3 --season 12 --steps 60 --batch-size 4";
    let run = bench.run(&format!("train --data flow.csv --out flow {flags} --json"));
    let said = stderr(&run);
    assert!(run.status.success(), "{said}");
    for note in ["a step of 1 hour", "the clock changes once", "2 rows missing from the grid"] {
        assert!(said.contains(note), "{note}: {said}");
    }
    let result: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let scores = &result["scores"]["targets"][0];
    assert!(
        scores["mase"].as_f64().unwrap() < 2.0 * scores["naive_mase"].as_f64().unwrap(),
        "{result}"
    );
    assert!(bench.path("flow").join("forecast.svg").exists());

    let future = bench.ok("predict --model flow --input flow.csv");
    let lines: Vec<&str> = future.lines().collect();
    assert_eq!(lines[0], "time,flow 10%,flow,flow 90%");
    assert!(lines[1].starts_with("2024-03-11T01:00+02:00,"), "{future}");
    assert_eq!(lines.len(), 4);
    let rolling = bench.ok("predict --model flow --input flow.csv --rolling --json");
    let last: serde_json::Value = serde_json::from_str(rolling.lines().last().unwrap()).unwrap();
    let flow: f64 = lines[1].split(',').nth(2).unwrap().parse().unwrap();
    assert!((last["flow+1"].as_f64().unwrap() - flow).abs() < 1e-4, "{last}");
    // in files of each form
    for output in ["a.csv", "a.jsonl", "a.npy", "a.safetensors"] {
        bench.ok(&format!("predict --model flow --input flow.csv --output {output}"));
        assert!(bench.path(output).exists());
    }
    assert!(
        bench.fails(2, "predict --model flow --input flow.csv --output a.csv").contains("--force")
    );
    let scores = bench.json("eval --model flow --data flow.csv --test-fraction 0.2");
    assert_eq!(scores["targets"][0]["target"], "flow");
}

/// Rows without gaps: a stream has none.
fn whole_flow() -> String {
    let mut table = String::from("time,flow,valve\n");
    for minute in 0..200u32 {
        let valve = if minute % 5 < 2 { "open" } else { "shut" };
        writeln!(table, "{minute},{:.3},{valve}", (f64::from(minute) * 0.7).sin()).unwrap();
    }
    table
}

#[test]
fn each_line_is_answered_as_it_comes_and_as_the_file_is() {
    let bench = bench();
    bench.write("rows.csv", whole_flow());
    for (out, flags) in [
        ("ahead", "--task forecast --target flow --horizon 2"),
        ("label", "--task label --target valve"),
        ("value", "--task regress --target flow --shift 1"),
    ] {
        bench.ok(&format!("train --data rows.csv --out {out} {flags} --steps 20 --batch-size 2"));
        let rolling = if out == "ahead" { "--rolling" } else { "" };
        let whole = bench.ok(&format!("predict --model {out} --input rows.csv {rolling}"));
        let mut child = bench.started(&format!("predict --model {out} --follow"));
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut rows = whole_flow().lines().map(String::from).collect::<Vec<_>>().into_iter();
        let expected: Vec<&str> = whole.lines().collect();
        let first = [rows.next().unwrap(), rows.next().unwrap()];
        writeln!(input, "{}\n{}", first[0], first[1]).unwrap();
        // the answer comes although the input stays open
        assert_eq!(answers.next().unwrap().unwrap(), expected[0]);
        let numbers = |line: &str| line.split(',').map(String::from).collect::<Vec<_>>();
        let mut found = vec![answers.next().unwrap().unwrap()];
        rows.for_each(|row| writeln!(input, "{row}").unwrap());
        drop(input);
        found.extend(answers.map(Result::unwrap));
        assert_eq!(found.len(), 200, "{out}");
        for (found, expected) in found.iter().zip(&expected[1..]) {
            for (found, expected) in numbers(found).iter().zip(numbers(expected)) {
                match (found.parse::<f64>(), expected.parse::<f64>()) {
                    (Ok(a), Ok(b)) => {
                        assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{out}: {a} {b}")
                    }
                    _ => assert_eq!(*found, expected),
                }
            }
        }
        assert!(child.wait().unwrap().success());
    }
    let short = "time,flow,valve\n1,2\n";
    let mut command = bench.command("predict --model value --follow");
    let output = command.write_stdin(short).output().unwrap();
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("line 2: expected 3 fields"), "{error}");
}

#[test]
fn a_run_on_series_goes_on_and_threads_change_nothing() {
    let bench = bench();
    let flags = "--data waves.ts --batch-size 5 --valid-fraction 0.2 --seed 3";
    bench.ok(&format!("train {flags} --out one --steps 20 --threads 1"));
    bench.ok(&format!("train {flags} --out two --steps 20 --threads 2"));
    assert_eq!(bench.bytes("one/model.safetensors"), bench.bytes("two/model.safetensors"));
    let more = bench.json("train --resume --out one --steps 30");
    assert_eq!(more["steps"], 30);
    let other = bench.fails(2, "train --resume --out one --horizon 3");
    assert!(other.contains("--horizon"), "{other}");
}

#[test]
fn made_up_tasks_and_arrays() {
    let bench = bench();
    bench.write("net.json", r#"{"model_type": "temporal_conv_net", "num_inputs": 0, "network": {"num_channels": [4], "kernel_size": 2}}"#);
    let result = bench.json("train --task label --target copy --data copy:2 --config net.json --steps 3 --out copy --test-fraction 0.1");
    assert_eq!(result["part"], "test");
    let message = bench.fails(2, "train --task forecast --data waves.ts --init-from copy --out x");
    assert!(message.contains("--init-from"), "{message}");
}

#[test]
fn bad_tables_are_one_line_and_leave_nothing() {
    let bench = bench();
    let rows = |header: &str, row: &dyn Fn(u32) -> String| {
        (0..40).fold(format!("{header}\n"), |table, i| table + &row(i) + "\n")
    };
    for (table, flags, expected) in [
        (
            rows("a,b", &|i| format!("x{i},y")),
            "forecast",
            "expected a column of numbers, found none",
        ),
        (
            rows("a,b", &|i| if i == 30 { "1".into() } else { format!("{i},2{i}") }),
            "forecast",
            "line 32: expected 2 fields",
        ),
        (
            rows("a,b", &|i| format!("{i},5")),
            "forecast",
            "column \"b\": expected two different values",
        ),
        (
            rows("a", &|i| if i == 7 { "NaN".into() } else { i.to_string() }),
            "forecast",
            "column \"a\": expected no missing values, found 1",
        ),
        (
            rows("a", &|i| if i == 7 { "inf".into() } else { i.to_string() }),
            "forecast",
            "line 9: a: expected a finite number",
        ),
        (
            rows("time,a", &|i| format!("{},{i}", 50 - i)),
            "forecast",
            "line 3: expected a time after 50",
        ),
        (rows("a", &|i| i.to_string()), "forecast --horizon 60", "--horizon"),
        (
            rows("a", &|i| i.to_string()),
            "forecast --horizon 0",
            "--horizon: expected a whole number from 1",
        ),
        (
            rows("a", &|i| i.to_string()),
            "forecast --target b",
            "--target: expected one of a, found b",
        ),
        (
            rows("a", &|i| i.to_string()),
            "forecast --time when",
            "expected a column \"when\", found a",
        ),
        (rows("a", &|i| i.to_string()), "classify", "expected series with a class each"),
        (rows("a", &|i| i.to_string()), "label", "target: expected a column of categories"),
        (rows("a", &|i| i.to_string()), "multilabel", "expected 0 or 1"),
        (rows("a", &|i| i.to_string()), "forecast --calendar", "--calendar"),
        (rows("a", &|i| i.to_string()), "forecast --scale never", "--scale: expected none, set"),
        (
            rows("a", &|i| i.to_string()),
            "regress --horizon 2",
            "--horizon: expected together with --task forecast",
        ),
        (String::new(), "forecast", "expected a header and rows, found none"),
    ] {
        bench.write("bad.csv", table);
        let output =
            bench.run(&format!("train --data bad.csv --task {flags} --out never --steps 2"));
        let message = stderr(&output);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{flags}: {message}");
        assert!(
            message.contains(expected) && message.trim().lines().count() == 1,
            "{flags}: {message}"
        );
        assert!(!bench.path("never").exists(), "{flags}");
    }
    let message = bench.fails(2, "train --data text.txt --horizon 3 --out never");
    assert!(message.contains("--horizon"), "{message}");
}
