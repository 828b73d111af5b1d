//! Variants found in their sequences, and scored.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use candle_tcn::Error;
use candle_tcn::models::{Change, Scorer};
use candle_tcn::text::Tokenizer;
use indicatif::ProgressBar;
use serde_json::json;

use super::ScoreArgs;
use super::variants::{Letter, Variant, Variants};
use crate::flags::counted;
use crate::print_line;
use crate::progress::{Pace, bar};
use crate::sequences::Sequence;

/// Letters of a genome that are read around a variant.
const WINDOW: usize = 512;

/// Variants that are scored together.
const TOGETHER: usize = 512;

/// Scores the variants of a file, and prints them in its order.
pub fn score(
    args: &ScoreArgs,
    scorer: &Scorer,
    tokenizer: &Tokenizer,
    file: &Path,
) -> anyhow::Result<()> {
    let Variants { list, is_vcf, passed_over } = Variants::read(file)?;
    if passed_over > 0 {
        let which = counted(passed_over, "alternative");
        say!("{}: passed over {which} that insert, delete or name no letters", file.display());
    }
    let bar = bar(
        Some(list.len() as u64),
        "scoring {wide_bar} {human_pos}/{human_len} {per_sec} ETA {eta}",
    )?;
    let mut work = Work {
        file,
        scorer,
        tokenizer,
        window: args.window.or(is_vcf.then_some(WINDOW)),
        both_strands: args.both_strands || is_vcf && !args.one_strand,
        json: args.json,
        scores: vec![None; list.len()],
        printed: 0,
        list: &list,
        bar,
        pace: Pace::new(),
    };
    let (mut of, mut unnamed) = (HashMap::<&str, Vec<usize>>::new(), Vec::new());
    for (i, variant) in list.iter().enumerate() {
        match &variant.sequence {
            Some(name) => of.entry(name).or_default().push(i),
            None => unnamed.push(i),
        }
    }
    if args.input.is_none() && args.sequences.is_empty() {
        work.named_by_letters()?;
        return work.finish();
    }
    let mut sequences = args.sequences()?.peekable();
    while let Some(sequence) = sequences.next() {
        let sequence = sequence?;
        let unnamed = std::mem::take(&mut unnamed);
        // those without a name are of the only sequence
        if let Some(&i) = unnamed.first()
            && sequences.peek().is_some()
        {
            return Err(work.wrong(&list[i], "expected the name of one of the sequences before it"));
        }
        let named = of.remove(sequence.id.as_deref().unwrap_or(&sequence.text));
        work.sequence(&sequence, &[named.unwrap_or_default(), unnamed].concat())?;
    }
    work.expect_none(of.into_values().flatten().min())?;
    work.finish()
}

struct Work<'a> {
    file: &'a Path,
    scorer: &'a Scorer<'a>,
    tokenizer: &'a Tokenizer,
    window: Option<usize>,
    both_strands: bool,
    json: bool,
    list: &'a [Variant],
    scores: Vec<Option<f64>>,
    printed: usize,
    bar: ProgressBar,
    pace: Pace,
}

impl Work<'_> {
    fn wrong(&self, variant: &Variant, what: impl std::fmt::Display) -> anyhow::Error {
        let message = format!("line {}: {}: {what}", variant.line, variant.form());
        Error::file(self.file, message).into()
    }

    /// Scores variants that name their sequences by the letters.
    fn named_by_letters(&mut self) -> anyhow::Result<()> {
        for (i, variant) in self.list.iter().enumerate() {
            let Some(letters) = &variant.sequence else {
                bail_usage!(
                    "--variants: expected the sequences that it changes, as arguments or with --input"
                );
            };
            self.sequence(&Sequence::new(letters), &[i])?;
        }
        Ok(())
    }

    /// Refuses a variant of a sequence that did not come.
    fn expect_none(&self, left: Option<usize>) -> anyhow::Result<()> {
        let Some(first) = left else { return Ok(()) };
        let variant = &self.list[first];
        let name = variant.sequence.as_deref().unwrap_or_default();
        Err(self.wrong(variant, format!("there is no sequence {name:?}")))
    }

    /// Scores the variants of one sequence.
    fn sequence(&mut self, sequence: &Sequence, variants: &[usize]) -> anyhow::Result<()> {
        if variants.is_empty() {
            return Ok(());
        }
        // places are of letters; those of a genome are bytes
        let letters: Vec<char> = sequence.text.chars().collect();
        for some in variants.chunks(TOGETHER) {
            let mut changes = Vec::new();
            for &i in some {
                changes.extend(self.changes(&self.list[i], &letters)?);
            }
            let strands = changes.len() / some.len();
            let scores = self.scorer.changes(&changes)?;
            for (&i, scores) in some.iter().zip(scores.chunks(strands)) {
                self.scores[i] = Some(scores.iter().sum::<f64>() / strands as f64);
            }
            self.bar.inc(some.len() as u64);
            self.print()?;
            if self.bar.is_hidden() && self.pace.is_due(0.0) {
                say!("{} of {} scored", self.bar.position(), counted(self.list.len(), "variant"));
            }
        }
        Ok(())
    }

    /// The change of a variant, on one strand or on both.
    fn changes(&self, variant: &Variant, letters: &[char]) -> anyhow::Result<Vec<Change>> {
        for letter in &variant.changes {
            let Some(found) = letters.get(letter.position - 1) else {
                let len = letters.len();
                return Err(self.wrong(variant, format!("the sequence ends at {len}")));
            };
            if !found.eq_ignore_ascii_case(&letter.reference) {
                let (position, expected) = (letter.position, letter.reference);
                return Err(self.wrong(
                    variant,
                    format!("expected {expected} at {position} of the sequence, found {found}"),
                ));
            }
        }
        let window = self.window(variant, letters.len())?;
        let place = |letter: &Letter| letter.position - 1 - window.start;
        let places = variant.changes.iter().map(|letter| (place(letter), letter.alternative));
        let (text, places) = (&letters[window.clone()], places.collect::<Vec<_>>());
        let forward = self.change(variant, text, &places)?;
        if !self.both_strands {
            return Ok(vec![forward]);
        }
        let turned: Vec<char> = text.iter().rev().map(|&c| complement(c)).collect();
        let last = text.len() - 1;
        let places = places.iter().rev().map(|&(place, c)| (last - place, complement(c)));
        let backward = self.change(variant, &turned, &places.collect::<Vec<_>>())?;
        Ok(vec![forward, backward])
    }

    /// The letters around the changes that the model gets: fewer at the ends of the sequence.
    fn window(&self, variant: &Variant, len: usize) -> anyhow::Result<Range<usize>> {
        let Some(size) = self.window else { return Ok(0..len) };
        let positions = variant.changes.iter().map(|letter| letter.position - 1);
        let (first, last) = (positions.clone().min().unwrap_or(0), positions.max().unwrap_or(0));
        if last - first >= size {
            return Err(
                self.wrong(variant, format!("its places do not lie in a --window of {size}"))
            );
        }
        // one place lies in the middle, at size / 2
        let middle = first + (last - first) / 2;
        let end = middle.saturating_add(size - size / 2).max(last + 1).min(len);
        Ok(middle.saturating_sub(size / 2)..end)
    }

    fn change(
        &self,
        variant: &Variant,
        text: &[char],
        places: &[(usize, char)],
    ) -> anyhow::Result<Change> {
        let ids = self.tokenizer.encode(&text.iter().collect::<String>())?;
        if ids.len() != text.len() {
            let found = counted(ids.len(), "token");
            return Err(self.wrong(
                variant,
                format!(
                    "expected a tokenizer of single letters, found {found} for {} of them",
                    text.len()
                ),
            ));
        }
        let one = |&(place, letter): &(usize, char)| {
            let known = self.tokenizer.encode(letter.encode_utf8(&mut [0; 4]))?;
            match known[..] {
                [id] if self.tokenizer.unknown_id() != Some(id) => Ok((place, id)),
                _ => Err(self.wrong(variant, format!("the model does not know {letter}"))),
            }
        };
        let places = places.iter().map(one).collect::<anyhow::Result<_>>()?;
        Ok(Change { ids, places })
    }

    /// Prints what is known and in turn.
    fn print(&mut self) -> anyhow::Result<()> {
        while let Some(&Some(score)) = self.scores.get(self.printed) {
            let variant = &self.list[self.printed];
            let (sequence, form) = (variant.sequence.as_deref(), variant.form());
            self.bar.suspend(|| match self.json {
                true => print_line(json!({"sequence": sequence, "variant": form, "score": score})),
                false => {
                    print_line(format_args!("{}\t{form}\t{score:.6}", sequence.unwrap_or("-")))
                }
            })?;
            self.printed += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        self.print()
    }
}

/// The letter of the other strand.
fn complement(letter: char) -> char {
    const PAIRS: [(char, char); 6] =
        [('A', 'T'), ('C', 'G'), ('R', 'Y'), ('K', 'M'), ('B', 'V'), ('D', 'H')];
    let upper = letter.to_ascii_uppercase();
    let other = PAIRS.iter().find_map(|&(a, b)| match upper {
        c if c == a => Some(b),
        c if c == b => Some(a),
        _ => None,
    });
    match other {
        Some(other) if letter.is_ascii_lowercase() => other.to_ascii_lowercase(),
        Some(other) => other,
        None => letter,
    }
}
