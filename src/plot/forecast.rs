//! `forecast.svg`: forecasts beside what came.

use std::ops::Range;

use plotters::prelude::*;

use super::canvas::{ACCENT, Canvas, Drawn, GRID, INK, svg, write_heading};
use crate::Result;

const SIZE: (u32, u32) = (960, 460);
const BAND: RGBColor = RGBColor(244, 190, 160);

/// A forecast that is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastPath {
    /// The step of its first value.
    pub start: usize,
    /// Lower end, middle and upper end at each step.
    pub values: Vec<[f64; 3]>,
}

/// Draws a series, forecasts of it and their bands over steps; values that are not finite are left out.
///
/// # Errors
/// [`Error::File`](crate::Error::File) if the drawing library fails.
///
/// # Example
///
/// ```
/// use candle_tcn::plot::{ForecastPath, forecast_svg};
/// let truth: Vec<f64> = (0..40).map(|t| f64::from(t % 7)).collect();
/// let path = ForecastPath { start: 33, values: (33..40).map(|t| [0., 1., 2.].map(|d| f64::from(t % 7) + d - 1.)).collect() };
/// let svg = forecast_svg("visits", "seven days ahead", (&truth, 0), &[path], &|step| format!("day {step}"))?;
/// assert!(svg.starts_with("<svg") && svg.contains("visits"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn forecast_svg(
    title: &str,
    subtitle: &str,
    (truth, first): (&[f64], usize),
    paths: &[ForecastPath],
    label: &dyn Fn(usize) -> String,
) -> Result<String> {
    svg("forecast.svg", SIZE, |root| draw(root, (title, subtitle), (truth, first), paths, label))
}

fn draw(
    root: &Canvas,
    (title, subtitle): (&str, &str),
    (truth, first): (&[f64], usize),
    paths: &[ForecastPath],
    label: &dyn Fn(usize) -> String,
) -> Drawn {
    write_heading(root, 70, title, subtitle)?;
    let ends = paths.iter().map(|path| path.start + path.values.len());
    let last = ends.chain([first + truth.len()]).max().unwrap_or(first + 1).max(first + 1);
    let (values, decimals) = range(
        truth
            .iter()
            .copied()
            .chain(paths.iter().flat_map(|path| path.values.iter().flatten().copied())),
    );
    let mut chart = ChartBuilder::on(root)
        .margin(12)
        .margin_top(80)
        // half of the last date
        .margin_right(40)
        .x_label_area_size(36)
        .y_label_area_size(62)
        .build_cartesian_2d(first as f64..last as f64, values)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.5))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .x_labels(6)
        .x_label_formatter(&|step| label(step.round().max(0.0) as usize))
        .y_label_formatter(&|value| format!("{value:.*}", decimals))
        .draw()?;
    for path in paths {
        let at = |i: usize| (path.start + i) as f64;
        let known = |band: &&(usize, &[f64; 3])| band.1.iter().all(|x| x.is_finite());
        let band: Vec<_> = path.values.iter().enumerate().collect();
        let upper = band.iter().filter(known).map(|(i, band)| (at(*i), band[2]));
        let lower = band.iter().filter(known).rev().map(|(i, band)| (at(*i), band[0]));
        chart.draw_series([Polygon::new(
            upper.chain(lower).collect::<Vec<_>>(),
            BAND.mix(0.6).filled(),
        )])?;
    }
    for run in finite_runs(truth) {
        let points = run.clone().map(|i| ((first + i) as f64, truth[i]));
        chart.draw_series(LineSeries::new(points, INK.stroke_width(1)))?;
    }
    for path in paths {
        let middle: Vec<f64> = path.values.iter().map(|band| band[1]).collect();
        for run in finite_runs(&middle) {
            let points = run.map(|i| ((path.start + i) as f64, middle[i]));
            chart.draw_series(LineSeries::new(points, ACCENT.stroke_width(2)))?;
        }
    }
    Ok(())
}

/// The parts of a series without gaps.
fn finite_runs(values: &[f64]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, _) in values.iter().enumerate().filter(|(_, x)| x.is_finite()) {
        match runs.last_mut().filter(|run| run.end == i) {
            Some(run) => run.end += 1,
            None => runs.push(i..i + 1),
        }
    }
    runs
}

/// The range of values, and the decimals that tell one line of the grid from the next.
fn range(values: impl Iterator<Item = f64>) -> (Range<f64>, usize) {
    let finite = values.filter(|x| x.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low > high {
        return (0.0..1.0, 1);
    }
    let margin = (0.06 * (high - low)).max(1e-9 * high.abs()).max(1e-9);
    let decimals = 1.0 - (high - low + 2.0 * margin).log10().floor();
    (low - margin..high + margin, decimals.clamp(0.0, 9.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_nothing_at_all_are_drawn() {
        let nan = f64::NAN;
        assert_eq!(finite_runs(&[nan, 1., 2., nan, 3.]), [1..3, 4..5]);
        for truth in [&[][..], &[nan], &[1., nan, 1.]] {
            let path = ForecastPath { start: 1, values: vec![[nan; 3], [1., 2., 3.]] };
            let svg =
                forecast_svg("<x>", "", (truth, 0), &[path], &|step| step.to_string()).unwrap();
            assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("<x>"));
        }
    }
}
