//! Parts of sequences that know nothing of each other: documents that stand one after the other.

use std::ops::Range;
use std::sync::Arc;

use crate::kernels::conv::ConvShape;
use crate::{Error, Result};

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

/// A convolution of one section, and its places in the elements of input, history and output.
#[derive(Debug, Clone)]
pub(super) struct SectionShape {
    pub shape: ConvShape,
    pub x: Range<usize>,
    pub history: Range<usize>,
    pub y: Range<usize>,
}

/// The convolutions that one of `shape` falls into.
pub(super) fn shapes(shape: &ConvShape, sections: Option<&Sections>) -> Vec<SectionShape> {
    let Some(sections) = sections else {
        let (x, history, y) = shape.sizes();
        return vec![SectionShape { shape: *shape, x: 0..x, history: 0..history, y: 0..y }];
    };
    let time = shape.width.in_len;
    let one = |section: &Section| {
        let (sequences, len) = (section.sequences.len(), section.steps.len());
        let mut shape = *shape;
        shape.batch = sequences;
        (shape.width.in_len, shape.width.out_len) = (len, len);
        let first = section.sequences.start * time + section.steps.start;
        let place = |channels| first * channels..(first + sequences * len) * channels;
        let row = shape.history * shape.in_channels;
        let history = match section.continues {
            true => section.sequences.start * row..section.sequences.end * row,
            false => 0..0,
        };
        shape.history *= usize::from(section.continues);
        SectionShape { x: place(shape.in_channels), y: place(shape.out_channels), history, shape }
    };
    sections.iter().map(one).collect()
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
