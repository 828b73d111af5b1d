//! Tokens a second against the number of sequences that are generated at once.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{ACCENT, Canvas, Drawn, FAINT, GRID, INK, grouped, svg, write, write_heading};
use crate::Result;

const SIZE: (u32, u32) = (800, 480);

/// Draws tokens a second of all sequences together against how many there are, as the text of an SVG file of 800 × 480
/// pixels: `rates` holds pairs of both, their numbers above 0. The axis of sequences is logarithmic. A dashed line shows
/// `prompt`, the rate at which a prompt is read: the same arithmetic, all steps at once.
///
/// # Errors
///
/// [`Error::File`](crate::Error::File) if the drawing library fails, which it does not for any rates known.
///
/// # Example
///
/// ```
/// use candle_tcn::plot::streams_svg;
/// let svg = streams_svg("char-ptb, bf16", &[(1, 20_000.0), (2, 37_000.0)], 80_000.0)?;
/// assert!(svg.starts_with("<svg") && svg.contains("37,000"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn streams_svg(title: &str, rates: &[(usize, f64)], prompt: f64) -> Result<String> {
    svg("streams.svg", SIZE, |root| draw(title, rates, prompt, root))
}

fn draw(title: &str, rates: &[(usize, f64)], prompt: f64, root: &Canvas) -> Drawn {
    write_heading(root, 24, title, "tokens a second by sequences at once")?;
    let points: Vec<(f64, f64)> = rates.iter().map(|&(n, rate)| (n as f64, rate)).collect();
    let last = points.iter().fold(2.0, |last: f64, point| last.max(point.0));
    let top = points.iter().fold(prompt, |top, point| top.max(point.1)).max(1.0);
    let mut chart = ChartBuilder::on(root)
        .margin(20)
        .margin_top(80)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((0.9..1.3 * last).log_scale(), 0.0..1.12 * top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .max_light_lines(1)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.5))
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .y_label_formatter(&|rate| grouped(*rate as u64))
        .draw()?;
    let dashes = [(0.9, prompt), (1.3 * last, prompt)];
    chart.draw_series(DashedLineSeries::new(dashes, 6, 5, FAINT.stroke_width(1)))?;
    let (_, y) = chart.backend_coord(&dashes[0]);
    let text = format!("a prompt: {}", grouped(prompt as u64));
    write(root, &text, (100, y - 10), (14, FAINT), HPos::Left)?;
    chart.draw_series(LineSeries::new(points.iter().copied(), ACCENT.stroke_width(2)))?;
    for &(n, rate) in &points {
        let (x, y) = chart.backend_coord(&(n, rate));
        root.draw(&Circle::new((x, y), 4, ACCENT.filled()))?;
        write(root, &grouped(rate as u64), (x, y + 16), (13, INK), HPos::Center)?;
        let below = SIZE.1 as i32 - 48;
        write(root, &grouped(n as u64), (x, below), (14, INK), HPos::Center)?;
    }
    Ok(())
}
