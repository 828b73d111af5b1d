//! Tables, JSON lines and arrays of answers.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_tcn::AtPath;
use candle_tcn::files::{write_atomic, write_tensors};
use candle_tcn::models::SeriesModel;
use candle_tcn::series::{SeriesSet, TaskKind};
use candle_tcn::train::likeliest_of;
use serde_json::{Map, Value};

use super::answers::{Answers, names};
use crate::{terminal, usage_error};

/// The form of the answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PredictFormat {
    Csv,
    JsonLines,
    Npy,
    Safetensors,
}

impl PredictFormat {
    /// By the file's ending.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        Ok(match ending.as_deref() {
            Some("csv") => Self::Csv,
            Some("jsonl") => Self::JsonLines,
            Some("npy") => Self::Npy,
            Some("safetensors") => Self::Safetensors,
            _ => {
                let found = path.display();
                let message = format!(
                    "--output: expected a name that ends in .csv, .jsonl, .npy or .safetensors, found {found}"
                );
                return Err(usage_error(message));
            }
        })
    }
}

/// A field of a row.
pub enum PredictField {
    Text(String),
    Number(f64),
}

/// Writes rows of fields, as a table or as JSON lines.
pub struct RowWriter<W> {
    out: W,
    names: Vec<String>,
    as_json: bool,
    line: Vec<u8>,
}

impl<W: Write> RowWriter<W> {
    /// Begins with the header, of a table.
    pub fn new(mut out: W, names: Vec<String>, as_json: bool) -> std::io::Result<Self> {
        let mut line = Vec::new();
        if !as_json {
            for (i, name) in names.iter().enumerate() {
                begin_field(&mut line, i);
                text_field(&mut line, name);
            }
            line.push(b'\n');
            out.write_all(&line)?;
        }
        Ok(Self { out, names, as_json, line })
    }

    /// Writes a row.
    pub fn row(&mut self, fields: &[PredictField]) -> std::io::Result<()> {
        self.line.clear();
        if self.as_json {
            let value = |field: &PredictField| match field {
                PredictField::Text(text) => Value::from(text.as_str()),
                PredictField::Number(x) => Value::from(f64::from(*x as f32)),
            };
            let object: Map<String, Value> =
                self.names.iter().cloned().zip(fields.iter().map(value)).collect();
            writeln!(self.line, "{}", Value::Object(object))?;
        } else {
            for (i, field) in fields.iter().enumerate() {
                begin_field(&mut self.line, i);
                match field {
                    PredictField::Text(text) => text_field(&mut self.line, text),
                    PredictField::Number(x) if x.is_nan() => {}
                    PredictField::Number(x) => write!(self.line, "{}", *x as f32)?,
                }
            }
            self.line.push(b'\n');
        }
        self.out.write_all(&self.line)
    }

    /// The output.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }
}

fn begin_field(line: &mut Vec<u8>, number: usize) {
    if number > 0 {
        line.push(b',');
    }
}

/// A text as CSV has it (RFC 4180, section 2).
fn text_field(line: &mut Vec<u8>, text: &str) {
    if text.contains([',', '"', '\n', '\r']) {
        line.extend_from_slice(format!("\"{}\"", text.replace('"', "\"\"")).as_bytes());
    } else {
        line.extend_from_slice(text.as_bytes());
    }
}

/// The fields of an answer.
pub fn fields(model: &SeriesModel, answer: &[f64], to: &mut Vec<PredictField>) {
    match model.task.task {
        TaskKind::Classify { .. } => {
            to.push(PredictField::Text(model.task.classes()[likeliest_of(answer)].clone()));
            to.extend(answer.iter().map(|&x| PredictField::Number(x)));
        }
        TaskKind::Label { .. } => {
            let best = likeliest_of(answer);
            to.push(PredictField::Text(model.task.classes()[best].clone()));
            to.push(PredictField::Number(answer[best]));
        }
        _ => to.extend(answer.iter().map(|&x| PredictField::Number(x))),
    }
}

/// Writes the answers to a file, whole or not at all, or to standard output.
pub fn write(
    model: &SeriesModel,
    set: &SeriesSet,
    answers: &Answers,
    format: PredictFormat,
    output: Option<&Path>,
) -> anyhow::Result<()> {
    let as_json = format == PredictFormat::JsonLines;
    match (format, output) {
        (PredictFormat::Csv | PredictFormat::JsonLines, None) => {
            let mut out = std::io::BufWriter::new(terminal::stdout());
            rows(model, set, answers, &mut out, as_json)?;
            Ok(out.flush()?)
        }
        (PredictFormat::Csv | PredictFormat::JsonLines, Some(path)) => {
            write_atomic(path, |file| {
                let mut out = std::io::BufWriter::new(file);
                rows(model, set, answers, &mut out, as_json)?;
                out.flush()
            })?;
            Ok(())
        }
        (_, path) => array(model, answers, format, path.unwrap_or(Path::new("-"))),
    }
}

fn rows(
    model: &SeriesModel,
    set: &SeriesSet,
    answers: &Answers,
    out: &mut dyn Write,
    as_json: bool,
) -> std::io::Result<()> {
    let has_times = set.series.iter().any(|series| series.times.is_some());
    let has_names = set.series.len() > 1 || set.series.iter().any(|series| !series.name.is_empty());
    let is_whole = matches!(model.task.task, TaskKind::Classify { .. });
    let mut columns = Vec::new();
    if has_names {
        columns.push(model.task.csv.group.clone().unwrap_or_else(|| "series".into()));
    }
    if has_times && !is_whole {
        columns.push(model.task.csv.time.clone().unwrap_or_else(|| "time".into()));
    }
    columns.extend(names(model, matches!(answers, Answers::Rows(_))));
    let mut writer = RowWriter::new(out, columns, as_json)?;
    let mut row = Vec::new();
    for (number, series) in set.series.iter().enumerate() {
        let (values, first, width) = match answers {
            Answers::Rows(all) => (&all[number], 0, model.task.out_channels().max(1)),
            Answers::Future(future) => {
                let steps = model.task.lead();
                (&future.values[number], future.last[number] + 1, model.task.out_channels() / steps)
            }
        };
        let width = if matches!(answers, Answers::Rows(_)) {
            width
        } else {
            model.task.targets.len() * model.task.levels().len()
        };
        for (step, answer) in values.chunks_exact(width).enumerate() {
            row.clear();
            if has_names {
                let name = if series.name.is_empty() {
                    (number + 1).to_string()
                } else {
                    series.name.clone()
                };
                row.push(PredictField::Text(name));
            }
            if has_times && !is_whole {
                row.push(PredictField::Text(time_of(series, first + step).unwrap_or_default()));
            }
            fields(model, answer, &mut row);
            writer.row(&row)?;
        }
    }
    Ok(())
}

/// Time of a row, or of one after the last.
fn time_of(series: &candle_tcn::series::Series, row: usize) -> Option<String> {
    let times = series.times.as_ref()?;
    match row.checked_sub(times.len()) {
        None => times.text(row),
        Some(after) => times.after(times.len() - 1, after + 1),
    }
}

/// One array of all answers, (rows, numbers); of several series with the number of rows of each.
fn array(
    model: &SeriesModel,
    answers: &Answers,
    format: PredictFormat,
    path: &Path,
) -> anyhow::Result<()> {
    let (all, width) = match answers {
        Answers::Rows(all) => (all, model.task.out_channels()),
        Answers::Future(future) => {
            (&future.values, model.task.targets.len() * model.task.levels().len())
        }
    };
    let lengths: Vec<u32> = all.iter().map(|values| (values.len() / width) as u32).collect();
    let values: Vec<f32> = all.iter().flatten().map(|&x| x as f32).collect();
    let rows = values.len() / width;
    let outputs = Tensor::from_vec(values, (rows, width), &Device::Cpu)?;
    if format == PredictFormat::Npy {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let beside = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).at(path)?;
        outputs.write_npy(beside.path())?;
        beside.persist(path).map_err(|error| error.error).at(path)?;
        return Ok(());
    }
    let lengths = Tensor::new(lengths, &Device::Cpu)?;
    let tensors =
        HashMap::from([("outputs".to_string(), outputs), ("lengths".to_string(), lengths)]);
    Ok(write_tensors(path, &tensors)?)
}
