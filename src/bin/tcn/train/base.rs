//! The model whose weights and tokenizer a run begins with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_tcn::models::directory::ModelFiles;
use candle_tcn::text::{Corpus, Tokenizer};
use clap::ValueEnum;

use crate::flags::{counted, expect_together, first_of, with_code_points};
use crate::model;

/// Characters that a message names.
const SHOWN: usize = 12;

#[derive(clap::Args)]
pub struct BaseArgs {
    /// Begin with the weights and the tokenizer of this model: a directory, a checkpoint of a run, or
    /// org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["preset", "config", "tokenizer"])]
    pub init_from: Option<String>,
    /// Characters of the text that the tokenizer of --init-from lacks: an error, or its token for unknown ones
    /// (default: refuse)
    #[arg(long, value_enum)]
    unknown: Option<UnknownText>,
    /// Give characters of the text that the tokenizer of --init-from lacks tokens of their own
    #[arg(long, conflicts_with = "unknown")]
    extend_vocabulary: bool,
    /// Leave the parameters as they are whose names match, such as 'encoder*'; `tcn info` lists the names
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub freeze: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UnknownText {
    Refuse,
    Map,
}

/// A model that was read, and the flags about it.
pub struct Base {
    pub name: String,
    pub files: ModelFiles,
    /// A folder here, not a model of the Hub.
    pub folder: Option<PathBuf>,
    unknown: UnknownText,
    extends: bool,
}

impl BaseArgs {
    /// The last part of the model's name, for that of the run.
    pub fn stem(&self) -> Option<String> {
        let name = self.init_from.as_deref()?.trim_end_matches(['/', '\\']);
        let name = Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned());
        Some(name.filter(|name| name != "..").unwrap_or_else(|| "model".into()))
    }

    /// The model's name in a card: that of a folder without those that it lies in.
    pub fn public_name(&self) -> String {
        match &self.init_from {
            Some(name) if !Path::new(name).exists() => {
                name.split('@').next().unwrap_or_default().to_string()
            }
            _ => self.stem().unwrap_or_default(),
        }
    }

    /// Reads the model that the flags name.
    pub fn read(&self) -> anyhow::Result<Option<Base>> {
        let Some(name) = &self.init_from else {
            // not `requires`: clap waives it beside a flag that excludes --init-from
            expect_together(&[
                ("--unknown", self.unknown.is_some(), "--init-from MODEL"),
                ("--extend-vocabulary", self.extend_vocabulary, "--init-from MODEL"),
            ])?;
            return Ok(None);
        };
        let folder = model::resolve("--init-from", name)?;
        let files = ModelFiles::read(&folder)?;
        files.config.expect_tokens()?;
        files.tokenizer()?;
        Ok(Some(Base {
            name: name.clone(),
            files,
            folder: Path::new(name).exists().then_some(folder),
            unknown: self.unknown.unwrap_or(UnknownText::Refuse),
            extends: self.extend_vocabulary,
        }))
    }
}

impl Base {
    /// The model's tokenizer for `texts`, with more characters where the flags say so.
    pub fn tokenizer<'a>(
        &self,
        texts: impl Iterator<Item = &'a Corpus>,
    ) -> anyhow::Result<Tokenizer> {
        let tokenizer = self.files.tokenizer()?;
        let mut unknown: BTreeMap<char, usize> = BTreeMap::new();
        for corpus in texts {
            let text = corpus.text()?;
            let lacking = tokenizer.unknown_chars(text);
            let lacking = |c: &char| lacking.binary_search(c).is_ok();
            text.chars().filter(lacking).for_each(|c| *unknown.entry(c).or_default() += 1);
        }
        if unknown.is_empty() {
            return Ok(tokenizer.clone());
        }
        let named = unknown.iter().map(|(c, count)| {
            format!("{} {}", with_code_points(&c.to_string()), counted(*count, "time"))
        });
        let named = format!(
            "{} of the text that the tokenizer of {} lacks: {}",
            counted(unknown.len(), "character"),
            self.name,
            first_of(named, SHOWN)
        );
        if self.extends {
            let characters: Vec<char> = unknown.into_keys().collect();
            let larger = tokenizer.with_characters(&characters)?;
            say!("{named}; they get tokens of their own");
            return Ok(larger);
        }
        match self.unknown {
            UnknownText::Map => say!("{named}; they count as unknown"),
            UnknownText::Refuse => bail_usage!(
                "{named}; --extend-vocabulary gives them tokens, --unknown map counts them as unknown"
            ),
        }
        Ok(tokenizer.clone())
    }
}
