//! Parameters that a run leaves as they are.

use candle_core::{Tensor, Var};
use glob::Pattern;

use crate::nn::Params;
use crate::{Error, Result};

/// Names that a message gives.
const SHOWN: usize = 8;

/// The parameters of a run, those that its patterns name apart from the others.
pub(super) struct Frozen {
    /// Those that the optimizer trains.
    pub trained: Vec<(String, Var)>,
    /// Frozen statistics of batch norms, which runs change and no optimizer, as they were.
    statistics: Vec<(Var, Tensor)>,
}

/// The pattern of some parameters' names.
pub(super) fn pattern(text: &str) -> Result<Pattern> {
    let wrong = |error: glob::PatternError| {
        let expected = "a pattern of parameters' names, such as 'encoder*'";
        Error::invalid("freeze", expected, format!("{text} ({})", error.msg))
    };
    Pattern::new(text).map_err(wrong)
}

/// For each of the parameters' names, whether a pattern names it.
///
/// # Errors
/// [`Error::Invalid`] for a pattern that names none, and where nothing is left to train.
pub(super) fn frozen(names: &[&str], patterns: &[String]) -> Result<Vec<bool>> {
    let mut frozen = vec![false; names.len()];
    for text in patterns {
        let pattern = pattern(text)?;
        let mut found = false;
        for (frozen, name) in frozen.iter_mut().zip(names) {
            let matches = pattern.matches(name);
            *frozen |= matches;
            found |= matches;
        }
        if !found {
            let some = names[..names.len().min(SHOWN)].join(", ");
            let more = if names.len() > SHOWN { ", …" } else { "" };
            let expected = format!("a pattern of parameters' names, such as {some}{more}");
            return Err(Error::invalid("freeze", expected, text));
        }
    }
    let is_trained = |(name, &frozen): (&&str, &bool)| Params::is_trained(name) && !frozen;
    let expected = "patterns that leave some parameters to train";
    let some = patterns.is_empty() || names.iter().zip(&frozen).any(is_trained);
    Error::require(some, "freeze", expected, patterns.join(" "))?;
    Ok(frozen)
}

impl Frozen {
    /// Those of `params` that `patterns` name.
    ///
    /// # Errors
    /// As [`frozen`].
    pub fn new(params: &Params, patterns: &[String]) -> Result<Self> {
        let all = params.all();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let frozen = frozen(&names, patterns)?;
        let (mut trained, mut statistics) = (Vec::new(), Vec::new());
        for ((name, var), frozen) in all.into_iter().zip(frozen) {
            match (Params::is_trained(&name), frozen) {
                (true, false) => trained.push((name, var)),
                (false, true) => {
                    let kept = var.as_tensor().copy()?;
                    statistics.push((var, kept));
                }
                _ => {}
            }
        }
        Ok(Self { trained, statistics })
    }

    /// Undoes what a run did to frozen statistics.
    pub fn restore(&self) -> Result<()> {
        Ok(self.statistics.iter().try_for_each(|(var, kept)| var.set(kept))?)
    }
}
