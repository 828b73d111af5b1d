//! The flags that say how a text falls into documents.

use candle_tcn::text::{Documents, split_pair};
use serde::{Deserialize, Serialize};

use crate::flags::{expect_together, unescaped};

#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
pub struct DocumentArgs {
    /// Documents of which none sees another: lines, files, or the separator between them (\n, \t and \u{E9} as in a
    /// program)
    #[arg(long, value_name = "lines|files|SEPARATOR", value_parser = documents, allow_hyphen_values = true)]
    pub documents: Option<Documents>,
    /// Documents of which none sees another: the texts in this field of JSON lines
    #[arg(long, value_name = "NAME", conflicts_with = "documents")]
    pub field: Option<String>,
    /// Score only what follows this separator in each document: translations, answers, summaries
    #[arg(long, value_name = "SEPARATOR", value_parser = separator, allow_hyphen_values = true)]
    #[serde(default)]
    pub target_after: Option<String>,
}

impl DocumentArgs {
    /// Refuses a separator within documents where there are none.
    pub fn check(&self) -> anyhow::Result<()> {
        let is_alone = self.target_after.is_some() && self.by().is_none();
        expect_together(&[("--target-after", is_alone, "--documents or --field")])
    }

    /// Each file is a document where the flags tell of none: for a model that knows of them.
    pub fn or_files(&mut self) {
        if self.by().is_none() {
            self.documents = Some(Documents::Files);
        }
    }

    /// The documents that the flags tell of.
    pub fn by(&self) -> Option<Documents> {
        self.documents.clone().or(self.field.clone().map(Documents::Field))
    }
}

fn separator(text: &str) -> Result<String, String> {
    match unescaped(text)? {
        text if text.is_empty() => Err("expected a separator, found nothing".into()),
        text => Ok(text),
    }
}

fn documents(text: &str) -> Result<Documents, String> {
    let text = unescaped(text)?;
    text.parse().map_err(|_| "expected lines, files or a separator, found nothing".into())
}

/// Characters of a document that are predicted: those after the separator, where there is one.
pub fn predicted_characters(text: &[u8], separator: Option<&str>) -> u64 {
    let starts = |byte: &&u8| **byte & 0xc0 != 0x80;
    let pair = separator.and_then(|separator| split_pair(0, text, separator).ok());
    pair.map_or(text, |[_, target]| target).iter().filter(starts).count() as u64
}
