//! From texts of documents to training and validation tokens.

use candle_tcn::text::{
    Corpus, DocumentReader, Documents, Inputs, Tokenizer, TokenizerSpec, split_documents,
    split_pair,
};
use candle_tcn::train::ValidSet;
use candle_tcn::{Error, Result};

use super::base::Base;
use super::data::{Data, TextSource, accepts_any_bytes, existing, tokenizer_name};
use crate::documents::predicted_characters;
use crate::flags::counted;
use crate::{memory, model};

/// Documents as bytes.
type Texts = Vec<Vec<u8>>;

/// Tokens, and those that count; none of these where all do.
pub type Scored = (Vec<u32>, Vec<bool>);

impl Data {
    /// Reads and encodes the documents of `data` and, where there is one, of a text to validate on.
    pub(super) fn read_documents(
        source: &TextSource,
        by: &Documents,
        (data, held_out): (Option<&Inputs>, Option<&Inputs>),
        spec: &TokenizerSpec,
        base: Option<&Base>,
    ) -> anyhow::Result<(Self, Scored)> {
        let most = memory::check_text(data.into_iter().chain(held_out).map(Inputs::bytes).sum())?;
        let known = existing(spec, base)?;
        let any_bytes = accepts_any_bytes(spec, known.as_ref());
        let read = |inputs: &Inputs| gathered(by.clone().of(inputs, any_bytes), most);
        let all = match data {
            Some(inputs) => read(inputs)?,
            None => gathered(DocumentReader::new(model::TEXT.as_bytes(), by.clone()), most)?,
        };
        if all.is_empty() {
            return Err(
                Error::Text(format!("{}: no document to train on", source.describe())).into()
            );
        }
        let held_out = held_out.map(read).transpose()?;
        [&all].into_iter().chain(&held_out).try_for_each(|texts| expect_pairs(source, texts))?;
        let (tokenizer, end) =
            tokenizer(spec, base.filter(|_| !any_bytes), known, &all, held_out.as_ref())?;
        let (train, valid) = match held_out {
            Some(valid) => (all, valid),
            None => split_documents(all, source.fraction())?,
        };
        let valid = beginning(valid, source.valid_bytes);
        say!(
            "{} to train on, {} to validate on; {} ends each",
            counted(train.len(), "document"),
            counted(valid.len(), "document"),
            tokenizer.token_text(end).unwrap_or_default()
        );
        let bytes = [&train, &valid].map(|texts| texts.iter().map(Vec::len).sum());
        let separator = source.documents.target_after.as_deref();
        let (tokens, scored) = encoded(&tokenizer, &train, separator, end)?;
        let valid = match valid.is_empty() {
            true => ValidSet::default(),
            false => {
                let (tokens, scored) = encoded(&tokenizer, &valid, separator, end)?;
                ValidSet { scored, ..ValidSet::text(tokens, characters(&valid, separator)) }
            }
        };
        for (name, tokens) in [("training text", &tokens), ("validation text", &valid.tokens)] {
            let unknown = model::unknown_tokens(&tokenizer, tokens);
            model::warn_of_unknown(&name, unknown, model::IN_LOSSES);
        }
        let data = Self {
            tokenizer_name: tokenizer_name(spec, base),
            tokenizer,
            train_tokens: tokens.len(),
            valid_tokens: valid.tokens.len(),
            valid,
            end_token: Some(end),
            bytes,
        };
        Ok((data, (tokens, scored)))
    }
}

/// Refuses a document without the separator, if there is to be one.
fn expect_pairs(source: &TextSource, texts: &Texts) -> Result<()> {
    let Some(separator) = &source.documents.target_after else { return Ok(()) };
    let pairs = texts.iter().enumerate().map(|(i, text)| split_pair(i, text, separator));
    pairs.into_iter().try_for_each(|pair| pair.map(drop))
}

/// The tokens of documents, and those that count where not all do.
fn encoded(
    tokenizer: &Tokenizer,
    texts: &Texts,
    separator: Option<&str>,
    end: u32,
) -> Result<Scored> {
    match separator {
        None => Ok((tokenizer.encode_documents(texts, end)?, Vec::new())),
        Some(separator) => tokenizer.encode_pairs(texts, separator, end),
    }
}

/// The tokenizer, with a token that ends a document, and that token.
fn tokenizer(
    spec: &TokenizerSpec,
    base: Option<&Base>,
    known: Option<Tokenizer>,
    all: &Texts,
    held_out: Option<&Texts>,
) -> anyhow::Result<(Tokenizer, u32)> {
    let joined = |texts: &Texts, separator: &[u8]| Corpus::from_bytes(texts.join(separator));
    let tokenizer = match (base, known, spec) {
        (Some(base), ..) => {
            let texts: Vec<Corpus> =
                [all].into_iter().chain(held_out).map(|texts| joined(texts, b"")).collect();
            base.tokenizer(texts.iter())?
        }
        (None, Some(known), _) => known,
        // pairs are learned within documents
        (None, None, TokenizerSpec::Bpe(_)) => {
            Tokenizer::from_spec(spec, joined(all, b"\n").bytes())?
        }
        (None, None, _) => Tokenizer::from_spec(spec, joined(all, b"").bytes())?,
    };
    if let Some(end) = base.and_then(|base| base.files.config.end_token()) {
        return Ok((tokenizer, end));
    }
    Ok(tokenizer.with_end_token()?)
}

/// All documents, of `most` bytes together.
fn gathered(documents: impl Iterator<Item = Result<Vec<u8>>>, most: u64) -> Result<Texts> {
    let (mut texts, mut bytes) = (Vec::new(), 0u64);
    for document in documents {
        let document = document?;
        bytes = bytes.saturating_add(document.len() as u64);
        if bytes > most {
            let detail =
                format!("its documents have more than {most} bytes, which memory would not hold");
            return Err(Error::too_large("the text", detail));
        }
        texts.push(document);
    }
    Ok(texts)
}

/// The first documents of `most` bytes together, one at least.
pub fn beginning<T: AsRef<[u8]>>(mut texts: Vec<T>, most: usize) -> Vec<T> {
    let mut bytes = 0usize;
    let fitting = texts.iter().take_while(|text| {
        bytes = bytes.saturating_add(text.as_ref().len());
        bytes <= most
    });
    let kept = fitting.count().max(1);
    texts.truncate(kept);
    texts
}

/// Characters that are predicted: of each text those after the separator, where there is one.
fn characters(texts: &Texts, separator: Option<&str>) -> u64 {
    texts.iter().map(|text| predicted_characters(text, separator)).sum()
}
