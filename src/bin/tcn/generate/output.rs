//! Output of texts while they are generated.

use std::collections::BTreeMap;
use std::io::Write;

use candle_tcn::generate::{Generation, Piece, TokenLogprob};
use candle_tcn::text::Tokenizer;
use serde_json::{Value, json};

use crate::{print_line, signals};

/// The next piece; after Ctrl-C what is still held back.
pub fn next_piece(generation: &mut Generation) -> candle_tcn::Result<Option<Piece>> {
    if signals::has_come() {
        generation.interrupt()?;
    }
    generation.next().transpose()
}

/// Writes texts in order: the first as it is made, the others, made beside it, in its wake.
pub fn texts(generation: &mut Generation, count: u64, prompt: &str) -> anyhow::Result<()> {
    let mut out = crate::terminal::stdout();
    // what is not written yet, and whether that is all
    let mut waiting: BTreeMap<u64, (String, bool)> = BTreeMap::new();
    let (mut shown, mut is_begun) = (0, count == 1);
    if is_begun {
        // at once, before the first token
        write!(out, "{prompt}")?;
        out.flush()?;
    }
    while let Some(piece) = next_piece(generation)? {
        let (text, ended) = waiting.entry(piece.sample).or_default();
        *text += &piece.text;
        *ended = piece.finished.is_some();
        while let Some((text, ended)) = waiting.get_mut(&shown) {
            if !std::mem::replace(&mut is_begun, true) {
                write!(out, "--- sample {shown} ---\n{prompt}")?;
            }
            write!(out, "{}", std::mem::take(text))?;
            if !*ended {
                break;
            }
            writeln!(out)?;
            waiting.remove(&shown);
            (shown, is_begun) = (shown + 1, false);
        }
        out.flush()?;
    }
    Ok(())
}

/// Writes a line of JSON for each text as it ends.
pub fn json_lines(
    generation: &mut Generation,
    tokenizer: &Tokenizer,
    seed: u64,
    prompt: Option<&str>,
) -> anyhow::Result<()> {
    let mut texts: BTreeMap<u64, String> = BTreeMap::new();
    while let Some(piece) = next_piece(generation)? {
        *texts.entry(piece.sample).or_default() += &piece.text;
        let Some(finished) = piece.finished else {
            continue;
        };
        let mut line = json!({
            "seed": seed,
            "prompt": prompt,
            "sample": piece.sample,
            "text": texts.remove(&piece.sample),
            "tokens": finished.tokens,
            "tokens_per_s": finished.tokens as f64 / finished.seconds.max(1e-9),
            "finish_reason": finished.reason,
        });
        if !finished.logprobs.is_empty() {
            line["logprobs"] = logprobs(&finished.logprobs, tokenizer)?;
        }
        print_line(line)?;
    }
    Ok(())
}

fn logprobs(tokens: &[TokenLogprob], tokenizer: &Tokenizer) -> candle_tcn::Result<Value> {
    let bytes = tokenizer.token_bytes()?;
    let described = |id: u32, logprob: f64| {
        let text = tokenizer.decode(&[id])?;
        let bytes = bytes.later().get(id as usize);
        candle_tcn::Result::Ok(json!({"token": text, "id": id, "bytes": bytes, "logprob": logprob}))
    };
    let one = |token: &TokenLogprob| {
        let mut line = described(token.id, token.logprob)?;
        let top = token.top.iter().map(|&(id, logprob)| described(id, logprob));
        if !token.top.is_empty() {
            line["top"] = top.collect::<candle_tcn::Result<Vec<_>>>()?.into();
        }
        Ok(line)
    };
    tokens.iter().map(one).collect()
}
