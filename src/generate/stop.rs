//! Stop strings in text that arrives piece by piece.

use super::pattern::{Pattern, not_empty};
use crate::Result;

/// The text that may be shown after a piece, and `true` if generation is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is certain to come before any stop string.
    pub text: String,
    /// A stop string was found; `text` ends where it begins.
    pub stopped: bool,
}

/// Cuts a stream of text at the first stop string, wherever the pieces are cut.
///
/// The joined `text` of all outcomes is the whole text up to the first position at which any stop
/// string begins. Text is passed on at once, except a suffix that may be the beginning of a stop
/// string. Where two stop strings overlap the one that begins earlier wins, so a complete one
/// waits for a longer one that began before it to succeed or fail. Time is linear in the text for
/// each stop string; the text held back is shorter than the longest stop string.
///
/// # Example
///
/// ```
/// use candle_tcn::generate::StopStrings;
/// # fn main() -> candle_tcn::Result<()> {
/// let mut stops = StopStrings::new(vec!["\n\n".to_string()])?;
/// assert_eq!(stops.push("one\n").text, "one"); // "\n" may be half of the stop string
/// assert_eq!(stops.push("two\n").text, "\ntwo");
/// let last = stops.push("\nthree");
/// assert!(last.stopped && last.text.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// Knuth, Morris, Pratt 1977, "Fast pattern matching in strings".
#[derive(Debug, Clone)]
pub struct StopStrings {
    patterns: Vec<Pattern>,
    /// Text that was received and not yet passed on.
    held: String,
    // The positions below are bytes from the beginning of the whole text.
    /// The beginning of `held`.
    passed: usize,
    /// The end of what the patterns have read.
    read: usize,
    /// The beginning of the earliest complete stop string.
    found: Option<usize>,
    stopped: bool,
}

impl StopStrings {
    /// A filter for these stop strings; with none, all text passes at once.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if a stop string is empty.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        not_empty("stop", &stops)?;
        Ok(Self {
            patterns: stops.into_iter().map(Pattern::new).collect(),
            held: String::new(),
            passed: 0,
            read: 0,
            found: None,
            stopped: false,
        })
    }

    /// Takes the next piece of text and returns what may be shown now.
    ///
    /// Once a stop string was found everything is swallowed and `stopped` stays true.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stopped {
            return self.pass(self.passed);
        }
        self.held.push_str(text);
        for byte in text.bytes() {
            self.read += 1;
            for pattern in &mut self.patterns {
                if pattern.advance(byte) {
                    let start = self.read - pattern.len();
                    self.found = Some(self.found.map_or(start, |found| found.min(start)));
                }
            }
            if let Some(found) = self.found
                && found <= self.undecided()
            {
                return self.stop(found);
            }
        }
        self.pass(self.undecided())
    }

    /// The end of the text: returns what was held back, cut at a stop string if one was complete.
    pub fn finish(&mut self) -> StopOutcome {
        match self.found {
            Some(found) if !self.stopped => self.stop(found),
            _ => {
                for pattern in &mut self.patterns {
                    pattern.reset();
                }
                self.pass(self.passed + self.held.len())
            }
        }
    }

    /// The earliest position at which a stop string may have begun that is not complete yet.
    fn undecided(&self) -> usize {
        let longest = self.patterns.iter().map(Pattern::matched).max();
        self.read - longest.unwrap_or(0)
    }

    /// Passes on the text before `position`.
    ///
    /// It is a character boundary: a pattern that matches the last bytes of a `str`, or all of
    /// itself, begins with the first byte of a character, and so does its match.
    fn pass(&mut self, position: usize) -> StopOutcome {
        let text = self.held.drain(..position - self.passed).collect();
        self.passed = position;
        StopOutcome { text, stopped: self.stopped }
    }

    fn stop(&mut self, found: usize) -> StopOutcome {
        self.stopped = true;
        let outcome = self.pass(found);
        self.held.clear();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(list: &[&str]) -> StopStrings {
        StopStrings::new(list.iter().map(|s| s.to_string()).collect()).unwrap()
    }

    /// Pushes the pieces one by one; the joined text, and whether a stop string was found.
    fn run(stops: &mut StopStrings, pieces: &[&str]) -> (String, bool) {
        let mut text = String::new();
        for piece in pieces {
            text += &stops.push(piece).text;
        }
        let last = stops.finish();
        (text + &last.text, last.stopped)
    }

    #[test]
    fn no_stop_strings_pass_everything_at_once() {
        let mut none = stops(&[]);
        assert_eq!(none.push("häh").text, "häh");
        assert_eq!(none.finish(), StopOutcome::default());
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopStrings::new(vec!["a".into(), String::new()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "stop: expected a text of at least one character, found an empty text"
        );
    }

    #[test]
    fn a_false_beginning_is_passed_on_as_soon_as_it_fails() {
        let mut stop = stops(&["User:"]);
        assert_eq!(stop.push("a Us").text, "a ");
        assert_eq!(stop.push("e").text, "");
        assert_eq!(stop.push("d U").text, "Used ");
        assert_eq!(stop.finish().text, "U");
        // a text after the end is a new one
        assert_eq!(stop.push("ser:").text, "ser:");
    }

    #[test]
    fn after_the_stop_everything_is_swallowed() {
        let mut stop = stops(&["##"]);
        let outcome = stop.push("a##b");
        assert_eq!((outcome.text.as_str(), outcome.stopped), ("a", true));
        let outcome = stop.push("c##d");
        assert_eq!((outcome.text.as_str(), outcome.stopped), ("", true));
        assert_eq!(stop.finish(), outcome);
    }

    #[test]
    fn the_earlier_of_two_overlapping_stop_strings_wins() {
        // "bc" is complete first, but "abcd" began before it
        let cases: [&[&str]; 3] = [&["xabcd"], &["xa", "bc", "d"], &["xabc", "d!"]];
        for pieces in cases {
            let (text, stopped) = run(&mut stops(&["bc", "abcd"]), pieces);
            assert_eq!((text.as_str(), stopped), ("x", true), "{pieces:?}");
        }
        // "abcd" fails, by another letter or by the end of the text: then "bc" counts
        let (text, stopped) = run(&mut stops(&["bc", "abcd"]), &["xabc", "e"]);
        assert_eq!((text.as_str(), stopped), ("xa", true));
        let (text, stopped) = run(&mut stops(&["bc", "abcd"]), &["xabc"]);
        assert_eq!((text.as_str(), stopped), ("xa", true));
    }

    #[test]
    fn a_repetitive_stop_string_is_found_inside_its_own_beginning() {
        let (text, stopped) = run(&mut stops(&["aab"]), &["aa", "a", "b"]);
        assert_eq!((text.as_str(), stopped), ("a", true));
    }

    /// Few letters, some of several bytes with shared first bytes, so that matches are common.
    fn text(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = String> {
        let letter = prop::sample::select(vec!['a', 'b', 'é', 'è', '日']);
        prop::collection::vec(letter, length).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_text_before_the_first_stop_string(
            text in text(0..24),
            list in prop::collection::vec(text(1..5), 0..4),
            cuts in prop::collection::vec(any::<bool>(), 24),
        ) {
            let first = list.iter().filter_map(|stop| text.find(stop.as_str())).min();
            let mut filter = StopStrings::new(list.clone()).unwrap();
            let (mut shown, mut piece, mut fed) = (String::new(), String::new(), String::new());
            for (c, cut) in text.chars().zip(cuts) {
                piece.push(c);
                fed.push(c);
                if cut {
                    shown += &filter.push(&piece).text;
                    piece.clear();
                    // nothing is held back that no stop string could begin with
                    let held = &fed[shown.len()..];
                    prop_assert!(first.is_some() || held.is_empty()
                        || list.iter().any(|stop| stop.starts_with(held)));
                }
            }
            shown += &filter.push(&piece).text;
            let last = filter.finish();
            shown += &last.text;
            prop_assert_eq!(last.stopped, first.is_some());
            prop_assert_eq!(shown, &text[..first.unwrap_or(text.len())]);
        }
    }
}
