//! Taps that share packed rows.

use std::ops::Range;

use super::super::conv::AxisMap;

/// The tap that reads what `tap` reads, some results later: the one that reads each position last.
fn leader(axis: &AxisMap, tap: usize) -> usize {
    let step = axis.step.unsigned_abs();
    // so many taps further on, positions have the same remainder
    let cycle = (1..axis.stride).find(|taps| (taps * step).is_multiple_of(axis.stride));
    let cycle = cycle.unwrap_or(axis.stride);
    match axis.step < 0 {
        true => tap + (axis.taps - 1 - tap) / cycle * cycle,
        false => tap % cycle,
    }
}

/// Each tap's leader, itself where rows are not shared, and how many results later that reads the same.
fn leaders(axis: &AxisMap, shared: bool) -> Vec<(usize, usize)> {
    let lag =
        |tap: usize, leader: usize| tap.abs_diff(leader) * axis.step.unsigned_abs() / axis.stride;
    let leader = |tap| if shared { leader(axis, tap) } else { tap };
    (0..axis.taps).map(|tap| (leader(tap), lag(tap, leader(tap)))).collect()
}

/// A tap as one of those that share packed rows: its area, and how many lines and columns further on it reads
/// what the area's leader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedTap {
    pub area: usize,
    pub lines: usize,
    pub columns: usize,
}

/// The taps by areas: those of an area read the rows that its leader reads, so that these are packed once.
#[derive(Debug)]
pub struct Areas {
    /// The line and the column tap that leads each area.
    pub leaders: Vec<(usize, usize)>,
    /// Every tap.
    pub taps: Vec<SharedTap>,
    /// Most lines and columns that a tap reads further on.
    pub reach: (usize, usize),
    /// The results, or places beyond the last, at which a leader reads anything: lines and columns.
    pub real: (Range<usize>, Range<usize>),
}

impl Areas {
    /// The taps by areas, in which lines and columns are `shared` or not.
    pub fn new(lines: &AxisMap, columns: &AxisMap, shared: (bool, bool)) -> Self {
        let maps = (lines, columns);
        let (lines, columns) = (leaders(lines, shared.0), leaders(columns, shared.1));
        let mut leaders: Vec<(usize, usize)> = Vec::new();
        let mut taps = Vec::with_capacity(lines.len() * columns.len());
        for &(m, later_lines) in &lines {
            for &(n, later_columns) in &columns {
                let found = leaders.iter().position(|&leader| leader == (m, n));
                let area = found.unwrap_or(leaders.len());
                if found.is_none() {
                    leaders.push((m, n));
                }
                taps.push(SharedTap { area, lines: later_lines, columns: later_columns });
            }
        }
        let reach = (
            taps.iter().map(|tap| tap.lines).max().unwrap_or(0),
            taps.iter().map(|tap| tap.columns).max().unwrap_or(0),
        );
        let hull = |axis: &AxisMap, reach: usize, taps: &[(usize, usize)]| {
            let readers = taps
                .iter()
                .map(|&(leader, _)| axis.readers(leader, axis.positions(), &(0..axis.out + reach)));
            let read = readers.filter(|readers| !readers.is_empty());
            let hull = read.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
            hull.unwrap_or(0..0)
        };
        let real = (hull(maps.0, reach.0, &lines), hull(maps.1, reach.1, &columns));
        Self { leaders, taps, reach, real }
    }

    /// Rows from line to line with which, at the least, no tap of a line reads a neighbour's rows: zeros between
    /// two lines serve both.
    pub fn pitch(&self, columns: &AxisMap) -> usize {
        let real = &self.real.1;
        columns.out.max(real.end).max((columns.out + self.reach.1).saturating_sub(real.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::Axis;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        #[test]
        fn leaders_read_what_their_taps_read(
            (in_len, out_len, kernel_size) in (1usize..12, 1usize..12, 1usize..5),
            (dilation, stride, pad_before) in (1usize..5, 1usize..5, 0usize..12),
            history in 0usize..6,
        ) {
            let axis = Axis { in_len, out_len, kernel_size, dilation, stride, pad_before };
            for map in [AxisMap::forward(&axis, history), AxisMap::backward(&axis)] {
                for (tap, (leader, lag)) in leaders(&map, true).into_iter().enumerate() {
                    for r in 0..map.out {
                        prop_assert_eq!(map.read(tap, r), map.read(leader, r + lag));
                    }
                }
            }
        }
    }
}
