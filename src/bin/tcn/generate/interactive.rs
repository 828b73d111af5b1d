//! A line in, what follows it out, and so on: `tcn generate --interactive`.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use candle_tcn::generate::Generator;
use candle_tcn::text::Tokenizer;

use super::output::next_piece;
use crate::Interrupted;

/// How often Ctrl-C is looked for at the prompt.
const POLL: Duration = Duration::from_millis(50);

pub fn run(
    generator: &mut Generator,
    tokenizer: &Tokenizer,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let lines = read_lines();
    // the model reads what the screen shows
    let line_end = match tokenizer.unknown_chars("\n").is_empty() {
        true => "\n",
        false => "",
    };
    while let Some(line) = next_line(&lines, interrupted)? {
        if !line.is_empty()
            && let Err(error) = generator.read(&format!("{line}{line_end}"))
        {
            say!("{error}");
            continue;
        }
        let mut generation = generator.samples(0..1)?;
        let written = write(&mut generation, interrupted);
        let went_on = generator.go_on(generation);
        written?;
        went_on?;
        // it ended the text, not the program
        interrupted.store(false, Ordering::SeqCst);
    }
    Ok(())
}

fn write(
    generation: &mut candle_tcn::generate::Generation,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let mut out = crate::terminal::stdout();
    let mut ended = true;
    while let Some(piece) = next_piece(generation, interrupted)? {
        if !piece.text.is_empty() {
            ended = piece.text.ends_with('\n');
        }
        write!(out, "{}", piece.text)?;
        out.flush()?;
    }
    if !ended {
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

/// Reads standard input in a thread of its own: a read cannot be interrupted.
fn read_lines() -> Receiver<std::io::Result<String>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The next line, `None` after the last.
fn next_line(
    lines: &Receiver<std::io::Result<String>>,
    interrupted: &AtomicBool,
) -> anyhow::Result<Option<String>> {
    if std::io::stdin().is_terminal() {
        let mut err = std::io::stderr();
        let _ = write!(err, "> ").and_then(|()| err.flush());
    }
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => return Ok(Some(line?)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::SeqCst) => {
                say!("");
                return Err(Interrupted.into());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
