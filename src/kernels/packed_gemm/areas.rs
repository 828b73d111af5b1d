//! Taps that share packed rows.

use std::ops::Range;

use super::super::conv::AxisMap;

/// The taps of one axis by what they read: those of a part share positions, and the first of a part, its leader,
/// reads each position last.
struct Parts {
    /// The leader of each part.
    leaders: Vec<usize>,
    /// Of each tap: its part, and how many results later the leader reads the same.
    taps: Vec<(usize, usize)>,
}

impl Parts {
    /// Those of `axis`; every tap is a part by itself where rows are not `shared`.
    fn new(axis: &AxisMap, shared: bool) -> Self {
        if !shared {
            let taps = (0..axis.taps).map(|tap| (tap, 0)).collect();
            return Self { leaders: (0..axis.taps).collect(), taps };
        }
        let step = axis.step.unsigned_abs();
        // so many taps further on, positions have the same remainder
        let cycle = (1..axis.stride).find(|taps| (taps * step).is_multiple_of(axis.stride));
        let cycle = cycle.unwrap_or(axis.stride);
        // counted from the tap that reads the lowest positions
        let from_lowest = |tap: usize| if axis.step < 0 { axis.taps - 1 - tap } else { tap };
        let later = |tap: usize| from_lowest(tap) / cycle * cycle * step / axis.stride;
        Self {
            leaders: (0..cycle.min(axis.taps)).map(from_lowest).collect(),
            taps: (0..axis.taps).map(|tap| (from_lowest(tap) % cycle, later(tap))).collect(),
        }
    }

    /// Most results that a leader reads the same later.
    fn reach(&self) -> usize {
        self.taps.iter().map(|&(_, later)| later).max().unwrap_or(0)
    }

    /// The results, or places beyond the last, at which a leader reads anything.
    fn real(&self, axis: &AxisMap) -> Range<usize> {
        let all = 0..axis.out + self.reach();
        let leaders = self.leaders.iter();
        let readers = leaders.map(|&leader| axis.readers(leader, axis.positions(), &all));
        let read = readers.filter(|readers| !readers.is_empty());
        let hull = read.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        hull.unwrap_or(0..0)
    }
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
        let (m, n) = (Parts::new(lines, shared.0), Parts::new(columns, shared.1));
        let pairs = m.leaders.iter().flat_map(|&m| n.leaders.iter().map(move |&n| (m, n)));
        let leaders = pairs.collect();
        let mut taps = Vec::with_capacity(m.taps.len() * n.taps.len());
        for &(line_part, lines) in &m.taps {
            for &(column_part, columns) in &n.taps {
                let area = line_part * n.leaders.len() + column_part;
                taps.push(SharedTap { area, lines, columns });
            }
        }
        let reach = (m.reach(), n.reach());
        Self { leaders, taps, reach, real: (m.real(lines), n.real(columns)) }
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
                for shared in [true, false] {
                    let parts = Parts::new(&map, shared);
                    for (tap, &(part, later)) in parts.taps.iter().enumerate() {
                        for r in 0..map.out {
                            let leader = parts.leaders[part];
                            prop_assert_eq!(map.read(tap, r), map.read(leader, r + later));
                        }
                    }
                }
            }
        }
    }
}
