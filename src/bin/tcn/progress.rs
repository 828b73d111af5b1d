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
        Self { last: Instant::now(), done: 0.0 }
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

    /// Writes how far a bar of bytes is, where no terminal shows it and a line is due.
    pub fn tell_bytes(&mut self, verb: &str, bar: &ProgressBar) {
        let (done, total) = (bar.position(), bar.length());
        let part = total.map_or(0.0, |total| done as f64 / total.max(1) as f64);
        if !bar.is_hidden() || !self.is_due(part) {
            return;
        }
        let rate = done as f64 / bar.elapsed().as_secs_f64().max(1e-9);
        let (read, speed) = (HumanBytes(done), HumanBytes(rate as u64));
        match total {
            None => say!("{verb}: {read}, {speed}/s"),
            Some(total) => {
                let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
                let left = HumanDuration(Duration::from_secs_f64(left.min(1e9)));
                let total = HumanBytes(total);
                say!("{verb}: {read} of {total}, {speed}/s, ETA {left}");
            }
        }
    }
}

/// A bar on standard error, of a length where that is known.
pub fn bar(length: Option<u64>, template: &str) -> anyhow::Result<ProgressBar> {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    Ok(bar.with_style(ProgressStyle::with_template(template)?))
}

/// Gives the tokens of a text to `read`, beside a bar; `total` is the text's length in bytes, where it is
/// known. Ends early where `read` says false.
pub fn read_through<R: Read>(
    stream: &mut TokenStream<R>,
    verb: &str,
    total: Option<u64>,
    mut read: impl FnMut(&[u32]) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let style = match total {
        None => "{spinner} {bytes} {bytes_per_sec}",
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
    };
    let bar = bar(total, &format!("{verb} {style}"))?;
    let mut pace = Pace::new();
    while let Some(tokens) = stream.next().transpose()? {
        // in steps short enough for the bar to move
        let bytes = stream.bytes() - bar.position();
        for piece in tokens.chunks(1 << 15) {
            if !read(piece)? {
                return Ok(());
            }
            bar.inc(bytes * piece.len() as u64 / tokens.len() as u64);
            pace.tell_bytes(verb, &bar);
        }
        bar.set_position(stream.bytes());
    }
    bar.finish_and_clear();
    Ok(())
}
