//! Receptive fields of stacks over images.

use candle_tcn::geometry::{Field, Padding, Row, Stack, Stack2d};
use candle_tcn::plot::receptive_field_2d_svg;
use serde_json::{Value, json};

use super::{Args, CHANNELS_ALONE, axis, draw, given, print_table, source_flags};
use crate::{print_line, usage_error};

/// Whether the flags describe convolutions over images: some size is a pair.
pub fn is_described(args: &Args) -> bool {
    let lists = [&args.dilations, &args.strides];
    args.kernel_size.is_some_and(|size| size.is_pair)
        || lists.into_iter().flatten().any(|list| list.has_pair())
}

pub fn measure(args: &Args) -> anyhow::Result<()> {
    if args.channels.is_some() {
        return Err(usage_error(CHANNELS_ALONE));
    }
    if let Some(source) = given(&source_flags(args)).first() {
        return Err(usage_error(format!(
            "{source} does not go with sizes such as 3x3, which describe a stack of their own; leave one of \
             them out"
        )));
    }
    // over images, convolutions see as far on one side as on the other
    let stack = Stack2d {
        height: axis(args, Padding::Same, |size| size.height)?,
        width: axis(args, Padding::Same, |size| size.width)?,
    };
    let (height, width) = stack.receptive_field()?;
    let rows = (stack.height.table()?, stack.width.table()?);
    let rows: Vec<(Row, Row)> = rows.0.into_iter().zip(rows.1).collect();
    if let Some(path) = &args.svg {
        let svg = receptive_field_2d_svg(&stack)?;
        draw(path, &svg)?;
    }
    if args.json {
        let layers = rows.iter().map(|(h, w)| {
            json!({
                "name": h.layer.name(),
                "kernel_size": [h.layer.kernel_size(), w.layer.kernel_size()],
                "dilation": [h.layer.dilation(), w.layer.dilation()],
                "stride": [h.layer.stride(), w.layer.stride()],
                "receptive_field": [h.field.total, w.field.total],
            })
        });
        return print_line(json!({
            "receptive_field": [height.total, width.total],
            "height": axis_json(&stack.height, height)?,
            "width": axis_json(&stack.width, width)?,
            "layers": layers.collect::<Vec<_>>(),
        }));
    }
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
    print_line(format_args!(
        "\nreceptive field: {} lines x {} columns (the pixel itself, {} above and {} below it, {} left and {} \
         right of it)",
        height.total, width.total, height.left, height.right, width.left, width.right
    ))?;
    if (height.jump, width.jump) != (1, 1) {
        print_line(format_args!("stride of the whole stack: {}x{}", height.jump, width.jump))?;
    }
    for (name, unit, stack) in
        [("height", "lines", &stack.height), ("width", "columns", &stack.width)]
    {
        print_line(match stack.reach()?.map(|reach| reach.holes().count) {
            None => {
                format!("holes along the {name}: not counted, there are too many separate runs")
            }
            Some(0) => format!("holes along the {name}: none"),
            Some(count) => {
                format!("holes along the {name}: {count} {unit} inside the field never read")
            }
        })?;
    }
    Ok(())
}

fn axis_json(stack: &Stack, field: Field) -> anyhow::Result<Value> {
    let holes = stack.reach()?.map(|reach| reach.holes());
    Ok(json!({
        "receptive_field": field.total,
        "left": field.left,
        "right": field.right,
        "stride": field.jump,
        "holes": holes.map(|holes| json!({"count": holes.count, "first": holes.first})),
    }))
}
