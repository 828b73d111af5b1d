//! The start of a run, as it is recorded.

use std::path::Path;

use candle_tcn::files::names;
use candle_tcn::train::{MaskingConfig, RunDir};
use candle_tcn::{AtPath, Error};
use serde::{Deserialize, Serialize};

use super::data::TextSource;
use super::masked::Task;
use super::series::flags::SeriesArgs;

/// Content of `run.json`: what a run was started with, for whoever continues it. It names folders of this
/// machine and is not published.
#[derive(Serialize, Deserialize)]
pub struct Start {
    pub source: TextSource,
    /// Shares of masked training; none of training on the next token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masking: Option<MaskingConfig>,
    /// The task on series and its flags; none of a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesArgs>,
    /// The model that it began with, as a model card names it; empty for none.
    #[serde(default)]
    pub base: String,
    /// The command line as it can be typed again.
    command: String,
    /// The same in its parts; older runs have none.
    #[serde(default)]
    arguments: Vec<String>,
}

impl Start {
    /// Of this process.
    pub fn new(source: TextSource, base: String) -> Self {
        let arguments = std::env::args_os().map(|part| part.to_string_lossy().into_owned());
        let arguments: Vec<String> = arguments.collect();
        let command = typed(arguments.iter().cloned());
        Self { source, masking: None, task: None, series: None, base, command, arguments }
    }

    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).at(file)?;
        serde_json::from_str(&text).map_err(|e| Error::file(file, e.to_string()).into())
    }

    pub fn write(&self, run: &RunDir) -> anyhow::Result<()> {
        Ok(run.write(names::RUN, &serde_json::to_string_pretty(self)?)?)
    }

    /// The command line for others to read: files by their names alone, without the folders of this machine.
    pub fn public_command(&self) -> String {
        if self.arguments.is_empty() {
            return "tcn train".into();
        }
        let rest = self.arguments.iter().skip(1).map(|part| match part.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                format!("{flag}={}", file_name(value))
            }
            _ => file_name(part).to_string(),
        });
        typed(std::iter::once("tcn".to_string()).chain(rest))
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(path)
}

/// Arguments as they are typed in a shell.
pub fn typed(arguments: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    let quote = |text: String| match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    };
    arguments.map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_command_names_no_folder() {
        let arguments = "/opt/bin/tcn train --data /home/ann/a.txt --config=/home/ann/net.json --lr 0.1 --out runs/x/";
        let source =
            serde_json::json!({"data": [], "valid": null, "valid_fraction": 0.1, "valid_bytes": 1});
        let start = |arguments: Vec<String>| Start {
            source: serde_json::from_value(source.clone()).unwrap(),
            masking: None,
            task: None,
            series: None,
            base: String::new(),
            command: String::new(),
            arguments,
        };
        let command = start(arguments.split(' ').map(String::from).collect()).public_command();
        assert_eq!(command, "tcn train --data a.txt --config=net.json --lr 0.1 --out x");
        assert_eq!(start(Vec::new()).public_command(), "tcn train");
    }
}
