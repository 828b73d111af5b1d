//! A line in, what follows it out, and so on: `tcn generate --interactive`.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use candle_tcn::generate::{Generation, Generator};
use candle_tcn::text::Tokenizer;

use super::output::next_piece;
use crate::model::{unknown_tokens, warn_of_unknown};
use crate::signals;

/// Time between two looks for Ctrl-C at the prompt.
const POLL: Duration = Duration::from_millis(50);

pub fn run(generator: &mut Generator, tokenizer: &Tokenizer) -> anyhow::Result<()> {
    let lines = read_lines();
    // the model reads what the screen shows
    let line_end = match tokenizer.unknown_chars("\n").is_empty() {
        true => "\n",
        false => "",
    };
    while let Some(line) = next_line(&lines)? {
        if !line.is_empty() {
            let tokens = match tokenizer.encode(&format!("{line}{line_end}")) {
                Ok(tokens) => tokens,
                Err(error) => {
                    say!("{error}");
                    continue;
                }
            };
            warn_of_unknown(&"this line", unknown_tokens(tokenizer, &tokens), "");
            generator.read_tokens(&tokens)?;
        }
        let mut generation = generator.samples(0..1)?;
        let ended = write(&mut generation);
        let went_on = generator.go_on(generation);
        let ended = ended?;
        went_on?;
        if !ended {
            generator.read(line_end)?;
        }
        // it ended the text, not the program
        signals::forget();
    }
    Ok(())
}

/// Writes a text and, where it has none, a line end; `true` if it had one.
fn write(generation: &mut Generation) -> anyhow::Result<bool> {
    let mut out = crate::terminal::stdout();
    let mut ended = true;
    while let Some(piece) = next_piece(generation)? {
        if !piece.text.is_empty() {
            ended = piece.text.ends_with('\n');
        }
        write!(out, "{}", piece.text)?;
        out.flush()?;
    }
    if !ended {
        writeln!(out)?;
    }
    out.flush()?;
    Ok(ended)
}

/// Reads standard input in a thread of its own: a read cannot be interrupted.
fn read_lines() -> Receiver<std::io::Result<String>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || std::io::stdin().lines().try_for_each(|line| sender.send(line)));
    receiver
}

/// The next line, `None` after the last.
fn next_line(lines: &Receiver<std::io::Result<String>>) -> anyhow::Result<Option<String>> {
    if std::io::stdin().is_terminal() {
        let mut err = std::io::stderr();
        let _ = write!(err, "> ").and_then(|()| err.flush());
    }
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => return Ok(Some(line?)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => signals::expect_none().inspect_err(|_| say!(""))?,
        }
    }
}
