//! Files that people take for others, by their first bytes.

/// Formats of files: the place of some bytes, the bytes, the format's name.
const FORMATS: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"version https://git-lfs",
        "the pointer that git keeps in the place of a large file; fetch that with git lfs pull",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\xff\xfe\0\0", "UTF-32 text"),
    (0, b"\0\0\xfe\xff", "UTF-32 text"),
    (0, b"\xff\xfe", "UTF-16 text"),
    (0, b"\xfe\xff", "UTF-16 text"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a rar archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF-", "a PDF"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an office program"),
    (0, b"{\\rtf", "a document of an office program"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"GIF8", "a picture"),
    (0, b"RIFF", "a picture, sound or film"),
    (0, b"OggS", "sound"),
    (0, b"fLaC", "sound"),
    (0, b"ID3", "sound"),
    (4, b"ftyp", "a film or sound"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x7fELF", "a program"),
];

/// Formats of zip archives, by a name near their beginning.
const ZIPPED: &[(&[u8], &str)] = &[
    (b"word/", "a Word document"),
    (b"xl/", "an Excel file"),
    (b"ppt/", "a PowerPoint file"),
    (b"application/vnd.oasis.opendocument", "a document of an office program"),
    (b"application/epub+zip", "an EPUB book"),
];

/// Bytes from the beginning that tell.
pub(crate) const START_BYTES: usize = 4096;

/// Names the format of a file that begins so, if its first bytes tell.
pub(crate) fn recognize(start: &[u8]) -> Option<&'static str> {
    let has = |(at, bytes, _): &&(usize, &[u8], _)| {
        start.get(*at..).is_some_and(|rest| rest.starts_with(bytes))
    };
    if let Some((_, _, kind)) = FORMATS.iter().find(has) {
        return Some(kind);
    }
    if start.starts_with(b"PK\x03\x04") {
        let holds = |name: &&[u8]| start.windows(name.len()).any(|window| window == *name);
        let found = ZIPPED.iter().find(|(name, _)| holds(name));
        return Some(found.map_or("a zip archive", |(_, kind)| kind));
    }
    is_wide(start).then_some("UTF-16 text")
}

/// `true` for text of two bytes a character, of which every other is zero.
fn is_wide(start: &[u8]) -> bool {
    const ENOUGH: usize = 8;
    let zeros =
        |first: usize| start.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let half = start.len() / 2;
    let (even, odd) = (zeros(0), zeros(1));
    half >= ENOUGH && (even == 0 && odd > half * 3 / 4 || odd == 0 && even > half * 3 / 4)
}

/// The text that bytes begin with; `true` if nothing follows it but the beginning of a character.
pub(crate) fn text_at_start(bytes: &[u8]) -> (&str, bool) {
    let Err(error) = std::str::from_utf8(bytes) else {
        return (std::str::from_utf8(bytes).unwrap_or_default(), true);
    };
    let valid = &bytes[..error.valid_up_to()];
    (std::str::from_utf8(valid).unwrap_or_default(), error.error_len().is_none())
}

/// Advice on making text of a format that [`recognize`] names.
pub(crate) fn as_text(kind: &str) -> &'static str {
    match kind {
        "UTF-16 text" => "; iconv -f UTF-16 -t UTF-8 FILE > NEW makes UTF-8 of it",
        "UTF-32 text" => "; iconv -f UTF-32 -t UTF-8 FILE > NEW makes UTF-8 of it",
        "a PDF" => "; pdftotext makes text of it",
        "a Word document" | "a document of an office program" | "an EPUB book" => {
            "; save it as plain text"
        }
        "an Excel file" => "; save it as CSV",
        _ => to_unpack(kind),
    }
}

/// Advice for a format that holds others.
pub(super) fn to_unpack(kind: &str) -> &'static str {
    let packed = ["an xz file", "a bzip2 file", "a gzip file", "a zstd file"];
    if kind.ends_with("archive") || packed.contains(&kind) { "; unpack it first" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named() {
        let tar = [vec![b'a'; 257], b"ustar".to_vec()].concat();
        let wide: Vec<u8> = "plain words".bytes().flat_map(|byte| [byte, 0]).collect();
        let word = b"PK\x03\x04......word/document.xml";
        for (start, kind) in [
            (&b"%PDF-1.7"[..], "a PDF"),
            (&tar, "a tar archive"),
            (&wide, "UTF-16 text"),
            (&wide[1..], "UTF-16 text"),
            (word, "a Word document"),
            (b"PK\x03\x04...", "a zip archive"),
            (b"\xff\xfea\0", "UTF-16 text"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32 text"),
        ] {
            assert_eq!(recognize(start), Some(kind));
        }
        for text in ["", "a", "plain words", "天地玄黃", "PK"] {
            assert_eq!(recognize(text.as_bytes()), None, "{text}");
        }
    }
}
