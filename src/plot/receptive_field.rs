//! The dilated tree of a stack: which inputs one output reads, layer by layer.

#[cfg(test)]
mod tests;
mod tree;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{
    ACCENT as OUTPUT, Canvas, Drawn, FAINT, INK, grouped, svg, write, write_heading,
};
use crate::Result;
use crate::geometry::{Layer, Stack};
use tree::{GUTTER, MARGIN, Picture, Tree};

const EDGE: RGBColor = RGBColor(150, 186, 221);
/// Colour of edges that are dense enough to hide the dots.
const DENSE_EDGE: RGBColor = RGBColor(206, 221, 238);
const DENSE: usize = 400;
const REACHED: RGBColor = RGBColor(31, 95, 160);
const UNREACHED: RGBColor = RGBColor(224, 228, 233);

/// The most layers that are drawn: those nearest to the output.
const MAX_LAYERS: usize = 16;
/// Most steps that are drawn: the first of these with which the file stays small enough.
const COLUMNS: [i64; 5] = [128, 96, 64, 32, 16];
const MAX_BYTES: usize = 290_000;
/// The longest name and description of a layer that fit at its left.
const LONGEST_NAME: usize = 20;
const LONGEST_DETAIL: usize = 28;
/// Room for the effective field.
const STRIP: u32 = 96;
/// Room for the caption, where there is one.
const CAPTION: u32 = 26;

/// Draws `stack` as the text of an SVG file: one row of dots for each layer's output and one for
/// the input, and the edges from the newest output down to every input that it reads. Steps that
/// it does not read are pale.
///
/// At most 128 steps (the nearest to the output) and 16 layers (the last ones) are drawn, fewer
/// where the kernels are large; the caption says so. The file is smaller than 300 KB.
///
/// # Errors
///
/// [`Error::TooLarge`](crate::Error::TooLarge) where the receptive field overflows, or where the steps that are read form
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
    draw(stack, &[])
}

/// The same with the effective field under it: `gradient` has how much the step so many steps before the present one
/// matters, which is the first.
///
/// # Errors
///
/// As [`receptive_field_svg`].
///
/// # Example
///
/// ```
/// use candle_tcn::geometry::{Padding, Stack};
/// use candle_tcn::plot::effective_field_svg;
/// let stack = Stack::uniform(2, &[1, 2], 1, Padding::Causal)?;
/// assert!(effective_field_svg(&stack, &[4.0, 3.0, 2.0, 1.0])?.contains("gradient of the loss"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn effective_field_svg(stack: &Stack, gradient: &[f64]) -> Result<String> {
    draw(stack, gradient)
}

fn draw(stack: &Stack, gradient: &[f64]) -> Result<String> {
    let strip = if gradient.is_empty() { 0 } else { STRIP };
    let layers = stack.layers().count();
    let rows = layers.min(MAX_LAYERS);
    let drawn = stack.suffix(rows);
    let below = stack.layers().rev().nth(rows);
    let tree = Tree::new(&drawn, below.map_or("input", Layer::name))?;
    let (title, subtitle) = heading(stack, layers)?;
    let mut text = String::new();
    for columns in COLUMNS {
        let picture = Picture::new(&tree, columns);
        let caption = caption(&picture, layers);
        let (width, height) = picture.size();
        let bars = height as i32;
        let height = height + strip + caption.as_ref().map_or(0, |_| CAPTION);
        text = svg("receptive-field.svg", (width, height), |root| {
            draw_edges(root, &picture)?;
            draw_dots(root, &picture)?;
            draw_labels(root, &picture)?;
            draw_ticks(root, &picture)?;
            draw_gradient(root, &picture, gradient, bars)?;
            write_heading(root, MARGIN as i32, &title, &subtitle)?;
            let at = (MARGIN as i32, height as i32 - 20);
            caption.map_or(Ok(()), |text| write(root, &text, at, (15, FAINT), HPos::Left))
        })?;
        if text.len() <= MAX_BYTES {
            break;
        }
    }
    Ok(text)
}

/// Title and subtitle, above the tree.
fn heading(stack: &Stack, layers: usize) -> Result<(String, String)> {
    let field = stack.receptive_field()?;
    let holes = match stack.reach()?.map(|reach| reach.holes().count) {
        None => "holes not counted".into(),
        Some(0) => "no holes".into(),
        Some(count) => format!("{} inside it never read", counted(count, "step")),
    };
    let subtitle = format!(
        "{} before the current one, {} after it; {}; {holes}",
        grouped(field.left as u64),
        grouped(field.right as u64),
        counted(layers, "layer"),
    );
    Ok((format!("Receptive field: {}", counted(field.total, "step")), subtitle))
}

/// A note of what is left out of the picture, where something is.
fn caption(picture: &Picture, layers: usize) -> Option<String> {
    let Tree { field, layers: drawn, .. } = picture.tree;
    let steps = (!picture.is_whole())
        .then(|| format!("the nearest {} of {}", picture.columns(), counted(field.total, "step")));
    let layers = (drawn.len() < layers)
        .then(|| format!("the last {} of {}", drawn.len(), counted(layers, "layer")));
    let parts: Vec<String> = steps.into_iter().chain(layers).collect();
    (!parts.is_empty()).then(|| format!("Drawn: {}.", parts.join(", ")))
}

/// A number of things, such as `1,024 steps`.
fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(count as u64))
}

fn draw_edges(root: &Canvas, picture: &Picture) -> Drawn {
    for &(from, to) in &picture.tree.bypasses {
        for step in picture.steps(from, picture.low, picture.high) {
            if picture.reached(from, step) {
                let line = vec![picture.point(from, step), picture.point(to, step)];
                root.draw(&PathElement::new(line, EDGE))?;
            }
        }
    }
    for level in 0..picture.tree.layers.len() {
        let lines = picture.edges(level);
        let points: usize = lines.iter().map(Vec::len).sum();
        let color = if points > DENSE { DENSE_EDGE } else { EDGE };
        for line in lines {
            root.draw(&PathElement::new(line, color))?;
        }
    }
    // edges that leave the picture end at its border
    let (width, height) = (picture.size().0 as i32, picture.size().1 as i32);
    let right = (GUTTER + picture.columns() * picture.pitch) as i32;
    for (from, to) in [(0, GUTTER as i32), (right, width)] {
        root.draw(&Rectangle::new([(from, 0), (to, height)], WHITE.filled()))?;
    }
    Ok(())
}

fn draw_dots(root: &Canvas, picture: &Picture) -> Drawn {
    let radius = (picture.pitch / 3).clamp(2, 6) as i32;
    for level in 0..picture.tree.levels.len() {
        for step in picture.steps(level, picture.low, picture.high) {
            let color = match (picture.reached(level, step), level) {
                (true, 0) => OUTPUT,
                (true, _) => REACHED,
                (false, _) => UNREACHED,
            };
            let point = picture.point(level, step);
            root.draw(&Circle::new(point, radius, color.filled()))?;
        }
    }
    Ok(())
}

/// Each row's layer, at the left.
fn draw_labels(root: &Canvas, picture: &Picture) -> Drawn {
    let x = GUTTER as i32 - 14;
    for (level, layer) in picture.tree.layers.iter().enumerate() {
        let (_, y) = picture.point(level, 0);
        let (kernel, dilation) = (layer.kernel_size(), layer.dilation());
        let mut detail = format!("kernel {kernel}, dilation {dilation}");
        if detail.len() > LONGEST_DETAIL {
            detail = format!("k {kernel}, d {dilation}");
        }
        if layer.stride() > 1 {
            detail += &format!(", stride {}", layer.stride());
        }
        let name = shortened(layer.name());
        write(root, &name, (x, y - 7), (15, INK), HPos::Right)?;
        write(root, &detail, (x, y + 9), (13, FAINT), HPos::Right)?;
    }
    let (_, y) = picture.point(picture.tree.layers.len(), 0);
    let name = shortened(picture.tree.lowest);
    write(root, &name, (x, y), (15, INK), HPos::Right)
}

/// The end of a long name, which is what tells it from the others.
fn shortened(name: &str) -> String {
    match name.chars().count() {
        ..=LONGEST_NAME => name.into(),
        len => format!("…{}", name.chars().skip(len + 1 - LONGEST_NAME).collect::<String>()),
    }
}

/// Offsets below the input row: 0, and others far enough from it and from each other.
fn draw_ticks(root: &Canvas, picture: &Picture) -> Drawn {
    let lowest = picture.tree.layers.len();
    let every = [1, 2, 4, 8].into_iter().find(|every| every * picture.pitch >= 36).unwrap_or(16);
    for step in (picture.low..=picture.high).filter(|step| step % every == 0) {
        let (x, y) = picture.point(lowest, step);
        let text = match step {
            0 => "0".into(),
            1.. => format!("+{step}"),
            _ => format!("−{}", -step),
        };
        write(root, &text, (x, y + 22), (13, FAINT), HPos::Center)?;
    }
    Ok(())
}

/// A bar for each step: the length of the gradient beside the longest.
fn draw_gradient(root: &Canvas, picture: &Picture, gradient: &[f64], top: i32) -> Drawn {
    let most = gradient.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(());
    }
    let bottom = top + STRIP as i32 - 20;
    let room = f64::from(STRIP - 28);
    let half = (picture.pitch * 2 / 5).max(1) as i32;
    let steps = (0..).zip(gradient).take_while(|(distance, _)| -distance >= picture.low);
    for (distance, &one) in steps {
        let (x, _) = picture.point(picture.tree.layers.len(), -distance);
        let height = (one / most * room).round() as i32;
        let bar = [(x - half, bottom - height), (x + half, bottom)];
        root.draw(&Rectangle::new(bar, OUTPUT.filled()))?;
    }
    let x = GUTTER as i32 - 14;
    write(root, "gradient of the loss", (x, bottom - 16), (15, INK), HPos::Right)?;
    write(root, "by each input, on average", (x, bottom), (13, FAINT), HPos::Right)
}
