//! Frames of a network from rows of data, one after the other: the same for a file and for a stream.

use std::collections::VecDeque;

use super::{ForecastBase, Missing, Series, SeriesScale, SeriesTask};

/// The least deviation of a window, as a part of that of the training part.
const LEAST: f64 = 0.05;

/// A walk over the steps of one series. Nothing of the future goes into a frame, but for columns that are known ahead.
///
/// # Example
///
/// ```
/// use candle_tcn::series::{Column, Series, SeriesSet, SeriesTask, TaskKind};
/// # let set = SeriesSet {
/// #     columns: vec![Column::of_numbers("x")],
/// #     series: vec![Series::new(vec![1., 2., 3., 4.], 1)],
/// #     ..SeriesSet::default()
/// # };
/// let task = SeriesTask::fit(&set, TaskKind::Forecast { horizon: 1, season: None, levels: vec![] })?;
/// let mut framer = task.framer();
/// let mut frame = Vec::new();
/// for x in [1., 2., 4.] {
///     framer.push(&[x], None, None, &mut frame);
/// }
/// assert_eq!(frame.len(), 3 * task.in_channels());
/// // what the network says is added to the last value
/// assert_eq!(framer.base(0, 1), 4.);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Framer<'a> {
    task: &'a SeriesTask,
    inputs: Vec<usize>,
    targets: Vec<usize>,
    known: Vec<usize>,
    /// The last value of each column, NaN before the first; and of those that are known ahead.
    last: Vec<f32>,
    ahead: Vec<f32>,
    windows: Vec<Window>,
    /// The last values of each target: as many as a season has.
    seasons: Vec<VecDeque<f64>>,
    /// Mean and deviation of each column in the series.
    own: Vec<(f64, f64)>,
}

impl<'a> Framer<'a> {
    pub(super) fn new(task: &'a SeriesTask) -> Self {
        let columns = task.columns.len();
        let window = match task.scale {
            SeriesScale::Window(steps) => steps,
            _ => 0,
        };
        Self {
            task,
            inputs: task.input_columns(),
            targets: task.target_columns(),
            known: task.places(&task.known),
            last: vec![f32::NAN; columns],
            ahead: vec![f32::NAN; columns],
            windows: if window > 0 { vec![Window::new(window); columns] } else { Vec::new() },
            seasons: vec![VecDeque::new(); task.targets.len()],
            own: Vec::new(),
        }
    }

    /// The walk over a series that is there as a whole, whose own mean and deviation may scale it.
    pub(super) fn of_series(task: &'a SeriesTask, series: &Series) -> Self {
        let mut framer = Self::new(task);
        if task.scale == SeriesScale::Series {
            framer.own =
                (0..series.channels).map(|channel| moments(series.channel(channel))).collect();
        }
        framer
    }

    /// Takes the next row and appends the frame that it becomes. `ahead` is the row of the last step of the forecast, for
    /// columns that are known ahead; `calendar` as [`SeriesTimes::calendar`](super::SeriesTimes::calendar) gives it.
    ///
    /// # Panics
    /// For a row of another number of columns than the task has.
    pub fn push(
        &mut self,
        row: &[f32],
        ahead: Option<&[f32]>,
        calendar: Option<[f64; 3]>,
        frame: &mut Vec<f32>,
    ) {
        assert_eq!(row.len(), self.last.len(), "a row has a value of each column");
        keep(&mut self.last, row);
        keep(&mut self.ahead, ahead.unwrap_or(row));
        let deviations = (0..row.len()).map(|column| self.task.scaling.deviation(column));
        for ((window, &x), deviation) in self.windows.iter_mut().zip(row).zip(deviations) {
            if !x.is_nan() {
                window.push(f64::from(x), LEAST * deviation);
            }
        }
        let season = self.task.season();
        for (values, &target) in self.seasons.iter_mut().zip(&self.targets) {
            values.push_back(f64::from(self.last[target]));
            if values.len() > season {
                values.pop_front();
            }
        }
        self.values(row, frame);
        if season > 1 {
            let steps = self.task.lead().min(season);
            for (target, &column) in self.targets.iter().enumerate() {
                let x = self.season_before(target, steps).unwrap_or(f64::NAN);
                frame.push(self.scaled(column, x));
            }
        }
        if self.task.calendar {
            let phases = calendar.map(|[hour, day, month]| [hour / 24.0, day / 7.0, month / 12.0]);
            let turns = phases.unwrap_or([0.0; 3]).map(|phase| phase * std::f64::consts::TAU);
            frame.extend(turns.iter().flat_map(|turn| [turn.sin() as f32, turn.cos() as f32]));
        }
    }

    /// The values of the columns that go in.
    fn values(&self, row: &[f32], frame: &mut Vec<f32>) {
        let from = |column: usize| match self.known.contains(&column) {
            true => self.ahead[column],
            false => self.last[column],
        };
        for &column in &self.inputs {
            let width = self.task.columns[column].width();
            match self.task.columns[column].is_of_numbers() {
                true => frame.push(self.scaled(column, f64::from(from(column)))),
                false => {
                    let start = frame.len();
                    frame.resize(start + width, 0.0);
                    if from(column) >= 0.0 {
                        frame[start + (from(column) as usize).min(width - 1)] = 1.0;
                    }
                }
            }
        }
        let numbers =
            self.inputs.iter().filter(|&&column| self.task.columns[column].is_of_numbers());
        if self.task.scale == SeriesScale::Series {
            for &column in numbers.clone() {
                let (mean, deviation) = self.own.get(column).copied().unwrap_or((0.0, 1.0));
                let size = self
                    .task
                    .sizes
                    .apply(column, log_size(self.task.scaling.deviation(column), deviation));
                frame.extend([
                    self.task.scaling.apply(column, mean) as f32,
                    size.clamp(-3.0, 3.0) as f32,
                ]);
            }
        }
        if let SeriesScale::Window(_) = self.task.scale {
            frame.extend(numbers.clone().map(|&column| self.windows[column].size() as f32));
        }
        if self.task.missing == Missing::LastAndMask {
            frame.extend(numbers.map(|&column| if row[column].is_nan() { 0.0 } else { 1.0 }));
        }
    }

    /// A value of a column as it goes in; 0 for none.
    fn scaled(&self, column: usize, x: f64) -> f32 {
        let scaling = &self.task.scaling;
        let scaled = match self.task.scale {
            SeriesScale::None => x,
            SeriesScale::Set => scaling.apply(column, x),
            SeriesScale::Series => {
                let (mean, deviation) = self.own.get(column).copied().unwrap_or((0.0, 1.0));
                (x - mean) / (deviation + 1e-3 * scaling.deviation(column))
            }
            SeriesScale::Window(_) => (x - self.windows[column].mean) / self.unit(column),
        };
        if scaled.is_nan() { 0.0 } else { scaled as f32 }
    }

    /// The deviation by which a column is scaled at this step.
    fn unit(&self, column: usize) -> f64 {
        let deviation = self.task.scaling.deviation(column);
        match self.task.scale {
            SeriesScale::None => 1.0,
            SeriesScale::Set | SeriesScale::Series => deviation,
            SeriesScale::Window(_) => self.windows[column].unit,
        }
    }

    /// The latest value of a target that is known whole seasons before the one `steps` ahead.
    fn season_before(&self, target: usize, steps: usize) -> Option<f64> {
        let season = self.task.season();
        let values = &self.seasons[target];
        let value = values.get((steps - 1) % season).copied();
        value.filter(|x| values.len() == season && !x.is_nan())
    }

    /// The number that the network's output for a target is added to, `steps` ahead: a naive forecast; of a regression its
    /// mean.
    pub fn base(&self, target: usize, steps: usize) -> f64 {
        let column = self.targets[target];
        if steps == 0 {
            return self.task.scaling.mean(column);
        }
        match self.task.base {
            ForecastBase::Last => f64::from(self.last[column]),
            ForecastBase::Season => self.naive(target, steps),
        }
    }

    /// The naive forecast of a season before, or the last value where that is not known.
    pub fn naive(&self, target: usize, steps: usize) -> f64 {
        let last = f64::from(self.last[self.targets[target]]);
        self.season_before(target, steps).unwrap_or(last)
    }

    /// The size of one unit of the network's output for a target of a forecast.
    pub fn spread(&self, target: usize) -> f64 {
        self.task.spread[target] * self.unit(self.targets[target])
    }
}

/// Takes over the values that are known.
fn keep(last: &mut [f32], row: &[f32]) {
    for (last, &x) in last.iter_mut().zip(row).filter(|(_, x)| !x.is_nan()) {
        *last = x;
    }
}

/// Mean and deviation; 0 and 0 of nothing.
pub(super) fn moments(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}

/// Logarithm of a series' deviation beside that of all.
pub(super) fn log_size(of_all: f64, deviation: f64) -> f64 {
    (deviation / of_all + 1e-3).ln()
}

/// Mean and deviation of the last values.
#[derive(Debug, Clone)]
struct Window {
    steps: usize,
    values: VecDeque<f64>,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
    /// The deviation, or more where it is next to nothing.
    unit: f64,
    /// Logarithm of the unit, smoothed over many windows.
    usual: Option<f64>,
}

impl Window {
    /// Windows over which the usual unit is smoothed.
    const SMOOTHED: f64 = 8.0;

    fn new(steps: usize) -> Self {
        Self { steps, values: VecDeque::new(), mean: 0.0, squares: 0.0, unit: 1.0, usual: None }
    }

    fn push(&mut self, x: f64, least: f64) {
        self.values.push_back(x);
        let before = self.mean;
        if self.values.len() <= self.steps {
            self.mean += (x - before) / self.values.len() as f64;
            self.squares += (x - before) * (x - self.mean);
        } else if let Some(old) = self.values.pop_front() {
            self.mean += (x - old) / self.steps as f64;
            self.squares += (x - old) * (x - self.mean + old - before);
        }
        self.unit = self.deviation().max(least);
        let (log, rate) = (self.unit.ln(), 1.0 / (Self::SMOOTHED * self.steps as f64));
        let usual = self.usual.unwrap_or(log);
        self.usual = Some(usual + rate * (log - usual));
    }

    fn deviation(&self) -> f64 {
        (self.squares.max(0.0) / self.values.len().max(1) as f64).sqrt()
    }

    /// Logarithm of the unit beside the usual one: 0 where the series is as restless as usual.
    fn size(&self) -> f64 {
        self.usual.map_or(0.0, |usual| (self.unit.ln() - usual).clamp(-4.0, 4.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_moments_of_its_values() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i * i % 37) + 1e4).collect();
        let mut window = Window::new(12);
        for i in 0..values.len() {
            window.push(values[i], 0.0);
            let (mean, deviation) = moments(values[(i + 1).saturating_sub(12)..=i].iter().copied());
            assert!(
                (window.mean - mean).abs() < 1e-8 && (window.deviation() - deviation).abs() < 1e-6
            );
        }
    }
}
