//! AnswerOutput to lines of a table as they come.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::rc::Rc;

use candle_tcn::Error;
use candle_tcn::models::SeriesModel;
use candle_tcn::nn::{State, StepDtype, StepNet};
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
    values: Vec<f32>,
    frame: Vec<f32>,
    answer: Vec<f64>,
}

impl<'a> Stream<'a> {
    fn new(model: &'a SeriesModel, net: &StepNet) -> candle_tcn::Result<Self> {
        let (framer, state) = (model.task.framer(), net.init_state(1)?);
        Ok(Self { framer, state, values: Vec::new(), frame: Vec::new(), answer: Vec::new() })
    }
}

pub fn follow(model: &SeriesModel, as_json: bool) -> anyhow::Result<()> {
    model.expect_streaming()?;
    let out: Box<dyn Write> = Box::new(terminal::stdout());
    let answers: AnswerOutput = Rc::new(RefCell::new(std::io::BufWriter::new(out)));
    let input = Waiting { input: std::io::stdin().lock(), answers: answers.clone() };
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
    let mut row = ByteRecord::new();
    if !reader.read_byte_record(&mut row)? {
        return Err(Error::file(INPUT, "expected a header, found nothing").into());
    }
    let (layout, columns) = layout(model, &row).map_err(|message| wrong(1, &message))?;
    let mut writer = RowWriter::new(Shared(answers), columns, as_json)?;
    let net = model.network.step_net(StepDtype::F32)?;
    let mut streams = Streams { model, layout: &layout, net, by_group: HashMap::new() };
    let mut fields = Vec::new();
    while reader.read_byte_record(&mut row)? {
        let line = row.position().map_or(0, csv::Position::line);
        let (expected, found) = (layout.fields(), row.len());
        if found != expected {
            let message = format!("expected {expected} fields as the header has, found {found}");
            return Err(wrong(line, &message).into());
        }
        fields.clear();
        for place in [layout.group, layout.time].into_iter().flatten() {
            fields.push(PredictField::Text(String::from_utf8_lossy(&row[place]).into_owned()));
        }
        streams.answer(&row, line, &mut fields)?;
        writer.row(&fields)?;
    }
    Ok(writer.out().flush()?)
}

const INPUT: &str = "standard input";

fn wrong(line: u64, message: &str) -> Error {
    Error::file(INPUT, format!("line {line}: {message}"))
}

/// The places of the task's columns in a header, and the names of the answers.
fn layout(model: &SeriesModel, header: &ByteRecord) -> Result<(CsvLayout, Vec<String>), String> {
    let task = &model.task;
    let name =
        |field: &[u8]| String::from_utf8_lossy(field).trim_start_matches('\u{feff}').to_string();
    let header: Vec<String> = header.iter().map(name).collect();
    let only_asked = task.targets.iter().filter(|name| !task.inputs.contains(name));
    let options = CsvOptions {
        columns: Some(task.columns.clone()),
        absent: only_asked.cloned().collect(),
        // a stream need not have times
        time: task.csv.time.clone().filter(|time| task.calendar || header.contains(time)),
        ..task.csv.clone()
    };
    let layout = CsvLayout::find(&header, &options)?;
    let places = [layout.group, layout.time].into_iter().flatten();
    let columns = places.map(|place| header[place].clone()).chain(names(model, true)).collect();
    Ok((layout, columns))
}

/// Streams of several groups, each in its own state.
struct Streams<'a> {
    model: &'a SeriesModel,
    layout: &'a CsvLayout,
    net: StepNet,
    by_group: HashMap<Vec<u8>, Stream<'a>>,
}

impl Streams<'_> {
    /// Appends the answer to a row.
    fn answer(
        &mut self,
        row: &ByteRecord,
        line: u64,
        to: &mut Vec<PredictField>,
    ) -> anyhow::Result<()> {
        let Self { model, layout, net, by_group } = self;
        let group = layout.group.map_or(&b""[..], |group| &row[group]);
        if !by_group.contains_key(group) {
            by_group.insert(group.to_vec(), Stream::new(model, net)?);
        }
        let Some(stream) = by_group.get_mut(group) else { return Ok(()) };
        stream.values.clear();
        let read = read_row(model, layout, row, &mut stream.values);
        read.map_err(|message| wrong(line, &message))?;
        let calendar = match (model.task.calendar, layout.time) {
            (true, Some(time)) => calendar(&row[time]).map_err(|message| wrong(line, &message))?,
            _ => None,
        };
        stream.frame.clear();
        stream.framer.push(&stream.values, None, calendar, &mut stream.frame);
        let outputs = net.step(&stream.frame, &mut stream.state)?;
        stream.answer.clear();
        let is_forecast = matches!(model.task.task, TaskKind::Forecast { .. });
        let anchors = is_forecast.then(|| model.anchors(&stream.framer));
        model.answer(anchors.as_deref(), outputs, &mut stream.answer);
        fields(model, &stream.answer, to);
        Ok(())
    }
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
