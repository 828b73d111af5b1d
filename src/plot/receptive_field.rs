//! The dilated tree of a stack: which inputs one output reads, layer by layer.

use std::ops::RangeInclusive;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::grouped;
use crate::geometry::{Field, Layer, Reach, Stack};
use crate::{Error, Result};

const EDGE: RGBColor = RGBColor(150, 186, 221);
const REACHED: RGBColor = RGBColor(31, 95, 160);
const OUTPUT: RGBColor = RGBColor(214, 88, 40);
const UNREACHED: RGBColor = RGBColor(224, 228, 233);
const INK: RGBColor = RGBColor(60, 64, 70);
const FAINT: RGBColor = RGBColor(120, 126, 134);

/// The most layers that are drawn: those nearest to the output.
const MAX_LAYERS: usize = 16;
/// How many steps are drawn at most: the first of these with which the file stays small enough.
const COLUMNS: [i64; 5] = [128, 96, 64, 32, 16];
const MAX_BYTES: usize = 290_000;
/// Steps shown beyond each end of a field that is drawn whole.
const BEYOND: i64 = 2;
/// A kernel with more taps than this shows only the edges that end inside the picture.
const MAX_TAPS: usize = 9;
/// Edges to steps beyond the picture end at most so many columns outside it.
const FAR: i64 = 4096;

// pixels
const GUTTER: i64 = 176;
const TOP: i64 = 104;
const ROW: i64 = 46;
const BOTTOM: i64 = 76;
const MARGIN: i64 = 28;
const MIN_WIDTH: i64 = 640;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Draws `stack` as the text of an SVG file: one row of dots for each layer's output and one for
/// the input, and the edges from the newest output down to every input that it reads. Steps that
/// it does not read are pale.
///
/// At most 128 steps (the nearest to the output) and 16 layers (the last ones) are drawn, fewer
/// where the kernels are large; the caption says so. The file is smaller than 300 KB.
///
/// # Errors
///
/// [`Error::TooLarge`] where the receptive field overflows, or where the steps that are read form
/// too many separate runs (see [`Stack::reach`]).
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::{Padding, Stack};
/// use candle_tcn::plot::receptive_field_svg;
/// let svg = receptive_field_svg(&Stack::uniform(3, &[1, 2, 4], 2, Padding::Causal)?)?;
/// assert!(svg.starts_with("<svg") && svg.contains("Receptive field: 29 steps"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
///
/// After figure 3 of WaveNet, arXiv:1609.03499.
pub fn receptive_field_svg(stack: &Stack) -> Result<String> {
    let rows = stack.layers().take(MAX_LAYERS).count();
    let drawn = stack.suffix(rows);
    let tree = Tree::new(&drawn)?;
    let mut svg = String::new();
    for columns in COLUMNS {
        let picture = Picture::new(&tree, columns);
        let text = Heading::new(stack, &picture)?;
        svg.clear();
        draw(&picture, &text, &mut svg)
            .map_err(|error| Error::file("receptive-field.svg", error.to_string()))?;
        if svg.len() <= MAX_BYTES {
            break;
        }
    }
    Ok(svg)
}

/// One row of dots: the output of a layer, or the input.
struct Level {
    /// What the output reads of it, in its own steps.
    reach: Reach,
    /// How many of the lowest row's steps one of its own is wide.
    jump: i64,
}

/// The layers that are drawn, from the output down.
struct Tree<'a> {
    /// One more than there are layers.
    levels: Vec<Level>,
    layers: Vec<&'a Layer>,
    field: Field,
    /// Whether a step is reached that no layer's taps alone lead to.
    bypassed: bool,
}
