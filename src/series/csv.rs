//! Tables with a header: columns of numbers and of categories, times, groups.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::csv_rows::{CsvLayout, TableRows, delimiter};
use super::times::SeriesTimes;
use super::{Column, Series, SeriesSet};
use crate::files::Decompressed;
use crate::{AtPath, Error, Result};

/// The most bytes of an unpacked table, which is held in memory.
const MAX_BYTES: u64 = 1 << 32;

/// TableRows that may be missing from a grid of time, as a multiple of those that there are.
const MAX_GAPS: usize = 4;

/// The parts that columns of a table have.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CsvOptions {
    /// Column of the times; without it one named time, timestamp, date or datetime, if there is one.
    pub time: Option<String>,
    /// Columns that are left out, beside those without a name, which number the rows.
    pub ignore: Vec<String>,
    /// Column whose different values are different series.
    pub group: Option<String>,
    /// Columns that are wanted, as another table had them; all without it, whose kinds are found.
    pub columns: Option<Vec<Column>>,
    /// Columns of those wanted that may be missing altogether: their values then are.
    pub absent: Vec<String>,
}

/// A table that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesTable {
    /// Its series.
    pub set: SeriesSet,
    /// Facts that a reader should know: the column of the times and their step, rows that are missing, changes of the
    /// clock.
    pub notes: Vec<String>,
    /// TableRows that a regular grid of time has and the table has not; in the set, all of their values are missing.
    pub missing_rows: usize,
    /// Name of the column of the times, where there is one.
    pub time: Option<String>,
}

/// Reads a CSV with a header; `,`, `;` or a tab separates its fields. Packed files (gzip, zstd) are unpacked.
///
/// A field that is empty, `NA`, `NaN`, `null` or `?` is a missing value. A column is of numbers where all of its other
/// fields are, else of categories. TableRows that are missing from a regular grid of times are put in, without values.
///
/// # Errors
/// [`Error::Io`] naming the file; [`Error::File`] with the line: a row of another number of fields, an infinite number, a
/// text in a column of numbers or a category that is not known, times that run backwards; and for a table without a
/// row, without a column of numbers, or without a wanted column.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{CsvOptions, read_csv};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("flow.csv");
/// std::fs::write(&path, "time,flow,gate\n2024-01-01,1.5,open\n2024-01-02,,shut\n2024-01-03,2,open\n2024-01-05,2,open\n")?;
///
/// let table = read_csv(&path, &CsvOptions::default())?;
/// assert_eq!(table.missing_rows, 1); // of the fourth of January
/// assert_eq!(table.set.columns[1].categories, ["open", "shut"]);
/// assert_eq!(table.set.series[0].frames[..2], [1.5, 0.]);
/// assert!(table.set.series[0].frames[2].is_nan());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_csv(path: impl AsRef<Path>, options: &CsvOptions) -> Result<SeriesTable> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    Decompressed::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).at(path)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes of text, found more");
        return Err(Error::file(path, message));
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    parse_csv(text, options).map_err(|message| Error::file(path, message))
}

fn parse_csv(text: &[u8], options: &CsvOptions) -> std::result::Result<SeriesTable, String> {
    let rows = TableRows { text, delimiter: delimiter(text) };
    let mut header = None;
    rows.each(1, |_, row| {
        header = Some(
            row.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>(),
        );
        Ok(())
    })?;
    let layout =
        CsvLayout::find(&header.ok_or("expected a header and rows, found none")?, options)?;
    let columns = match &options.columns {
        Some(columns) => columns.clone(),
        None => rows.kinds(&layout)?,
    };
    if options.columns.is_none() && !columns.iter().any(Column::is_of_numbers) {
        return Err("expected a column of numbers, found none".into());
    }
    let mut groups: Vec<TableGroup> = Vec::new();
    let mut by_name: HashMap<Vec<u8>, usize> = HashMap::new();
    rows.each_row(&layout, |line, row| {
        let name = layout.group.map_or(&b""[..], |group| &row[group]);
        let at = *by_name.entry(name.to_vec()).or_insert_with(|| {
            groups.push(TableGroup {
                name: String::from_utf8_lossy(name).into_owned(),
                ..TableGroup::default()
            });
            groups.len() - 1
        });
        let group = &mut groups[at];
        if let Some(time) = layout.time {
            group.times.push(String::from_utf8_lossy(&row[time]).into_owned());
        }
        group.lines.push(line);
        for (column, (_, place)) in columns.iter().zip(&layout.values) {
            group.frames.push(match place {
                None => f32::NAN,
                Some(place) => CsvLayout::value(column, &row[*place])?,
            });
        }
        Ok(())
    })?;
    if groups.is_empty() {
        return Err("expected rows after the header, found none".into());
    }
    let time = layout.time.map(|time| layout.names[time].clone());
    let mut table =
        SeriesTable { time, ..SeriesTable::of(SeriesSet { columns, ..SeriesSet::default() }) };
    for group in groups {
        group.add_to(&mut table)?;
    }
    table.add_notes(&layout);
    Ok(table)
}

/// The rows of one series.
#[derive(Default)]
struct TableGroup {
    name: String,
    times: Vec<String>,
    lines: Vec<u64>,
    frames: Vec<f32>,
}

impl TableGroup {
    fn add_to(self, table: &mut SeriesTable) -> std::result::Result<(), String> {
        let channels = table.set.columns.len();
        let mut series = Series { name: self.name, ..Series::new(self.frames, channels) };
        if !self.times.is_empty() {
            let times = SeriesTimes::read(&self.times)
                .map_err(|(row, message)| format!("line {}: {message}", self.lines[row]))?;
            let gaps = times.gaps();
            let missing: usize = gaps.iter().sum();
            let is_grid = missing <= MAX_GAPS * times.len();
            if missing > 0 && is_grid {
                let rows = series.frames.chunks_exact(channels).zip(&gaps);
                let filled = |(row, &gap): (&[f32], &usize)| {
                    [vec![f32::NAN; gap * channels], row.to_vec()].concat()
                };
                series.frames = rows.flat_map(filled).collect();
                series.times = Some(times.filled(&gaps));
                table.missing_rows += missing;
            } else {
                series.times = Some(times);
            }
        }
        table.set.series.push(series);
        Ok(())
    }
}

impl SeriesTable {
    /// A set of which there is nothing else to tell.
    pub fn of(set: SeriesSet) -> Self {
        Self { set, notes: Vec::new(), missing_rows: 0, time: None }
    }

    fn add_notes(&mut self, layout: &CsvLayout) {
        let Some(time) = layout.time else { return };
        let name = &layout.names[time];
        let times = self.set.series.iter().filter_map(|series| series.times.as_ref());
        let changes: Vec<String> = times.clone().flat_map(SeriesTimes::clock_changes).collect();
        let step = times.clone().find_map(SeriesTimes::step);
        let step = step.map_or("no regular step".into(), |step| format!("a step of {step}"));
        self.notes.push(format!("times in column {name:?}, {step}"));
        if let Some(first) = changes.first() {
            let times = if changes.len() == 1 { "once" } else { "several times" };
            self.notes.push(format!("the clock changes {times}, first at {first}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<SeriesTable, String> {
        parse_csv(text.as_bytes(), &CsvOptions::default())
    }

    #[test]
    fn indexes_semicolons_and_marks() {
        let table = read("\"\";\"time\";\"spots\"\r\n\"1\";1749;58\r\n\"2\";1750;62,6\r\n");
        // a comma is no decimal point: a category
        assert_eq!(table.unwrap_err(), "expected a column of numbers, found none");
        let table =
            read("\"\";\"time\";\"spots\"\r\n\"1\";1749;58\r\n\"2\";1750;62.6\r\n").unwrap();
        assert_eq!((&table.set.columns[0].name[..], table.set.columns.len()), ("spots", 1));
        assert_eq!(table.notes, ["times in column \"time\", a step of 1"]);
        assert_eq!(table.set.series[0].times.as_ref().unwrap().after(1, 2).unwrap(), "1752");
    }

    #[test]
    fn groups_are_series_and_gaps_are_filled() {
        let text = "day,shop,sold\n2024-01-01,a,1\n2024-01-01,b,10\n2024-01-02,a,2\n2024-01-02,b,\n2024-01-05,a,5\n";
        let options = CsvOptions {
            time: Some("day".into()),
            group: Some("shop".into()),
            ..CsvOptions::default()
        };
        let table = parse_csv(text.as_bytes(), &options).unwrap();
        let [a, b] = &table.set.series[..] else { panic!() };
        assert_eq!((&a.name[..], &b.name[..], a.len(), table.missing_rows), ("a", "b", 3, 0));
        assert_eq!(b.missing(), 1);
        // two rows alone tell no step; of four there is one
        let text = "date,x\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n2024-01-06,6\n";
        let table = read(text).unwrap();
        assert_eq!(
            (table.missing_rows, table.set.series[0].missing(), table.set.series[0].len()),
            (2, 2, 6)
        );
    }

    #[test]
    fn what_is_wrong_is_one_line_with_its_number() {
        for (text, expected) in [
            ("", "expected a header and rows, found none"),
            ("a,b\n", "expected rows after the header, found none"),
            ("a,b\n1,2\n3\n", "line 3: expected 2 fields as the header has, found 1"),
            ("a,b\n1,2\n\n3,4,5\n", "line 4: expected 2 fields as the header has, found 3"),
            ("a\nx\n", "expected a column of numbers, found none"),
            ("a\n1\ninf\n", "line 3: a: expected a finite number, found \"inf\""),
            ("a\n1\n1e99\n", "line 3: a: expected a finite number, found \"1e99\""),
            ("a,a\n1,2\n", "expected columns of different names, found \"a\" twice"),
            ("time,a\n2,1\n1,2\n", "line 3: expected a time after 2, found 1: time runs backwards"),
            ("time,a\nsoon,1\n", "line 2: expected a time"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_later_table_has_the_columns_of_the_first() {
        let wind = Column { name: "wind".into(), categories: vec!["calm".into(), "storm".into()] };
        let columns = Some(vec![Column::of_numbers("x"), wind]);
        let options = CsvOptions {
            columns,
            absent: vec!["x".into()],
            ignore: vec!["gone".into()],
            ..CsvOptions::default()
        };
        let table = parse_csv(b"other,wind\n1,storm\n2,\n", &options).unwrap();
        let frames = &table.set.series[0].frames;
        assert!(frames[0].is_nan() && frames[1] == 1.0 && frames[3].is_nan());
        let error = parse_csv(b"x,wind\n1,gale\n", &options).unwrap_err();
        assert_eq!(error, "line 2: wind: expected one of calm, storm, found \"gale\"");
        let error = parse_csv(b"x\n1\n", &options).unwrap_err();
        assert_eq!(error, "expected a column \"wind\", found x");
        let error = parse_csv(b"x,wind\none,calm\n", &options).unwrap_err();
        assert_eq!(error, "line 2: x: expected a number, found \"one\"");
    }
}
