//! Limits on a `tokenizer.json`, checked before any of it is built.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::spec::MAX_VOCAB_SIZE;

/// Merges for each token: there is one for each way to put a token together.
const MERGES: usize = 8;

/// The most times that normalizing may lengthen a text.
const MAX_GROWTH: usize = 256;

/// The tables of a `tokenizer.json`, counted; nothing is kept of them.
#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenizerTables {
    model: ModelTables,
    added_tokens: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ModelTables {
    vocab: Count,
    merges: Count,
}

/// The entries of a list or an object; anything else has none.
#[derive(Default)]
struct Count(usize);

/// Checks that the file has at most `tokens` tokens, and no more merges than fit to that.
pub(super) fn check_tables(json: &[u8], tokens: usize) -> Result<(), String> {
    let tables: TokenizerTables =
        serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let tokens = tokens.min(MAX_VOCAB_SIZE);
    let limits = [
        ("model.vocab", tables.model.vocab, tokens),
        ("added_tokens", tables.added_tokens, tokens),
        ("model.merges", tables.model.merges, tokens.saturating_mul(MERGES)),
    ];
    for (what, Count(found), most) in limits {
        if found > most {
            return Err(format!("{what}: expected at most {most} entries, found {found}"));
        }
    }
    Ok(())
}

/// Checks that the replacements in `steps`, a normalizer or a decoder, make no text immensely longer.
pub(super) fn check_growth(what: &str, steps: &Value) -> Result<(), String> {
    match growth(steps) {
        Some(..=MAX_GROWTH) => Ok(()),
        _ => {
            Err(format!("{what}: its replacements make a text more than {MAX_GROWTH} times longer"))
        }
    }
}

/// The most bytes that one byte may become; JSON was parsed, so that the nesting is bounded.
fn growth(steps: &Value) -> Option<usize> {
    let inner = ["normalizers", "decoders"].iter().filter_map(|list| steps[*list].as_array());
    let inner = inner.flatten().map(growth);
    let own = match (steps["type"].as_str(), steps["content"].as_str()) {
        (Some("Replace"), Some(content)) => {
            let replaced = steps["pattern"]["String"].as_str().map_or(0, str::len);
            if content.len() <= replaced { 1 } else { content.len() + 1 }
        }
        _ => 1,
    };
    inner.chain([Some(own)]).try_fold(1usize, |product, factor| product.checked_mul(factor?))
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Count(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Count, A::Error> {
        let mut count = 0;
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Count(count))
    }
}
