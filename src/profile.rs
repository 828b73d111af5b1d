//! Where the time goes: seconds by part of the work.
//!
//! A [`span`] books the time until it is dropped. Spans belong around whole passes, threads included, on
//! the thread that waits for them. They may lie in one another: the outer one stops while the inner one
//! runs, so that the times add up to what passed. While nobody profiles, a span is one relaxed load.
//!
//! # Example
//!
//! ```
//! use std::time::{Duration, Instant};
//! use candle_tcn::profile::{self, Part};
//!
//! let start = Instant::now();
//! profile::enable();
//! {
//!     let _norm = profile::span(Part::Norm);
//!     let _loss = profile::span(Part::Loss);
//!     std::thread::sleep(Duration::from_millis(2));
//! }
//! profile::disable();
//! let report = profile::report();
//! assert!(report.iter().any(|&(part, time)| part == Part::Loss && time.as_millis() >= 2));
//! assert!(report.iter().map(|(_, time)| *time).sum::<Duration>() <= start.elapsed());
//! ```

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Part {
    /// Products of a forward pass.
    Forward,
    /// Products that give the gradient of a layer's input.
    GradInput,
    /// Products that give the gradient of a layer's weight.
    GradWeight,
    /// Number by number: activations, gates, dropout, sums, and their gradients.
    Elementwise,
    /// Normalisation of activations and of weights, and its gradients.
    Norm,
    /// The loss and its gradient.
    Loss,
    /// Gradient norm, clipping and update.
    Optimizer,
}

impl Part {
    /// Every part, in the order of [`report`].
    pub const ALL: [Self; 7] = [
        Self::Forward,
        Self::GradInput,
        Self::GradWeight,
        Self::Elementwise,
        Self::Norm,
        Self::Loss,
        Self::Optimizer,
    ];

    /// A name such as `grad_input`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::GradInput => "grad_input",
            Self::GradWeight => "grad_weight",
            Self::Elementwise => "elementwise",
            Self::Norm => "norm",
            Self::Loss => "loss",
            Self::Optimizer => "optimizer",
        }
    }
}

/// The part that an operation of this name belongs to.
pub(crate) fn part_of(operation: &str) -> Part {
    match operation {
        "dilated-conv1d" => Part::Forward,
        "dilated-conv1d-grad-input" => Part::GradInput,
        "dilated-conv1d-grad-weight" => Part::GradWeight,
        name if name.contains("norm") => Part::Norm,
        name if name.starts_with("cross-entropy") => Part::Loss,
        _ => Part::Elementwise,
    }
}

static ENABLED: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: [AtomicU64; Part::ALL.len()] = [const { AtomicU64::new(0) }; Part::ALL.len()];

thread_local! {
    /// What this thread is in, and since when.
    static CURRENT: Cell<Option<(Part, Instant)>> = const { Cell::new(None) };
}

/// Sets all times to zero and begins to measure, in the whole process.
pub fn enable() {
    for part in &NANOSECONDS {
        part.store(0, Ordering::Relaxed);
    }
    ENABLED.store(true, Ordering::Relaxed);
}

/// Ends measuring; [`report`] keeps its times.
pub fn disable() {
    ENABLED.store(false, Ordering::Relaxed);
}

/// The time of each part since [`enable`], in the order of [`Part::ALL`]; what no span covers is in none.
/// Parts that run on several threads at once count once for each.
pub fn report() -> [(Part, Duration); Part::ALL.len()] {
    Part::ALL.map(|part| {
        let nanoseconds = NANOSECONDS[part as usize].load(Ordering::Relaxed);
        (part, Duration::from_nanos(nanoseconds))
    })
}

/// The time until the value is dropped belongs to `part`.
#[inline]
pub fn span(part: Part) -> Span {
    Span {
        outer: ENABLED.load(Ordering::Relaxed).then(|| switch_to(Some(part))),
        this_thread: PhantomData,
    }
}

/// A stretch of time that belongs to a part; see [`span`].
#[derive(Debug)]
#[must_use = "a span ends where it is dropped"]
pub struct Span {
    /// The part to return to, if any; nothing at all where nobody profiles.
    outer: Option<Option<Part>>,
    /// It ends on the thread that it began on.
    this_thread: PhantomData<*const ()>,
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(outer) = self.outer {
            switch_to(outer);
        }
    }
}

/// Books what ran until now, which is returned, and begins `part`.
fn switch_to(part: Option<Part>) -> Option<Part> {
    let now = Instant::now();
    let (before, since) = CURRENT.replace(part.map(|part| (part, now)))?;
    let passed = u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX);
    NANOSECONDS[before as usize].fetch_add(passed, Ordering::Relaxed);
    Some(before)
}
