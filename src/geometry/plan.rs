//! The inverse question: which stacks reach a wanted context, and what they cost.

use super::{Growth, MAX_FIELD, at_least_one};
use crate::{Error, Result};
use serde::Serialize;
use std::ops::RangeInclusive;

/// The most kernel sizes times stacks that one search may try.
const MAX_CANDIDATES: usize = 4096;

/// The plans that [`plan`] searches, and the width by which it counts parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Input and output channels of every convolution.
    pub channels: usize,
    /// Convolutions in series for each dilation.
    pub convs_per_block: usize,
    /// The kernel sizes to try.
    pub kernel_sizes: RangeInclusive<usize>,
    /// The most repetitions of the doubling dilations to try.
    pub max_stacks: usize,
    /// The most plans to return.
    pub limit: usize,
}

impl Default for PlanOptions {
    /// 128 channels, one convolution a block, kernels 2 to 9, up to 4 stacks, 10 plans.
    fn default() -> Self {
        Self { channels: 128, convs_per_block: 1, kernel_sizes: 2..=9, max_stacks: 4, limit: 10 }
    }
}

/// A stack that reaches the wanted context: `stacks` times the dilations 1, 2, 4, …
///
/// It has no holes: with kernels of two taps or more, each doubling fills the gap that the
/// larger dilation would leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Taps of every convolution.
    pub kernel_size: usize,
    /// Blocks in one stack.
    pub levels: usize,
    /// Repetitions of the stack.
    pub stacks: usize,
    /// The dilations of one stack: 1, 2, …, `2 ^ (levels − 1)`.
    pub dilations: Vec<usize>,
    /// Steps that it reaches, the current one included.
    pub receptive_field: usize,
    /// Convolutions in all.
    pub layers: usize,
    /// Parameters of the convolutions: `layers · channels · (channels · kernel_size + 1)`.
    pub parameters: usize,
}

impl Plan {
    /// The fewest levels with which `kernel_size` and `stacks` reach `at_least` steps; `None`
    /// where a number overflows first.
    fn smallest(
        at_least: usize,
        kernel_size: usize,
        stacks: usize,
        options: &PlanOptions,
    ) -> Option<Self> {
        let convs = options.convs_per_block.checked_mul(stacks)?;
        let unit = convs.checked_mul(kernel_size.checked_sub(1)?)?;
        let field = |levels| {
            let dilations = 1usize.checked_shl(levels)?.checked_sub(1)?;
            let field = unit.checked_mul(dilations)?.checked_add(1)?;
            (field <= MAX_FIELD).then_some(field)
        };
        let (levels, receptive_field) = (1..usize::BITS)
            .map_while(|levels| Some((levels, field(levels)?)))
            .find(|&(_, field)| field >= at_least)?;
        let levels = levels as usize;
        let layers = convs.checked_mul(levels)?;
        let taps = options.channels.checked_mul(kernel_size)?.checked_add(1)?;
        let parameters = layers.checked_mul(options.channels)?.checked_mul(taps)?;
        Some(Self {
            kernel_size,
            levels,
            stacks,
            dilations: Growth::new(2, levels).expand().ok()?,
            receptive_field,
            layers,
            parameters,
        })
    }

    /// `true` if `other` makes this plan pointless: as often repeated, neither dearer nor deeper,
    /// and better in one of the two.
    fn is_beaten_by(&self, other: &Self) -> bool {
        self.stacks == other.stacks
            && other.parameters <= self.parameters
            && other.layers <= self.layers
            && (other.parameters, other.layers) != (self.parameters, self.layers)
    }
}

/// The stacks of doubling dilations whose receptive field is at least `at_least` steps, cheapest
/// first by parameters.
///
/// For each kernel size and number of stacks the fewest levels are taken. A plan is left out where
/// another with as many stacks has no more parameters and no more layers. (More stacks cost more
/// for the same field; they buy depth at every dilation.) The order is the same in every run:
/// parameters, then layers, kernel size and stacks.
///
/// # Errors
///
/// [`Error::Invalid`] where `at_least` or an option is 0 or no kernel of two taps is among
/// `kernel_sizes`; [`Error::TooLarge`] where the numbers of every plan overflow, or where the
/// options ask for more than 4096 kernel sizes times stacks.
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::{PlanOptions, plan};
/// let plans = plan(16, &PlanOptions { channels: 10, ..Default::default() })?;
/// // kernel 2 at dilations 1, 2, 4, 8: 1 + 15 steps; 4 layers of 10 · 10 · 2 weights, 10 biases
/// assert_eq!(plans[0].kernel_size, 2);
/// assert_eq!(plans[0].dilations, [1, 2, 4, 8]);
/// assert_eq!((plans[0].receptive_field, plans[0].parameters), (16, 840));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn plan(at_least: usize, options: &PlanOptions) -> Result<Vec<Plan>> {
    at_least_one("the wanted context", at_least)?;
    at_least_one("channels", options.channels)?;
    at_least_one("convs_per_block", options.convs_per_block)?;
    at_least_one("max_stacks", options.max_stacks)?;
    let mut plans: Vec<Plan> = candidates(options)?
        .filter_map(|(kernel_size, stacks)| Plan::smallest(at_least, kernel_size, stacks, options))
        .collect();
    if plans.is_empty() {
        return Err(Error::too_large(
            "every stack that reaches the wanted context",
            format!(
                "{at_least} steps with {} channels and {} convolutions a block overflow; lower \
                 one of them",
                options.channels, options.convs_per_block
            ),
        ));
    }
    plans.sort_by_key(|plan| (plan.parameters, plan.layers, plan.kernel_size, plan.stacks));
    let beaten: Vec<bool> =
        plans.iter().map(|plan| plans.iter().any(|other| plan.is_beaten_by(other))).collect();
    let best = plans.into_iter().zip(beaten);
    let best = best.filter_map(|(plan, beaten)| (!beaten).then_some(plan));
    Ok(best.take(options.limit).collect())
}

/// Every kernel size with every number of stacks.
fn candidates(options: &PlanOptions) -> Result<impl Iterator<Item = (usize, usize)>> {
    let (smallest, largest) = (*options.kernel_sizes.start(), *options.kernel_sizes.end());
    if smallest < 2 || largest < smallest {
        return Err(Error::invalid(
            "kernel_size",
            "at least 2, as a single tap reaches no other step",
            smallest.min(largest),
        ));
    }
    let stacks = options.max_stacks;
    let count = (largest - smallest).checked_add(1);
    let count = count.and_then(|kernels| kernels.checked_mul(stacks));
    if count.is_none_or(|count| count > MAX_CANDIDATES) {
        return Err(Error::too_large(
            "the search",
            format!(
                "kernel sizes {smallest} to {largest} times {stacks} stacks; at most \
                 {MAX_CANDIDATES} together"
            ),
        ));
    }
    Ok((smallest..=largest).flat_map(move |size| (1..=stacks).map(move |n| (size, n))))
}
