//! The rows of a weight gradient in runs, spans and groups.

/// Rows of x that are transposed at once.
const SUB: usize = 512;
/// Rows of x whose products are summed before the result goes back to memory.
const GROUP: usize = 1024;
/// Consecutive rows of one sequence whose output gradients are packed together.
#[derive(Clone, Copy)]
pub struct RowRun {
    pub sequence: usize,
    pub from: usize,
    pub to: usize,
    /// The row of dy that is packed first; before the sequence where negative.
    pub dy_from: isize,
    /// Words of depth of the packed rows.
    pub words: usize,
}

/// Rows of a run that are transposed together.
#[derive(Clone, Copy)]
pub struct RowSpan {
    pub run: RowRun,
    /// Number of the run in its part.
    pub index: usize,
    pub from: usize,
    pub to: usize,
}

/// The spans of run `index` of a part, at most [`SUB`] rows each.
pub fn spans((index, &run): (usize, &RowRun)) -> impl Iterator<Item = RowSpan> {
    let span = move |from| RowSpan { run, index, from, to: run.to.min(from + SUB) };
    (run.from..run.to).step_by(SUB).map(span)
}

/// Cuts spans into groups of at most [`GROUP`] rows, at least one span each.
pub fn groups(spans: &[RowSpan]) -> impl Iterator<Item = &[RowSpan]> {
    let mut rest = spans;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = |span: &&RowSpan| {
            rows += span.to - span.from;
            rows <= GROUP
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}
