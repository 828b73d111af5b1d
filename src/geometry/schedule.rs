//! Dilation schedules: which dilation each block of a stack has.

use super::{MAX_LAYERS, at_least_one, layer_count};
use crate::{Error, Result};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The dilations of a stack's blocks, from the input on.
///
/// In a configuration file it is an array, or an object with the fields of [`Growth`]:
/// `[1, 2, 4]` and `{"base": 2, "levels": 3}` say the same.
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::Dilations;
/// let listed: Dilations = serde_json::from_str("[1, 2, 4]")?;
/// let grown: Dilations = serde_json::from_str(r#"{"base": 2, "levels": 3, "stacks": 2}"#)?;
/// assert_eq!(listed.expand()?, [1, 2, 4]);
/// assert_eq!(grown.expand()?, [1, 2, 4, 1, 2, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Dilations {
    /// One number for each block.
    List(Vec<usize>),
    /// Powers of a base.
    Growth(Growth),
}

/// Dilations that grow by powers: block `i` of each of the `stacks` repetitions has the dilation
/// `min(max, base ^ (i mod reset_every))`, for `i` from 0 to `levels − 1`.
///
/// # References
///
/// WaveNet (arXiv:1609.03499, section 2.1) repeats 1, 2, …, 512; GPN's
/// `min(dilation_max, base ^ (i mod dilation_cycle))` is `max` and `reset_every`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// Factor from one block's dilation to the next; 1 keeps it at 1.
    #[serde(default = "two")]
    pub base: usize,
    /// Blocks in one stack.
    pub levels: usize,
    /// Repetitions of the stack.
    #[serde(default = "one")]
    pub stacks: usize,
    /// Blocks after which the dilation begins again at 1; without it, only with the next stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_every: Option<usize>,
    /// The largest dilation; greater powers are cut to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

impl Growth {
    /// `levels` dilations 1, `base`, `base`², …, once, with no reset and no maximum.
    pub fn new(base: usize, levels: usize) -> Self {
        Self { base, levels, stacks: 1, reset_every: None, max: None }
    }

    pub(super) fn expand(&self) -> Result<Vec<usize>> {
        let base = at_least_one("dilations.base", self.base)?;
        let levels = at_least_one("dilations.levels", self.levels)?;
        let stacks = at_least_one("dilations.stacks", self.stacks)?;
        let period = at_least_one("dilations.reset_every", self.reset_every.unwrap_or(levels))?;
        let max = self.max.map(|max| at_least_one("dilations.max", max)).transpose()?;
        let count = layer_count(levels, stacks)?;
        (0..count)
            .map(|block| {
                let exponent = block % levels % period;
                power(base, exponent, max).ok_or_else(|| {
                    Error::too_large(
                        "the dilation",
                        format!(
                            "{base} to the power of {exponent} overflows; lower dilations.levels \
                             or set dilations.max or dilations.reset_every"
                        ),
                    )
                })
            })
            .collect()
    }
}

/// `min(max, base ^ exponent)`; none where that overflows and no maximum cuts it.
fn power(base: usize, exponent: usize, max: Option<usize>) -> Option<usize> {
    let exponent = u32::try_from(exponent).ok()?;
    match max {
        Some(max) => Some(base.saturating_pow(exponent).min(max)),
        None => base.checked_pow(exponent),
    }
}

impl Dilations {
    /// One dilation for each block, from the input on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an empty list and for a 0 anywhere; [`Error::TooLarge`] where a
    /// power overflows or there are more than [`MAX_LAYERS`] blocks.
    pub fn expand(&self) -> Result<Vec<usize>> {
        match self {
            Self::List(list) if list.is_empty() => {
                Err(Error::invalid("dilations", "at least one", "an empty list"))
            }
            Self::List(list) if list.len() > MAX_LAYERS => Err(Error::too_large(
                "the list of dilations",
                format!("{} entries; at most {MAX_LAYERS} are supported", list.len()),
            )),
            Self::List(list) => {
                list.iter().map(|&dilation| at_least_one("dilation", dilation)).collect()
            }
            Self::Growth(growth) => growth.expand(),
        }
    }
}

/// By hand rather than `untagged`, so that an error names the field that is wrong.
impl<'de> Deserialize<'de> for Dilations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Dilations;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of dilations, or an object with base and levels")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Dilations, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Dilations::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dilations, A::Error> {
                Growth::deserialize(MapAccessDeserializer::new(map)).map(Dilations::Growth)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
