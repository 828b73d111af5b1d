//! Flags of several commands.

use std::num::IntErrorKind;
use std::path::Path;

use candle_tcn::LoadedModel;
use candle_tcn::nn::StepDtype;
use candle_tcn::train::Precision;
use clap::ValueEnum;

use crate::{kernel, usage_error};

/// A number and what it counts, in the plural where it is not one.
pub fn counted(number: impl std::fmt::Display, thing: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// The first `most` names in a list, and a sign of more.
pub fn first_of(names: impl ExactSizeIterator<Item = String>, most: usize) -> String {
    let more = if names.len() > most { ", …" } else { "" };
    names.take(most).collect::<Vec<_>>().join(", ") + more
}

/// A text in quotes, with the code points of what is not ASCII: é may be one character (U+00E9) or two (U+0065
/// U+0301), and looks the same.
pub fn with_code_points(text: &str) -> String {
    let points: Vec<_> = text.chars().map(|c| format!("U+{:04X}", u32::from(c))).collect();
    match text.is_ascii() {
        true => format!("{text:?}"),
        false => format!("\"{text}\" ({})", points.join(" ")),
    }
}

/// `\n`, `\t`, `\r`, `\\` and `\u{E9}` as what they mean; another backslash is one.
pub fn unescaped(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let (c, used) = match after.chars().next() {
            Some('n') => ('\n', 1),
            Some('t') => ('\t', 1),
            Some('r') => ('\r', 1),
            Some('\\') => ('\\', 1),
            Some('u') if after[1..].starts_with('{') => {
                let (code, _) = after[2..].split_once('}').unwrap_or_default();
                let c = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
                let wrong = || format!("expected a code point such as \\u{{E9}}, found \\{after}");
                (c.ok_or_else(wrong)?, code.len() + 3)
            }
            _ => ('\\', 0),
        };
        plain.push(c);
        rest = &after[used..];
    }
    Ok(plain + rest)
}

/// A number of at least 1. What is too large is found where it is used.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(value) if value > 0 => Ok(value),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("expected a whole number of at most {}", usize::MAX))
        }
        _ => Err("expected a whole number of at least 1".into()),
    }
}

/// Refuses the first of some flags that is given without what it goes with.
pub fn expect_together(flags: &[(&str, bool, &str)]) -> anyhow::Result<()> {
    match flags.iter().find(|(_, is_alone, _)| *is_alone) {
        Some((flag, _, others)) => bail_usage!("{flag}: expected together with {others}"),
        None => Ok(()),
    }
}

/// Refuses a file to write that has no folder to lie in, before long work rather than after it.
pub fn expect_folder(flag: &str, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Some(missing) = folder.filter(|folder| !folder.is_dir()) else {
        match path.is_dir() {
            true => bail_usage!("{flag}: {} is a folder; expected a file", path.display()),
            false => return Ok(()),
        }
    };
    bail_usage!("{flag}: there is no folder {}", missing.display())
}

/// Refuses to write over a file that exists, unless `force`. Devices and pipes hold nothing to lose.
pub fn refuse_existing(flag: &str, path: &Path, force: bool) -> anyhow::Result<()> {
    let holds_something = |found: std::fs::Metadata| found.is_file() || found.is_dir();
    if !force && std::fs::metadata(path).is_ok_and(holds_something) {
        bail_usage!(
            "{flag}: {} exists; choose another, or replace it with --force",
            path.display()
        );
    }
    Ok(())
}

/// `--dtype`: a number format.
#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// bf16 where the processor multiplies it (AVX512-BF16, AMX), f32 elsewhere; int8 for generation from
    /// weights that are stored so
    Auto,
    /// 32 bits
    F32,
    /// 16 bits; sums have 32
    Bf16,
    /// weights of 8 bits, with a scale for each output channel; what goes into them has 8 bits too where that
    /// loses no more than 0.01 bits per token, else 16
    Int8,
}

/// `--dtype` where whole sequences are computed.
#[derive(Clone, Copy, ValueEnum)]
pub enum WholeDtype {
    /// bf16 where the processor multiplies it (AVX512-BF16, AMX), f32 elsewhere
    Auto,
    /// 32 bits
    F32,
    /// 16 bits; sums have 32
    Bf16,
}

impl WholeDtype {
    pub fn precision(self) -> Precision {
        match self {
            Self::Auto => Precision::auto(kernel::chosen()),
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }
}

impl Dtype {
    /// The type that steps are computed in.
    pub fn step(self) -> StepDtype {
        match (self, Precision::auto(kernel::chosen())) {
            (Self::Auto, Precision::F32) | (Self::F32, _) => StepDtype::F32,
            (Self::Auto, Precision::Bf16) | (Self::Bf16, _) => StepDtype::Bf16,
            (Self::Int8, _) => StepDtype::Int8,
        }
    }

    /// As [`step`](Self::step), for a model whose weights may be stored as int8.
    pub fn step_of(self, loaded: &LoadedModel) -> StepDtype {
        match (self, loaded.int8) {
            (Self::Auto, true) => StepDtype::Int8,
            _ => self.step(),
        }
    }

    /// The type that whole sequences are computed in.
    pub fn precision(self) -> anyhow::Result<Precision> {
        match self.step() {
            StepDtype::F32 => Ok(Precision::F32),
            StepDtype::Bf16 => Ok(Precision::Bf16),
            StepDtype::Int8 => Err(usage_error(
                "--dtype: expected auto, f32 or bf16 where whole sequences are computed, found int8",
            )),
        }
    }
}
