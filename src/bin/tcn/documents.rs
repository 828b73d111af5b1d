//! The flags that say how a text falls into documents.

use candle_tcn::text::Documents;
use serde::{Deserialize, Serialize};

use crate::flags::unescaped;

#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
pub struct DocumentArgs {
    /// Documents of which none sees another: lines, files, or the separator between them (\n, \t and \u{E9} as in a
    /// program)
    #[arg(long, value_name = "lines|files|SEPARATOR", value_parser = documents, allow_hyphen_values = true)]
    pub documents: Option<Documents>,
    /// Documents of which none sees another: the texts in this field of JSON lines
    #[arg(long, value_name = "NAME", conflicts_with = "documents")]
    pub field: Option<String>,
}

impl DocumentArgs {
    /// The documents that the flags tell of.
    pub fn by(&self) -> Option<Documents> {
        self.documents.clone().or(self.field.clone().map(Documents::Field))
    }
}

fn documents(text: &str) -> Result<Documents, String> {
    let text = unescaped(text)?;
    text.parse().map_err(|_| "expected lines, files or a separator, found nothing".into())
}
