//! Series from files of all kinds.

use std::path::{Path, PathBuf};

use candle_tcn::series::{
    CsvOptions, Series, SeriesSet, SeriesTable, adding_problem, copy_memory, is_ts, read_csv,
    read_npy, read_tensors, read_ts,
};
use candle_tcn::{Error, Result};

/// Sequences of a made-up task, and the seed of those to test on.
const MADE_UP: (usize, usize) = (50_000, 1_000);
const TEST_SEED: u64 = u64::MAX;

/// The kind of a file of series.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ts,
    Csv,
    Npy,
    Tensors,
    MadeUp,
}

/// The kind of a file by its name; a table where that does not tell.
pub fn kind_of(path: &Path) -> Kind {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    let name = name.unwrap_or_default();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("ts") => Kind::Ts,
        Some("npy") => Kind::Npy,
        Some("safetensors") => Kind::Tensors,
        _ if made_up(path).is_some() => Kind::MadeUp,
        _ => Kind::Csv,
    }
}

/// Name and steps of a made-up task, as `adding:600`.
pub fn made_up(path: &Path) -> Option<(&str, usize)> {
    let (name, steps) = path.to_str()?.split_once(':')?;
    let steps = steps.parse().ok().filter(|&steps| (2..=1_000_000).contains(&steps))?;
    ["adding", "copy"].contains(&name).then_some((name, steps))
}

/// `true` for a file that says itself that it holds series with classes.
pub fn is_archive(path: &Path) -> bool {
    kind_of(path) == Kind::Ts && is_ts(path)
}

/// The part of a made-up task that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Train,
    Test,
}

/// Reads a file.
pub fn read(path: &Path, options: &CsvOptions, role: Role) -> Result<SeriesTable> {
    Ok(match (kind_of(path), made_up(path)) {
        (Kind::Ts, _) => SeriesTable::of(read_ts(path)?),
        (Kind::Npy, _) => SeriesTable::of(read_npy(path)?),
        (Kind::Tensors, _) => SeriesTable::of(read_tensors(path)?),
        (Kind::MadeUp, Some((name, steps))) => {
            let (count, seed) = match role {
                Role::Train => (MADE_UP.0, 0),
                Role::Test => (MADE_UP.1, TEST_SEED),
            };
            // of 10 symbols in a sequence there are fewer to learn, and Bai et al. take 10,000
            SeriesTable::of(match name {
                "adding" => adding_problem(steps, count, seed),
                _ => copy_memory(steps, count / if role == Role::Train { 5 } else { 1 }, seed),
            })
        }
        _ => read_csv(path, options)?,
    })
}

/// Reads files one after the other; those after the first have its columns.
pub fn read_all(paths: &[PathBuf], options: &CsvOptions, role: Role) -> Result<SeriesTable> {
    let [first, others @ ..] = paths else {
        return Err(Error::invalid("data", "a file of series", "none"));
    };
    let mut table = read(first, options, role)?;
    name_by_file(&mut table.set, first, paths.len());
    let columns = Some(table.set.columns.clone());
    let options = CsvOptions { columns, ..options.clone() };
    for path in others {
        let mut next = read(path, &options, role)?;
        let in_file = |error: Error| Error::file(path, error.to_string());
        next.set.number_classes_as(&table.set).map_err(in_file)?;
        name_by_file(&mut next.set, path, paths.len());
        table.set.series.extend(next.set.series);
        table.missing_rows += next.missing_rows;
    }
    Ok(table)
}

/// Of several files, the series have their names.
fn name_by_file(set: &mut SeriesSet, path: &Path, files: usize) {
    if files < 2 {
        return;
    }
    let stem =
        path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let named = |series: &mut Series| match series.name.is_empty() {
        true => series.name.clone_from(&stem),
        false => series.name = format!("{stem}/{}", series.name),
    };
    set.series.iter_mut().for_each(named);
}
