//! Seconds of work by its parts.
//!
//! Inside [`record`], a [`span`] books the time until it is dropped. Spans belong around whole passes, threads
//! included, on the thread that waits for them: the one that called [`record`]. They may lie in one another: the
//! outer one stops while the inner one runs, so that the times add up to what passed. Outside of [`record`], a span
//! is one look at a variable of the thread.
//!
//! # Example
//!
//! ```
//! use std::time::{Duration, Instant};
//! use candle_tcn::ops::profile::{self, Part};
//!
//! let start = Instant::now();
//! let (answer, report) = profile::record(|| {
//!     let _norm = profile::span(Part::Norm);
//!     let _loss = profile::span(Part::Loss);
//!     std::thread::sleep(Duration::from_millis(2));
//!     42
//! });
//! assert_eq!(answer, 42);
//! assert!(report.iter().any(|&(part, time)| part == Part::Loss && time.as_millis() >= 2));
//! assert!(report.iter().map(|(_, time)| *time).sum::<Duration>() <= start.elapsed());
//! ```

use std::cell::Cell;
use std::marker::PhantomData;
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
    /// Every part, in the order of a [`PartTimes`].
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
        "convolution" | "conv-transpose1d" => Part::Forward,
        name if name.contains("norm") => Part::Norm,
        name if name.starts_with("cross-entropy") => Part::Loss,
        _ => Part::Elementwise,
    }
}

/// The time of each part, in the order of [`Part::ALL`]; time that no span covers is in none.
pub type PartTimes = [(Part, Duration); Part::ALL.len()];

/// Times of a recording under way.
#[derive(Clone, Copy)]
struct Times {
    parts: [Duration; Part::ALL.len()],
    /// The part of the innermost span, and since when.
    current: Option<(Part, Instant)>,
}

thread_local! {
    /// `None` where nobody records.
    static TIMES: Cell<Option<Times>> = const { Cell::new(None) };
}

/// Runs `work`, and tells the time of each of its parts on this thread. A recording inside of another one takes its
/// times for itself.
pub fn record<T>(work: impl FnOnce() -> T) -> (T, PartTimes) {
    /// Ends the recording, also where `work` panics.
    struct Outer(Option<Times>);
    impl Drop for Outer {
        fn drop(&mut self) {
            TIMES.set(self.0);
        }
    }
    let start = Times { parts: Default::default(), current: None };
    let outer = Outer(TIMES.replace(Some(start)));
    let result = work();
    let times = TIMES.get().unwrap_or(start);
    drop(outer);
    (result, Part::ALL.map(|part| (part, times.parts[part as usize])))
}

/// The time until the value is dropped belongs to `part`.
#[inline]
pub fn span(part: Part) -> PartTimer {
    PartTimer {
        outer: TIMES.get().map(|times| times.switch_to(Some(part))),
        this_thread: PhantomData,
    }
}

/// A stretch of time that belongs to a part; see [`span`].
#[derive(Debug)]
#[must_use = "a span ends where it is dropped"]
pub struct PartTimer {
    /// The part to return to, if any; `None` where nobody records.
    outer: Option<Option<Part>>,
    /// It ends on the thread that it began on.
    this_thread: PhantomData<*const ()>,
}

impl Drop for PartTimer {
    #[inline]
    fn drop(&mut self) {
        if let (Some(outer), Some(times)) = (self.outer, TIMES.get()) {
            times.switch_to(outer);
        }
    }
}

impl Times {
    /// Books the time until now to the current part, which is returned, and begins `part`.
    fn switch_to(mut self, part: Option<Part>) -> Option<Part> {
        let now = Instant::now();
        let before = self.current.take();
        if let Some((before, since)) = before {
            self.parts[before as usize] += now - since;
        }
        self.current = part.map(|part| (part, now));
        TIMES.set(Some(self));
        before.map(|(part, _)| part)
    }
}
