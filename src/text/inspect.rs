//! Inspection of a loaded `tokenizer.json`: recognises the two simple kinds, whose texts can be
//! encoded by looking ids up in a table, and decoders that only join bytes.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokenizers::Tokenizer as HfTokenizer;

use super::pieces::Cuts;
use super::spec::MAX_VOCAB_SIZE;

/// The way from text to ids.
#[derive(Debug)]
pub(super) enum EncodingKind {
    /// The id of byte `b` is `table[b]`.
    Byte(Box<[u32; 256]>),
    /// The id of character `c` is `table[c as usize]`; `unk` is that of every character beyond.
    Char {
        /// As long as the highest known character asks for: at most 4.4 MB.
        table: Vec<u32>,
        unk: u32,
    },
    /// Anything else: the general machinery, piece by piece.
    General,
}

/// Facts of a tokenizer's vocabulary.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// The highest id plus one.
    pub size: usize,
    /// Ids that no text should be made of: unknown, special, and ids without a token. Sorted.
    pub banned: Vec<u32>,
    /// Ids which decoding leaves out. Sorted.
    pub special: Vec<u32>,
    /// The id of unknown characters.
    pub unk: Option<u32>,
}

/// GPT-2's printable stand-ins of the bytes: a byte that is a printable Latin-1 character stands
/// for itself, the others take the code points from 256 on, in order.
pub(super) fn byte_alphabet() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => others.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
}

/// The highest id plus one. To be called first: writing a tokenizer as JSON counts up to that id.
pub(super) fn vocab_size(hf: &HfTokenizer) -> Result<usize, String> {
    let ids = hf.get_vocab(true);
    let highest = ids.values().max().copied().ok_or("holds no tokens")?;
    match usize::try_from(highest) {
        Ok(highest) if highest < MAX_VOCAB_SIZE => Ok(highest + 1),
        _ => Err(format!("expected token ids below {MAX_VOCAB_SIZE}, found {highest}")),
    }
}

/// Reads special ids and the id of unknown characters; `json` is the tokenizer's own.
pub(super) fn vocabulary(hf: &HfTokenizer, size: usize, json: &Value) -> Vocabulary {
    let model = &json["model"];
    let unk = match &model["unk_token"] {
        Value::String(token) => hf.token_to_id(token),
        _ => model["unk_id"].as_u64().and_then(|id| id.try_into().ok()),
    };
    let added = hf.get_added_tokens_decoder();
    let mut special: Vec<u32> =
        added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
    special.sort_unstable();
    let is_banned = |&id: &u32| {
        unk == Some(id) || special.binary_search(&id).is_ok() || hf.id_to_token(id).is_none()
    };
    let banned = (0..size as u32).filter(is_banned).collect();
    Vocabulary { size, banned, special, unk }
}

/// Recognises the simple kinds, and the texts in which they are not simple: those with the name of a special token.
pub(super) fn encoder(hf: &HfTokenizer, json: &Value) -> (EncodingKind, Vec<String>) {
    let Some(specials) = plain_specials(json) else {
        return (EncodingKind::General, Vec::new());
    };
    let splits = &json["pre_tokenizer"];
    let is_byte_level = splits["type"] == "ByteLevel" && splits["add_prefix_space"] == false;
    let simple = match is_plain_bpe(json) {
        true if splits.is_null() => char_encoder(hf, &json["model"], &specials),
        true if is_byte_level => byte_encoder(hf),
        _ => None,
    };
    match simple {
        Some(simple) => (simple, specials),
        None => (EncodingKind::General, Vec::new()),
    }
}

/// The texts of the special tokens of a tokenizer of a simple kind; `None` where they do something to their neighbours.
fn plain_specials(json: &Value) -> Option<Vec<String>> {
    let off = ["single_word", "lstrip", "rstrip", "normalized"];
    let one = |token: &Value| {
        let is_plain = token["special"] == true && off.iter().all(|field| token[field] == false);
        let text = token["content"].as_str().filter(|text| is_plain && text.chars().count() > 1);
        text.map(String::from)
    };
    json["added_tokens"].as_array().into_iter().flatten().map(one).collect()
}

/// `true` if every character of a word becomes one token, whatever surrounds it.
fn is_plain_bpe(json: &Value) -> bool {
    let model = &json["model"];
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    let unset = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"];
    let off = ["fuse_unk", "byte_fallback", "ignore_merges"];
    model["type"] == "BPE"
        && empty(&model["merges"])
        && json["normalizer"].is_null()
        && unset.iter().all(|field| model[field].is_null())
        && off.iter().all(|field| model[field] == false)
}

/// The cuts that are allowed, by what the tokenizer does at the beginning of a piece and with its special tokens.
pub(super) fn cuts(json: &Value) -> Cuts {
    let tokens = || json["added_tokens"].as_array().into_iter().flatten();
    let named = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let found = tokens().filter(|token| wanted(token));
        found.filter_map(|token| Some(token["content"].as_str()?.to_string())).collect()
    };
    Cuts {
        only_at_spaces: begins_anew(&json["normalizer"])
            || begins_anew(&json["pre_tokenizer"])
            || tokens().any(|token| token["lstrip"] == true),
        whole: named(&|token| token["content"].as_str().is_some_and(|text| text.len() > 1)),
        take_space: named(&|token| token["rstrip"] == true),
    }
}

/// `true` if a part of the pipeline does something at the beginning of what it is given.
fn begins_anew(part: &Value) -> bool {
    match part {
        Value::Array(parts) => parts.iter().any(begins_anew),
        Value::Object(fields) => {
            matches!(part["type"].as_str(), Some("Prepend" | "Strip" | "Metaspace"))
                || part["add_prefix_space"] == true
                || fields.values().any(begins_anew)
        }
        _ => false,
    }
}

/// The tokenizer for pieces within a text, where the pipeline does something at the beginning of the whole text
/// alone: without `Prepend`, the space of `Metaspace` and `ByteLevel`, and `Strip` on the left. (On the right, every
/// piece but the last ends with what is not stripped.)
pub(super) fn inside(json: &Value) -> Result<Option<HfTokenizer>, String> {
    let mut inside = json.clone();
    for part in ["normalizer", "pre_tokenizer"] {
        remove_beginning(&mut inside[part]);
    }
    if inside == *json {
        return Ok(None);
    }
    let hf: HfTokenizer = serde_json::from_value(inside).map_err(|error| error.to_string())?;
    Ok(Some(hf))
}

fn remove_beginning(part: &mut Value) {
    match part["type"].as_str() {
        Some("Sequence") => {
            for list in ["normalizers", "pretokenizers"] {
                let parts = part.get_mut(list).and_then(Value::as_array_mut);
                parts.into_iter().flatten().for_each(remove_beginning);
            }
        }
        Some("Prepend") => *part = json!({"type": "Sequence", "normalizers": []}),
        Some("Strip") => part["strip_left"] = false.into(),
        Some("Metaspace") if part["prepend_scheme"] == "first" => {
            part["prepend_scheme"] = "never".into()
        }
        Some("ByteLevel") => part["add_prefix_space"] = false.into(),
        _ => {}
    }
}

fn char_encoder(hf: &HfTokenizer, model: &Value, specials: &[String]) -> Option<EncodingKind> {
    let unk_token = model["unk_token"].as_str()?;
    let unk = hf.token_to_id(unk_token)?;
    let mut table = Vec::new();
    for (token, id) in hf.get_vocab(true) {
        let mut chars = token.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => {
                let index = c as usize;
                table.resize(table.len().max(index + 1), unk);
                table[index] = id;
            }
            _ if token == unk_token || specials.contains(&token) => {}
            _ => return None,
        }
    }
    Some(EncodingKind::Char { table, unk })
}

fn byte_encoder(hf: &HfTokenizer) -> Option<EncodingKind> {
    if hf.get_vocab_size(false) != 256 {
        return None;
    }
    let mut table = Box::new([0; 256]);
    for (id, c) in table.iter_mut().zip(byte_alphabet()) {
        *id = hf.token_to_id(c.encode_utf8(&mut [0; 4]))?;
    }
    Some(EncodingKind::Byte(table))
}

/// For decoders that join the bytes of the tokens and do nothing else (`Fuse`, `ByteLevel`): the
/// bytes of each id. Special tokens have none; an id without a token is `None`.
pub(super) fn token_bytes(
    hf: &HfTokenizer,
    json: &Value,
    vocabulary: &Vocabulary,
) -> Option<Vec<Option<Box<[u8]>>>> {
    let byte_level = match json["decoder"]["type"].as_str() {
        Some("ByteLevel") => true,
        Some("Fuse") => false,
        _ => return None,
    };
    let byte_of: HashMap<char, u8> = byte_alphabet().into_iter().zip(0..=255).collect();
    let bytes_of = |id: u32| -> Option<Box<[u8]>> {
        let token = hf.id_to_token(id)?;
        if vocabulary.special.binary_search(&id).is_ok() {
            return Some(Box::default());
        }
        // a token with a character outside the alphabet stands for itself
        let bytes = token.chars().map(|c| byte_of.get(&c).copied()).collect::<Option<_>>();
        Some(bytes.filter(|_| byte_level).unwrap_or_else(|| token.as_bytes().into()))
    };
    Some((0..vocabulary.size as u32).map(bytes_of).collect())
}
