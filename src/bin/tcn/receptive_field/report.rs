//! The report of `tcn receptive-field`: a table of layers, the field along each axis, and its holes.

use candle_tcn::Result;
use candle_tcn::geometry::{Field, Holes, Row, Stack};
use candle_tcn::train::EffectiveField;
use serde_json::{Value, json};

use crate::flags::counted;
use crate::print_line;

/// A stack along one axis, measured.
struct Measured<'a> {
    rows: Vec<Row<'a>>,
    field: Field,
    /// None where the steps that are read form too many separate runs.
    holes: Option<Holes>,
}

impl<'a> Measured<'a> {
    fn of(stack: &'a Stack) -> Result<Self> {
        let holes = stack.reach()?.map(|reach| reach.holes());
        Ok(Self { rows: stack.table()?, field: stack.receptive_field()?, holes })
    }

    fn facts(&self) -> Value {
        let Field { total, left, right, .. } = self.field;
        json!({"receptive_field": total, "left": left, "right": right, "holes": self.holes})
    }

    fn facts_with_stride(&self) -> Value {
        let mut facts = self.facts();
        facts["stride"] = self.field.jump.into();
        facts
    }
}

/// Prints what a stack sees along its axes: time, or the height and width of images.
pub fn print(axes: &[Stack], used: Option<&EffectiveField>, as_json: bool) -> anyhow::Result<()> {
    let axes = axes.iter().map(Measured::of).collect::<Result<Vec<_>>>()?;
    let layers: Vec<Value> = (0..axes[0].rows.len()).map(|i| layer(&axes, i)).collect();
    if as_json {
        let mut facts = match &axes[..] {
            [height, width] => json!({
                "receptive_field": [height.field.total, width.field.total],
                "height": height.facts_with_stride(),
                "width": width.facts_with_stride(),
            }),
            axes => axes[0].facts(),
        };
        facts["layers"] = layers.into();
        if let Some(used) = used {
            facts["effective"] = effective_facts(used);
        }
        return print_line(facts);
    }
    let columns = [
        ("layer", "name"),
        ("kernel", "kernel_size"),
        ("dilation", "dilation"),
        ("stride", "stride"),
        ("receptive field", "receptive_field"),
    ];
    print_table(&columns, &layers)?;
    match &axes[..] {
        [height, width] => print_image(height, width)?,
        axes => print_time(&axes[0])?,
    }
    match used {
        Some(used) => print_effective(used),
        None => Ok(()),
    }
}

/// Parts of the whole gradient that are told of.
const PARTS: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

fn effective_facts(used: &EffectiveField) -> Value {
    let mut facts = json!({
        "windows": used.windows,
        "reach": used.reach(),
        "gradient": used.gradient,
    });
    for (name, part) in PARTS {
        facts[name] = used.within(part).into();
    }
    facts
}

fn print_effective(used: &EffectiveField) -> anyhow::Result<()> {
    let parts = PARTS.map(|(_, part)| format!("{}% within {}", part * 100.0, used.within(part)));
    print_line(format_args!(
        "context really used, by the gradient of a step's loss at {}: {} steps before it; none beyond {}",
        counted(used.windows, "place"),
        parts.join(", "),
        used.reach()
    ))
}

/// Facts of a layer: numbers, or of images those of both axes.
fn layer(axes: &[Measured], index: usize) -> Value {
    let of = |number: fn(&Row) -> usize| match axes {
        [height, width] => json!([number(&height.rows[index]), number(&width.rows[index])]),
        axes => number(&axes[0].rows[index]).into(),
    };
    let mut facts = json!({
        "name": axes[0].rows[index].layer.name(),
        "kernel_size": of(|row| row.layer.kernel_size()),
        "dilation": of(|row| row.layer.dilation()),
        "receptive_field": of(|row| row.field.total),
    });
    if axes.len() == 2 {
        facts["stride"] = of(|row| row.layer.stride());
    }
    facts
}

fn print_time(Measured { field, holes, .. }: &Measured) -> anyhow::Result<()> {
    print_line(format_args!(
        "\nreceptive field: {} (the step itself, {} before it, {} after it)",
        counted(field.total, "step"),
        field.left,
        field.right
    ))?;
    print_line(match holes {
        None => "holes: not counted, the steps that are read form too many separate runs".into(),
        Some(holes) if holes.count == 0 => "holes: none".into(),
        Some(holes) => {
            let first: Vec<String> = holes.first.iter().map(i64::to_string).collect();
            let more = if holes.count > first.len() { ", ..." } else { "" };
            let (count, first) = (counted(holes.count, "step"), first.join(", "));
            format!("holes: {count} inside the field never read, nearest first: {first}{more}")
        }
    })
}

fn print_image(height: &Measured, width: &Measured) -> anyhow::Result<()> {
    let (h, w) = (height.field, width.field);
    print_line(format_args!(
        "\nreceptive field: {} lines x {} columns (the pixel itself, {} above and {} below it, {} left and {} \
         right of it)",
        h.total, w.total, h.left, h.right, w.left, w.right
    ))?;
    if (h.jump, w.jump) != (1, 1) {
        print_line(format_args!("stride of the whole stack: {}x{}", h.jump, w.jump))?;
    }
    for (name, unit, axis) in [("height", "lines", height), ("width", "columns", width)] {
        let holes = match axis.holes.as_ref().map(|holes| holes.count) {
            None => "not counted, there are too many separate runs".into(),
            Some(0) => "none".into(),
            Some(count) => format!("{count} {unit} inside the field never read"),
        };
        print_line(format_args!("holes along the {name}: {holes}"))?;
    }
    Ok(())
}

/// Prints the fields of `rows` that they have in columns: the first one to the left, numbers to the right. A column
/// is a head and the name of a field.
pub fn print_table(columns: &[(&str, &str)], rows: &[Value]) -> anyhow::Result<()> {
    let mut lines = vec![String::new(); rows.len() + 1];
    let known = columns.iter().filter(|(_, field)| rows.iter().all(|row| !row[*field].is_null()));
    for (column, (head, field)) in known.enumerate() {
        let values = rows.iter().map(|row| match &row[*field] {
            Value::String(text) => text.clone(),
            Value::Array(pair) => pair.iter().map(Value::to_string).collect::<Vec<_>>().join("x"),
            number => number.to_string(),
        });
        let cells: Vec<String> = std::iter::once(head.to_string()).chain(values).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for (line, cell) in lines.iter_mut().zip(cells) {
            *line += &match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
    }
    lines.iter().try_for_each(print_line)
}
