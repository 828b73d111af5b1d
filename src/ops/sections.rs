//! Parts of sequences that know nothing of each other: documents that stand one after the other.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use num_traits::Zero;

use crate::kernels::conv::ConvShape;
use crate::{Error, Result};

/// A part of a group is at least so long, as a fraction of the longest: what fills up costs as much as what counts.
const FILL: (usize, usize) = (2, 3);

/// Steps of some sequences that no tap leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// More than one where they are not cut.
    pub sequences: Range<usize>,
    pub steps: Range<usize>,
    /// It goes on from what was carried over.
    pub continues: bool,
}

/// The sections of a batch, in the order of its rows. A convolution applies to each of them as if it were alone.
#[derive(Debug, Clone)]
pub(crate) struct Sections(Arc<[Section]>);

impl Sections {
    /// The sections of sequences of `time` token ids, in which each `restart` begins one; `None` where there is no
    /// `restart`.
    pub fn of(ids: &[u32], time: usize, restart: u32) -> Option<Self> {
        if !ids.contains(&restart) {
            return None;
        }
        let mut sections: Vec<Section> = Vec::new();
        for (sequence, ids) in ids.chunks_exact(time).enumerate() {
            let starts = (1..time).filter(|&step| ids[step] == restart);
            let mut start = 0;
            for end in starts.chain([time]) {
                let continues = start == 0 && ids[0] != restart;
                let section =
                    Section { sequences: sequence..sequence + 1, steps: start..end, continues };
                match sections.last_mut() {
                    // uncut sequences are a batch
                    Some(last)
                        if section.steps.len() == time
                            && last.steps.len() == time
                            && last.continues == continues =>
                    {
                        last.sequences.end += 1;
                    }
                    _ => sections.push(section),
                }
                start = end;
            }
        }
        Some(Self(sections.into()))
    }

    /// For each sequence the step at which its last section begins, where it begins within these steps.
    pub fn last_starts(&self) -> Vec<Option<usize>> {
        let mut starts = Vec::new();
        for section in &*self.0 {
            starts.resize(section.sequences.end, None);
            let start = (!section.continues).then_some(section.steps.start);
            starts[section.sequences.clone()].fill(start);
        }
        starts
    }

    pub fn iter(&self) -> impl Iterator<Item = &Section> {
        self.0.iter()
    }
}

/// Sections that go through a convolution as one batch: uncut sequences as they lie there, or parts of similar lengths,
/// filled up with zero steps, which is what a part alone has behind its end.
#[derive(Debug, Clone)]
pub(super) struct SectionGroup {
    pub shape: ConvShape,
    /// Rows of each part; a single range where they lie together, none where nothing is cut.
    rows: Vec<Range<usize>>,
    /// Numbers of the sequences, where they go on from what was carried over.
    sequences: Vec<usize>,
}

/// The convolutions that one of `shape` falls into.
pub(super) fn groups(shape: &ConvShape, sections: Option<&Sections>) -> Vec<SectionGroup> {
    let Some(sections) = sections else {
        let sequences = (0..shape.batch).collect();
        return vec![SectionGroup { shape: *shape, rows: Vec::new(), sequences }];
    };
    let time = shape.width.in_len;
    let group = |some: &[&Section]| {
        let (first, len) = (some[0], some[0].steps.len());
        let mut shape = *shape;
        shape.batch = some.iter().map(|section| section.sequences.len()).sum();
        (shape.width.in_len, shape.width.out_len) = (len, len);
        shape.history *= usize::from(first.continues);
        let place = |section: &&Section| {
            let first = section.sequences.start * time + section.steps.start;
            first..first + section.sequences.len() * section.steps.len()
        };
        let rows = some.iter().map(place).collect();
        let sequences = some.iter().flat_map(|section| section.sequences.clone()).collect();
        SectionGroup { shape, rows, sequences }
    };
    let (uncut, mut cut): (Vec<_>, Vec<_>) =
        sections.iter().partition(|section| section.steps.len() == time);
    // the longest first: the others are filled up
    cut.sort_by_key(|section| (section.continues, std::cmp::Reverse(section.steps.len())));
    let mut groups: Vec<SectionGroup> = uncut.iter().map(|section| group(&[section])).collect();
    let mut rest = &cut[..];
    while let Some(first) = rest.first() {
        let fits = |section: &&&Section| {
            section.continues == first.continues
                && section.steps.len() * FILL.1 >= first.steps.len() * FILL.0
        };
        let (some, others) = rest.split_at(rest.iter().take_while(fits).count());
        groups.push(group(some));
        rest = others;
    }
    groups
}

impl SectionGroup {
    fn lies_together(&self) -> bool {
        self.rows.len() <= 1
    }

    /// The rows of the group among `all` rows of `width` numbers.
    pub fn take<'a, T: Copy + Zero>(&self, all: &'a [T], width: usize) -> Cow<'a, [T]> {
        if self.lies_together() {
            return Cow::Borrowed(&all[self.place(width, all.len())]);
        }
        let len = self.shape.width.in_len * width;
        let mut rows = vec![T::zero(); self.rows.len() * len];
        for (to, from) in rows.chunks_exact_mut(len).zip(&self.rows) {
            let from = &all[from.start * width..from.end * width];
            to[..from.len()].copy_from_slice(from);
        }
        Cow::Owned(rows)
    }

    /// Rows that its sequences go on from, among the `all` rows of `width` numbers that were carried over.
    pub fn history<'a, T: Copy>(&self, all: &'a [T], width: usize) -> Cow<'a, [T]> {
        let len = self.shape.history * width;
        match self.sequences[..] {
            _ if len == 0 => Cow::Borrowed(&[]),
            [first, ..] if self.lies_together() => {
                Cow::Borrowed(&all[first * len..(first + self.sequences.len()) * len])
            }
            _ => {
                let rows = self.sequences.iter().flat_map(|&i| &all[i * len..(i + 1) * len]);
                Cow::Owned(rows.copied().collect())
            }
        }
    }

    /// Has `write` write the rows of the group, and puts them among `all` rows of `width` numbers.
    pub fn write<T: Copy + Zero>(
        &self,
        all: &mut [T],
        width: usize,
        write: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<()> {
        if self.lies_together() {
            let place = self.place(width, all.len());
            return write(&mut all[place]);
        }
        let len = self.shape.width.out_len * width;
        let mut rows = vec![T::zero(); self.rows.len() * len];
        write(&mut rows)?;
        for (from, to) in rows.chunks_exact(len).zip(&self.rows) {
            let to = &mut all[to.start * width..to.end * width];
            to.copy_from_slice(&from[..to.len()]);
        }
        Ok(())
    }

    /// Place of rows that lie together.
    fn place(&self, width: usize, all: usize) -> Range<usize> {
        let rows = self.rows.first();
        rows.map_or(0..all, |rows| rows.start * width..rows.end * width)
    }
}

/// Refuses sections for a convolution that changes the number of steps.
pub(super) fn check(shape: &ConvShape, sections: Option<&Sections>) -> Result<()> {
    let is_plain = shape.width.stride == 1 && shape.width.in_len == shape.width.out_len;
    let expected =
        "convolutions that keep the number of steps, where sequences begin anew within it";
    let found = format!("{} of {} steps", shape.width.out_len, shape.width.in_len);
    Error::require(sections.is_none() || is_plain, "sequence", expected, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_begin_at_the_restart() {
        let ids = [1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 2, 3, 0, 2, 2, 2, 1, 0, 0, 3, 5, 5, 5, 5];
        assert!(Sections::of(&ids, 4, 9).is_none());
        let sections = Sections::of(&ids, 4, 0).unwrap();
        let section = |sequences, steps, continues| Section { sequences, steps, continues };
        let expected = [
            section(0..2, 0..4, true),
            section(2..4, 0..4, false),
            section(4..5, 0..1, true),
            section(4..5, 1..2, false),
            section(4..5, 2..4, false),
            section(5..6, 0..4, true),
        ];
        assert_eq!(sections.0[..], expected);
        assert_eq!(sections.last_starts(), [None, None, Some(0), Some(0), Some(2), None]);
    }
}
