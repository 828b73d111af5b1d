//! Tokenizers, incremental decoding and corpora, against the `tokenizers` crate's own machinery.

mod batches;
mod corpus;
mod files;
mod token_bytes;

use candle_tcn::text::{Tokenizer, TokenizerSpec};
use proptest::prelude::*;

/// Characters of one to four bytes, a surrogate-pair emoji with joiners, CRLF, a tab, a BOM.
const MIXED: &str =
    "Thou art 龍𠮷野家。\r\n\tmañana — «ça»\n👩‍👩‍👧 🇨🇭 e\u{301}\u{feff}\n\n  two  spaces \n";

/// Verse without a space, as Chinese texts are printed.
const VERSE: &str = "庭有老槐𣎴知歲，\n夜來微雨洗青苔。\n燈下𠀀聲誰與和？\n一窗明月照書臺。\n";

fn make(spec: &str, text: &str) -> Tokenizer {
    Tokenizer::from_spec(&spec.parse().unwrap(), text.as_bytes()).unwrap()
}

fn all_kinds(text: &str) -> [Tokenizer; 3] {
    ["char", "byte", "bpe:300"].map(|spec| make(spec, text))
}

/// The general machinery on the saved file: what Python's package runs.
fn general(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(tokenizer.to_json().unwrap()).unwrap()
}

fn general_ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let encoding = general(tokenizer).encode(text, false).unwrap();
    encoding.get_ids().to_vec()
}

/// Decodes one by one; checks that nothing is held back for long.
fn decode_stepwise(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.decoder();
    let (mut text, mut silent) = (String::new(), 0);
    for &id in ids {
        match decoder.push(id).unwrap() {
            Some(part) => {
                assert!(!part.is_empty());
                text += &part;
                silent = 0;
            }
            None => silent += 1,
        }
        assert!(silent < 8);
    }
    text + &decoder.finish().unwrap()
}

#[test]
fn round_trips_and_equals_the_general_machinery() {
    for text in [MIXED, VERSE, "", "\n", "a\r\nb", "<unk>"] {
        for tokenizer in all_kinds(MIXED) {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids, general_ids(&tokenizer, text), "{text:?}");
            let decoded = tokenizer.decode(&ids).unwrap();
            assert_eq!(decoded, general(&tokenizer).decode(&ids, true).unwrap());
            assert_eq!(decode_stepwise(&tokenizer, &ids), decoded);
            if tokenizer.unknown_chars(text).is_empty() {
                assert_eq!(decoded, text);
            }
        }
    }
}

#[test]
fn char_has_one_token_per_character() {
    let tokenizer = make("char", VERSE);
    let mut distinct: Vec<char> = VERSE.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(tokenizer.vocab_size(), distinct.len() + 1);
    let ids = tokenizer.encode(VERSE).unwrap();
    assert_eq!(ids.len(), VERSE.chars().count());
    for (id, c) in (1..).zip(distinct) {
        assert_eq!(tokenizer.token_text(id), Some(c.to_string()));
    }
    assert_eq!(tokenizer.banned_ids(), [0]);
    assert!(!tokenizer.accepts_any_bytes());
}

#[test]
fn unknown_characters_become_unk_one_by_one() {
    let tokenizer = make("char", "ab\n");
    // <unk> 0, \n 1, a 2, b 3
    assert_eq!(tokenizer.encode("a𠀀😀b\r\n").unwrap(), [2, 0, 0, 3, 0, 1]);
    assert_eq!(tokenizer.unknown_chars("b😀a𠀀😀"), ['😀', '𠀀']);
    assert_eq!(tokenizer.decode(&[2, 0, 3]).unwrap(), "a<unk>b");
    for tokenizer in &all_kinds("ab")[1..] {
        assert!(tokenizer.unknown_chars("龍😀\0").is_empty());
        assert!(tokenizer.banned_ids().is_empty());
    }
}

#[test]
fn byte_ids_are_the_bytes() {
    let tokenizer = make("byte", "");
    let bytes: Vec<u8> = (0..=255).rev().collect();
    let ids = tokenizer.encode_bytes(&bytes).unwrap();
    assert!(ids.iter().zip(&bytes).all(|(&id, &byte)| id == u32::from(byte)));
    let lossy = String::from_utf8_lossy(&bytes);
    assert_eq!(tokenizer.decode(&ids).unwrap(), lossy);
    assert_eq!(decode_stepwise(&tokenizer, &ids), lossy);
    assert_eq!(tokenizer.vocab_size(), 256);
    assert!(tokenizer.accepts_any_bytes());
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_offset() {
    for tokenizer in [make("char", MIXED), make("bpe:300", MIXED)] {
        assert!(tokenizer.encode_bytes("龍\u{ff}x".as_bytes()).is_ok());
        let error = tokenizer.encode_bytes(b"ab\r\n\xc3\x28").unwrap_err().to_string();
        assert!(error.contains("0xc3 at byte offset 4; "), "{error}");
        let error = tokenizer.encode_bytes(b"abc\0\0\0").unwrap_err().to_string();
        assert!(error.contains("binary: NUL byte at byte offset 3"), "{error}");
    }
    let error = Tokenizer::from_spec(&TokenizerSpec::Char, b"ab\xff").unwrap_err();
    assert!(error.to_string().contains("offset 2"));
}

#[test]
fn nothing_to_learn_from_is_an_error() {
    for spec in ["char", "bpe:300"] {
        let error = Tokenizer::from_spec(&spec.parse().unwrap(), b"").unwrap_err();
        assert!(error.to_string().contains(spec), "{error}");
    }
    assert!(Tokenizer::from_spec(&TokenizerSpec::Bpe(7), b"abc").is_err());
}

#[test]
fn saved_and_loaded_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (i, tokenizer) in all_kinds(MIXED).into_iter().enumerate() {
        let path = folder.path().join(format!("{i}.json"));
        tokenizer.save(&path).unwrap();
        let loaded = make(path.to_str().unwrap(), "");
        assert_eq!(loaded.to_json().unwrap(), tokenizer.to_json().unwrap());
        assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
        assert_eq!(loaded.banned_ids(), tokenizer.banned_ids());
        assert_eq!(loaded.accepts_any_bytes(), i == 1);
        assert_eq!(loaded.encode(MIXED).unwrap(), tokenizer.encode(MIXED).unwrap());
    }
}

#[test]
fn bpe_is_learned_alike_every_time() {
    let text = MIXED.repeat(3000);
    let json = make("bpe:400", &text).to_json().unwrap();
    for threads in 1..4 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| make("bpe:400", &text).to_json().unwrap()), json);
    }
    // few pairs occur twice in a short text
    let size = make("bpe:5000", "abab").vocab_size();
    assert!((257..300).contains(&size), "{size}");
}

#[test]
fn ids_out_of_the_vocabulary_are_errors() {
    for tokenizer in all_kinds("ab") {
        let id = tokenizer.vocab_size() as u32;
        assert!(tokenizer.decode(&[id]).unwrap_err().to_string().contains(&id.to_string()));
        let mut decoder = tokenizer.decoder();
        assert!(decoder.push(id).is_err());
        assert!(decoder.push(u32::MAX).is_err());
        assert_eq!(decoder.finish().unwrap(), "");
    }
}

proptest! {
    #[test]
    fn any_text_comes_back(text in any::<String>()) {
        let char = make("char", &format!("{text}x").replace('\0', ""));
        for tokenizer in [char, make("byte", "")] {
            let text = text.replace('\0', "");
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(&ids, &general_ids(&tokenizer, &text));
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_str());
            prop_assert_eq!(decode_stepwise(&tokenizer, &ids), text.as_str());
        }
    }
}
