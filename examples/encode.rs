//! Encodes a text file: writes the tokenizer and the ids, which `scripts/check_tokenizers.py`
//! compares with what Python's `tokenizers` makes of them.
//!
//! ```text
//! cargo run --release --example encode -- bpe:500 text.txt tokenizer.json ids.json
//! ```

use candle_tcn::text::{Corpus, Tokenizer, TokenizerSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [spec, text, tokenizer_json, ids_json] = arguments.as_slice() else {
        return Err("usage: encode char|byte|bpe:N|FILE TEXT TOKENIZER_JSON IDS_JSON".into());
    };
    let spec: TokenizerSpec = spec.parse()?;
    let corpus = Corpus::read_files(&[text.into()])?;

    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::from_spec(&spec, corpus.bytes())?;
    let made = start.elapsed().as_secs_f64();
    let start = std::time::Instant::now();
    let ids = tokenizer.encode_bytes(corpus.bytes())?;
    let encoded = start.elapsed().as_secs_f64();

    tokenizer.save(tokenizer_json)?;
    std::fs::write(ids_json, serde_json::to_vec(&ids)?)?;
    println!(
        "vocabulary {}, {} bytes, {} tokens; made in {made:.2} s, encoded in {encoded:.2} s",
        tokenizer.vocab_size(),
        corpus.bytes().len(),
        ids.len(),
    );
    Ok(())
}
