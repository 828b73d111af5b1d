//! Changes of sequences from a file: a table, forms such as `A123G`, or VCF.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use candle_tcn::text::{Inputs, not_text};
use candle_tcn::{AtPath, Error};

/// The longest line: what a file of many samples may have in one.
const MAX_LINE: u64 = 1 << 26;

/// Bytes by which a file is judged to be text, and in which its first line stands.
const START_BYTES: u64 = 1 << 16;

/// Other letters in some places of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Line of the file.
    pub line: u64,
    /// Name of the sequence, where one is given.
    pub sequence: Option<String>,
    pub changes: Vec<Letter>,
}

/// Another letter in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter {
    /// From 1.
    pub position: usize,
    pub reference: char,
    pub alternative: char,
}

impl Variant {
    /// As `A123G:T45C`.
    pub fn form(&self) -> String {
        let one = |letter: &Letter| {
            format!("{}{}{}", letter.reference, letter.position, letter.alternative)
        };
        self.changes.iter().map(one).collect::<Vec<_>>().join(":")
    }
}

/// All variants of a file.
pub struct Variants {
    pub list: Vec<Variant>,
    pub is_vcf: bool,
    /// Alternatives of a VCF that insert, delete, or name no letters.
    pub passed_over: u64,
}

/// The way in which a file writes variants.
enum Form {
    Vcf,
    Table(Vec<String>, u8),
    Lines,
}

/// Names of a column.
const SEQUENCE: &[&str] = &["sequence", "chrom", "#chrom", "name", "id"];
const POSITION: &[&str] = &["position", "pos"];
const REFERENCE: &[&str] = &["reference", "ref"];
const ALTERNATIVE: &[&str] = &["alternative", "alt"];
const MUTANT: &[&str] = &["mutant", "variant"];

struct Reader {
    path: PathBuf,
    variants: Variants,
}

impl Variants {
    /// Reads a file, also a packed one; `-` is standard input.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut text = Inputs::find(&[path.to_path_buf()])?.open()?;
        let mut start = Vec::new();
        text.by_ref().take(START_BYTES).read_to_end(&mut start).at(path)?;
        if let Some(kind) = not_text(&start[..start.len().min(4096)]) {
            return Err(
                Error::file(path, format!("expected variants as text, found {kind}")).into()
            );
        }
        let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&start).to_vec();
        let form = form_of(&start);
        let text = BufReader::new(Cursor::new(start).chain(text));
        let variants =
            Variants { list: Vec::new(), is_vcf: matches!(form, Form::Vcf), passed_over: 0 };
        let mut reader = Reader { path: path.into(), variants };
        match form {
            Form::Table(header, delimiter) => reader.table(text, &header, delimiter)?,
            Form::Vcf => reader.lines(text, Reader::vcf_line)?,
            Form::Lines => reader.lines(text, Reader::form_line)?,
        }
        if reader.variants.list.is_empty() && reader.variants.passed_over == 0 {
            return Err(Error::file(path, "expected variants, found none").into());
        }
        Ok(reader.variants)
    }
}

fn form_of(start: &[u8]) -> Form {
    let start = String::from_utf8_lossy(start);
    let mut lines = start.lines();
    let first = lines.find(|line| !line.trim().is_empty()).unwrap_or_default();
    if first.starts_with("##fileformat=VCF") || first.starts_with("#CHROM\t") {
        return Form::Vcf;
    }
    let delimiter = [b'\t', b';', b','].into_iter().find(|&c| first.contains(char::from(c)));
    let delimiter = delimiter.unwrap_or(b',');
    let cells = first.split(char::from(delimiter));
    let header: Vec<String> =
        cells.map(|cell| cell.trim().trim_matches('"').to_lowercase()).collect();
    let has = |names: &[&str]| header.iter().any(|cell| names.contains(&cell.as_str()));
    match has(POSITION) || has(MUTANT) {
        true => Form::Table(header, delimiter),
        false => Form::Lines,
    }
}

impl Reader {
    fn wrong(&self, line: u64, what: impl std::fmt::Display) -> anyhow::Error {
        Error::file(&self.path, format!("line {line}: {what}")).into()
    }

    fn lines(
        &mut self,
        mut text: impl BufRead,
        read: impl Fn(&mut Self, u64, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for line in 1.. {
            let mut bytes = Vec::new();
            if text.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes).at(&self.path)? == 0 {
                break;
            }
            if bytes.len() as u64 == MAX_LINE {
                return Err(self.wrong(line, "expected a variant, found a line too long"));
            }
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| self.wrong(line, "expected text in UTF-8"))?;
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                read(self, line, text)?;
            }
        }
        Ok(())
    }

    /// `A123G`, or `NAME A123G:T45C`.
    fn form_line(&mut self, line: u64, text: &str) -> anyhow::Result<()> {
        let (sequence, form) = match text.rsplit_once(char::is_whitespace) {
            Some((name, form)) => (Some(name.trim().to_string()), form),
            None => (None, text),
        };
        let changes = self.forms(line, form)?;
        self.variants.list.push(Variant { line, sequence, changes });
        Ok(())
    }

    fn forms(&self, line: u64, text: &str) -> anyhow::Result<Vec<Letter>> {
        let one = |form: &str| {
            let mut letters = form.chars();
            let (reference, alternative) = (letters.next()?, letters.next_back()?);
            let position = letters.as_str().parse().ok().filter(|&position| position > 0)?;
            let are_letters = !reference.is_numeric() && !alternative.is_numeric();
            are_letters.then_some(Letter { position, reference, alternative })
        };
        let expected = || {
            self.wrong(
                line,
                format!(
                    "expected a change such as A123G, or several as A123G:T45C, found {text:?}"
                ),
            )
        };
        let forms = text.split([':', '/', '+']).map(|form| one(form.trim()));
        let mut changes = forms.collect::<Option<Vec<_>>>().ok_or_else(expected)?;
        changes.sort_by_key(|letter| letter.position);
        match changes.windows(2).find(|two| two[0].position == two[1].position) {
            None => Ok(changes),
            Some(two) => {
                Err(self.wrong(line, format!("position {} is changed twice", two[0].position)))
            }
        }
    }

    fn table(&mut self, text: impl Read, header: &[String], delimiter: u8) -> anyhow::Result<()> {
        let column = |names: &[&str]| header.iter().position(|cell| names.contains(&cell.as_str()));
        let [sequence, position, reference, alternative, mutant] =
            [SEQUENCE, POSITION, REFERENCE, ALTERNATIVE, MUTANT].map(column);
        let places = position.zip(reference).zip(alternative);
        if places.is_none() && mutant.is_none() {
            let expected = "expected the columns position, reference and alternative, or mutant";
            return Err(self.wrong(1, format!("{expected}, found {}", header.join(", "))));
        }
        let mut rows = csv::ReaderBuilder::new();
        let rows = rows.delimiter(delimiter).trim(csv::Trim::All).from_reader(text);
        for row in rows.into_records() {
            let row = row.map_err(|error| Error::file(&self.path, error.to_string()))?;
            let line = row.position().map_or(0, csv::Position::line);
            let cell = |column: usize| row.get(column).unwrap_or_default();
            let changes = match (places, mutant) {
                (Some(((position, reference), alternative)), _) => {
                    let form =
                        format!("{}{}{}", cell(reference), cell(position), cell(alternative));
                    vec![self.letter(
                        line,
                        cell(position),
                        cell(reference),
                        cell(alternative),
                        &form,
                    )?]
                }
                (None, column) => self.forms(line, cell(column.unwrap_or(0)))?,
            };
            let sequence = sequence.map(|column| cell(column).to_string());
            let sequence = sequence.filter(|name| !name.is_empty());
            self.variants.list.push(Variant { line, sequence, changes });
        }
        Ok(())
    }

    fn letter(
        &self,
        line: u64,
        position: &str,
        reference: &str,
        alternative: &str,
        form: &str,
    ) -> anyhow::Result<Letter> {
        let single = |text: &str| {
            let mut letters = text.chars();
            letters.next().filter(|_| letters.as_str().is_empty())
        };
        let position = position.parse().ok().filter(|&position| position > 0);
        match (position, single(reference), single(alternative)) {
            (Some(position), Some(reference), Some(alternative)) => {
                Ok(Letter { position, reference, alternative })
            }
            _ => Err(self.wrong(
                line,
                format!("expected a position from 1 and single letters, found {form:?}"),
            )),
        }
    }

    /// CHROM, POS, ID, REF, ALT and more; each alternative is a variant.
    fn vcf_line(&mut self, line: u64, text: &str) -> anyhow::Result<()> {
        let mut cells = text.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        let (sequence, position, _, reference, alternatives) =
            (cell(), cell(), cell(), cell(), cell());
        let position = position.parse::<usize>().ok().filter(|&position| position > 0);
        let (Some(position), false) = (position, alternatives.is_empty()) else {
            return Err(self.wrong(line, "expected CHROM, POS, ID, REF and ALT by tabs"));
        };
        for alternative in alternatives.split(',') {
            let is_same_length = reference.len() == alternative.len();
            let are_letters = |text: &str| text.bytes().all(|c| c.is_ascii_alphabetic());
            if !is_same_length || !are_letters(reference) || !are_letters(alternative) {
                self.variants.passed_over += 1;
                continue;
            }
            let letters = reference.chars().zip(alternative.chars()).zip(position..);
            let changes = letters
                .filter(|((reference, alternative), _)| {
                    !reference.eq_ignore_ascii_case(alternative)
                })
                .map(|((reference, alternative), position)| Letter {
                    position,
                    reference,
                    alternative,
                });
            let changes: Vec<Letter> = changes.collect();
            if changes.is_empty() {
                return Err(self.wrong(
                    line,
                    format!("expected another letter than {reference}, found the same"),
                ));
            }
            let sequence = Some(sequence.to_string());
            self.variants.list.push(Variant { line, sequence, changes });
        }
        Ok(())
    }
}
