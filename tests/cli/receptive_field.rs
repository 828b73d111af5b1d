//! `tcn receptive-field` as a user runs it.

use assert_cmd::Command;
use serde_json::{Value, json};

fn tcn(arguments: &str) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("tcn").expect("the binary is built with the tests");
    command.arg("receptive-field").args(arguments.split_whitespace()).assert()
}

/// What standard output holds, as JSON.
fn json_of(arguments: &str) -> Value {
    let result = tcn(&format!("{arguments} --json")).success();
    serde_json::from_slice(&result.get_output().stdout).expect("one JSON object")
}

fn text_of(arguments: &str) -> String {
    let result = tcn(arguments).success();
    String::from_utf8(result.get_output().stdout.clone()).unwrap()
}

/// The single line on standard error of a command that ends with exit code 2.
fn usage_error(arguments: &str) -> String {
    let result = tcn(arguments).code(2);
    let output = result.get_output();
    assert!(output.stdout.is_empty(), "{arguments}: nothing on standard output");
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(message.lines().count(), 1, "{arguments}: {message}");
    message
}

#[test]
fn known_receptive_fields() {
    for (arguments, field) in [
        ("--kernel-size 3 --dilations 1,2,4 --convs-per-block 2", 29),
        ("--kernel-size 7 --levels 8 --convs-per-block 2", 3061),
        ("--kernel-size 5 --dilations 1..128 --stacks 2 --convs-per-block 1", 2041),
        ("--kernel-size 3 --levels 6 --stacks 4", 505),
        ("--kernel-size 3 --dilations 1..4,1", 17),
        ("--kernel-size 2 --levels 4 --base 3", 41),
        ("--preset char-ptb", 29),
    ] {
        let result = json_of(arguments);
        assert_eq!(result["receptive_field"], field, "{arguments}");
        assert_eq!(result["left"], field - 1, "{arguments}");
        assert_eq!(result["right"], 0, "{arguments}");
        let layers = result["layers"].as_array().unwrap();
        assert_eq!(layers.last().unwrap()["receptive_field"], field, "{arguments}");
        let sum: u64 = layers
            .iter()
            .map(|layer| {
                let number = |key: &str| layer[key].as_u64().unwrap();
                (number("kernel_size") - 1) * number("dilation")
            })
            .sum();
        assert_eq!(sum + 1, field, "{arguments}");
    }
}

#[test]
fn the_whole_object() {
    assert_eq!(
        json_of("--kernel-size 2 --dilations 3"),
        json!({
            "receptive_field": 4,
            "left": 3,
            "right": 0,
            "holes": {"count": 2, "first": [-1, -2]},
            "layers": [
                {"name": "network.0.conv1", "kernel_size": 2, "dilation": 3, "receptive_field": 4},
            ],
        })
    );
    let centred = json_of("--kernel-size 3 --dilations 1,2 --non-causal");
    assert_eq!((&centred["left"], &centred["right"]), (&json!(3), &json!(3)));
    assert_eq!(centred["holes"], json!({"count": 0, "first": []}));
}

#[test]
fn text_output() {
    let text = text_of("--kernel-size 2 --dilations 3");
    assert!(text.contains("receptive field: 4 steps (the step itself, 3 before it, 0 after it)"));
    assert!(text.contains("holes: 2 steps inside the field never read, nearest first: -1, -2\n"));
    assert!(text.lines().any(|line| line.split_whitespace().eq([
        "network.0.conv1",
        "2",
        "3",
        "4"
    ])));
    let text = text_of("--at-least 16 --channels 10");
    assert!(
        text.lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .eq(["2", "4", "1", "4", "16", "840", "1..8"])
    );
}

#[test]
fn plans_reach_what_is_wanted() {
    let result = json_of("--at-least 10000");
    assert_eq!(result["at_least"], 10_000);
    let plans = result["plans"].as_array().unwrap();
    assert!(!plans.is_empty());
    let costs = plans.iter().map(|plan| plan["parameters"].as_u64().unwrap());
    assert!(costs.is_sorted(), "cheapest first");
    for plan in plans {
        assert!(plan["receptive_field"].as_u64().unwrap() >= 10_000);
        let dilations = plan["dilations"].as_array().unwrap();
        let last = dilations.last().unwrap();
        let (kernel, stacks) = (&plan["kernel_size"], &plan["stacks"]);
        let measured =
            json_of(&format!("--kernel-size {kernel} --dilations 1..{last} --stacks {stacks}"));
        assert_eq!(measured["receptive_field"], plan["receptive_field"]);
        assert_eq!(measured["layers"].as_array().unwrap().len(), plan["layers"]);
        assert_eq!(measured["holes"]["count"], 0);
    }
    let one = json_of("--at-least 29 --kernel-size 3 --convs-per-block 2 --channels 64");
    assert_eq!(one["plans"][0]["dilations"], json!([1, 2, 4]));
    assert_eq!(one["plans"][0]["parameters"], 6 * (64 * 64 * 3 + 64));
}

#[test]
fn a_picture_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tree.svg");
    let result = json_of(&format!("--kernel-size 3 --levels 3 --svg {}", file.display()));
    assert_eq!(result["receptive_field"], 15);
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("Receptive field: 15 steps"));
    // a file that cannot be written is a failure, not a wrong command line
    let missing = folder.path().join("missing").join("tree.svg");
    tcn(&format!("--kernel-size 3 --levels 3 --svg {}", missing.display())).code(1);
}

#[test]
fn wrong_input_is_one_line() {
    for (arguments, why) in [
        ("", "nothing to measure"),
        ("--kernel-size 3", "--dilations is missing"),
        ("--dilations 1,2", "--kernel-size is missing"),
        ("--kernel-size 0 --dilations 1", "whole number of at least 1"),
        ("--kernel-size -3 --dilations 1", "whole number of at least 1"),
        ("--kernel-size 99999999999999999999 --dilations 1", "whole number of at most"),
        ("--kernel-size three --dilations 1", "whole number of at least 1"),
        ("--kernel-size 3 --dilations 1,0,2", "'0' in it"),
        ("--kernel-size 3 --dilations -1,2", "'-1' in it"),
        ("--kernel-size 3 --dilations 1,,2", "'' in it"),
        ("--kernel-size 3 --dilations 1..100", "does not come to 100"),
        ("--kernel-size 3 --dilations 8..1", "does not come to 1"),
        ("--kernel-size 3 --dilations=", "at least one dilation"),
        ("--kernel-size 3 --dilations 1 --levels 2", "exclude each other"),
        ("--kernel-size 3 --dilations 1 --base 2", "--base goes with --levels"),
        ("--kernel-size 3 --dilations 1 --channels 8", "--at-least only"),
        ("--kernel-size 3 --levels 64", "overflow"),
        ("--kernel-size 3 --levels 62", "lower the dilation"),
        ("--kernel-size 3 --levels 1000000000", "layers is too large"),
        ("--kernel-size 3 --dilations 1 --stacks 1000000000", "at most 65536 layers"),
        ("--kernel-size 3 --dilations 1 --convs-per-block 70000", "at most 65536"),
        ("--kernel-size 18446744073709551615 --dilations 9", "overflow"),
        ("--preset no-such-preset", "preset"),
        ("--preset char-ptb --dilations 1,2", "--dilations does not go with --preset"),
        ("--preset char-ptb --config file.json", "both name a configuration"),
        ("--config no/such/file.json", "no/such/file.json"),
        ("--model no/such/folder", "is not a folder"),
        ("--at-least 0", "whole number of at least 1"),
        ("--at-least 18446744073709551615", "too large"),
        ("--at-least 10 --kernel-size 1", "at least 2"),
        ("--at-least 10 --dilations 1,2", "--dilations does not go with --at-least"),
        ("--at-least 10 --svg tree.svg", "--svg does not go with --at-least"),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        let message = usage_error(arguments);
        assert!(message.contains(why), "{arguments}: {message}");
    }
}

#[test]
fn fields_of_images_have_two_axes() {
    for (arguments, field) in [
        ("--kernel-size 3x3 --dilations 1,1,2,4,8,16,1", [67, 67]),
        ("--kernel-size 3x3 --dilations 36", [73, 73]),
        ("--kernel-size 3x5 --dilations 1,2x4", [7, 21]),
        ("--kernel-size 3 --dilations 1,1 --strides 2,1x2", [7, 7]),
        ("--kernel-size 3 --dilations 1,1,1 --strides 2x1,1,1", [11, 7]),
        ("--kernel-size 3x1 --levels 3 --stacks 2", [29, 1]),
    ] {
        let result = json_of(arguments);
        assert_eq!(result["receptive_field"], json!(field), "{arguments}");
        assert_eq!(result["height"]["receptive_field"], field[0], "{arguments}");
        let layers = result["layers"].as_array().unwrap();
        assert_eq!(layers.last().unwrap()["receptive_field"], json!(field), "{arguments}");
    }
    let strided = json_of("--kernel-size 3 --dilations 1,1 --strides 2,1x2");
    assert_eq!(strided["height"]["stride"], 2);
    assert_eq!(strided["width"]["stride"], 4);
    let text = text_of("--kernel-size 3x3 --dilations 2x1");
    assert!(text.contains("receptive field: 5 lines x 3 columns"), "{text}");
    assert!(text.contains("holes along the height: 2 lines"), "{text}");
    // over time
    assert_eq!(json_of("--kernel-size 3 --dilations 1,1 --strides 2,1")["receptive_field"], 7);
}

#[test]
fn fields_of_images_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("field.svg");
    let arguments = format!("--kernel-size 3x3 --dilations 1,2,4 --svg {}", path.display());
    tcn(&arguments).success();
    let svg = std::fs::read_to_string(path).unwrap();
    assert!(svg.contains("Receptive field: 15 × 15 pixels"));
}

#[test]
fn sizes_of_images_that_do_not_fit_are_usage_errors() {
    for (arguments, word) in [
        ("--preset char-ptb --strides 2x1", "--preset"),
        ("--kernel-size 3x3 --dilations 1 --channels 3", "--channels"),
        ("--kernel-size 3x3 --at-least 100", "--kernel-size"),
        ("--kernel-size 3x3 --dilations 1,2 --strides 2", "--strides"),
        ("--kernel-size 3x3", "--dilations"),
    ] {
        let message = usage_error(arguments);
        assert!(message.contains(word), "{arguments}: {message}");
    }
}
