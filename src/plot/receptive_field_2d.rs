//! The pixels that one output pixel reads, and how the field grows from layer to layer.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{ACCENT as OUTPUT, Canvas, Drawn, INK, grouped, svg, write, write_heading};
use crate::Result;
use crate::geometry::{Field, Reach, Row, Stack, Stack2d};

const READ: RGBColor = RGBColor(206, 221, 238);
/// Outlines of the fields, from the first layer to the last.
const FIRST: RGBColor = RGBColor(150, 186, 221);
const LAST: RGBColor = RGBColor(20, 60, 110);

/// The longer side of the map, and where its corner is.
const SIDE: f64 = 480.0;
const CORNER: (i32, i32) = (40, 90);
/// Room for the names at its right.
const NAMES: u32 = 360;
/// The most layers that are listed and outlined: the last ones.
const MAX_LAYERS: usize = 20;
/// The most rectangles of pixels that are drawn; beyond, the whole field is filled.
const MAX_RECTANGLES: usize = 2_500;

/// First and last offset of each run of lines that are read, and of columns.
type Runs = (Vec<(i64, i64)>, Vec<(i64, i64)>);

/// Draws what one output pixel of `stack` reads as the text of an SVG file: the pixels read, those between
/// them that are not, and the outline of the field after each layer (of the last 20).
///
/// # Errors
///
/// [`Error::TooLarge`](crate::Error::TooLarge) where the receptive field overflows.
///
/// # Example
///
/// ```
/// use candle_tcn::nn::{ContextConfig, ContextForm};
/// use candle_tcn::plot::receptive_field_2d_svg;
/// let svg = receptive_field_2d_svg(&ContextConfig::new(8, ContextForm::Basic).geometry()?)?;
/// assert!(svg.starts_with("<svg") && svg.contains("Receptive field: 67 × 67 pixels"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn receptive_field_2d_svg(stack: &Stack2d) -> Result<String> {
    let (height, width) = stack.receptive_field()?;
    let rows: Vec<(Row, Row)> =
        stack.height.table()?.into_iter().zip(stack.width.table()?).collect();
    let map = Map { height, width, scale: SIDE / height.total.max(width.total) as f64 };
    let runs = (runs(&stack.height, height)?, runs(&stack.width, width)?);
    let listed = rows.len().min(MAX_LAYERS);
    let names = 24 * listed as i32 + 20;
    let bottom = CORNER.1 + ((map.height.total as f64 * map.scale) as i32).max(names) + 40;
    let right = CORNER.0 + (map.width.total as f64 * map.scale) as i32;
    let size = ((right.unsigned_abs() + NAMES).max(720), bottom.unsigned_abs());
    svg("receptive-field.svg", size, |root| {
        write_map_heading(root, &map)?;
        draw_pixels(root, &map, &runs)?;
        draw_layers(root, &map, &rows[rows.len() - listed..], right)?;
        let [(x, y), (right, bottom)] = map.corners((0, 0), (0, 0));
        let output = [(x, y), (right.max(x + 3), bottom.max(y + 3))];
        root.draw(&Rectangle::new(output, OUTPUT.filled()))
    })
}

/// First and last offset of each run of lines (or columns) that are read; the whole field where they are too
/// many.
fn runs(stack: &Stack, field: Field) -> Result<Vec<(i64, i64)>> {
    Ok(stack.reach()?.as_ref().map_or(vec![whole(field)], Reach::runs))
}

/// First and last offset of a field.
fn whole(field: Field) -> (i64, i64) {
    (-(field.left as i64), field.right as i64)
}

/// The map from offsets to places in the picture.
struct Map {
    height: Field,
    width: Field,
    scale: f64,
}

impl Map {
    fn x(&self, offset: i64) -> i32 {
        CORNER.0 + ((offset + self.width.left as i64) as f64 * self.scale).round() as i32
    }

    fn y(&self, offset: i64) -> i32 {
        CORNER.1 + ((offset + self.height.left as i64) as f64 * self.scale).round() as i32
    }

    /// The corners of a rectangle of pixels, its last line and column included.
    fn corners(&self, lines: (i64, i64), columns: (i64, i64)) -> [(i32, i32); 2] {
        [(self.x(columns.0), self.y(lines.0)), (self.x(columns.1 + 1), self.y(lines.1 + 1))]
    }
}

fn write_map_heading(root: &Canvas, map: &Map) -> Drawn {
    let of = |field: Field| {
        [field.total, field.left, field.right, field.jump].map(|number| grouped(number as u64))
    };
    let ([tall, above, below, down], [wide, left, right, across]) = (of(map.height), of(map.width));
    let subtitle = format!(
        "{above} above the current one, {below} below, {left} left, {right} right; stride {down} × {across}"
    );
    write_heading(root, CORNER.0, &format!("Receptive field: {tall} × {wide} pixels"), &subtitle)
}

/// The outline of the field after each layer, and the layers' names from `right` on.
fn draw_layers(root: &Canvas, map: &Map, rows: &[(Row, Row)], right: i32) -> Drawn {
    for (i, (h, w)) in rows.iter().enumerate() {
        let color = shade(i, rows.len());
        let corners = map.corners(whole(h.field), whole(w.field));
        root.draw(&Rectangle::new(corners, color.stroke_width(2)))?;
        let name = format!(
            "{}: {} × {}, dilation {} × {}, to {} × {}",
            h.layer.name(),
            h.layer.kernel_size(),
            w.layer.kernel_size(),
            h.layer.dilation(),
            w.layer.dilation(),
            grouped(h.field.total as u64),
            grouped(w.field.total as u64),
        );
        let y = CORNER.1 + 10 + 24 * i as i32;
        root.draw(&Rectangle::new([(right + 24, y - 6), (right + 36, y + 6)], color.filled()))?;
        write(root, &name, (right + 44, y), (14, INK), HPos::Left)?;
    }
    Ok(())
}

fn draw_pixels(root: &Canvas, map: &Map, (lines, columns): &Runs) -> Drawn {
    let ends = |runs: &Vec<(i64, i64)>| vec![(runs[0].0, runs[runs.len() - 1].1)];
    let (lines, columns) = match lines.len().saturating_mul(columns.len()) {
        ..=MAX_RECTANGLES => (lines.clone(), columns.clone()),
        _ => (ends(lines), ends(columns)),
    };
    for (&line, &column) in lines.iter().flat_map(|line| columns.iter().map(move |c| (line, c))) {
        root.draw(&Rectangle::new(map.corners(line, column), READ.filled()))?;
    }
    Ok(())
}

/// The colour of layer `i` of `count`.
fn shade(i: usize, count: usize) -> RGBColor {
    let part = (i + 1) as f64 / count as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part) as u8;
    RGBColor(mix(FIRST.0, LAST.0), mix(FIRST.1, LAST.1), mix(FIRST.2, LAST.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Padding;

    #[test]
    fn pixels_between_taps_are_left_out() {
        let axis = Stack::uniform(3, &[4], 1, Padding::Same).unwrap();
        let svg = receptive_field_2d_svg(&Stack2d::square(axis)).unwrap();
        assert!(svg.contains("Receptive field: 9 × 9 pixels"));
        let filled = format!("fill=\"#{:02X}{:02X}{:02X}\"", READ.0, READ.1, READ.2);
        assert_eq!(svg.matches(&filled).count(), 9);
    }

    #[test]
    fn a_large_field_stays_a_small_file() {
        let height = Stack::uniform(2, &[100_000, 3, 500, 20_000], 1, Padding::Same).unwrap();
        let width = Stack::uniform(3, &[1; 60], 1, Padding::Causal).unwrap();
        let svg = receptive_field_2d_svg(&Stack2d { height, width }).unwrap();
        assert!(svg.len() < 100_000, "{}", svg.len());
    }
}
