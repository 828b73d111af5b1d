//! `confusion.svg`: what was said of each class.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Drawn, FAINT, GRID, INK, svg, write, write_heading};
use crate::Result;

const FULL: RGBColor = RGBColor(31, 95, 160);

/// Most classes whose counts and names are written.
const NAMED: usize = 30;

/// Draws a confusion matrix: a row for each class, a column for what was said, shaded by the share of the class.
///
/// # Errors
/// [`Error::File`](crate::Error::File) if the drawing library fails.
///
/// # Example
///
/// ```
/// let classes = ["rest".to_string(), "walk".to_string()];
/// let svg = candle_tcn::plot::confusion_svg("12 series", &classes, &|class, said| [[7, 1], [0, 4]][class][said])?;
/// assert!(svg.starts_with("<svg") && svg.contains("walk"));
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn confusion_svg(
    subtitle: &str,
    classes: &[String],
    count: &dyn Fn(usize, usize) -> u64,
) -> Result<String> {
    let longest = classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(20);
    let cell = (560 / classes.len().max(1) as i32).clamp(4, 64);
    let left = 60 + if classes.len() <= NAMED { 8 * longest as i32 } else { 0 };
    let side = cell * classes.len() as i32;
    let size = ((left + side + 30).max(420) as u32, (150 + side) as u32);
    svg("confusion.svg", size, |root| draw(root, subtitle, classes, count, (left, cell)))
}

fn draw(
    root: &Canvas,
    subtitle: &str,
    classes: &[String],
    count: &dyn Fn(usize, usize) -> u64,
    (left, cell): (i32, i32),
) -> Drawn {
    const TOP: i32 = 124;
    write_heading(root, 24, "Classes and what was said of them", subtitle)?;
    let side = cell * classes.len() as i32;
    write(root, "said", (left + side / 2, TOP - 34), (14, FAINT), HPos::Center)?;
    write(root, "class", (14, TOP - 12), (14, FAINT), HPos::Left)?;
    let named = classes.len() <= NAMED;
    // names that fit stand over their columns; for longer ones their numbers do
    let short = classes.iter().all(|name| 8 * name.chars().count() as i32 <= cell);
    for (row, name) in classes.iter().enumerate() {
        let total: u64 = (0..classes.len()).map(|said| count(row, said)).sum();
        let y = TOP + cell * row as i32;
        if named {
            let name: String = name.chars().take(20).collect();
            let number = (row + 1).to_string();
            let (in_row, in_column) =
                if short { (name.clone(), name) } else { (format!("{number}  {name}"), number) };
            write(root, &in_row, (left - 8, y + cell / 2), (13, INK), HPos::Right)?;
            let x = left + cell * row as i32 + cell / 2;
            write(root, &in_column, (x, TOP - 12), (13, INK), HPos::Center)?;
        }
        for said in 0..classes.len() {
            let (x, found) = (left + cell * said as i32, count(row, said));
            let share = found as f64 / total.max(1) as f64;
            let corners = [(x, y), (x + cell, y + cell)];
            root.draw(&Rectangle::new(corners, FULL.mix(share).filled()))?;
            root.draw(&Rectangle::new(corners, GRID.stroke_width(1)))?;
            if named && found > 0 {
                let color = if share > 0.5 { WHITE } else { INK };
                let at = (x + cell / 2, y + cell / 2);
                write(
                    root,
                    &found.to_string(),
                    at,
                    (13.min(cell as u32 / 2 + 4), color),
                    HPos::Center,
                )?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_classes_and_classes_without_series_are_drawn() {
        for classes in [1, 2, 30, 200] {
            let names: Vec<String> = (0..classes).map(|i| format!("<class & {i}>")).collect();
            let svg =
                confusion_svg("", &names, &|class, said| u64::from(class == said && class > 0))
                    .unwrap();
            assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("<class"));
        }
    }
}
