//! From files of series to sequences to train on, to validate on and to test on.

use candle_tcn::models::{ModelConfig, SeriesModel};
use candle_tcn::series::{
    FrameSequence, Missing, Series, SeriesSet, SeriesTask, TaskKind, split_by_series, split_by_time,
};
use candle_tcn::train::{DataFile, SequenceBatches, SequenceSizes, TrainConfig, ValidSet};
use candle_tcn::{Error, Result};

use super::super::data::TextSource;
use super::flags::SeriesArgs;
use crate::flags::counted;
use crate::series_files::{self, Role};

/// The parts of the data.
pub struct SeriesData {
    /// All series; of parts by time each whole, in which they follow each other.
    set: SeriesSet,
    /// Other series, each whole.
    others: [SeriesSet; 2],
    /// Of each series the ends of what is trained on and validated on; none for parts of several series.
    ends: Vec<[usize; 2]>,
    /// Fractions to validate and to test on.
    fractions: [f64; 2],
    files: [String; 2],
    missing_rows: usize,
    /// Name of the column of the times.
    pub time: Option<String>,
    notes: Vec<String>,
}

/// The part on which a network is measured in the end.
pub struct Held {
    pub set: SeriesSet,
    /// The last part of each series.
    pub fraction: f64,
    pub name: &'static str,
}

impl SeriesData {
    /// Reads everything; `task` is that of a run that goes on.
    pub fn read(
        source: &TextSource,
        flags: &SeriesArgs,
        by_time: Option<bool>,
        task: Option<&SeriesTask>,
    ) -> anyhow::Result<Self> {
        let mut options = flags.csv();
        options.columns = task.map(|task| task.columns.clone());
        let table = series_files::read_all(&source.data, &options, Role::Train)?;
        let mut notes = table.notes;
        if table.missing_rows > 0 {
            let rows = counted(table.missing_rows, "row");
            notes.push(format!("{rows} missing from the grid of times"));
        }
        let (set, missing_rows, time) = (table.set, table.missing_rows, table.time);
        options.columns = Some(set.columns.clone());
        let valid = source
            .valid
            .as_ref()
            .map(|path| series_files::read(path, &options, Role::Test))
            .transpose()?;
        let by_time = by_time.unwrap_or(set.series.len() == 1);
        let name = |path: &std::path::PathBuf| {
            path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
        };
        let files = [
            source.data.iter().map(name).collect::<Vec<_>>().join(", "),
            source.valid.as_ref().map(name).unwrap_or_default(),
        ];
        Ok(Self {
            others: [valid.map(|valid| valid.set).unwrap_or_default(), SeriesSet::default()],
            set,
            ends: if by_time { vec![[0, 0]] } else { Vec::new() },
            fractions: [0.0; 2],
            files,
            missing_rows,
            time,
            notes,
        })
    }

    /// Says what was found in the files, and what is missing there.
    pub fn tell(&self, task: &SeriesTask) {
        self.notes.iter().for_each(|note| say!("{note}"));
        let treatment = match task.missing {
            Missing::Refuse => return,
            Missing::Last => "the last value stands in",
            Missing::LastAndMask => "the last value stands in and a mask says so",
        };
        for (name, count) in missing_in(&self.set, task) {
            say!("column {name:?}: {count} missing, {treatment}");
        }
    }

    /// `true` if whole rows are missing and nothing else is.
    pub fn lacks_rows_alone(&self) -> bool {
        let values = |series: &Series| series.missing();
        let missing: usize = self.set.series.iter().map(values).sum();
        self.missing_rows > 0 && missing == self.missing_rows * self.set.columns.len()
    }

    /// All series.
    pub fn set(&self) -> &SeriesSet {
        &self.set
    }

    /// Splits off what is not trained on.
    pub fn split(mut self, [valid, test]: [f64; 2]) -> Result<Self> {
        let valid = if self.others[0].series.is_empty() { valid } else { 0.0 };
        self.fractions = [valid, test];
        if self.ends.is_empty() {
            let has_valid = !self.others[0].series.is_empty();
            let [train, found, tested] = split_by_series(self.set, valid, test)?;
            self.set = train;
            let [given, _] = self.others;
            self.others = [if has_valid { given } else { found }, tested];
        } else {
            let end = |series: &Series| split_by_time(series.len(), valid, test);
            self.ends = self.set.series.iter().map(end).collect::<Result<_>>()?;
        }
        Ok(self)
    }

    /// The part that is trained on.
    pub fn train_set(&self) -> SeriesSet {
        self.until(0)
    }

    /// The series up to the end of a part.
    fn until(&self, part: usize) -> SeriesSet {
        let mut set = self.set.clone();
        for (series, ends) in set.series.iter_mut().zip(&self.ends) {
            series.frames.truncate(ends[part] * series.channels);
        }
        set
    }

    /// Sequences to train on and to validate on.
    pub fn sequences(&self, task: &SeriesTask, history: usize) -> Result<[Vec<FrameSequence>; 2]> {
        let train = task.sequences(&self.train_set())?;
        let mut valid = match self.others[0].series.is_empty() {
            true => Vec::new(),
            false => {
                let mut others = self.others[0].clone();
                others
                    .number_classes_as(&SeriesSet {
                        classes: task.classes().to_vec(),
                        ..self.set.clone()
                    })
                    .or_else(|error| if others.classes.is_empty() { Ok(()) } else { Err(error) })?;
                task.sequences(&others)?
            }
        };
        if self.fractions[0] > 0.0 {
            let all = task.sequences(&self.until(1))?;
            for (mut sequence, ends) in all.into_iter().zip(&self.ends) {
                let len = sequence.len();
                task.limit(&mut sequence, ends[0]..ends[1]);
                let first = ends[0].saturating_sub(task.lead() + history).min(len);
                valid.push(sequence.part(first..len));
            }
        }
        valid.retain(FrameSequence::asks);
        Ok([train, valid])
    }

    /// The part that is measured in the end: what is tested, else what is validated on.
    pub fn held(&self) -> Option<Held> {
        let by_time = !self.ends.is_empty();
        let [valid, test] = self.fractions;
        let whole = |set: &SeriesSet, name| Held { set: set.clone(), fraction: 1.0, name };
        if by_time && test > 0.0 {
            return Some(Held { set: self.set.clone(), fraction: test, name: "test" });
        }
        if !self.others[1].series.is_empty() {
            return Some(whole(&self.others[1], "test"));
        }
        if !self.others[0].series.is_empty() {
            return Some(whole(&self.others[0], "validation"));
        }
        (by_time && valid > 0.0).then(|| {
            let set = self.until(1);
            Held { set, fraction: valid / (1.0 - test), name: "validation" }
        })
    }

    /// For the model card: what was read, in which role.
    pub fn files(&self) -> Vec<DataFile> {
        let [valid, test] = self.fractions;
        let mut role = "train".to_string();
        for (share, name) in [(valid, "validation"), (test, "test")] {
            if share > 0.0 {
                role += &format!(", {:.0}% {name}", share * 100.0);
            }
        }
        let steps = |set: &SeriesSet| set.series.iter().map(Series::len).sum::<usize>() as u64;
        let file = |name: &str, role: String, set: &SeriesSet| DataFile {
            name: name.into(),
            role,
            bytes: set.series.len() as u64,
            tokens: steps(set),
        };
        let mut files = vec![file(&self.files[0], role, &self.set)];
        if !self.files[1].is_empty() {
            files.push(file(&self.files[1], "validation".into(), &self.others[0]));
        }
        files
    }

    /// A line about the parts.
    pub fn describe(&self) -> String {
        let steps = |set: &SeriesSet| set.series.iter().map(Series::len).sum::<usize>();
        match self.ends.is_empty() {
            false => {
                let train: usize = self.ends.iter().map(|ends| ends[0]).sum();
                let valid: usize = self.ends.iter().map(|ends| ends[1] - ends[0]).sum();
                let series = counted(self.set.series.len(), "series").replace("seriess", "series");
                format!(
                    "{series}: {train} steps to train on, then {valid} to validate on, then {} to test on",
                    steps(&self.set) - train - valid
                )
            }
            true => format!(
                "{} series to train on, {} to validate on, {} to test on",
                self.set.series.len(),
                self.others[0].series.len(),
                self.others[1].series.len()
            ),
        }
    }
}

/// Batches to train on, stretched by a share in so many channels, and to validate on.
pub fn batches(
    [train, valid]: [Vec<FrameSequence>; 2],
    model: &ModelConfig,
    config: &TrainConfig,
    (stretch, channels): (f64, usize),
) -> Result<(SequenceBatches, ValidSet)> {
    let graph = model.graph()?;
    let sizes = SequenceSizes {
        batch_size: config.batch_size,
        window: config.seq_len,
        history: history(model, config.seq_len)?,
        with_mask: graph.takes_mask(),
    };
    let valid = match valid.is_empty() {
        true => ValidSet::default(),
        false => ValidSet::batches(SequenceBatches::new(valid, sizes, 0)?.in_order()?),
    };
    let train = SequenceBatches::new(train, sizes, config.seed)?.stretched(stretch, channels)?;
    Ok((train, valid))
}

/// Steps at the beginning of a window that are not scored: those that the network looks back, at most half of it.
pub fn history(model: &ModelConfig, window: usize) -> Result<usize> {
    let field = model.geometry()?.receptive_field()?;
    Ok(field.left.min(window / 2))
}

/// A model of a run for its task.
pub fn model_of(model: ModelConfig, task: &SeriesTask) -> Result<ModelConfig> {
    let model = model.with_frames(task.in_channels(), task.out_channels())?;
    let params = candle_tcn::nn::Params::new(0, candle_core::DType::F32, &candle_core::Device::Cpu);
    // the shapes and the pool fit the question
    SeriesModel::new(task.clone(), model.build(params.builder())?)?;
    Ok(model)
}

/// The fractions to validate and to test on.
pub fn fractions(task: &TaskKind, valid: Option<f64>, flags: &SeriesArgs) -> [f64; 2] {
    let (usual_valid, usual_test) = match task {
        TaskKind::Classify { .. } => (0.0, 0.0),
        TaskKind::Forecast { .. } => (0.1, 0.2),
        _ => (0.1, 0.0),
    };
    [valid.unwrap_or(usual_valid), flags.test_fraction.unwrap_or(usual_test)]
}

/// Columns that go in and lack values, and how many.
fn missing_in<'a>(set: &'a SeriesSet, task: &'a SeriesTask) -> Vec<(&'a str, usize)> {
    let columns = set.columns.iter().enumerate();
    let columns = columns.filter(|(_, column)| task.inputs.contains(&column.name));
    let missing = |(channel, column): (usize, &'a candle_tcn::series::Column)| {
        let of = |series: &Series| {
            let values = series.frames.iter().skip(channel).step_by(series.channels);
            values.filter(|x| x.is_nan()).count()
        };
        (&column.name[..], set.series.iter().map(of).sum())
    };
    columns.map(missing).filter(|(_, count)| *count > 0).collect()
}

/// Refuses missing values where they are to be refused.
pub fn check_missing(set: &SeriesSet, task: &SeriesTask) -> Result<()> {
    match (task.missing, missing_in(set, task).first()) {
        (Missing::Refuse, Some((name, count))) => {
            Err(Error::invalid(format!("column {name:?}"), "no missing values", count))
        }
        _ => Ok(()),
    }
}
