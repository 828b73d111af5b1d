//! The text format of the time-series archives (UCR, UEA): comments, a header, then one sequence a line.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{Column, Series, SeriesSet};
use crate::files::Decompressed;
use crate::{AtPath, Error, Result};

/// The longest line, which is held in memory.
const MAX_LINE: u64 = 1 << 28;

/// Reads a `.ts` file: sequences of one or several channels, of any lengths, with or without classes.
///
/// Comments begin with `#`, the header is lines that begin with `@` up to `@data`; then each line is a sequence, its
/// channels separated by `:`, their values by `,`, with a `?` for a missing one; the class stands last. Packed files
/// (gzip, zstd) are unpacked.
///
/// # Errors
/// [`Error::Io`] naming the file; [`Error::File`] with the line and what is wrong there: a value that is no finite number,
/// channels of several lengths, other channels or lengths than the header says, a class that it does not name, time
/// stamps, a target that is a number, no sequence at all.
///
/// # Example
///
/// ```
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("moves.ts");
/// std::fs::write(&path, "#made up\n@dimensions 2\n@classLabel true a b\n@data\n1,2:10,20:b\n")?;
///
/// let set = candle_tcn::series::read_ts(&path)?;
/// assert_eq!(set.series[0].frames, [1., 10., 2., 20.]); // (time, channels)
/// assert_eq!(set.series[0].class, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_ts(path: impl AsRef<Path>) -> Result<SeriesSet> {
    let path = path.as_ref();
    let mut lines = Lines { reader: BufReader::new(Decompressed::open(path)?), path, number: 0 };
    let mut header = TsHeader::default();
    let mut set = None;
    while let Some(line) = lines.next()? {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = match &mut set {
            Some(set) => header.sequence(line).and_then(|series| add(set, series, &header)),
            None => header.read(line).map(|ended| {
                let classes = header.classes.clone().unwrap_or_default();
                set = ended.then(|| SeriesSet { classes, ..SeriesSet::default() });
            }),
        };
        read.map_err(|message| lines.error(&message))?;
    }
    match set {
        None => Err(Error::file(path, "expected a line @data before the sequences, found none")),
        Some(set) if set.series.is_empty() => {
            Err(Error::file(path, "expected sequences after @data, found none"))
        }
        Some(set) => Ok(set),
    }
}

/// `true` for a file that says in its header that it is of the archives: other files have this ending too.
pub fn is_ts(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let Ok(file) = Decompressed::open(path) else { return false };
    let mut lines = Lines { reader: BufReader::new(file), path, number: 0 };
    for _ in 0..10_000 {
        let Ok(Some(line)) = lines.next() else { return false };
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.starts_with('@') {
            let name = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
            return [
                "@problemname",
                "@timestamps",
                "@missing",
                "@univariate",
                "@dimensions",
                "@classlabel",
                "@data",
            ]
            .contains(&&name[..]);
        }
        if !line.is_empty() && !line.starts_with('#') {
            return false;
        }
    }
    false
}

/// The lines of a file.
struct Lines<'a, R> {
    reader: R,
    path: &'a Path,
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut line = (&mut self.reader).take(MAX_LINE + 1);
        line.read_until(b'\n', &mut bytes).at(self.path)?;
        self.number += 1;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 > MAX_LINE {
            let message = format!("expected at most {MAX_LINE} bytes, found more");
            return Err(self.error(&message));
        }
        // comments in other encodings are common, and nothing else is lost by it: what is no number is refused
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn error(&self, message: &str) -> Error {
        Error::file(self.path, format!("line {}: {message}", self.number))
    }
}

/// The header, as far as it says how to read what follows.
#[derive(Default)]
struct TsHeader {
    dimensions: Option<usize>,
    /// `true` if all sequences have one length.
    equal: bool,
    length: Option<usize>,
    classes: Option<Vec<String>>,
}

impl TsHeader {
    /// Reads a line; `true` for the last of the header.
    fn read(&mut self, line: &str) -> Result<bool, String> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_ascii_lowercase();
        let value: Vec<&str> = words.collect();
        let first = value.first().copied().unwrap_or_default();
        let on = first.eq_ignore_ascii_case("true");
        match name.as_str() {
            "@data" => return Ok(true),
            "@timestamps" if on => {
                return Err("expected values without time stamps, found @timeStamps true".into());
            }
            "@targetlabel" if on => {
                return Err(
                    "expected classes (@classLabel), found a number as target (@targetLabel true)"
                        .into(),
                );
            }
            "@univariate" if on => self.dimensions = Some(1),
            "@dimensions" | "@dimension" => self.dimensions = Some(count(&name, first)?),
            "@equallength" => self.equal = on,
            "@serieslength" => self.length = Some(count(&name, first)?),
            "@classlabel" if on => {
                if value.len() < 2 {
                    return Err("expected the names of the classes after @classLabel true".into());
                }
                self.classes = Some(value[1..].iter().map(ToString::to_string).collect());
            }
            name if name.starts_with('@') => {}
            _ => return Err(format!("expected @ and a name, or @data, found {}", start(line))),
        }
        Ok(false)
    }

    /// The sequence of a line.
    fn sequence(&self, line: &str) -> Result<Series, String> {
        let mut fields: Vec<&str> = line.split(':').map(str::trim).collect();
        let class = match &self.classes {
            None => None,
            Some(classes) => {
                let name = fields.pop().unwrap_or_default();
                let class = classes.iter().position(|class| class == name);
                Some(class.ok_or_else(|| {
                    format!("expected a class ({}), found {}", classes.join(", "), start(name))
                })?)
            }
        };
        let channels = fields.len();
        if let Some(expected) = self.dimensions.filter(|&dimensions| dimensions != channels) {
            return Err(format!("expected {expected} channels, found {channels}"));
        }
        let values = fields.iter().map(|field| field.split(',').map(number).collect());
        let values = values.collect::<Result<Vec<Vec<f32>>, String>>()?;
        let Some(len) = values.first().map(Vec::len) else {
            return Err("expected values before the class, found none".into());
        };
        if let Some(other) = values.iter().find(|channel| channel.len() != len) {
            let other = other.len();
            return Err(format!("expected channels of one length, found {len} and {other} values"));
        }
        let frames = (0..len).flat_map(|t| values.iter().map(move |channel| channel[t])).collect();
        Ok(Series { class, ..Series::new(frames, channels) })
    }
}

/// Adds a sequence that is like those before it.
fn add(set: &mut SeriesSet, series: Series, header: &TsHeader) -> Result<(), String> {
    let before = set.series.first();
    let channels = before.map_or(series.channels, |before| before.channels);
    if series.channels != channels {
        return Err(format!("expected {channels} channels as before, found {}", series.channels));
    }
    let length = header.length.or(before.map(Series::len)).filter(|_| header.equal);
    if let Some(length) = length.filter(|&length| length != series.len()) {
        return Err(format!(
            "expected {length} values (@equalLength true), found {}",
            series.len()
        ));
    }
    if set.columns.is_empty() {
        let name = |channel| Column::of_numbers(format!("channel {channel}"));
        set.columns = (1..=channels).map(name).collect();
    }
    set.series.push(series);
    Ok(())
}

/// A value; NaN for one that is missing.
fn number(text: &str) -> Result<f32, String> {
    let text = text.trim();
    if text == "?" || text.eq_ignore_ascii_case("nan") {
        return Ok(f32::NAN);
    }
    match text.parse::<f32>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err(format!("expected a finite number or ?, found {}", start(text))),
    }
}

fn count(name: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("expected a number above 0 after {name}, found {}", start(text)))
}

/// As much of a text as a message has room for.
fn start(text: &str) -> String {
    match text.char_indices().nth(40) {
        None if text.is_empty() => "nothing".into(),
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<SeriesSet> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ts");
        std::fs::write(&path, text).unwrap();
        read_ts(&path)
    }

    #[test]
    fn marks_comments_and_line_ends_of_all_kinds() {
        let text = "\u{feff}#\u{feff}# made up\r\n@problemName moves\r\n@missing true\r\n@UNIVARIATE true\r\n\r\n\
            @equalLength false\r\n@classLabel true 1 2\r\n@DATA\r\n1, ?,-3e2 :2\r\n# between\r\n\r\n4:1";
        let set = read(text.as_bytes()).unwrap();
        assert_eq!(set.columns, [Column::of_numbers("channel 1")]);
        let [a, b] = &set.series[..] else { panic!("{} sequences", set.series.len()) };
        assert_eq!((a.frames[0], a.frames[2], a.missing(), a.class), (1., -300., 1, Some(1)));
        assert_eq!((&b.frames[..], b.class), (&[4.][..], Some(0)));
        // a comment in another encoding
        assert_eq!(read(b"#caf\xe9\n@data\n1:2\n").unwrap().series[0].channels, 2);
    }

    #[test]
    fn what_is_wrong_is_one_line() {
        let header = "@classLabel true a b\n@data\n";
        for (text, expected) in [
            ("1,2:a\n", "line 1: expected @ and a name, or @data, found \"1,2:a\""),
            ("@dimensions 2\n", "expected a line @data before the sequences, found none"),
            (header, "expected sequences after @data, found none"),
            ("@classLabel true\n", "line 1: expected the names of the classes"),
            ("@timeStamps true\n", "line 1: expected values without time stamps"),
            ("@targetLabel true\n", "line 1: expected classes (@classLabel), found a number"),
            (
                "@dimensions none\n",
                "line 1: expected a number above 0 after @dimensions, found \"none\"",
            ),
            (
                "@classLabel true a b\n@data\n1,2:a\n3,4:c\n",
                "line 4: expected a class (a, b), found \"c\"",
            ),
            (
                "@classLabel true a b\n@data\na\n",
                "line 3: expected values before the class, found none",
            ),
            ("@data\n1,inf\n", "line 2: expected a finite number or ?, found \"inf\""),
            ("@data\n1,1e99\n", "line 2: expected a finite number or ?, found \"1e99\""),
            ("@data\n1,,2\n", "line 2: expected a finite number or ?, found nothing"),
            ("@data\n1,2:3\n", "line 2: expected channels of one length, found 2 and 1 values"),
            ("@data\n1:2\n1\n", "line 3: expected 2 channels as before, found 1"),
            ("@univariate true\n@data\n1:2\n", "line 3: expected 1 channels, found 2"),
            (
                "@equalLength true\n@data\n1,2\n1\n",
                "line 4: expected 2 values (@equalLength true), found 1",
            ),
            ("@equalLength true\n@seriesLength 3\n@data\n1,2\n", "line 4: expected 3 values"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
