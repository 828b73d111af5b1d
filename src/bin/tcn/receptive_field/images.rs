//! Receptive fields of stacks over images.

use candle_tcn::geometry::{Field, Padding, Row, Stack, Stack2d};
use candle_tcn::plot::receptive_field_2d_svg;
use serde_json::{Value, json};

use super::{ReceptiveFieldArgs, axis, draw, given, print_table, source_flags};
use crate::print_line;

/// `true` if the flags describe convolutions over images: some size is a pair.
pub fn is_described(args: &ReceptiveFieldArgs) -> bool {
    let lists = [&args.dilations, &args.strides];
    args.kernel_size.is_some_and(|size| size.is_pair)
        || lists.into_iter().flatten().any(|list| list.has_pair())
}

pub fn measure(args: &ReceptiveFieldArgs) -> anyhow::Result<()> {
    if let Some(source) = given(&source_flags(args)).first() {
        bail_usage!(
            "{source} does not go with sizes such as 3x3, which describe a stack of their own; leave one of \
             them out"
        );
    }
    // over images, convolutions see as far on one side as on the other
    let stack = Stack2d {
        height: axis(args, Padding::Same, |size| size.height)?,
        width: axis(args, Padding::Same, |size| size.width)?,
    };
    let rows = (stack.height.table()?, stack.width.table()?);
    let rows: Vec<(Row, Row)> = rows.0.into_iter().zip(rows.1).collect();
    draw(args, || receptive_field_2d_svg(&stack))?;
    match args.json {
        true => print_line(as_json(&stack, &rows)?),
        false => print_text(&stack, &rows),
    }
}

fn as_json(stack: &Stack2d, rows: &[(Row, Row)]) -> anyhow::Result<Value> {
    let (height, width) = stack.receptive_field()?;
    let layers = rows.iter().map(|(h, w)| {
        json!({
            "name": h.layer.name(),
            "kernel_size": [h.layer.kernel_size(), w.layer.kernel_size()],
            "dilation": [h.layer.dilation(), w.layer.dilation()],
            "stride": [h.layer.stride(), w.layer.stride()],
            "receptive_field": [h.field.total, w.field.total],
        })
    });
    Ok(json!({
        "receptive_field": [height.total, width.total],
        "height": axis_json(&stack.height, height)?,
        "width": axis_json(&stack.width, width)?,
        "layers": layers.collect::<Vec<_>>(),
    }))
}

fn axis_json(stack: &Stack, field: Field) -> anyhow::Result<Value> {
    Ok(json!({
        "receptive_field": field.total,
        "left": field.left,
        "right": field.right,
        "stride": field.jump,
        "holes": stack.reach()?.map(|reach| reach.holes()),
    }))
}

fn print_text(stack: &Stack2d, rows: &[(Row, Row)]) -> anyhow::Result<()> {
    let heads = ["layer", "kernel", "dilation", "stride", "receptive field"];
    let mut table = vec![heads.map(String::from)];
    table.extend(rows.iter().map(|(h, w)| {
        let pair = |of: fn(&Row) -> usize| format!("{}x{}", of(h), of(w));
        [
            h.layer.name().to_string(),
            pair(|row| row.layer.kernel_size()),
            pair(|row| row.layer.dilation()),
            pair(|row| row.layer.stride()),
            pair(|row| row.field.total),
        ]
    }));
    print_table(&table)?;
    let (height, width) = stack.receptive_field()?;
    print_line(format_args!(
        "\nreceptive field: {} lines x {} columns (the pixel itself, {} above and {} below it, {} left and {} \
         right of it)",
        height.total, width.total, height.left, height.right, width.left, width.right
    ))?;
    if (height.jump, width.jump) != (1, 1) {
        print_line(format_args!("stride of the whole stack: {}x{}", height.jump, width.jump))?;
    }
    let axes = [("height", "lines", &stack.height), ("width", "columns", &stack.width)];
    for (name, unit, stack) in axes {
        let holes = match stack.reach()?.map(|reach| reach.holes().count) {
            None => "not counted, there are too many separate runs".into(),
            Some(0) => "none".into(),
            Some(count) => format!("{count} {unit} inside the field never read"),
        };
        print_line(format_args!("holes along the {name}: {holes}"))?;
    }
    Ok(())
}
