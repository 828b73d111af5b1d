//! Line ends of Windows (CRLF) in one text and not in another: to a model of characters they are a difference.

use candle_tcn::text::Tokenizer;

/// `true` if a text has Windows line ends, by its first lines; none where it has no lines.
fn are_windows(text: &[u8]) -> Option<bool> {
    const LOOKED_AT: usize = 1 << 16;
    let start = &text[..text.len().min(LOOKED_AT)];
    let has_lines = start.contains(&b'\n');
    has_lines.then(|| start.windows(2).any(|pair| pair == b"\r\n"))
}

/// Says that only one of two texts has them.
pub fn compare(train: &[u8], valid: &[u8]) {
    if let (Some(train), Some(valid)) = (are_windows(train), are_windows(valid))
        && train != valid
    {
        let which = if train { "--data has" } else { "--valid has" };
        say!(
            "{which} Windows line ends (CRLF), the other text has not: tr -d '\\r' < FILE > NEW takes them away"
        );
    }
}

/// Says that a text has them and the model has seen none, or the other way round; `start` is how the text begins.
pub fn compare_with_model(name: &dyn std::fmt::Display, start: &[u8], tokenizer: &Tokenizer) {
    // of others, a vocabulary does not tell what a model has seen
    let tells = !tokenizer.accepts_any_bytes() && tokenizer.unknown_id().is_some();
    let Some(has) = are_windows(start).filter(|_| tells) else {
        return;
    };
    match (has, tokenizer.token_id("\r").is_some()) {
        (true, false) => say!(
            "{name}: has Windows line ends (CRLF), which the model has not seen: tr -d '\\r' < FILE > NEW takes them away"
        ),
        (false, true) => say!(
            "{name}: has no Windows line ends (CRLF), and the model has seen no others: sed 's/$/\\r/' FILE > NEW puts them there"
        ),
        _ => {}
    }
}
