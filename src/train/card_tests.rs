//! Model cards: what they tell, and what cannot break them.

use proptest::prelude::*;

use super::*;

fn info() -> CardInfo {
    CardInfo {
        name: "shakespeare_char".into(),
        model_type: "tcn".into(),
        config: vec![("dilations".into(), "[1, 2, 4]".into())],
        parameters: 2_222_100,
        receptive_field: 29,
        base: "org/name".into(),
        tokenizer: "char".into(),
        vocab_size: 65,
        data: vec![DataFile {
            name: "input.txt".into(),
            role: "training (first 90 %)".into(),
            bytes: 1_003_854,
            tokens: 1_003_854,
        }],
        valid_loss: Some(1.5),
        valid_bpc: Some(2.164),
        steps: 3000,
        tokens: 12_345_678,
        seconds: 178.4,
        command: "train input.txt".into(),
        usage: "generate DIR\neval DIR FILE".into(),
        sample: "ROMEO:\nO, speak".into(),
        series: None,
    }
}

#[test]
fn a_card_tells_everything() {
    let card = model_card(&info());
    for line in [
        "library_name: candle-tcn",
        "pipeline_tag: text-generation",
        "- \"tcn\"",
        "base_model: \"org/name\"",
        "# shakespeare\\_char",
        "| parameters | 2,222,100 |",
        "| receptive field | 29 tokens |",
        "| dilations | `[1, 2, 4]` |",
        "| `input.txt` | training (first 90 %) | 1,003,854 | 1,003,854 |",
        "| validation loss, nats per token | 1.5000 |",
        "| bits per character | 2.1640 |",
        "| tokens trained on | 12,345,678 |",
        "| training time | 2 min 58 s |",
        "train input.txt",
        "eval DIR FILE",
        "O, speak",
    ] {
        assert!(card.lines().any(|l| l == line), "{line} is missing in\n{card}");
    }
    assert!(!card.lines().any(|line| line.starts_with("license:")));
}

#[test]
fn an_edited_card_is_known() {
    let card = model_card(&info());
    assert!(is_unedited(&card));
    for edited in [
        card.replace("1.5000", "1.4000"),
        card.clone() + "\nMy notes.\n",
        card.replace("leaves", "spares"),
        "# My model\n".to_string(),
        String::new(),
    ] {
        assert!(!is_unedited(&edited), "{edited}");
    }
}

#[test]
fn what_was_not_measured_is_not_invented() {
    let valid_loss = Some(f64::NAN);
    let card =
        model_card(&CardInfo { valid_loss, valid_bpc: None, sample: String::new(), ..info() });
    assert_eq!(card.matches("not measured").count(), 2);
    assert!(!card.contains("## Sample"));
}

#[test]
fn hostile_texts_stay_in_their_cells() {
    assert_eq!(code("a|b\nc"), r"`a\|b c`");
    assert_eq!(code("`x"), "`` `x ``");
    assert_eq!(inline("<b>*x*\u{1b}"), "\\<b\\>\\*x\\*\u{fffd}");
    assert_eq!(block("", "a\r\n````\n\n"), "`````\na\n````\n`````\n");
    let model_type = "x\n---\nlicense: mit".to_string();
    let card = model_card(&CardInfo { model_type, ..info() });
    assert_eq!(card.lines().filter(|line| *line == "---").count(), 2);
}

#[test]
fn durations_read_well() {
    let cases = [(0.4, "0 s"), (59.6, "1 min 00 s"), (11_100.0, "3 h 05 min"), (f64::NAN, "0 s")];
    for (seconds, text) in cases {
        assert_eq!(duration(seconds), text);
    }
}

proptest! {
    #[test]
    fn no_sample_leaves_its_block(sample in "[`~\\n a-]{0,30}") {
        let text = block("text", &sample);
        let fence: String = text.chars().take_while(|c| *c == '`').collect();
        let closing = text.lines().skip(1).filter(|line| line.trim().starts_with(&fence));
        prop_assert_eq!(closing.count(), 1);
    }
}
