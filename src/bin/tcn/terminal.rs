//! Texts of others on a terminal: characters that would command it are shown, not obeyed.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Result, StderrLock, StdoutLock, Write};

/// Standard output; escapes where it is a terminal.
pub fn stdout() -> Screen<StdoutLock<'static>> {
    Screen::new(std::io::stdout().lock())
}

/// Standard error; escapes where it is a terminal.
pub fn stderr() -> Screen<StderrLock<'static>> {
    Screen::new(std::io::stderr().lock())
}

/// `text` with every character that acts on a terminal, or turns the direction of reading around, as
/// `\u001b`, which is also JSON's escape. Line ends and tabs stay.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match acts(c) {
            true => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            false => safe.push(c),
        }
    }
    safe.into()
}

/// C0 and C1 controls, and the characters that embed or override a direction of reading.
fn acts(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    }
}

/// Stream that gives bytes on as they are, or [escaped] where it is a terminal.
pub struct Screen<W> {
    stream: W,
    is_terminal: bool,
}

impl<W: Write + IsTerminal> Screen<W> {
    fn new(stream: W) -> Self {
        Self { is_terminal: stream.is_terminal(), stream }
    }
}

impl<W: Write> Write for Screen<W> {
    /// Expects whole characters, as [`write!`] gives them: the bytes of others are shown as `\xff`.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if !self.is_terminal {
            return self.stream.write(bytes);
        }
        for chunk in bytes.utf8_chunks() {
            self.stream.write_all(escaped(chunk.valid()).as_bytes())?;
            for byte in chunk.invalid() {
                write!(self.stream, "\\x{byte:02x}")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8], is_terminal: bool) -> Vec<u8> {
        let mut screen = Screen { stream: Vec::new(), is_terminal };
        screen.write_all(bytes).unwrap();
        screen.stream
    }

    #[test]
    fn what_acts_on_a_terminal_is_shown() {
        let clipboard = "a\u{1b}]52;c;cm0gLXJm\u{7}b";
        assert_eq!(escaped(clipboard), "a\\u001b]52;c;cm0gLXJm\\u0007b");
        for c in (0..0x20).chain(0x7f..0xa0).chain(0x202a..0x202f) {
            let c = char::from_u32(c).unwrap();
            let text = c.to_string();
            let stays = matches!(c, '\n' | '\t');
            assert_eq!(escaped(&text) == text, stays, "{c:?}");
        }
        assert_eq!(escaped("x\u{2066}y\u{2069}"), "x\\u2066y\\u2069");
        // right-to-left texts are read as they are written
        for text in ["two\nlines\tand a tab", "naïve 漢字 😀", "שלום مرحبا"] {
            assert!(matches!(escaped(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn only_a_terminal_is_escaped_for() {
        let bytes = b"caf\xc3\xa9 \x1b[2J\x9b\n";
        assert_eq!(shown(bytes, false), bytes);
        assert_eq!(shown(bytes, true), "café \\u001b[2J\\x9b\n".as_bytes());
    }

    #[test]
    fn json_stays_json() {
        let text = "\u{7f}\u{9b}\u{202e}\u{1b}";
        let json = serde_json::to_string(text).unwrap();
        assert_ne!(escaped(&json), json);
        assert_eq!(serde_json::from_str::<String>(&escaped(&json)).unwrap(), text);
    }
}
