//! The built-in text and model, and models by directory or name.

use std::path::{Path, PathBuf};

use candle_tcn::LoadedModel;
use candle_tcn::files::names;
use candle_tcn::models::ModelConfig;
use candle_tcn::models::directory::{self, ModelFiles, read_config};
use candle_tcn::text::Tokenizer;

use crate::flags::counted;
use crate::kernel;

/// The start of the King James Bible (public domain), from Debian's bible-kjv-text: what `tcn train`
/// reads without `--data`.
pub const TEXT: &str = include_str!("default/kjv.txt");

/// The name of the compiled-in text.
pub const TEXT_NAME: &str = "kjv (built in)";

/// The directory that the value of `flag` means: itself if there is one of that name, else a model on the Hub.
pub fn resolve(flag: &str, model: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    // a file is named as what it is by whoever reads the directory
    if path.exists() {
        return Ok(path.into());
    }
    expect_hub_name(flag, model)?;
    from_hub(flag, model)
}

/// Refuses what is not there and can be no name on the Hub either: what lies in a folder that is there.
pub fn expect_hub_name(flag: &str, model: &str) -> anyhow::Result<()> {
    let folder = Path::new(model).parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty() && folder.is_dir());
    if let Some(folder) = folder {
        anyhow::bail!(
            "{flag}: {model} is not a folder; {} has {}",
            folder.display(),
            some_of(folder)
        );
    }
    #[cfg(feature = "hub")]
    if model.parse::<candle_tcn::hub::ModelId>().is_err() {
        anyhow::bail!(
            "{flag}: {model} is not a folder or file here (a model on the Hub is written org/name or \
             org/name@revision)"
        );
    }
    Ok(())
}

/// The first names of what is in a folder.
fn some_of(folder: &Path) -> String {
    const SHOWN: usize = 5;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    match names.len() {
        0 => "nothing".into(),
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(feature = "hub")]
fn from_hub(flag: &str, model: &str) -> anyhow::Result<PathBuf> {
    use anyhow::Context;
    crate::hub::pull(model)
        .with_context(|| format!("{flag}: {model} is not a folder, and the Hub does not help"))
}

#[cfg(not(feature = "hub"))]
fn from_hub(flag: &str, model: &str) -> anyhow::Result<PathBuf> {
    anyhow::bail!(
        "{flag}: {model} is not a folder; this program was built without the Hub (feature `hub`)"
    )
}

/// The configuration of `--model`, else of `--config`, else the preset.
pub fn network(
    preset: &str,
    config: &Option<PathBuf>,
    model: &Option<String>,
) -> anyhow::Result<ModelConfig> {
    Ok(match (config, model) {
        (_, Some(model)) => {
            let dir = resolve("--model", model)?;
            read_config(directory::described_in(dir).join(names::CONFIG))?
        }
        (Some(file), None) => read_config(file)?,
        (None, None) => ModelConfig::preset(preset)?,
    })
}

/// The files of the model of `--model`, or of the built-in one.
pub fn files(model: Option<&str>) -> anyhow::Result<ModelFiles> {
    Ok(match model {
        Some(model) => ModelFiles::read(resolve("--model", model)?)?,
        None => ModelFiles::from_bytes(
            include_str!("../../../models/kjv-tiny/config.json"),
            include_bytes!("../../../models/kjv-tiny/model.safetensors"),
            include_bytes!("../../../models/kjv-tiny/tokenizer.json"),
        )?,
    })
}

/// The model of `--model`, or the built-in one.
pub fn load(model: Option<&str>) -> anyhow::Result<LoadedModel> {
    Ok(files(model)?.into_model()?.with_kernel(kernel::chosen())?)
}

/// Number of `tokens` that stand for text that the tokenizer has no token for.
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
                "{} in {} stand for text that the tokenizer has no token for, first in {}",
                counted(self.tokens, "token"),
                counted(self.sequences, "sequence"),
                self.first
            );
        }
    }
}

/// Says that some of a text is unknown to the model; `meaning` is what that does.
pub fn warn_of_unknown(text: &dyn std::fmt::Display, count: usize, meaning: &str) {
    if count > 0 {
        say!("{text}: {} of text that the model does not know{meaning}", counted(count, "token"));
    }
}

/// The meaning of unknown tokens for a loss.
pub const IN_LOSSES: &str = "; losses count it as one symbol";
