//! Corpora, and streams of files against the text in memory.

use std::path::PathBuf;

use candle_tcn::Error;
use candle_tcn::text::{Corpus, TokenStream};

use super::{MIXED, VERSE, all_kinds, general_ids, make};

fn collect<R: std::io::Read>(stream: &mut TokenStream<R>) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    for piece in stream {
        ids.extend(piece?);
    }
    Ok(ids)
}

/// Long enough for several pieces and buffers; no two lines alike.
fn long_text(lines: usize) -> String {
    let line = |i: usize| match i % 3 {
        0 => format!("{i} {MIXED}"),
        1 => format!("{VERSE}{i}，\n"),
        _ => format!("line {i}, it's \"quoted\" ;\r\n\r\n"),
    };
    (0..lines).map(line).collect()
}

#[test]
fn pieces_equal_the_whole() {
    let tokenizer = make("bpe:400", MIXED);
    let text = long_text(5000);
    assert!(text.len() > 5 * 65536);
    let expected = general_ids(&tokenizer, &text);
    for threads in 1..4 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| tokenizer.encode(&text).unwrap()) == expected);
    }
    assert!(tokenizer.decode(&expected).unwrap() == text);
}

#[test]
fn a_stream_equals_the_text_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let spaces = long_text(30_000);
    assert!(spaces.len() > 2 << 20);
    // characters across the buffer's end; and a text without any cut
    for text in [spaces, "a".to_owned() + &"𠀀".repeat(400_000), VERSE.into(), "龍".into()] {
        std::fs::write(&path, &text).unwrap();
        for tokenizer in all_kinds(MIXED) {
            let mut stream = TokenStream::open(&path, &tokenizer).unwrap();
            let ids = collect(&mut stream).unwrap();
            assert!(ids == tokenizer.encode_bytes(text.as_bytes()).unwrap());
            assert_eq!(stream.bytes(), text.len() as u64);
            assert_eq!(stream.characters(), text.chars().count() as u64);
        }
    }
}

#[test]
fn a_stream_names_the_file_and_the_offset_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.txt");
    let mut bytes = long_text(20_000).into_bytes();
    let at = bytes.len();
    bytes.extend(b"\xe9\xbe");
    std::fs::write(&path, &bytes).unwrap();
    for tokenizer in [make("char", MIXED), make("bpe:300", MIXED)] {
        let mut stream = TokenStream::open(&path, &tokenizer).unwrap();
        let error = collect(&mut stream).unwrap_err().to_string();
        assert!(error.contains("broken.txt: not UTF-8"), "{error}");
        assert!(error.ends_with(&format!("0xe9 at byte offset {at}")), "{error}");
        assert!(stream.next().is_none());
    }
    let mut stream = TokenStream::open(&path, &make("byte", "")).unwrap();
    assert_eq!(collect(&mut stream).unwrap().len(), bytes.len());

    std::fs::write(&path, b"").unwrap();
    for path in [&path, &folder.path().to_path_buf(), &"no/such/file".into()] {
        let first = TokenStream::open(path, &make("byte", "")).and_then(|mut stream| {
            let piece = stream.next().expect("a piece or an error");
            assert!(stream.next().is_none());
            piece
        });
        assert!(first.unwrap_err().to_string().contains(path.to_str().unwrap()));
    }
    let mut none = TokenStream::open(&path, &make("byte", "")).unwrap().or_empty();
    assert!(none.next().is_none());
}

#[test]
fn corpora_are_joined_and_checked_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, empty] = ["a.txt", "b.txt", "empty.txt"].map(|name| folder.path().join(name));
    std::fs::write(&a, "龍\n").unwrap();
    std::fs::write(&b, b"ok\xff").unwrap();
    std::fs::write(&empty, b"").unwrap();

    let corpus = Corpus::read_files(&[a.clone(), a.clone()]).unwrap();
    assert_eq!(corpus.text().unwrap(), "龍\n龍\n");
    let corpus = Corpus::read_files(&[a.clone(), b]).unwrap();
    assert_eq!(corpus.bytes().len(), 7);
    let error = corpus.text().unwrap_err().to_string();
    assert!(error.contains("b.txt: not UTF-8") && error.contains("offset 2;"), "{error}");

    let message = |path: PathBuf| Corpus::read_files(&[a.clone(), path]).unwrap_err().to_string();
    assert!(message(empty).contains("empty.txt: expected text, found an empty file"));
    // a folder stands for what it holds; what is no text is no part of that
    let found = Corpus::read_files(&[folder.path().into()]).unwrap();
    assert_eq!(found.text().unwrap(), "龍\n");
    assert!(message("no/such.txt".into()).contains("no/such.txt"));
    assert!(Corpus::read_files(&[]).is_err());
    assert!(Corpus::from_bytes(b"\xff".into()).text().is_err());
}
