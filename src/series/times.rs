//! The times of rows: dates, months, moments with their offsets from UTC, or plain numbers.

use chrono::{DateTime, Datelike, Months, NaiveDateTime, TimeDelta, Timelike, Utc};

use super::time_form::{Moment, TimeForm};

/// SeriesTimes of a series, one for each row.
///
/// # Example
///
/// ```
/// use candle_tcn::series::SeriesTimes;
/// let months = SeriesTimes::read(&["1949-11", "1949-12"]).expect("months");
/// assert_eq!(months.after(1, 2).as_deref(), Some("1950-02"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesTimes {
    form: TimeForm,
    /// Of each row; numbers as they are, else moments.
    rows: Vec<Moment>,
    step: Option<TimeStep>,
}

/// The time from one row to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TimeStep {
    /// In the units of the numbers.
    Number(f64),
    /// Microseconds.
    Micros(i64),
    /// Calendar months, twelve of them for a year.
    Months(u32),
}

impl std::fmt::Display for TimeStep {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        const UNITS: [(i64, &str); 6] = [
            (86_400_000_000, "day"),
            (3_600_000_000, "hour"),
            (60_000_000, "minute"),
            (1_000_000, "second"),
            (1_000, "millisecond"),
            (1, "microsecond"),
        ];
        let (count, unit) = match *self {
            Self::Number(step) => return write!(f, "{}", (step * 1e6).round() / 1e6),
            Self::Months(months) if months % 12 == 0 => (i64::from(months) / 12, "year"),
            Self::Months(months) => (i64::from(months), "month"),
            Self::Micros(micros) => {
                let unit = UNITS.iter().find(|(size, _)| micros % size == 0);
                unit.map_or((micros, "microsecond"), |(size, unit)| (micros / size, unit))
            }
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

impl SeriesTimes {
    /// Reads times, all written as the first is.
    ///
    /// # Errors
    /// The number of the row, from 0, and what is wrong with it: an unknown form, another than the first has, a time
    /// that is not after the one before it.
    pub fn read<T: AsRef<str>>(texts: &[T]) -> Result<Self, (usize, String)> {
        let mut times = Self { form: TimeForm::Number, rows: Vec::new(), step: None };
        for (row, text) in texts.iter().enumerate() {
            let text = text.as_ref().trim();
            if row == 0 {
                let known = "a number, 2024-01, 2024-01-31, or 2024-01-31 12:30 with seconds and offset as you like";
                times.form = TimeForm::of(text)
                    .ok_or_else(|| (row, format!("expected a time ({known}), found {text:?}")))?;
            }
            let wrong =
                || (row, format!("expected a time written as the first one, found {text:?}"));
            let moment = times.form.read(text).ok_or_else(wrong)?;
            if let Some(before) =
                times.rows.last().filter(|before| before.place() >= moment.place())
            {
                let before = times.form.write(*before);
                let zone = match times.form {
                    TimeForm::Clock { offset: false, .. } => {
                        " (where a clock changes, times need their offset, as in 2024-10-27T02:00+01:00)"
                    }
                    _ => "",
                };
                return Err((
                    row,
                    format!(
                        "expected a time after {before}, found {text}: time runs backwards{zone}"
                    ),
                ));
            }
            times.rows.push(moment);
        }
        times.step = times.usual_step();
        Ok(times)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// `true` without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The time from one row to the next, where most rows follow each other by one.
    pub fn step(&self) -> Option<TimeStep> {
        self.step
    }

    /// Time of a row, as it is written.
    pub fn text(&self, row: usize) -> Option<String> {
        self.rows.get(row).map(|&moment| self.form.write(moment))
    }

    /// Time that is `steps` after that of a row, written as those of rows are; none without a regular step.
    pub fn after(&self, row: usize, steps: usize) -> Option<String> {
        let moment = *self.rows.get(row)?;
        if steps == 0 {
            return Some(self.form.write(moment));
        }
        Some(self.form.write(moved(moment, self.step?, steps)?))
    }

    /// Hour with its fraction, day of the week from 0 for Monday, and month from 0, by the clock there.
    pub fn calendar(&self, row: usize) -> Option<[f64; 3]> {
        let Some(Moment::Clock(at, _)) = self.rows.get(row) else { return None };
        let hour = f64::from(at.num_seconds_from_midnight()) / 3600.0;
        Some([hour, f64::from(at.weekday().num_days_from_monday()), f64::from(at.month0())])
    }

    /// Changes of the clock: times from which another offset holds.
    pub fn clock_changes(&self) -> Vec<String> {
        let pairs = self.rows.iter().zip(self.rows.iter().skip(1));
        let changed = pairs
            .filter(|pair| matches!(pair, (Moment::Clock(_, a), Moment::Clock(_, b)) if a != b));
        changed.map(|(_, &moment)| self.form.write(moment)).collect()
    }

    /// For each row the number of rows that are missing from the grid before it.
    pub fn gaps(&self) -> Vec<usize> {
        let Some(step) = self.step else { return vec![0; self.rows.len()] };
        let missing = |pair: (&Moment, &Moment)| {
            let steps = match (step, pair) {
                (TimeStep::Months(months), (Moment::Clock(a, _), Moment::Clock(b, _))) => {
                    f64::from(months_between(*a, *b)) / f64::from(months)
                }
                (TimeStep::Number(step), (a, b)) => (b.place() - a.place()) / step,
                (TimeStep::Micros(step), (a, b)) => (b.place() - a.place()) / step as f64,
                _ => 1.0,
            };
            (steps.round().max(1.0) as usize) - 1
        };
        let pairs = self.rows.iter().zip(self.rows.iter().skip(1));
        std::iter::once(0).chain(pairs.map(missing)).take(self.rows.len()).collect()
    }

    /// The same with the rows that are missing.
    pub(super) fn filled(&self, gaps: &[usize]) -> Self {
        let mut rows = Vec::new();
        for (&moment, &gap) in self.rows.iter().zip(gaps) {
            if let (Some(&last), Some(step)) = (rows.last(), self.step) {
                rows.extend((1..=gap).filter_map(|steps| moved(last, step, steps)));
            }
            rows.push(moment);
        }
        Self { rows, ..self.clone() }
    }

    /// The most frequent step, where more than half of the rows follow by it, up to a tenth of it.
    fn usual_step(&self) -> Option<TimeStep> {
        let pairs = || self.rows.iter().zip(self.rows.iter().skip(1));
        if let Some(months) = self.usual_months() {
            return Some(TimeStep::Months(months));
        }
        let mut steps: Vec<f64> = pairs().map(|(a, b)| b.place() - a.place()).collect();
        steps.sort_unstable_by(f64::total_cmp);
        let middle = *steps.get(steps.len() / 2)?;
        let near = |step: &&f64| (**step - middle).abs() <= 0.1 * middle;
        let count = steps.iter().filter(near).count();
        if count * 2 <= steps.len() {
            return None;
        }
        let mean = steps.iter().filter(near).sum::<f64>() / count as f64;
        Some(match self.form {
            TimeForm::Number => TimeStep::Number(mean),
            // times of a clock that counts in larger units than the step are rounded: their mean is nearer to it
            _ if steps.iter().filter(near).all(|&step| step == middle) => {
                TimeStep::Micros(middle as i64)
            }
            _ => TimeStep::Micros(mean.round() as i64),
        })
    }

    /// The step in months of rows that all stand at the beginning of one.
    fn usual_months(&self) -> Option<u32> {
        let mut dates = Vec::with_capacity(self.rows.len());
        for moment in &self.rows {
            let Moment::Clock(at, 0) = *moment else { return None };
            if at.day() != 1 || at.num_seconds_from_midnight() != 0 {
                return None;
            }
            dates.push(at);
        }
        let steps = dates.windows(2).map(|pair| months_between(pair[0], pair[1]));
        let mut steps: Vec<u32> = steps.collect();
        steps.sort_unstable();
        steps.get(steps.len() / 2).copied().filter(|&months| months > 0)
    }
}

fn months_between(a: NaiveDateTime, b: NaiveDateTime) -> u32 {
    let months = |at: NaiveDateTime| i64::from(at.year()) * 12 + i64::from(at.month0());
    u32::try_from(months(b) - months(a)).unwrap_or(0)
}

fn moved(moment: Moment, step: TimeStep, steps: usize) -> Option<Moment> {
    match (moment, step) {
        (Moment::Number(x), TimeStep::Number(step)) => {
            Some(Moment::Number(x + step * steps as f64))
        }
        (Moment::Clock(at, offset), TimeStep::Months(months)) => {
            let months = months.checked_mul(u32::try_from(steps).ok()?)?;
            Some(Moment::Clock(at.checked_add_months(Months::new(months))?, offset))
        }
        (Moment::Clock(at, offset), TimeStep::Micros(step)) => {
            let micros = step.checked_mul(i64::try_from(steps).ok()?)?;
            let at: DateTime<Utc> = at.and_utc();
            let at = at.checked_add_signed(TimeDelta::microseconds(micros))?;
            Some(Moment::Clock(at.naive_utc(), offset))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_were_read() {
        for text in [
            "12",
            "-0.5",
            "1749.08333333333",
            "2024-02",
            "2024-02-29",
            "2024-02-29 23:05",
            "2024-02-29T23:05:09",
            "1970-01-01 00:04:40.015",
            "2022-03-20T11:00:00+01:00",
            "2022-03-20T11:00:00.5-03:30",
            "2022-03-20T11:00Z",
        ] {
            assert_eq!(SeriesTimes::read(&[text]).unwrap().text(0).unwrap(), text);
        }
        for text in ["", "yesterday", "2024-13", "2024-02-30", "20/3/2022", "2024-02-29 24:05"] {
            assert_eq!(SeriesTimes::read(&[text]).unwrap_err().0, 0, "{text}");
        }
    }

    #[test]
    fn the_step_goes_on_over_months_and_changes_of_the_clock() {
        let times = SeriesTimes::read(&["2023-10", "2023-11", "2023-12", "2024-02"]).unwrap();
        assert_eq!(
            (times.step().unwrap().to_string(), times.gaps()),
            ("1 month".into(), vec![0, 0, 0, 1])
        );
        assert_eq!(times.filled(&[0, 0, 0, 1]).text(3).unwrap(), "2024-01");
        assert_eq!(times.after(3, 12).unwrap(), "2025-02");

        let clock = [
            "2022-03-27T00:00:00+01:00",
            "2022-03-27T01:00:00+01:00",
            "2022-03-27T03:00:00+02:00",
            "2022-03-27T06:00:00+02:00",
        ];
        let times = SeriesTimes::read(&clock).unwrap();
        assert_eq!(
            (times.step().unwrap().to_string(), times.gaps()),
            ("1 hour".into(), vec![0, 0, 0, 2])
        );
        assert_eq!(times.clock_changes(), ["2022-03-27T03:00:00+02:00"]);
        assert_eq!(times.after(3, 20).unwrap(), "2022-03-28T02:00:00+02:00");
        assert_eq!(times.calendar(3), Some([6.0, 6.0, 2.0]));
    }

    #[test]
    fn rounded_times_have_a_step_and_no_gaps() {
        let times =
            SeriesTimes::read(&["0.000", "0.083", "0.167", "0.250", "0.333", "0.5"]).unwrap();
        assert_eq!(times.gaps(), [0, 0, 0, 0, 0, 1]);
        let times = SeriesTimes::read(&["1", "5", "7", "70"]).unwrap();
        assert_eq!((times.step(), times.gaps(), times.after(0, 1)), (None, vec![0; 4], None));
    }

    #[test]
    fn time_that_runs_backwards_is_told() {
        let error = SeriesTimes::read(&["2024-01-02 00:00", "2024-01-01 23:00"]).unwrap_err();
        assert_eq!(error.0, 1);
        assert!(
            error.1.starts_with("expected a time after 2024-01-02 00:00, found 2024-01-01 23:00"),
            "{}",
            error.1
        );
        assert!(
            SeriesTimes::read(&["2024-01", "2024-01-02"])
                .unwrap_err()
                .1
                .contains("written as the first")
        );
    }
}
