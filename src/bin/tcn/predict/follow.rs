//! AnswerOutput to lines of a table as they come.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::rc::Rc;

use candle_tcn::Error;
use candle_tcn::models::SeriesModel;
use candle_tcn::nn::{State, StepDtype};
use candle_tcn::series::{
    Column, CsvLayout, CsvOptions, Framer, Missing, SeriesTimes, TaskKind, number,
};
use csv::{ByteRecord, ReaderBuilder};

use super::answers::names;
use super::output::{PredictField, RowWriter, fields};
use crate::terminal;

type AnswerOutput = Rc<RefCell<std::io::BufWriter<Box<dyn Write>>>>;

/// Input that brings the answers out before it waits for more.
struct Waiting<R> {
    input: R,
    answers: AnswerOutput,
}

impl<R: Read> Read for Waiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.answers.borrow_mut().flush()?;
        self.input.read(buffer)
    }
}

/// Output that is shared with [`Waiting`].
struct Shared(AnswerOutput);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// One series so far.
struct Stream<'a> {
    framer: Framer<'a>,
    state: State,
}

pub fn follow(model: &SeriesModel, as_json: bool) -> anyhow::Result<()> {
    model.expect_streaming()?;
    let task = &model.task;
    let net = model.network.step_net(StepDtype::F32)?;
    let out: Box<dyn Write> = Box::new(terminal::stdout());
    let answers: AnswerOutput = Rc::new(RefCell::new(std::io::BufWriter::new(out)));
    let input = Waiting { input: std::io::stdin().lock(), answers: answers.clone() };
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
    let mut row = ByteRecord::new();
    let wrong = |line: u64, message: String| {
        Error::file("standard input", format!("line {line}: {message}"))
    };
    if !reader.read_byte_record(&mut row)? {
        return Err(Error::file("standard input", "expected a header, found nothing").into());
    }
    let only_asked = task.targets.iter().filter(|name| !task.inputs.contains(name));
    let options = CsvOptions {
        columns: Some(task.columns.clone()),
        absent: only_asked.cloned().collect(),
        ..task.csv.clone()
    };
    let header: Vec<String> = row
        .iter()
        .map(|field| String::from_utf8_lossy(field).trim_start_matches('\u{feff}').to_string())
        .collect();
    let layout = CsvLayout::find(&header, &options).map_err(|message| wrong(1, message))?;
    let places = [layout.group, layout.time].into_iter().flatten();
    let columns = places.map(|place| header[place].clone()).chain(names(model, true)).collect();
    let mut writer = RowWriter::new(Shared(answers.clone()), columns, as_json)?;
    let mut streams: HashMap<Vec<u8>, Stream> = HashMap::new();
    let (mut frame, mut values, mut answer, mut out) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let is_forecast = matches!(task.task, TaskKind::Forecast { .. });
    while reader.read_byte_record(&mut row)? {
        let line = row.position().map_or(0, csv::Position::line);
        if row.len() != layout.fields() {
            let (expected, found) = (layout.fields(), row.len());
            return Err(wrong(
                line,
                format!("expected {expected} fields as the header has, found {found}"),
            )
            .into());
        }
        values.clear();
        read_row(model, &layout, &row, &mut values).map_err(|message| wrong(line, message))?;
        let group = layout.group.map_or(&b""[..], |group| &row[group]);
        if !streams.contains_key(group) {
            let stream = Stream { framer: task.framer(), state: net.init_state(1)? };
            streams.insert(group.to_vec(), stream);
        }
        let Some(Stream { framer, state }) = streams.get_mut(group) else { continue };
        let calendar = match (task.calendar, layout.time) {
            (true, Some(time)) => calendar(&row[time]).map_err(|message| wrong(line, message))?,
            _ => None,
        };
        frame.clear();
        framer.push(&values, None, calendar, &mut frame);
        let outputs = net.step(&frame, state)?;
        answer.clear();
        if is_forecast {
            let anchors = model.anchors(framer);
            model.answer(Some(&anchors), outputs, &mut answer);
        } else {
            model.answer(None, outputs, &mut answer);
        }
        out.clear();
        for place in [layout.group, layout.time].into_iter().flatten() {
            out.push(PredictField::Text(String::from_utf8_lossy(&row[place]).into_owned()));
        }
        fields(model, &answer, &mut out);
        writer.row(&out)?;
    }
    Ok(writer.out().flush()?)
}

/// The values of a row.
fn read_row(
    model: &SeriesModel,
    layout: &CsvLayout,
    row: &ByteRecord,
    values: &mut Vec<f32>,
) -> Result<(), String> {
    let task = &model.task;
    for (column, (name, place)) in task.columns.iter().zip(&layout.values) {
        let Some(place) = place else {
            values.push(f32::NAN);
            continue;
        };
        let value = value(column, &row[*place])?;
        let goes_in =
            value.is_nan() && task.missing == Missing::Refuse && task.inputs.contains(name);
        if goes_in {
            return Err(format!("{name}: expected a value, found none"));
        }
        values.push(value);
    }
    Ok(())
}

fn value(column: &Column, field: &[u8]) -> Result<f32, String> {
    match number(field) {
        Some(x) if column.is_of_numbers() && x.is_finite() => Ok(x),
        _ => CsvLayout::value(column, field),
    }
}

fn calendar(field: &[u8]) -> Result<Option<[f64; 3]>, String> {
    let times =
        SeriesTimes::read(&[String::from_utf8_lossy(field)]).map_err(|(_, message)| message)?;
    Ok(times.calendar(0))
}
