//! Comparison of numbers, element by element; for the tests of the library and those beside it.

// not every test needs every part
#![allow(dead_code)]

/// Differences that count as none: `|found − expected| ≤ atol + rtol·|expected|`.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub atol: f64,
    pub rtol: f64,
}

impl Tolerance {
    /// `tolerance` relative to each number, and for numbers near zero relative to the usual one of `expected`
    /// (its root mean square), but to one at most: large neighbours excuse nothing.
    pub fn relative(tolerance: f64, expected: &[f64]) -> Self {
        let squares: f64 = expected.iter().map(|x| x * x).sum();
        let usual = (squares / expected.len().max(1) as f64).sqrt();
        // a NaN stays one, and then nothing is close
        let usual = if usual > 1.0 { 1.0 } else { usual };
        Self { atol: tolerance * usual, rtol: tolerance }
    }
}

/// Compares every number; the error names the worst one. A NaN is close to nothing, an infinity to itself.
pub fn compare(found: &[f64], expected: &[f64], tolerance: Tolerance) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} numbers, expected {}", found.len(), expected.len()));
    }
    let excess = |(a, b): (f64, f64)| {
        let excess = (a - b).abs() - (tolerance.atol + tolerance.rtol * b.abs());
        match a == b && !tolerance.atol.is_nan() {
            true => f64::NEG_INFINITY,
            false if excess.is_nan() => f64::INFINITY,
            false => excess,
        }
    };
    let pairs = || found.iter().copied().zip(expected.iter().copied());
    let wrong = pairs().filter(|&pair| excess(pair) > 0.0).count();
    let worst = pairs().enumerate().max_by(|(_, a), (_, b)| excess(*a).total_cmp(&excess(*b)));
    match worst {
        Some((i, (a, b))) if wrong > 0 => Err(format!(
            "{wrong} of {} numbers differ, most of all [{i}]: {a} instead of {b} ({tolerance:?})",
            found.len()
        )),
        _ => Ok(()),
    }
}
