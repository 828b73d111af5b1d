//! `loss.svg`: the loss of a training run over its steps.

use std::f64::consts::LN_2;
use std::ops::Range;

use plotters::chart::DualCoordChartContext;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{ACCENT as VALID, Canvas, Drawn, GRID, INK, grouped, svg, write};
use crate::Result;

const SIZE: (u32, u32) = (800, 480);
const TRAIN: RGBColor = RGBColor(168, 197, 226);
const SMOOTHED: RGBColor = RGBColor(31, 95, 160);

/// Most points of the thin training line, of the smoothed line and of the validation line.
const TRAIN_POINTS: usize = 1000;
const SMOOTHED_POINTS: usize = 500;
const VALID_POINTS: usize = 400;
/// With more validations than this the marks would hide the line.
const MARKS: usize = 60;
/// A finite loss beyond this says only that training failed; it would flatten the rest.
const LARGEST: f64 = 1e9;

/// Step and loss in nats.
type Point = (f64, f64);
type PlotAxes = Cartesian2d<RangedCoordf64, RangedCoordf64>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, PlotAxes>;
type DualChart<'a, 'b> = DualCoordChartContext<'a, SVGBackend<'b>, PlotAxes, PlotAxes>;

/// Losses after a training step, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossPoint {
    /// Optimizer steps done.
    pub step: usize,
    /// Training loss.
    pub train_loss: f64,
    /// Validation loss, if one was measured.
    pub valid_loss: Option<f64>,
}

/// Draws the losses of a run as the text of an SVG file, 800 × 480 pixels.
///
/// Training loss as a thin line with a smoothed one over it (a moving average of about 1/30 of the
/// records), validation loss as a marked line with its best point labelled. The left scale is in
/// nats per token, the right one in bits per token (nats / ln 2). Losses that are not finite are
/// left out; single spikes are cut at the upper border. At most some 2,000 points are drawn.
///
/// # Errors
///
/// [`Error::File`](crate::Error::File) if the drawing library fails, which it does not for any records known.
///
/// # Example
///
/// ```
/// use candle_tcn::plot::{LossPoint, loss_svg};
/// let point = |step, train_loss, valid_loss| LossPoint { step, train_loss, valid_loss };
/// let svg = loss_svg(&[point(1000, 2.5, Some(2.6)), point(2000, 2.0, Some(2.25))])?;
/// assert!(svg.starts_with("<svg") && svg.contains("best 2.2500 at step 2,000"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn loss_svg(records: &[LossPoint]) -> Result<String> {
    svg("loss.svg", SIZE, |root| draw(records, root))
}

fn draw(records: &[LossPoint], root: &Canvas) -> Drawn {
    let train = points(records, |record| Some(record.train_loss));
    let valid = points(records, |record| record.valid_loss);
    let steps = train.iter().chain(&valid).map(|point| point.0);
    let last = steps.fold(1.0, f64::max);
    let nats = loss_range(&train, &valid);
    let bits = nats.start / LN_2..nats.end / LN_2;

    let title = if valid.is_empty() { "Training loss" } else { "Training and validation loss" };
    let centre = SIZE.0 as i32 / 2;
    write(root, title, (centre, 24), (22, INK), HPos::Center)?;
    let mut chart = ChartBuilder::on(root)
        .margin(12)
        .margin_top(48)
        .x_label_area_size(44)
        .y_label_area_size(58)
        .right_y_label_area_size(58)
        .build_cartesian_2d(0.0..last, nats.clone())?
        .set_secondary_coord(0.0..last, bits);
    draw_axes(&mut chart)?;
    if train.is_empty() && valid.is_empty() {
        let at = (centre, SIZE.1 as i32 / 2);
        return write(root, "no finite loss recorded", at, (16, INK), HPos::Center);
    }
    // what lies outside the scale is drawn on its border
    let inside = |points: Vec<Point>| -> Vec<Point> {
        let clamp = |(step, loss): Point| (step, loss.clamp(nats.start, nats.end));
        points.into_iter().map(clamp).collect()
    };
    let best = valid.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    draw_training(&mut chart, &inside(train))?;
    draw_validation(&mut chart, &inside(valid))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(8)
        .legend_area_size(26)
        .background_style(WHITE.mix(0.85))
        .label_font(label_style())
        .draw()?;
    if let Some(best) = best {
        label_best(&chart, root, best)?;
    }
    Ok(())
}

fn label_style() -> TextStyle<'static> {
    ("sans-serif", 14).into_font().color(&INK)
}

fn draw_axes(chart: &mut DualChart) -> Drawn {
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.5))
        .label_style(label_style())
        .x_labels(9)
        .y_labels(9)
        .x_label_formatter(&step_label)
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .x_desc("step")
        .y_desc("nats per token")
        .draw()?;
    chart
        .configure_secondary_axes()
        .axis_style(INK.mix(0.5))
        .label_style(label_style())
        .y_labels(9)
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .y_desc("bits per token")
        .draw()
}

fn draw_training(chart: &mut Chart, points: &[Point]) -> Drawn {
    if let &[only] = points {
        chart.draw_series([Circle::new(only, 3, SMOOTHED.filled())])?;
    }
    let all = extremes(points, TRAIN_POINTS);
    draw_line(chart, all, TRAIN.stroke_width(1), "training")?;
    let smoothed = thin(&smooth(points), SMOOTHED_POINTS);
    draw_line(chart, smoothed, SMOOTHED.stroke_width(2), "training, smoothed")
}

fn draw_validation(chart: &mut Chart, points: &[Point]) -> Drawn {
    if points.is_empty() {
        return Ok(());
    }
    let points = thin(points, VALID_POINTS);
    if points.len() <= MARKS {
        let mark = |&point: &Point| Circle::new(point, 3, VALID.filled());
        chart.draw_series(points.iter().map(mark))?;
    }
    draw_line(chart, points, VALID.stroke_width(2), "validation")
}

/// A line with its entry in the legend.
fn draw_line(chart: &mut Chart, points: Vec<Point>, style: ShapeStyle, name: &str) -> Drawn {
    chart
        .draw_series(LineSeries::new(points, style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    Ok(())
}

/// Rings the lowest validation loss and writes it beside, on the side that has room.
fn label_best(chart: &Chart, root: &Canvas, best: Point) -> Drawn {
    let text = format!("best {:.4} at step {}", best.1, grouped(best.0 as u64));
    let (x, y) = chart.backend_coord(&best);
    // about 7 pixels a character at this size
    let width = 7 * text.len() as i32;
    let left = x > SIZE.0 as i32 / 2;
    let (from, side) = if left { (x - width, HPos::Right) } else { (x, HPos::Left) };
    // below the point if the legend may be above it
    let y_text = if y < 140 { y + 26 } else { y - 20 };
    root.draw(&Rectangle::new(
        [(from - 3, y_text - 10), (from + width + 3, y_text + 8)],
        WHITE.mix(0.8).filled(),
    ))?;
    root.draw(&Circle::new((x, y), 5, WHITE.filled()))?;
    root.draw(&Circle::new((x, y), 5, VALID.stroke_width(2)))?;
    write(root, &text, (x, y_text), (16, VALID), side)
}

/// The losses worth drawing.
fn points(records: &[LossPoint], loss: impl Fn(&LossPoint) -> Option<f64>) -> Vec<Point> {
    let points = records.iter().filter_map(|record| Some((record.step as f64, loss(record)?)));
    points.filter(|point| point.1.abs() <= LARGEST).collect()
}

/// From below the lowest loss to above the highest, single spikes aside.
fn loss_range(train: &[Point], valid: &[Point]) -> Range<f64> {
    let mut losses: Vec<f64> = train.iter().chain(valid).map(|point| point.1).collect();
    losses.sort_unstable_by(f64::total_cmp);
    let (Some(&lowest), Some(&highest)) = (losses.first(), losses.last()) else {
        return 0.0..1.0;
    };
    let last = losses.len() - 1;
    let (low, high) = (losses[last / 20], losses[last - last / 20]);
    let best = valid.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let usual = high + 3.0 * (high - low);
    let top = highest.min(if best.is_finite() { usual.max(best) } else { usual });
    // a scale needs some length even if all losses are the same
    let margin = (0.06 * (top - lowest)).max(0.05).max(1e-6 * top.abs());
    lowest - margin..top + margin
}

/// Moving average, as wide as 1/30 of the points; narrower at the beginning, where the loss falls
/// fast, and one-sided at the end.
fn smooth(points: &[Point]) -> Vec<Point> {
    let half = points.len().div_ceil(30) / 2;
    let last = points.len().saturating_sub(1);
    let average = |i: usize| {
        let before = half.min(i);
        let window = &points[i - before..=last.min(i + before)];
        window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64
    };
    (0..points.len()).map(|i| (points[i].0, average(i))).collect()
}

/// At most about `limit` points, evenly spread, the first and the last among them.
fn thin(points: &[Point], limit: usize) -> Vec<Point> {
    let last = points.len().saturating_sub(1);
    let pieces = last.min(limit).max(1);
    let count = points.len().min(pieces + 1);
    (0..count).map(|i| points[i * last / pieces]).collect()
}

/// At most about `limit` points that look like all: the lowest and the highest of every piece.
fn extremes(points: &[Point], limit: usize) -> Vec<Point> {
    if points.len() <= limit {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for piece in points.chunks(points.len().div_ceil(limit / 2)) {
        let by_loss = |a: &usize, b: &usize| piece[*a].1.total_cmp(&piece[*b].1);
        let low = (0..piece.len()).min_by(by_loss);
        // the first of several equal ones
        let high = (0..piece.len()).rev().max_by(by_loss);
        let mut both: Vec<usize> = low.into_iter().chain(high).collect();
        both.sort_unstable();
        both.dedup();
        kept.extend(both.into_iter().map(|i| piece[i]));
    }
    kept
}

/// Whole steps only: a run of three steps has no step 1.5.
fn step_label(step: &f64) -> String {
    if step.fract() == 0.0 { grouped(*step as u64) } else { String::new() }
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;
