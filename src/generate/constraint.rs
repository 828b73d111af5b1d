//! Constraints on the next token, by the text that it would make.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::allow::Allow;
use super::pattern::not_empty;
use super::sorted_tokens::{SortedTokens, clear};
use crate::text::TokenBytes;
use crate::{Error, Result};

/// Constraints on a generated text.
///
/// The generated text is what comes after the prompt; all strings are compared with it byte by byte,
/// wherever the tokens are cut.
///
/// # Example
///
/// ```
/// use candle_tcn::generate::ConstraintConfig;
/// let config = ConstraintConfig { ban: vec![String::new()], ..Default::default() };
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "ban: expected a text of at least one character, found an empty text"
/// );
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConstraintConfig {
    /// Strings that never appear in the text; a banned character is a string of one.
    pub ban: Vec<String>,
    /// If not empty: the text is made of these strings only, one after the other, the last perhaps cut
    /// off by the end. Allowed characters are strings of one.
    pub allow: Vec<String>,
    /// As long as fewer tokens than these were drawn, none is drawn that completes a stop string.
    pub min_tokens: usize,
}

impl ConstraintConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the field if one of its strings is empty.
    pub fn validate(&self) -> Result<()> {
        not_empty("ban", &self.ban)?;
        not_empty("allow", &self.allow)
    }
}

/// Decides, step by step, which tokens may be drawn.
///
/// A token is forbidden exactly if, with it, the bytes of the text so far
///
/// 1. contain a banned string,
/// 2. contain a stop string, as long as fewer than `min_tokens` tokens were drawn, or
/// 3. are not the beginning of any sequence of allowed strings.
///
/// Only the next token is judged: where every token that follows a permitted one is forbidden, the
/// step after it fails. A token without bytes is always permitted; special tokens, which have none,
/// are banned by [`crate::text::Tokenizer::banned_ids`].
///
/// Hugging Face's `bad_words_ids` and `min_new_tokens` do the same for token sequences instead of
/// texts. Cloning, for another sample, is cheap: clones share all tables.
///
/// # Numerics
///
/// A step looks up, for every banned string and every beginning of it that the text ends with, the
/// tokens that complete it: a binary search and its hits. An allow list is run over the distinct
/// beginnings of the vocabulary's tokens, up to the first byte that does not fit.
///
/// # Example
///
/// ```
/// use candle_tcn::generate::{ConstraintConfig, Constraints};
/// use candle_tcn::text::TokenBytes;
/// # fn main() -> candle_tcn::Result<()> {
/// let tokens = TokenBytes::new(["a", "b", "ba"].map(Vec::from));
/// let config = ConstraintConfig { ban: vec!["aba".into()], ..Default::default() };
/// let mut constraints = Constraints::new(&config, &[], &tokens)?;
/// constraints.push(0);
/// // "aba" would be complete; "ab" is not
/// let mut allowed = [true; 3];
/// constraints.permit(&mut allowed)?;
/// assert_eq!(allowed, [true, true, false]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Constraints {
    allow: Option<Allow>,
    min_tokens: usize,
    drawn: usize,
    /// The end of the text, shorter than the longest string that is looked for.
    end: Vec<u8>,
    /// Tokens that end the text.
    ending: Vec<u32>,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    banned: Vec<String>,
    stops: Vec<String>,
    /// For the first token of the text, if that differs.
    first: Option<Table>,
    later: Table,
}

/// The tokens, for one place in the text.
#[derive(Debug)]
struct Table {
    tokens: SortedTokens,
    /// Ids of tokens that contain a banned string.
    banning: Vec<u32>,
    /// Ids of tokens that contain a stop string.
    stopping: Vec<u32>,
}

impl Constraints {
    /// Constraints on a text of these tokens that is to end at one of the `stop` strings.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the field if a string is empty.
    pub fn new(config: &ConstraintConfig, stop: &[String], tokens: &TokenBytes) -> Result<Self> {
        config.validate()?;
        not_empty("stop", stop)?;
        let banned = config.ban.clone();
        let stops = if config.min_tokens > 0 { stop.to_vec() } else { Vec::new() };
        let allow = (!config.allow.is_empty()).then(|| Allow::new(&config.allow));
        // without a constraint no table is ever looked at
        let idle = banned.is_empty() && stops.is_empty() && allow.is_none();
        let table = |bytes: &[Box<[u8]>]| {
            let tokens = SortedTokens::new(if idle { &[] } else { bytes });
            Table {
                banning: tokens.containing(&banned),
                stopping: tokens.containing(&stops),
                tokens,
            }
        };
        let (first, later) = (tokens.first().map(table), table(tokens.later()));
        let tables = Arc::new(Tables { banned, stops, first, later });
        Ok(Self {
            allow,
            min_tokens: config.min_tokens,
            drawn: 0,
            end: Vec::new(),
            ending: Vec::new(),
            tables,
        })
    }

    /// The same constraints on a text that these tokens end too.
    pub fn ending_with(self, ending: Vec<u32>) -> Self {
        Self { ending, ..self }
    }

    /// `true` if every token is permitted, now and later.
    pub fn is_idle(&self) -> bool {
        self.tables.banned.is_empty() && self.allow.is_none() && !self.must_go_on()
    }

    /// Clears the flags of the ids that may not come next; a flag that is not set stays so. The text is
    /// not changed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the options in conflict if no flag is left.
    pub fn permit(&mut self, allowed: &mut [bool]) -> Result<()> {
        let tables = Arc::clone(&self.tables);
        let table = tables.at(self.drawn);
        let forbade = [
            ("ban", table.forbid(&table.banning, &tables.banned, &self.end, allowed)),
            (
                "min_tokens",
                self.must_go_on()
                    && (table.forbid(&table.stopping, &tables.stops, &self.end, allowed)
                        | self.ending.iter().fold(false, |any, &id| any | clear(allowed, id))),
            ),
            (
                "allow",
                self.allow.as_mut().is_some_and(|allow| allow.forbid(&table.tokens, allowed)),
            ),
        ];
        if allowed.contains(&true) {
            return Ok(());
        }
        let options = forbade.iter().filter_map(|(option, any)| any.then_some(*option));
        let options: Vec<&str> = options.collect();
        Err(nothing_left(&options, self.drawn))
    }

    /// Takes `id` as the next token of the text.
    pub fn push(&mut self, id: u32) {
        let Tables { banned, stops, .. } = &*self.tables;
        let bytes = self.tables.at(self.drawn).tokens.bytes(id);
        self.end.extend_from_slice(bytes);
        let longest = banned.iter().chain(stops).map(String::len).max().unwrap_or(0);
        self.end.drain(..self.end.len().saturating_sub(longest));
        if let Some(allow) = &mut self.allow {
            bytes.iter().for_each(|&byte| allow.advance(byte));
        }
        self.drawn += 1;
    }

    /// `true` if the end would come too early.
    fn must_go_on(&self) -> bool {
        let has_end = !self.tables.stops.is_empty() || !self.ending.is_empty();
        self.drawn < self.min_tokens && has_end
    }
}

fn nothing_left(options: &[&str], drawn: usize) -> Error {
    let mend = match options {
        [] => "",
        ["allow"] => "; are its strings made of what the model's vocabulary has?",
        [_] => "; leave out some of it",
        _ => "; leave out some of them",
    };
    let field = if options.is_empty() { "tokens".into() } else { options.join(" with ") };
    let found = format!("none that may follow after {drawn} tokens of text{mend}");
    Error::invalid(field, "that at least one token may still be drawn", found)
}

impl Tables {
    /// The table for the token after `drawn` others.
    fn at(&self, drawn: usize) -> &Table {
        match &self.first {
            Some(first) if drawn == 0 => first,
            _ => &self.later,
        }
    }
}

impl Table {
    /// Clears the flags of tokens that contain one of `strings`, or complete one that the text ends in the middle of;
    /// `true` if any was set.
    fn forbid(
        &self,
        containing: &[u32],
        strings: &[String],
        end: &[u8],
        allowed: &mut [bool],
    ) -> bool {
        let mut any = false;
        let halves = strings.iter().map(String::as_bytes);
        let halves = halves.flat_map(|string| (1..string.len()).map(|at| string.split_at(at)));
        let endings = halves.filter(|(half, _)| end.ends_with(half)).map(|(_, ending)| ending);
        let completing = endings.flat_map(|ending| self.tokens.beginning_with(ending));
        for &id in containing.iter().chain(completing) {
            any |= clear(allowed, id);
        }
        any
    }
}

#[cfg(test)]
#[path = "constraint_tests.rs"]
mod tests;
