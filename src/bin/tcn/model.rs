//! What is compiled in, and where a model comes from.

use std::path::Path;

use candle_tcn::LoadedModel;

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
