//! Work that takes a while, as bars and lines.

use std::io::Read;
use std::time::{Duration, Instant};

use candle_tcn::text::TokenStream;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

/// When a line is due where no terminal shows a bar: every 10 s, and every twentieth of the work.
pub struct Pace {
    last: Instant,
    done: f64,
}

impl Pace {
    const LONGEST: Duration = Duration::from_secs(10);
    const SHORTEST: Duration = Duration::from_secs(1);
    const PART: f64 = 0.05;

    pub fn new() -> Self {
        Self {
            last: Instant::now(),
            done: 0.0,
        }
    }

    /// `true` if a line is due at this fraction of the work; the next one is then due later.
    pub fn is_due(&mut self, done: f64) -> bool {
        let since = self.last.elapsed();
        let due =
            since >= Self::LONGEST || done - self.done >= Self::PART && since >= Self::SHORTEST;
        if due {
            (self.last, self.done) = (Instant::now(), done);
        }
        due
    }
}

/// Gives the tokens of a text to `read`, beside a bar; `total` is the text's length in bytes, 0 where it is
/// not known. Ends early where `read` says false.
pub fn read_through<R: Read>(
    stream: &mut TokenStream<R>,
    verb: &str,
    total: u64,
    mut read: impl FnMut(&[u32]) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let (length, rate) = ("{bytes}/{total_bytes}", "{bytes_per_sec} ETA {eta}");
    let (bar, style) = match total {
        0 => (
            ProgressBar::no_length(),
            format!("{verb} {{spinner}} {{bytes}} {{bytes_per_sec}}"),
        ),
        total => (
            ProgressBar::new(total),
            format!("{verb} {{wide_bar}} {length} {rate}"),
        ),
    };
    let bar = bar.with_style(ProgressStyle::with_template(&style)?);
    let mut pace = Pace::new();
    while let Some(tokens) = stream.next().transpose()? {
        // in steps short enough for the bar to move
        let bytes = stream.bytes() - bar.position();
        for piece in tokens.chunks(1 << 15) {
            if !read(piece)? {
                return Ok(());
            }
            bar.inc(bytes * piece.len() as u64 / tokens.len() as u64);
            if bar.is_hidden() && pace.is_due(bar.position() as f64 / total.max(1) as f64) {
                say!("{}", line(verb, &bar, total));
            }
        }
        bar.set_position(stream.bytes());
    }
    bar.finish_and_clear();
    Ok(())
}

/// How far it is, where no terminal shows the bar.
fn line(verb: &str, bar: &ProgressBar, total: u64) -> String {
    let seconds = bar.elapsed().as_secs_f64().max(1e-9);
    let (done, rate) = (bar.position(), bar.position() as f64 / seconds);
    let (read, speed) = (HumanBytes(done), HumanBytes(rate as u64));
    match total {
        0 => format!("{verb}: {read}, {speed}/s"),
        _ => {
            let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
            let left = HumanDuration(Duration::from_secs_f64(left.min(1e9)));
            format!(
                "{verb}: {read} of {}, {speed}/s, ETA {left}",
                HumanBytes(total)
            )
        }
    }
}
