//! `tcn predict`: forecasts, values, labels and classes of series, for a file or line by line as they come.

mod answers;
mod follow;
mod output;

use std::path::PathBuf;

use candle_tcn::files::is_standard_input;
use candle_tcn::models::SeriesModel;
use candle_tcn::series::{CsvOptions, SeriesSet, TaskKind};

use self::answers::{Answers, Future};
use self::output::{PredictFormat, write};
use crate::flags::refuse_existing;
use crate::series_files::{self, Kind, Role};
use crate::{kernel, model};

#[derive(clap::Args)]
pub struct PredictArgs {
    /// A model directory of a network of series, or org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Series as in training: .csv, .ts, .npy or .safetensors, also .gz and .zst; `-` for a table on standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// File for the answers: .csv, .jsonl, .npy or .safetensors (default: a table on standard output)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
    /// Of a forecast: one for every row, and not only for what comes after the last
    #[arg(long)]
    rolling: bool,
    /// Answer each line of a table on standard input as it comes, in constant memory; a forecast for every row
    #[arg(long, conflicts_with_all = ["rolling", "output"])]
    follow: bool,
    /// Print the answers as JSON, one object a line
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

pub fn run(args: PredictArgs) -> anyhow::Result<()> {
    if let Some(output) = &args.output {
        refuse_existing("--output", output, args.force)?;
    }
    let format = match &args.output {
        Some(output) => PredictFormat::of(output)?,
        None if args.json => PredictFormat::JsonLines,
        None => PredictFormat::Csv,
    };
    let dir = model::resolve("--model", &args.model)?;
    if !SeriesModel::is_in(&dir) {
        bail_usage!(
            "--model: expected a network of series (with a task.json), found another; tcn run applies any model to tensors"
        );
    }
    let model = SeriesModel::load(&dir, kernel::chosen())?;
    if args.follow {
        if !is_standard_input(&args.input) {
            bail_usage!(
                "--follow: expected standard input (--input -), found {}",
                args.input.display()
            );
        }
        return follow::follow(&model, args.json);
    }
    let set = read(&args, &model)?;
    let is_forecast = matches!(model.task.task, TaskKind::Forecast { .. });
    if args.rolling && !is_forecast {
        bail_usage!("--rolling: expected a network that forecasts, found another");
    }
    let answers = match is_forecast && !args.rolling {
        true => Answers::Future(Future::of(&model, &set)?),
        false => Answers::of_rows(&model, &set)?,
    };
    write(&model, &set, &answers, format, args.output.as_deref())
}

/// Reads the input. Of columns that are not there but are asked for, the values are unknown.
fn read(args: &PredictArgs, model: &SeriesModel) -> anyhow::Result<SeriesSet> {
    let task = &model.task;
    let only_asked = task.targets.iter().filter(|name| !task.inputs.contains(name));
    let options = CsvOptions {
        columns: Some(task.columns.clone()),
        absent: only_asked.cloned().collect(),
        ..task.csv.clone()
    };
    let table = series_files::read(&args.input, &options, Role::Test)?;
    table.notes.iter().for_each(|note| say!("{note}"));
    let mut set = table.set;
    if series_files::kind_of(&args.input) != Kind::Csv {
        add_absent(&mut set, model);
    }
    Ok(set)
}

/// Columns of targets after those that go in, of unknown values, where an array has no targets.
fn add_absent(set: &mut SeriesSet, model: &SeriesModel) {
    let (found, all) = (set.columns.len(), &model.task.columns);
    if found >= all.len()
        || all[found..].iter().any(|column| model.task.inputs.contains(&column.name))
    {
        return;
    }
    for series in &mut set.series {
        let frames = series.frames.chunks_exact(series.channels);
        let wide = frames.flat_map(|frame| {
            let unknown = std::iter::repeat_n(f32::NAN, all.len() - found);
            frame.iter().copied().chain(unknown).collect::<Vec<_>>()
        });
        series.frames = wide.collect();
        series.channels = all.len();
    }
    set.columns.clone_from(all);
}
