//! TableRows of a table: its header, its fields, the kinds of its columns.

use std::collections::HashMap;

use csv::{ByteRecord, ReaderBuilder};

use super::{Column, CsvOptions};

/// The most categories of a column.
const MAX_CATEGORIES: usize = 1000;

/// Characters of names that a message has room for.
const SHOWN: usize = 200;

/// Names that are taken for that of the times.
const TIMES: [&str; 4] = ["time", "timestamp", "date", "datetime"];

/// The sign between the fields of a header.
pub fn delimiter(header: &[u8]) -> u8 {
    let line = header.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |sign: u8| line.iter().filter(|&&byte| byte == sign).count();
    [b',', b';', b'\t'].into_iter().max_by_key(|&sign| (count(sign), sign == b',')).unwrap_or(b',')
}

/// A number; NaN for a missing value, `None` for a text.
pub fn number(field: &[u8]) -> Option<f32> {
    let field = field.trim_ascii();
    let missing: [&[u8]; 5] = [b"na", b"nan", b"null", b"?", b"n/a"];
    if field.is_empty() || missing.iter().any(|name| field.eq_ignore_ascii_case(name)) {
        return Some(f32::NAN);
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The places of the parts in a row.
pub struct CsvLayout {
    pub(super) names: Vec<String>,
    /// Column of the times.
    pub time: Option<usize>,
    /// Column of the groups.
    pub group: Option<usize>,
    /// Columns of values: the place in a row, or none for an absent one.
    pub values: Vec<(String, Option<usize>)>,
}

impl CsvLayout {
    /// Finds the parts in a header.
    ///
    /// # Errors
    /// A message: a name that occurs twice or is not there.
    pub fn find(header: &[String], options: &CsvOptions) -> Result<Self, String> {
        let names: Vec<String> = header.iter().map(|name| name.trim().to_string()).collect();
        let shown = || {
            let all = names.iter().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>();
            all.join(", ").chars().take(SHOWN).collect::<String>()
        };
        for (i, name) in names.iter().enumerate() {
            if !name.is_empty() && names[..i].contains(name) {
                return Err(format!("expected columns of different names, found {name:?} twice"));
            }
        }
        let place = |name: &String| {
            let place = names.iter().position(|found| found == name);
            place.ok_or_else(|| format!("expected a column {name:?}, found {}", shown()))
        };
        let is_time = |name: &&String| TIMES.iter().any(|time| name.eq_ignore_ascii_case(time));
        let time = match &options.time {
            Some(name) => Some(place(name)?),
            None => names
                .iter()
                .find(is_time)
                .filter(|name| !options.ignore.contains(name))
                .map(place)
                .transpose()?,
        };
        let group = options.group.as_ref().map(place).transpose()?;
        // of a later table only the wanted columns must be there
        let ignored = match options.columns {
            None => options.ignore.iter().map(place).collect::<Result<Vec<_>, _>>()?,
            Some(_) => Vec::new(),
        };
        let values = match &options.columns {
            Some(columns) => {
                let value =
                    |column: &Column| match names.iter().position(|name| *name == column.name) {
                        None if options.absent.contains(&column.name) => {
                            Ok((column.name.clone(), None))
                        }
                        _ => Ok((column.name.clone(), Some(place(&column.name)?))),
                    };
                columns.iter().map(value).collect::<Result<_, String>>()?
            }
            None => {
                let left = |i: &usize| {
                    !names[*i].is_empty()
                        && ![time, group].contains(&Some(*i))
                        && !ignored.contains(i)
                };
                (0..names.len()).filter(left).map(|i| (names[i].clone(), Some(i))).collect()
            }
        };
        Ok(Self { names, time, group, values })
    }

    /// Number of fields of a row.
    pub fn fields(&self) -> usize {
        self.names.len()
    }

    /// The value of a column in a row.
    ///
    /// # Errors
    /// A message for a number that is infinite, a text in a column of numbers, and a category that is not known.
    pub fn value(column: &Column, field: &[u8]) -> Result<f32, String> {
        let found = || String::from_utf8_lossy(field).trim().chars().take(40).collect::<String>();
        match number(field) {
            _ if !column.is_of_numbers() => {
                let text = found();
                if text.is_empty() {
                    return Ok(f32::NAN);
                }
                let place = column.categories.iter().position(|name| *name == text);
                let expected = || {
                    format!(
                        "{}: expected one of {}, found {text:?}",
                        column.name,
                        column.categories.join(", ")
                    )
                };
                place.map(|i| i as f32).ok_or_else(expected)
            }
            Some(x) if x.is_infinite() => {
                Err(format!("{}: expected a finite number, found {:?}", column.name, found()))
            }
            Some(x) => Ok(x),
            None => Err(format!("{}: expected a number, found {:?}", column.name, found())),
        }
    }
}

/// The rows of a text.
pub(super) struct TableRows<'a> {
    pub text: &'a [u8],
    pub delimiter: u8,
}

impl TableRows<'_> {
    /// Goes through the first rows, header included, with their lines.
    pub fn each(
        &self,
        most: usize,
        mut see: impl FnMut(u64, &ByteRecord) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut reader = ReaderBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(self.text);
        let mut row = ByteRecord::new();
        for _ in 0..most {
            let more = reader.read_byte_record(&mut row).map_err(|error| error.to_string())?;
            if !more {
                break;
            }
            let line = row.position().map_or(0, |position| self.line_of(position));
            see(line, &row).map_err(|message| format!("line {line}: {message}"))?;
        }
        Ok(())
    }

    /// The line of a record, before which empty lines may stand.
    fn line_of(&self, position: &csv::Position) -> u64 {
        let rest = self.text.get(position.byte() as usize..).unwrap_or_default();
        let empty = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
        position.line() + empty.filter(|&&byte| byte == b'\n').count() as u64
    }

    /// Goes through the rows after the header.
    pub fn each_row(
        &self,
        layout: &CsvLayout,
        mut see: impl FnMut(u64, &ByteRecord) -> Result<(), String>,
    ) -> Result<(), String> {
        let (expected, mut is_header) = (layout.fields(), true);
        self.each(usize::MAX, |line, row| {
            if std::mem::take(&mut is_header) {
                return Ok(());
            }
            if row.len() != expected {
                return Err(format!(
                    "expected {expected} fields as the header has, found {}",
                    row.len()
                ));
            }
            see(line, row)
        })
    }

    /// Numbers or categories: the kind of each column.
    pub fn kinds(&self, layout: &CsvLayout) -> Result<Vec<Column>, String> {
        let places: Vec<usize> = layout.values.iter().filter_map(|(_, place)| *place).collect();
        let mut found: Vec<ColumnTexts> = places.iter().map(|_| ColumnTexts::default()).collect();
        self.each_row(layout, |line, row| {
            for (&place, texts) in places.iter().zip(&mut found) {
                texts.add(row[place].trim_ascii(), line);
            }
            Ok(())
        })?;
        layout.values.iter().zip(found).map(|((name, _), texts)| texts.column(name)).collect()
    }
}

/// The texts of a column.
#[derive(Default)]
struct ColumnTexts {
    /// Line of the first that is no number.
    no_number: Option<u64>,
    /// Different ones, and the order in which they came.
    names: HashMap<Vec<u8>, usize>,
}

impl ColumnTexts {
    fn add(&mut self, field: &[u8], line: u64) {
        if number(field).is_none() {
            self.no_number.get_or_insert(line);
        }
        let next = self.names.len();
        if !field.is_empty() && next <= MAX_CATEGORIES && !self.names.contains_key(field) {
            self.names.insert(field.to_vec(), next);
        }
    }

    /// The column: of numbers where all are.
    fn column(self, name: &str) -> Result<Column, String> {
        let Some(line) = self.no_number else { return Ok(Column::of_numbers(name)) };
        if self.names.len() > MAX_CATEGORIES {
            return Err(format!(
                "line {line}: {name}: expected a number, or at most {MAX_CATEGORIES} different texts in the column, found more"
            ));
        }
        let mut names: Vec<_> = self.names.into_iter().collect();
        names.sort_by_key(|(_, place)| *place);
        let text = |(name, _): (Vec<u8>, usize)| String::from_utf8_lossy(&name).into_owned();
        Ok(Column { name: name.to_string(), categories: names.into_iter().map(text).collect() })
    }
}
