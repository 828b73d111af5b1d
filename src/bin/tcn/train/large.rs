//! Texts that memory would not hold: read in passes, their tokens kept in a file.

use std::io::Read;
use std::path::{Path, PathBuf};

use candle_tcn::files::{Decompressed, sha256};
use candle_tcn::text::{
    Corpus, Inputs, TextScan, TokenFile, TokenStream, Tokenizer, TokenizerSpec,
};
use candle_tcn::{AtPath, Error};
use indicatif::HumanBytes;

use super::base::Base;
use super::data::{Data, TextSource, accepts_any_bytes, existing, tokenizer_name, valid_set};
use crate::model;
use crate::progress::{self, Pace};
use crate::signals::{self, UntilSignal};

/// Bytes of text from which on its tokens lie in a file.
const LARGE: u64 = 1 << 28;

/// Bytes of text that byte pairs are learned from.
const SAMPLE: u64 = 1 << 26;

/// Version of the token files, part of their names.
const FORMAT: &str = "tokens 1";

/// The place for what can be made again, as the system names it.
fn usual_folder() -> Option<PathBuf> {
    let named =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || named("HOME").or_else(|| named("USERPROFILE")).map(|home| home.join(".cache"));
    let cache = named("XDG_CACHE_HOME").or_else(|| named("LOCALAPPDATA")).or_else(home)?;
    Some(cache.join("candle-tcn"))
}

impl Data {
    /// The folder for the tokens of a text, if it is one for a file.
    pub(super) fn token_folder(source: &TextSource, inputs: Option<&Inputs>) -> Option<PathBuf> {
        let inputs = inputs.filter(|_| !source.is_piped())?;
        let given = source.token_cache.clone();
        given.or_else(|| usual_folder().filter(|_| inputs.bytes() > LARGE))
    }

    /// Reads a text in passes: its hash and characters, then its tokens into a file of `folder`, unless one of the same
    /// text and tokenizer is there.
    pub(super) fn read_large(
        source: &TextSource,
        (inputs, held_out): (&Inputs, Option<&Inputs>),
        spec: &TokenizerSpec,
        base: Option<&Base>,
        folder: &Path,
    ) -> anyhow::Result<(Self, TokenFile)> {
        let known = existing(spec, base)?;
        let any_bytes = accepts_any_bytes(spec, known.as_ref());
        let name = source.describe();
        let scan = scanned(inputs, &name, any_bytes)?;
        let tokenizer = tokenizer(spec, base.filter(|_| !any_bytes), known, (inputs, &scan))?;
        let split = match held_out {
            Some(_) => scan.bytes,
            None => split(inputs, scan.bytes, source.fraction(), any_bytes)?,
        };
        let key = [FORMAT, &scan.sha256, &split.to_string(), &tokenizer.to_json()?].join("\n");
        std::fs::create_dir_all(folder).at(folder)?;
        let path = folder.join(format!("{}.tokens", sha256(key.as_bytes())?));
        let tokens = match TokenFile::open(&path) {
            Ok(Some(tokens)) => {
                say!("the tokens of {name} are in {}", path.display());
                tokens
            }
            found => {
                if let Err(error) = found {
                    say!("{error}; made anew");
                }
                written(&path, inputs, split, &tokenizer)?
            }
        };
        let most = source.valid_bytes as u64;
        let mut valid = Vec::new();
        match held_out {
            Some(held_out) => held_out.open()?.take(most).read_to_end(&mut valid),
            None => skipped(inputs, split)?.take(most).read_to_end(&mut valid),
        }
        .at(Path::new(&name))?;
        let valid = super::data::beginning(&valid, whole(&valid, any_bytes));
        let bytes = [split as usize, valid.len()];
        let valid = valid_set(&tokenizer, valid)?;
        let data = Self {
            tokenizer_name: tokenizer_name(spec, base),
            tokenizer,
            train_tokens: tokens.len(),
            valid_tokens: valid.tokens.len(),
            valid,
            end_token: None,
            bytes,
        };
        Ok((data, tokens))
    }
}

/// Bytes of whole characters at the start of what may end within one.
fn whole(bytes: &[u8], any_bytes: bool) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if !any_bytes && error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn scanned(inputs: &Inputs, name: &str, any_bytes: bool) -> anyhow::Result<TextScan> {
    let text = inputs.open()?;
    let style = "reading {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let bar = progress::bar(Some(inputs.bytes()), style)?;
    let scan = TextScan::of(UntilSignal(bar.wrap_read(text)), name, any_bytes);
    signals::expect_none()?;
    let scan = scan?;
    bar.finish_and_clear();
    if scan.bytes == 0 {
        return Err(Error::Text(format!("{name}: no text to train on")).into());
    }
    Ok(scan)
}

/// The tokenizer: byte pairs are learned from the beginning of the text.
fn tokenizer(
    spec: &TokenizerSpec,
    base: Option<&Base>,
    known: Option<Tokenizer>,
    (inputs, scan): (&Inputs, &TextScan),
) -> anyhow::Result<Tokenizer> {
    let characters: String = scan.characters.iter().collect();
    if let Some(base) = base {
        return base.tokenizer(std::iter::once(&Corpus::from_bytes(characters.into_bytes())));
    }
    if let Some(known) = known {
        return Ok(known);
    }
    let TokenizerSpec::Bpe(_) = spec else {
        return Ok(Tokenizer::from_spec(spec, characters.as_bytes())?);
    };
    let mut sample = Vec::new();
    inputs.open()?.take(SAMPLE).read_to_end(&mut sample)?;
    sample.truncate(whole(&sample, false));
    if (sample.len() as u64) < scan.bytes {
        say!(
            "byte pairs are learned from the first {} of {}",
            HumanBytes(sample.len() as u64),
            HumanBytes(scan.bytes)
        );
    }
    Ok(Tokenizer::from_spec(spec, &sample)?)
}

/// The text behind its first `bytes` bytes.
fn skipped(inputs: &Inputs, bytes: u64) -> anyhow::Result<Decompressed> {
    let mut text = inputs.open()?;
    let skipped = std::io::copy(&mut UntilSignal(text.by_ref().take(bytes)), &mut std::io::sink());
    signals::expect_none()?;
    skipped?;
    Ok(text)
}

/// The byte at which the part to validate on begins: the start of a character.
fn split(inputs: &Inputs, bytes: u64, fraction: f64, any_bytes: bool) -> anyhow::Result<u64> {
    // checks the fraction
    candle_tcn::text::split_fraction(b"", fraction, false)?;
    let at = ((bytes as f64 * (1.0 - fraction)) as u64).min(bytes);
    if any_bytes || at == bytes {
        return Ok(at);
    }
    let from = at.saturating_sub(3);
    let mut around = Vec::new();
    skipped(inputs, from)?.take(4).read_to_end(&mut around)?;
    let starts =
        |place: &u64| around.get((place - from) as usize).is_none_or(|byte| byte & 0xc0 != 0x80);
    Ok((from..=at).rev().find(starts).unwrap_or(at))
}

/// Writes the tokens of the first `bytes` bytes.
fn written(
    path: &Path,
    inputs: &Inputs,
    bytes: u64,
    tokenizer: &Tokenizer,
) -> anyhow::Result<TokenFile> {
    say!("the tokens go to {}", path.display());
    let style = "encoding {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let bar = progress::bar(Some(bytes), style)?;
    let mut pace = Pace::new();
    let mut stream = TokenStream::new(UntilSignal(inputs.open()?.take(bytes)), tokenizer);
    let mut unknown = 0;
    let pieces = std::iter::from_fn(|| {
        let piece = stream.next()?;
        if let Ok(tokens) = &piece {
            unknown += model::unknown_tokens(tokenizer, tokens);
        }
        bar.set_position(stream.bytes());
        pace.tell_bytes("encoding", &bar);
        Some(piece)
    });
    let written = TokenFile::create(path, tokenizer.vocab_size(), pieces);
    signals::expect_none()?;
    let written = written?;
    bar.finish_and_clear();
    model::warn_of_unknown(&"training text", unknown, model::IN_LOSSES);
    Ok(written)
}
