//! The ways in which times are written.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, Offset, Timelike};

/// The way in which times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeForm {
    Number,
    Month,
    Date,
    /// With `T` or a space between date and time, seconds or none, and as many digits of their fraction.
    Clock {
        separator: char,
        seconds: bool,
        digits: usize,
        offset: bool,
        zulu: bool,
    },
}

/// A time as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Moment {
    Number(f64),
    /// Local time, and its offset from UTC in seconds.
    Clock(NaiveDateTime, i32),
}

impl TimeForm {
    /// The form of a text.
    pub fn of(text: &str) -> Option<Self> {
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Some(Self::Number);
        }
        if NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").is_ok() {
            return Some(Self::Month);
        }
        if NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() {
            return Some(Self::Date);
        }
        let separator = text.chars().nth(10).filter(|c| matches!(c, 'T' | 't' | ' '))?;
        let clock = text.get(11..)?;
        let zulu = clock.ends_with(['Z', 'z']);
        let at = clock.find(['+', '-', 'Z', 'z']);
        let time = &clock[..at.unwrap_or(clock.len())];
        let digits = time.split_once('.').map_or(0, |(_, digits)| digits.len());
        let seconds = time.matches(':').count() == 2;
        let form = Self::Clock { separator, seconds, digits, offset: at.is_some(), zulu };
        form.read(text).is_some().then_some(form)
    }

    /// Reads a time of this form.
    pub fn read(self, text: &str) -> Option<Moment> {
        let midnight = |date: NaiveDate| date.and_hms_opt(0, 0, 0).map(|at| Moment::Clock(at, 0));
        match self {
            Self::Number => text.parse().ok().filter(|x: &f64| x.is_finite()).map(Moment::Number),
            Self::Month => {
                midnight(NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok()?)
            }
            Self::Date => midnight(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?),
            Self::Clock { offset: false, .. } => {
                let text = text.replacen(['T', 't'], " ", 1);
                let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
                let read = |form| NaiveDateTime::parse_from_str(&text, form).ok();
                forms.into_iter().find_map(read).map(|at| Moment::Clock(at, 0))
            }
            Self::Clock { offset: true, .. } => {
                let text = text.replacen(['T', 't'], " ", 1).replace(['Z', 'z'], "+00:00");
                let forms =
                    ["%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M%:z", "%Y-%m-%d %H:%M:%S%.f%z"];
                let read = |form| DateTime::<FixedOffset>::parse_from_str(&text, form).ok();
                let at = forms.into_iter().find_map(read)?;
                Some(Moment::Clock(at.naive_local(), at.offset().fix().local_minus_utc()))
            }
        }
    }

    pub fn write(self, moment: Moment) -> String {
        let (at, offset) = match moment {
            Moment::Number(x) => return format!("{x}"),
            Moment::Clock(at, offset) => (at, offset),
        };
        match self {
            Self::Number | Self::Date => at.format("%Y-%m-%d").to_string(),
            Self::Month => at.format("%Y-%m").to_string(),
            Self::Clock { separator, seconds, digits, offset: has_offset, zulu } => {
                let mut text =
                    format!("{}{separator}{}", at.format("%Y-%m-%d"), at.format("%H:%M"));
                if seconds {
                    text += &at.format(":%S").to_string();
                }
                if digits > 0 {
                    text += &format!(
                        ".{:0digits$}",
                        at.nanosecond() / 10u32.pow(9 - digits.min(9) as u32),
                        digits = digits.min(9)
                    );
                }
                match (has_offset, zulu) {
                    (false, _) => text,
                    (true, true) => text + "Z",
                    (true, false) => {
                        let (sign, minutes) =
                            (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
                        text + &format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
                    }
                }
            }
        }
    }
}

impl Moment {
    /// Its place on a line: the number itself, or microseconds since 1970 in UTC.
    pub fn place(self) -> f64 {
        match self {
            Self::Number(x) => x,
            Self::Clock(at, offset) => {
                (at.and_utc().timestamp_micros() - i64::from(offset) * 1_000_000) as f64
            }
        }
    }
}
