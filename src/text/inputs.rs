//! The files of a text: those named, those of a folder, those that a pattern matches.

use std::collections::VecDeque;
use std::fs;
use std::io::{Cursor, Read, Result as IoResult};
use std::path::{Path, PathBuf};

use crate::files::formats::text_at_start;
use crate::files::names::RUN;
use crate::files::{Decompressed, is_standard_input};
use crate::{AtPath, Error, Result};

/// Bytes by which a file of a folder is judged.
const JUDGED_BYTES: u64 = 8192;

/// U+FEFF in UTF-8, with which some editors begin a file; it is no text.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Folders within folders; deeper ones are a loop.
const MAX_DEPTH: usize = 64;

/// The files of a text, in order.
///
/// # Example
///
/// ```
/// use candle_tcn::text::Inputs;
///
/// let folder = tempfile::tempdir().expect("a temporary folder");
/// std::fs::write(folder.path().join("b.txt"), "two").expect("writable");
/// std::fs::write(folder.path().join("a.txt"), "one\n").expect("writable");
/// std::fs::write(folder.path().join(".hidden"), "three").expect("writable");
///
/// let inputs = Inputs::find(&[folder.path().to_path_buf()])?;
/// assert_eq!(inputs.files().len(), 2);
/// assert_eq!(inputs.hidden(), 1);
/// let mut text = String::new();
/// std::io::Read::read_to_string(&mut inputs.open()?, &mut text).expect("text");
/// assert_eq!(text, "one\ntwo\n");
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    files: Vec<PathBuf>,
    /// Found, not named: each is a text of its own, which ends with a line end.
    found: bool,
    hidden: usize,
    not_text: Vec<PathBuf>,
}

impl Inputs {
    /// The files that these names mean: a file, `-` for standard input, a folder with all that it holds, or a
    /// pattern such as `notes/*.txt` that no shell has expanded. Files of a folder come in the order of their
    /// names; hidden ones, those that are no text and those of training runs are passed over.
    ///
    /// # Errors
    /// [`Error::Invalid`] without any name; [`Error::File`] for a folder or a pattern without a text;
    /// [`Error::Io`] for what cannot be read.
    pub fn find(names: &[PathBuf]) -> Result<Self> {
        if names.is_empty() {
            return Err(Error::invalid("files", "at least one text file", "none"));
        }
        let mut inputs = Self::default();
        for name in names {
            let before = inputs.files.len();
            let is_input = is_standard_input(name);
            if !is_input && name.is_dir() {
                inputs.add_folder(name, 0)?;
            } else if !is_input && !name.exists() && is_pattern(name) {
                inputs.add_matches(name)?;
            } else {
                inputs.files.push(name.clone());
                continue;
            }
            inputs.found = true;
            if inputs.files.len() == before {
                return Err(Error::file(name, "expected text files there, found none"));
            }
        }
        Ok(inputs)
    }

    /// The files, each by its name.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Hidden files that were passed over.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Files that were passed over since they are no text.
    pub fn not_text(&self) -> &[PathBuf] {
        &self.not_text
    }

    /// `true` if files were looked for, in a folder or by a pattern.
    pub fn are_found(&self) -> bool {
        self.found
    }

    /// Bytes of the files as they lie on the disk; those of standard input are not known.
    pub fn bytes(&self) -> u64 {
        let len = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        self.files.iter().map(len).fold(0, u64::saturating_add)
    }

    /// All files as one text. Found files are separated by at least a line end, and none has a byte
    /// order mark.
    ///
    /// # Errors
    /// Those of [`Decompressed::open`] for the first file; for the others they come while it is read.
    pub fn open(&self) -> Result<Decompressed> {
        if let ([only], false) = (&self.files[..], self.found) {
            return Decompressed::open(only);
        }
        let waiting = self.files.clone().into();
        let mut text = Joined { current: None, waiting, separate: self.found, last: b'\n' };
        text.open_next()?;
        Ok(Decompressed::new(text))
    }

    fn add_folder(&mut self, folder: &Path, depth: usize) -> Result<()> {
        let entries = fs::read_dir(folder).at(folder)?;
        let mut entries: Vec<_> = entries.collect::<IoResult<_>>().at(folder)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().at(folder)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                self.hidden += 1;
            } else if kind.is_dir() && depth < MAX_DEPTH {
                // what training has left is not what it is to read
                if !path.join(RUN).exists() {
                    self.add_folder(&path, depth + 1)?;
                }
            } else if path.is_file() {
                self.add_if_text(path)?;
            }
        }
        Ok(())
    }

    fn add_matches(&mut self, pattern: &Path) -> Result<()> {
        let wrong = |message: String| Error::file(pattern, message);
        let matches = glob::glob(&escaped_folder(pattern))
            .map_err(|error| wrong(format!("no pattern: {error}")))?;
        for path in matches {
            let path = path.map_err(|error| wrong(error.to_string()))?;
            if path.is_file() {
                self.add_if_text(path)?;
            }
        }
        Ok(())
    }

    fn add_if_text(&mut self, path: PathBuf) -> Result<()> {
        let mut start = Vec::new();
        let read = Decompressed::open(&path)?.take(JUDGED_BYTES).read_to_end(&mut start);
        // UTF-8 whose last character may be cut, without NUL
        match read.is_ok() && text_at_start(&start).1 && !start.contains(&0) {
            true if start.is_empty() => {}
            true => self.files.push(path),
            false => self.not_text.push(path),
        }
        Ok(())
    }
}

fn is_pattern(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.contains(['*', '?', '[']))
}

/// The pattern with the folders that there are taken by their names, whatever is in those.
fn escaped_folder(pattern: &Path) -> String {
    let there = pattern.ancestors().skip(1).find(|folder| folder.is_dir());
    let there = there.unwrap_or(Path::new(""));
    let rest = pattern.strip_prefix(there).unwrap_or(pattern);
    let there = glob::Pattern::escape(&there.to_string_lossy());
    Path::new(&there).join(rest).to_string_lossy().into_owned()
}

/// The bytes of `source` without a byte order mark at its start: U+FEFF, with which some editors begin a file.
pub(super) fn without_mark(mut source: impl Read) -> IoResult<impl Read> {
    let mut start = Vec::new();
    source.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
    if start == BYTE_ORDER_MARK {
        start.clear();
    }
    Ok(Cursor::new(start).chain(source))
}

/// Files one after the other.
struct Joined {
    current: Option<(PathBuf, Box<dyn Read + Send>)>,
    waiting: VecDeque<PathBuf>,
    /// Each ends with a line end.
    separate: bool,
    last: u8,
}

impl Joined {
    fn open_next(&mut self) -> Result<()> {
        self.current = None;
        if let Some(path) = self.waiting.pop_front() {
            let source = without_mark(Decompressed::open(&path)?).at(&path)?;
            self.current = Some((path, Box::new(source)));
        }
        Ok(())
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        while let Some((path, source)) = &mut self.current {
            let n = source.read(buffer).at(path).map_err(std::io::Error::other)?;
            if n > 0 || buffer.is_empty() {
                self.last = buffer[..n].last().copied().unwrap_or(self.last);
                return Ok(n);
            }
            if self.separate && std::mem::replace(&mut self.last, b'\n') != b'\n' {
                buffer[0] = b'\n';
                return Ok(1);
            }
            self.open_next().map_err(std::io::Error::other)?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn text(inputs: &Inputs) -> String {
        let mut text = String::new();
        inputs.open().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_folder_is_read_in_order() {
        let folder = folder(&[
            ("b.txt", b"b"),
            ("a/2.txt", b"\xef\xbb\xbfa2\n"),
            ("a/1.txt", b"a1"),
            ("empty", b""),
            (".git/config", b"hidden"),
            (".hidden", b"hidden"),
            ("runs/a/run.json", b"{}"),
            ("runs/a/README.md", b"of a run"),
            ("picture.png", b"\x89PNG\0"),
        ]);
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        let inputs = Inputs::find(&[folder.path().to_path_buf()]).unwrap();
        assert_eq!(text(&inputs), "a1\na2\nb\n");
        assert_eq!(inputs.hidden(), 2);
        assert_eq!(inputs.not_text(), [folder.path().join("picture.png")]);
        assert_eq!(inputs.bytes(), 2 + 6 + 1);
    }

    #[test]
    fn a_pattern_is_expanded_unless_a_file_has_its_name() {
        let folder = folder(&[("a.txt", b"a"), ("b.txt", b"b"), ("c/d.txt", b"d"), ("x.md", b"x")]);
        let found = |pattern: &str| Inputs::find(&[folder.path().join(pattern)]);
        assert_eq!(text(&found("*.txt").unwrap()), "a\nb\n");
        assert_eq!(text(&found("**/*.txt").unwrap()), "a\nb\nd\n");
        assert!(found("*.csv").unwrap_err().to_string().contains("*.csv"));
        fs::create_dir(folder.path().join("a[1]")).unwrap();
        fs::write(folder.path().join("a[1]/1.txt"), "1").unwrap();
        assert_eq!(text(&found("a[1]/*.txt").unwrap()), "1\n");
        fs::write(folder.path().join("[x].txt"), "itself").unwrap();
        assert_eq!(text(&found("[x].txt").unwrap()), "itself");
    }

    #[test]
    fn named_files_are_joined_as_they_are() {
        let folder = folder(&[("a", b"a"), ("b", b"b"), ("c", b"\xff")]);
        let files: Vec<_> = ["a", "b"].iter().map(|name| folder.path().join(name)).collect();
        assert_eq!(text(&Inputs::find(&files).unwrap()), "ab");
        assert!(Inputs::find(&[]).is_err());
        let empty = tempfile::tempdir().unwrap();
        assert!(Inputs::find(&[empty.path().into()]).is_err());
        let missing = Inputs::find(&[folder.path().join("none")]).unwrap();
        assert!(missing.open().unwrap_err().to_string().contains("none"));
    }
}
