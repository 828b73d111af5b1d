//! The model card: `README.md` of a trained model's directory.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::files::hex;
use crate::plot::grouped;

/// Content of a model card. Every text is put in as it is, made safe for Markdown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardInfo {
    /// Heading, usually the name of the directory.
    pub name: String,
    /// `model_type` of config.json, such as `tcn`.
    pub model_type: String,
    /// The options worth knowing, name and value: channels, kernel size, dilations…
    pub config: Vec<(String, String)>,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Receptive field in tokens; a network that sees only the current token has 1.
    pub receptive_field: usize,
    /// The model that the training began with, `org/name` of one on the Hub; empty for none.
    pub base: String,
    /// Kind of tokenizer: `char`, `byte`, `bpe`…
    pub tokenizer: String,
    /// Number of different tokens.
    pub vocab_size: usize,
    /// The files trained and validated on.
    pub data: Vec<DataFile>,
    /// Validation loss of the weights in this directory, nats per token.
    pub valid_loss: Option<f64>,
    /// The validation loss in bits per character.
    pub valid_bpc: Option<f64>,
    /// Optimizer steps.
    pub steps: usize,
    /// Tokens trained on, repetitions counted.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The command line that trained the model, ready to be pasted.
    pub command: String,
    /// Command lines that use the model, with `DIR` for its directory; empty for none.
    pub usage: String,
    /// Text that the model wrote; empty for none.
    pub sample: String,
    /// Of a network of series: what it does, and how well.
    pub series: Option<SeriesCard>,
}

/// The part of a [`CardInfo`] about series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesCard {
    /// The task, as `tells 3 classes of series apart`.
    pub about: String,
    /// Name of the part of the data that was measured; empty for none.
    pub part: String,
    /// Name of the naive answer that the measures are compared with.
    pub naive: String,
    /// Measures: name, value, value of the naive answer.
    pub scores: Vec<[String; 3]>,
    /// Names of the columns of a frame.
    pub columns: Vec<String>,
}

/// One file of a [`CardInfo`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFile {
    /// Its name, without folders.
    pub name: String,
    /// Its use, such as `training` or `validation (last 10 %)`.
    pub role: String,
    /// Size in bytes of the part used.
    pub bytes: u64,
    /// Tokens of the part used.
    pub tokens: u64,
}

impl CardInfo {
    /// Parts of a sequence, by their name.
    fn unit(&self) -> &'static str {
        if self.series.is_some() { "steps" } else { "tokens" }
    }
}

/// The text of a model card: YAML front matter as the Hugging Face Hub reads it, then Markdown.
///
/// The license is left to whoever publishes the model. Texts that come from the data (file names,
/// the sample) cannot break out of their table cell or code block.
///
/// # Example
///
/// ```
/// use candle_tcn::train::{CardInfo, model_card};
/// let card = model_card(&CardInfo {
///     name: "shakespeare".into(),
///     parameters: 2_222_100,
///     valid_loss: Some(1.5),
///     sample: "ROMEO:\n```".into(),
///     ..Default::default()
/// });
/// assert!(card.starts_with("---\nlibrary_name: candle-tcn\n"));
/// assert!(card.contains("| parameters | 2,222,100 |"));
/// assert!(card.contains("````text\nROMEO:\n```\n````\n"));
/// ```
pub fn model_card(info: &CardInfo) -> String {
    let sections = [
        front_matter(info),
        format!("# {}\n\n{}", inline(&info.name), introduction(info)),
        format!("## Model\n\n{}", model_table(info)),
        format!("## Data\n\n{}", data_table(&info.data, info.series.is_some())),
        format!("## Results\n\n{}", result_table(info)),
        format!("## Training\n\n{}", block("sh", &info.command)),
        usage(&info.usage),
        sample(&info.sample),
    ];
    let sections: Vec<_> = sections.iter().filter(|text| !text.is_empty()).collect();
    let mut card = String::new();
    for (i, section) in sections.iter().enumerate() {
        if i > 0 {
            card.push('\n');
        }
        card.push_str(section);
    }
    let seal = seal(&card);
    card + "\n" + &seal
}

/// The last line of a card: a comment with the hash of all before it, by which an edited card is known.
fn seal(card: &str) -> String {
    let hash = hex(&Sha256::digest(card));
    format!("<!-- written by candle-tcn, which leaves an edited card alone; sha256 {hash} -->\n")
}

/// `true` for the text of a card as [`model_card`] wrote it.
pub(super) fn is_unedited(text: &str) -> bool {
    let comment = text.rfind("\n<!-- ");
    comment.is_some_and(|at| text[at + 1..] == seal(&text[..at]))
}

fn front_matter(info: &CardInfo) -> String {
    let (pipeline, tag) = match &info.series {
        None => ("text-generation", "language-model"),
        Some(series) if series.about.starts_with("forecasts") => {
            ("time-series-forecasting", "time-series")
        }
        Some(_) => ("other", "time-series"),
    };
    let mut text = format!(
        "---\nlibrary_name: candle-tcn\npipeline_tag: {pipeline}\n\
         # license: (choose one before you publish; mind the license of the training data)\n\
         tags:\n- candle\n- {tag}\n- temporal-convolutional-network\n",
    );
    if !info.model_type.is_empty() {
        // a JSON string is a YAML string, whatever it holds
        let _ = writeln!(text, "- {}", serde_json::Value::from(info.model_type.as_str()));
    }
    if info.base.contains('/') {
        let _ = writeln!(text, "base_model: {}", serde_json::Value::from(info.base.as_str()));
    }
    text + "---\n"
}

fn introduction(info: &CardInfo) -> String {
    let kind = match info.model_type.as_str() {
        "" => String::new(),
        other => format!(" ({})", code(other)),
    };
    let base = match info.base.as_str() {
        "" => String::new(),
        base => format!(" Its training began with the weights of {}.", code(base)),
    };
    if let Some(series) = &info.series {
        return format!(
            "A convolutional network{kind} with {} parameters that {}. An answer sees {} steps. Trained with candle-tcn \
             {}.{base}\n",
            grouped(info.parameters as u64),
            inline(&series.about),
            grouped(info.receptive_field as u64),
            env!("CARGO_PKG_VERSION"),
        );
    }
    format!(
        "A convolutional language model{kind} with {} parameters. It reads text as {} tokens and \
         predicts the next one from the last {}. Trained with candle-tcn {}.{base}\n",
        grouped(info.parameters as u64),
        code(&info.tokenizer),
        grouped(info.receptive_field as u64),
        env!("CARGO_PKG_VERSION"),
    )
}

fn model_table(info: &CardInfo) -> String {
    let mut rows = vec![
        ["parameters".to_string(), grouped(info.parameters as u64)],
        [
            "receptive field".to_string(),
            format!("{} {}", grouped(info.receptive_field as u64), info.unit()),
        ],
    ];
    match &info.series {
        Some(series) => rows.push(["columns".into(), code(&series.columns.join(", "))]),
        None => rows.extend([
            ["tokenizer".to_string(), code(&info.tokenizer)],
            ["vocabulary".to_string(), grouped(info.vocab_size as u64)],
        ]),
    }
    for (name, value) in &info.config {
        rows.push([inline(name), code(value)]);
    }
    table(["", "value"], &rows)
}

fn data_table(data: &[DataFile], of_series: bool) -> String {
    let rows: Vec<_> = data
        .iter()
        .map(|file| {
            let (bytes, tokens) = (grouped(file.bytes), grouped(file.tokens));
            [code(&file.name), inline(&file.role), bytes, tokens]
        })
        .collect();
    let counts = if of_series { ["series", "steps"] } else { ["bytes", "tokens"] };
    table(["file", "used for", counts[0], counts[1]], &rows)
}

fn result_table(info: &CardInfo) -> String {
    let measured = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => format!("{value:.4}"),
        _ => "not measured".to_string(),
    };
    if let Some(series) = &info.series {
        return series_results(info, series, measured(info.valid_loss));
    }
    let rows = [
        ["validation loss, nats per token".to_string(), measured(info.valid_loss)],
        ["bits per character".to_string(), measured(info.valid_bpc)],
        ["optimizer steps".to_string(), grouped(info.steps as u64)],
        ["tokens trained on".to_string(), grouped(info.tokens)],
        ["training time".to_string(), duration(info.seconds)],
    ];
    table(["", "value"], &rows)
}

fn series_results(info: &CardInfo, series: &SeriesCard, loss: String) -> String {
    let mut text = String::new();
    if !series.scores.is_empty() {
        let cell = |text: &String| if text.is_empty() { String::new() } else { inline(text) };
        let rows = series.scores.iter().map(|row| row.each_ref().map(cell)).collect::<Vec<_>>();
        text = format!("On the {} part:\n\n", inline(&series.part));
        text += &table(["", "this model", &inline(&series.naive)], &rows);
        text += "\n";
    }
    let rows = [
        ["validation loss".to_string(), loss],
        ["optimizer steps".to_string(), grouped(info.steps as u64)],
        ["answers trained on".to_string(), grouped(info.tokens)],
        ["training time".to_string(), duration(info.seconds)],
    ];
    text + &table(["", "value"], &rows)
}

fn usage(commands: &str) -> String {
    if commands.is_empty() {
        return String::new();
    }
    format!(
        "## Use\n\nWith the `tcn` program of candle-tcn, where DIR is this directory:\n\n{}",
        block("sh", commands)
    )
}

fn sample(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("## Sample\n\n{}", block("text", text))
}

fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut text = format!("| {} |\n|{}\n", header.join(" | "), "---|".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// A fenced block; the fence is longer than any run of backticks in the text.
fn block(language: &str, text: &str) -> String {
    let text: String = text.replace("\r\n", "\n").chars().map(visible).collect();
    let fence = "`".repeat(longest_run_of_backticks(&text).max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

/// A code span for one line or table cell.
fn code(text: &str) -> String {
    let text = one_line(text).replace('|', "\\|");
    if text.is_empty() {
        return text;
    }
    let ticks = "`".repeat(longest_run_of_backticks(&text) + 1);
    // a span that begins or ends with a backtick needs a space there, which is not shown
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{ticks}{space}{text}{space}{ticks}")
}

/// Plain text for one line or table cell, with Markdown's and HTML's signs escaped.
fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '|' | '#' | '~') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn one_line(text: &str) -> String {
    let spaced = text.chars().map(|c| if c.is_whitespace() { ' ' } else { visible(c) });
    spaced.collect::<String>().trim().to_string()
}

/// Control characters, which a byte model may write, become the replacement character.
fn visible(c: char) -> char {
    if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

fn longest_run_of_backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// `42 s`, `2 min 58 s` or `3 h 05 min`.
fn duration(seconds: f64) -> String {
    // `as` saturates, and makes 0 of NaN
    let seconds = seconds.round() as u64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    if hours > 0 {
        format!("{} h {:02} min", grouped(hours), minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {:02} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
#[path = "card_tests.rs"]
mod tests;
