//! The context that a model really uses on a text.

use std::path::Path;

use candle_tcn::text::TokenStream;
use candle_tcn::train::EffectiveField;

use super::ReceptiveFieldArgs;
use crate::model;

/// Tokens of the text that are looked at, at most.
const MOST: usize = 1 << 24;

pub fn measure(args: &ReceptiveFieldArgs, data: &Path) -> anyhow::Result<EffectiveField> {
    let loaded = model::load(args.model.as_deref())?;
    let mut tokens = Vec::new();
    for piece in TokenStream::open(data, loaded.tokenizer()?)? {
        tokens.extend(piece?);
        if tokens.len() >= MOST {
            break;
        }
    }
    Ok(EffectiveField::measure(&loaded.model, &tokens, args.windows)?)
}
