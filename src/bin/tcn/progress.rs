//! Ctrl-C, and texts that take a while to read.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_tcn::text::TokenStream;
use indicatif::{ProgressBar, ProgressStyle};

/// A flag that the first Ctrl-C sets; the second ends the program at once.
pub fn on_ctrl_c(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        if !message.is_empty() {
            say!("\n{message}; press again to leave at once");
        }
    })?;
    Ok(flag)
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
    while let Some(tokens) = stream.next().transpose()? {
        // in steps short enough for the bar to move
        let bytes = stream.bytes() - bar.position();
        for piece in tokens.chunks(1 << 15) {
            if !read(piece)? {
                return Ok(());
            }
            bar.inc(bytes * piece.len() as u64 / tokens.len() as u64);
        }
        bar.set_position(stream.bytes());
    }
    bar.finish_and_clear();
    Ok(())
}
