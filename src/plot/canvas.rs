//! The surface of all pictures: SVG text, colours and fonts.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Error, Result};

pub(super) const INK: RGBColor = RGBColor(60, 64, 70);
pub(super) const GRID: RGBColor = RGBColor(232, 234, 237);
pub(super) const FAINT: RGBColor = RGBColor(120, 126, 134);
/// The output that is looked at, and the best of several values.
pub(super) const ACCENT: RGBColor = RGBColor(214, 88, 40);

pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The text of an SVG file of this size, white where `draw` draws nothing.
pub(super) fn svg(
    name: &str,
    size: (u32, u32),
    draw: impl FnOnce(&Canvas) -> Drawn,
) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = root.fill(&WHITE).and_then(|()| draw(&root)).and_then(|()| root.present());
    drop(root);
    drawn.map_err(|error| Error::file(name, error.to_string()))?;
    Ok(svg)
}

/// Writes a line whose `side` is at `at`, centred upright.
pub(super) fn write(
    root: &Canvas,
    text: &str,
    at: (i32, i32),
    (size, color): (u32, RGBColor),
    side: HPos,
) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&color);
    root.draw(&Text::new(text, at, style.pos(Pos::new(side, VPos::Center))))
}

/// Writes title and subtitle at the top, from `x` on.
pub(super) fn write_heading(root: &Canvas, x: i32, title: &str, subtitle: &str) -> Drawn {
    write(root, title, (x, 34), (24, INK), HPos::Left)?;
    write(root, subtitle, (x, 60), (16, FAINT), HPos::Left)
}

/// A whole number with thousands separators: 12,345.
pub(crate) fn grouped(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}
