//! Cutting of long texts into pieces that can be encoded one by one.
//!
//! A cut lies, in a piece of at least [`PIECE_BYTES`], at the first place that is
//!
//! 1. in front of a space that follows a character which is not white space, or
//! 2. behind a `\n` that stands between two characters which are not white space.
//!
//! The GPT-2 splitting rule, which `bpe:N` uses, never makes a word across such a place and never
//! looks across it, so encoding the pieces gives exactly what encoding the whole gives. The same
//! holds for the rules of later GPT models and for tokenizers that split at white space. The first
//! kind serves texts with spaces, whatever their line ends; the second serves scripts without.
//! [`Cuts`] says where a tokenizer wants fewer: not within a special token that holds a space, for instance.
//!
//! A piece that would be longer than four times as long as it need be ends between a letter, a digit and
//! punctuation, which nearly all rules split, and after eight times anywhere: the memory for a text without any
//! space or line is bounded.
//!
//! A place is a cut by the text in front of it and a little behind it alone,
//! so a file read in buffers of any size falls into the same pieces as a text in memory.

/// A piece is at least this long, unless the text ends before.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Pieces longer than this many times the least length are cut where it does little harm.
const LONG: usize = 4;
/// Pieces of this many times the least length are cut anywhere.
const LONGEST: usize = 8;

/// The cuts that a tokenizer allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cuts {
    /// No cuts between lines: a piece that begins without a space would get one.
    pub only_at_spaces: bool,
    /// Added tokens, within which nothing is cut.
    pub whole: Vec<String>,
    /// Added tokens that take the white space behind them.
    pub take_space: Vec<String>,
}

/// Cuts `text` into pieces of at least `min` bytes; the last return value is what follows the last
/// cut: another piece if the text ends here, else to be continued.
pub(super) fn cut<'t>(text: &'t str, min: usize, cuts: &Cuts) -> (Vec<&'t str>, &'t str) {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = cuts.first(rest, min) {
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    (pieces, rest)
}

/// All of `text` in pieces, none of them empty.
pub(super) fn cut_all<'t>(text: &'t str, min: usize, cuts: &Cuts) -> Vec<&'t str> {
    let (mut pieces, rest) = cut(text, min, cuts);
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

impl Cuts {
    /// The first cut at or behind byte `min`.
    fn first(&self, text: &str, min: usize) -> Option<usize> {
        let (long, longest) = (min.saturating_mul(LONG), min.saturating_mul(LONGEST));
        for (at, previous, natural) in self.places(text, min) {
            let harmless = at >= long
                && text[at..].chars().next().is_some_and(|next| {
                    kind(previous).is_some_and(|a| kind(next).is_some_and(|b| a != b))
                });
            if natural || harmless || at >= longest {
                match self.bears(text, at) {
                    Some(false) if at < longest => {}
                    found => return found.map(|_| at),
                }
            }
        }
        None
    }

    /// The text behind the first place in `text`, which begins anywhere in another, that is a cut in front of a
    /// space or between lines; none where there is no such place.
    pub(super) fn behind_cut<'t>(&self, text: &'t str) -> Option<&'t str> {
        // an added token may begin before the text
        let known = self.whole.iter().map(String::len).max().unwrap_or(0);
        let mut cuts = self.places(text, known).filter(|&(_, _, natural)| natural);
        let found = cuts.find(|&(at, ..)| self.bears(text, at) == Some(true));
        found.map(|(at, ..)| &text[at..])
    }

    /// The places between two characters from byte `min` on, each with the character before it, and `true` for
    /// those in front of a space or between lines.
    fn places(&self, text: &str, min: usize) -> impl Iterator<Item = (usize, char, bool)> {
        let start = (min.max(1)..text.len()).find(|&at| text.is_char_boundary(at));
        let (before, rest) = text.split_at(start.unwrap_or(text.len()));
        let mut last = before.chars().rev();
        let mut previous = last.next();
        let mut last_but_one = last.next();
        rest.char_indices().filter_map(move |(at, next)| {
            let (a, b) = (last_but_one, previous?);
            (last_but_one, previous) = (previous, Some(next));
            let natural = is_cut(a, b, next) && !(self.only_at_spaces && next != ' ');
            Some((before.len() + at, b, natural))
        })
    }

    /// `true` unless a special token forbids a cut there; none where too little of the text is known.
    fn bears(&self, text: &str, at: usize) -> Option<bool> {
        if self.take_space.iter().any(|token| text[..at].ends_with(token.as_str())) {
            return Some(false);
        }
        for token in &self.whole {
            let token = token.as_bytes();
            let bytes = text.as_bytes();
            for start in (at + 1).saturating_sub(token.len())..at {
                let known = &bytes[start..bytes.len().min(start + token.len())];
                if known == token {
                    return Some(false);
                }
                if token.starts_with(known) {
                    return None;
                }
            }
        }
        Some(true)
    }
}

/// Letter, digit or punctuation, as the rules of GPT models tell them apart; an apostrophe belongs to words.
fn kind(c: char) -> Option<u8> {
    match c {
        '\'' | '’' => None,
        c if c.is_whitespace() || c.is_control() => None,
        c if c.is_alphabetic() => Some(0),
        c if c.is_numeric() => Some(1),
        _ => Some(2),
    }
}

fn is_cut(last_but_one: Option<char>, previous: char, next: char) -> bool {
    let in_front_of_space = next == ' ' && !previous.is_whitespace();
    let behind_line = previous == '\n'
        && !next.is_whitespace()
        && last_but_one.is_some_and(|c| !c.is_whitespace());
    in_front_of_space || behind_line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As for a tokenizer without peculiarities; no piece is long.
    fn cut_all(text: &str, min: usize) -> Vec<&str> {
        super::cut_all(text, min, &Cuts::default())
    }

    fn cut(text: &str, min: usize) -> (Vec<&str>, &str) {
        super::cut(text, min, &Cuts::default())
    }

    #[test]
    fn a_text_without_spaces_falls_into_pieces() {
        assert_eq!(cut_all("abcdefg,hijklmnop", 1), ["abcdefg", ",hijklmn", "op"]);
        assert_eq!(cut_all("abcdefghijklmnop12", 2), ["abcdefghijklmnop", "12"]);
        assert_eq!(cut_all(&"龍".repeat(7), 3), ["龍".repeat(7)]);
        assert_eq!(cut_all(&"龍".repeat(9), 3), ["龍".repeat(8), "龍".to_string()]);
    }

    #[test]
    fn special_tokens_stay_whole() {
        let cuts = Cuts {
            only_at_spaces: true,
            whole: vec!["<a b>".into()],
            take_space: vec!["<c>".into()],
        };
        let cut_all = |text| super::cut_all(text, 1, &cuts);
        assert_eq!(cut_all("x <a b> y"), ["x", " <a b>", " y"]);
        assert_eq!(cut_all("x <c> y z"), ["x", " <c> y", " z"]);
        assert_eq!(cut_all("a\nb c"), ["a\nb", " c"]);
        // whether the token goes on is not known yet
        assert_eq!(super::cut("x <a b", 1, &cuts), (vec!["x"], " <a b"));
    }

    #[test]
    fn cuts_in_front_of_a_space_and_between_lines() {
        assert_eq!(cut_all("one two  three", 1), ["one", " two", "  three"]);
        assert_eq!(cut_all("一，\n二。\n三", 1), ["一，\n", "二。\n", "三"]);
        // never where GPT-2's rule looks ahead
        assert_eq!(cut_all("a\n\nb\r\nc\n", 2), ["a\n\nb\r\nc\n"]);
        assert_eq!(cut_all("a \nb", 1), ["a", " \nb"]);
        assert_eq!(cut_all("a\n b", 1), ["a\n b"]);
    }

    #[test]
    fn a_piece_is_at_least_as_long_as_asked() {
        assert_eq!(cut_all("a b c d e", 4), ["a b c", " d e"]);
        assert_eq!(cut_all("龍 龍 龍", 2), ["龍", " 龍", " 龍"]);
        assert_eq!(cut_all("", 4), [] as [&str; 0]);
        // the space is not there yet: whether it is a cut is still open
        assert_eq!(cut("ab", 2), (vec![], "ab"));
        assert_eq!(cut("ab ", 2), (vec!["ab"], " "));
    }

    proptest::proptest! {
        #[test]
        fn a_prefix_has_the_same_cuts(
            text in "[a-c龍 ,\n\r\t]{0,80}", min in 1usize..9, keep in 0usize..80,
        ) {
            let prefix: String = text.chars().take(keep).collect();
            let whole = cut_all(&text, min);
            let (pieces, rest) = cut(&prefix, min);
            proptest::prop_assert_eq!(whole.concat(), text.as_str());
            proptest::prop_assert_eq!(pieces.concat() + rest, prefix.as_str());
            proptest::prop_assert!(whole.starts_with(&pieces));
        }
    }

    /// Joined pieces against the whole, under GPT-2's splitting rule.
    fn gpt2_words(text: &str) -> Vec<String> {
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
        let mut words = PreTokenizedString::from(text);
        let rule = tokenizers::pre_tokenizers::byte_level::ByteLevel::new(false, false, true);
        rule.pre_tokenize(&mut words).unwrap();
        words
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(word, _, _)| word.to_owned())
            .collect()
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2000))]
        #[test]
        fn words_never_cross_a_cut(text in "[as'龍0, \n\r\t\u{3000}]{0,40}", min in 1usize..5) {
            let pieces = cut_all(&text, min);
            // what is cut anywhere is not meant
            if pieces.iter().any(|piece| piece.len() >= LONGEST * min) {
                return Ok(());
            }
            let words: Vec<String> = pieces.into_iter().flat_map(gpt2_words).collect();
            proptest::prop_assert_eq!(words, gpt2_words(&text));
        }
    }
}
