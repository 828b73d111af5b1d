//! Checks that bytes are text.

use std::path::{Path, PathBuf};

use crate::files::formats;
use crate::{Error, Result};

/// The source of bytes, for errors.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// Offset of the bytes in it.
    pub offset: u64,
    /// Its beginning, where that is not among the bytes.
    pub start: Vec<u8>,
}

impl Origin {
    pub(super) fn file(path: &Path) -> Self {
        Self { path: Some(path.to_path_buf()), ..Self::default() }
    }
}

/// `bytes` as text.
///
/// With `whole` false the bytes may stop in the middle of a character: what is before it is
/// returned. Invalid UTF-8 and NUL bytes (valid UTF-8, but a sign of a binary file) are errors
/// that name the first offset.
pub(super) fn text_of<'a>(bytes: &'a [u8], whole: bool, origin: &Origin) -> Result<&'a str> {
    let (text, is_cut) = formats::text_at_start(bytes);
    let is_valid = text.len() == bytes.len() || (is_cut && !whole);
    if let Some(at) = text.bytes().position(|byte| byte == 0) {
        return Err(no_text_at(origin, bytes, at, "looks binary: NUL byte"));
    }
    if !is_valid {
        let what = format!("not UTF-8 text: invalid byte 0x{:02x}", bytes[text.len()]);
        return Err(no_text_at(origin, bytes, text.len(), &what));
    }
    Ok(text)
}

/// The kind of a file that begins so and is no text in UTF-8, with a word on how to make text of it; none where it may
/// be text, or is something that nobody knows.
///
/// # Example
///
/// ```
/// use candle_tcn::text::not_text;
///
/// let wide: Vec<u8> = "MANLG".repeat(9).encode_utf16().flat_map(u16::to_le_bytes).collect();
/// assert!(not_text(&wide).expect("no UTF-8").contains("iconv -f UTF-16"));
/// assert_eq!(not_text(b"MANLG"), None);
/// ```
pub fn not_text(start: &[u8]) -> Option<String> {
    if text_of(start, false, &Origin::default()).is_ok() {
        return None;
    }
    kind_of(start)
}

/// The kind of a file that begins so, if its start tells, with a word on how to make text of it.
fn kind_of(start: &[u8]) -> Option<String> {
    let kind = formats::recognize(&start[..start.len().min(formats::START_BYTES)])?;
    Some(format!("{kind}{}", formats::as_text(kind)))
}

/// The error of bytes that are no text at `at`: what the file is, if its start tells, else what is wrong there.
fn no_text_at(origin: &Origin, bytes: &[u8], at: usize, what: &str) -> Error {
    let start = match origin.offset {
        0 => bytes,
        _ => &origin.start,
    };
    let offset = origin.offset.saturating_add(at as u64);
    let Some(kind) = kind_of(start) else {
        let message = format!("{what} at byte offset {offset}{}", latin(bytes, at));
        return Error::NotText { path: origin.path.clone(), message };
    };
    let message = format!("expected text in UTF-8, found {kind}");
    match &origin.path {
        Some(path) => Error::file(path, message),
        None => Error::Text(message),
    }
}

/// Advice where a byte that stands in plain text looks like a letter of Windows-1252.
fn latin(bytes: &[u8], at: usize) -> &'static str {
    const AROUND: usize = 16;
    let before = &bytes[at.saturating_sub(AROUND)..at];
    let after = &bytes[at + 1..bytes.len().min(at + 1 + AROUND)];
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t') || *byte >= 0xc0;
    let stands_alone = before.is_empty() && after.is_empty();
    match bytes[at] >= 0x80 && !stands_alone && before.iter().chain(after).all(is_plain) {
        true => {
            "; if it is Windows-1252 or Latin-1, iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW makes UTF-8 of it"
        }
        false => "",
    }
}

/// The distinct characters of `text`, in code point order.
pub(super) fn distinct_chars(text: &str) -> Vec<char> {
    // a table, not a set: texts have gigabytes
    let mut seen = vec![false; char::MAX as usize + 1];
    text.chars().for_each(|c| seen[c as usize] = true);
    let found = (0..).zip(seen).filter(|&(_, seen)| seen);
    found.filter_map(|(code, _)| char::from_u32(code)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        text_of(bytes, true, &Origin::default()).unwrap_err().to_string()
    }

    #[test]
    fn names_the_first_offset() {
        assert_eq!(
            message("aé\u{ff}".as_bytes().split_last().unwrap().1),
            "not UTF-8 text: invalid byte 0xc3 at byte offset 3"
        );
        assert!(message(b"ab\xffcd\0").contains("0xff at byte offset 2"));
        assert!(message(b"ab\0cd\xff").contains("looks binary: NUL byte at byte offset 2"));
    }

    #[test]
    fn letters_of_other_encodings_are_told_from_noise() {
        let advised = |bytes: &[u8]| message(bytes).contains("WINDOWS-1252");
        assert!(advised(b"caf\xe9 au lait, d\xe9j\xe0 vu"));
        assert!(advised(b"\xc0 bient\xf4t\n"));
        for noise in [&b"\x02\xba\x11"[..], b"abc\xff\x01\x02", b"\xba", b"ab\x81\x82\x83"] {
            assert!(!advised(noise), "{noise:?}");
        }
    }

    #[test]
    fn adds_the_start_and_names_the_file() {
        let origin = Origin { path: Some("some/file.bin".into()), offset: 1000, start: Vec::new() };
        let error = text_of(b"ab\xff", true, &origin).unwrap_err().to_string();
        assert!(error.starts_with("some/file.bin: not UTF-8"), "{error}");
        assert!(error.contains("offset 1002"), "{error}");
    }

    #[test]
    fn an_unfinished_character_is_left_over() {
        let bytes = "a龍".as_bytes();
        let origin = Origin::default();
        for cut in 1..4 {
            assert_eq!(text_of(&bytes[..cut], false, &origin).unwrap(), "a");
        }
        assert_eq!(text_of(bytes, false, &origin).unwrap(), "a龍");
        assert!(text_of(b"a\xff", false, &origin).is_err());
        assert_eq!(text_of(b"", true, &origin).unwrap(), "");
    }
}
