//! What is compiled in, and where a model comes from.

use std::path::Path;

use candle_tcn::LoadedModel;
use candle_tcn::text::Tokenizer;

/// The start of the King James Bible (public domain), from Debian's bible-kjv-text: what `tcn train`
/// reads without `--data`.
pub const TEXT: &str = include_str!("default/kjv.txt");

/// The name of the compiled-in text.
pub const TEXT_NAME: &str = "kjv (built in)";

/// The model of `--model`, or the built-in one.
pub fn load(dir: Option<&Path>) -> anyhow::Result<LoadedModel> {
    Ok(match dir {
        Some(dir) => LoadedModel::load(dir)?,
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

/// Says that a loss over such tokens means little.
pub fn warn_of_unknown(text: &dyn std::fmt::Display, count: usize) {
    if count > 0 {
        say!(
            "{text}: {count} tokens stand for text that the tokenizer has no token for; losses count them as one symbol"
        );
    }
}
