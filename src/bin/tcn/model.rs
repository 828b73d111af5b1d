//! What is compiled in, and where a model comes from.

use std::path::{Path, PathBuf};

use candle_tcn::LoadedModel;
use candle_tcn::text::Tokenizer;

/// The start of the King James Bible (public domain), from Debian's bible-kjv-text: what `tcn train`
/// reads without `--data`.
pub const TEXT: &str = include_str!("default/kjv.txt");

/// The name of the compiled-in text.
pub const TEXT_NAME: &str = "kjv (built in)";

/// The directory that `--model` means: itself if there is one of that name, else a model on the Hub.
pub fn resolve(model: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    // a file is named as what it is by whoever reads the directory
    if path.exists() {
        return Ok(path.into());
    }
    from_hub(model)
}

#[cfg(feature = "hub")]
fn from_hub(model: &str) -> anyhow::Result<PathBuf> {
    use anyhow::Context;
    if model.parse::<candle_tcn::hub::ModelId>().is_err() {
        anyhow::bail!(
            "--model: there is no such directory as {model}, and it is no name on the Hub, which would be \
             org/name or org/name@revision"
        );
    }
    crate::hub::pull(model).with_context(|| {
        format!("--model: there is no such directory as {model}, and the Hub does not help")
    })
}

#[cfg(not(feature = "hub"))]
fn from_hub(model: &str) -> anyhow::Result<PathBuf> {
    anyhow::bail!(
        "--model: there is no such directory as {model}; this program was built without the Hub (feature `hub`)"
    )
}

/// The model of `--model`, or the built-in one.
pub fn load(model: Option<&str>) -> anyhow::Result<LoadedModel> {
    Ok(match model {
        Some(model) => LoadedModel::load(resolve(model)?)?,
        None => LoadedModel::from_bytes(
            include_str!("../../../models/kjv-tiny/config.json"),
            include_bytes!("../../../models/kjv-tiny/model.safetensors"),
            include_bytes!("../../../models/kjv-tiny/tokenizer.json"),
        )?,
    })
}

/// How many of `tokens` stand for text that the tokenizer has no token for.
pub fn unknown_tokens(tokenizer: &Tokenizer, tokens: &[u32]) -> usize {
    let Some(unknown) = tokenizer.unknown_id() else {
        return 0;
    };
    tokens.iter().filter(|&&id| id == unknown).count()
}

/// Sequences with tokens that stand for text that the tokenizer has no token for.
#[derive(Default)]
pub struct Unknown {
    tokens: usize,
    sequences: usize,
    first: String,
}

impl Unknown {
    /// Counts those of one sequence.
    pub fn count(&mut self, name: &str, tokenizer: &Tokenizer, tokens: &[u32]) {
        let unknown = unknown_tokens(tokenizer, tokens);
        if unknown > 0 {
            if self.sequences == 0 {
                self.first = name.to_string();
            }
            self.tokens += unknown;
            self.sequences += 1;
        }
    }

    /// Says how many there were.
    pub fn warn(&self) {
        if self.tokens > 0 {
            say!(
                "{} tokens in {} sequences stand for text that the tokenizer has no token for, first in {}",
                self.tokens,
                self.sequences,
                self.first
            );
        }
    }
}

/// Says that a loss over such tokens means little.
pub fn warn_of_unknown(text: &dyn std::fmt::Display, count: usize) {
    if count > 0 {
        say!(
            "{text}: {count} tokens stand for text that the tokenizer has no token for; losses count them as one symbol"
        );
    }
}
