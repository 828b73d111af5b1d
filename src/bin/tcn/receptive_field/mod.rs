//! `tcn receptive-field`: which steps a stack reaches, layer by layer, and which stacks reach a
//! wanted context; of images, along both axes.

mod images;
mod size;

use std::io::Write;
use std::path::PathBuf;

use candle_tcn::Result;
use candle_tcn::files::write_atomic;
use candle_tcn::geometry::{
    Dilations, Growth, MAX_LAYERS, Padding, Plan, PlanOptions, Stack, plan,
};
use candle_tcn::plot::receptive_field_svg;
use serde_json::json;

use crate::flags::{count, counted};
use crate::{UsageError, model, print_line, usage_error};
pub use size::Size;
use size::{List, dilations, strides};

#[derive(clap::Args)]
pub struct ReceptiveFieldArgs {
    /// Measure a compiled-in configuration
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Measure a configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Measure a model: a directory, or org/name[@revision] on the Hub
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Measure a stack of convolutions with K taps; over images: HEIGHTxWIDTH, such as 3x3
    #[arg(long, value_name = "K", value_parser = size::one)]
    kernel_size: Option<Size>,
    /// Its dilations, such as 1,2,4 or, doubling, 1..128; over images also 1,2x4
    #[arg(long, value_name = "LIST", value_parser = dilations, allow_hyphen_values = true)]
    dilations: Option<List>,
    /// A stride for each of --dilations, taken by its first convolution; over images also 2,1x2
    #[arg(long, value_name = "LIST", value_parser = strides, allow_hyphen_values = true)]
    strides: Option<List>,
    /// Instead of --dilations: N of them, growing from 1
    #[arg(long, value_name = "N", value_parser = count)]
    levels: Option<usize>,
    /// Factor by which the dilations of --levels grow [default: 2]
    #[arg(long, value_name = "B", value_parser = count)]
    base: Option<usize>,
    /// Convolutions for each dilation [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    convs_per_block: Option<usize>,
    /// Repetitions of the dilations [default: 1]
    #[arg(long, value_name = "S", value_parser = count)]
    stacks: Option<usize>,
    /// Centred convolutions, which see as far ahead as back
    #[arg(long)]
    non_causal: bool,
    /// Draw the tree of inputs that one output reads
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Instead of measuring: list stacks that reach N steps, cheapest first
    #[arg(long, value_name = "N", value_parser = count)]
    at_least: Option<usize>,
    /// Channels by which --at-least counts parameters [default: 128]
    #[arg(long, value_name = "C", value_parser = count)]
    channels: Option<usize>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: ReceptiveFieldArgs) -> anyhow::Result<()> {
    match args.at_least {
        Some(at_least) => search(&args, at_least),
        None if args.channels.is_some() => bail_usage!("--channels goes with --at-least only"),
        None if images::is_described(&args) => images::measure(&args),
        None => measure(&args),
    }
}

/// The flags of `flags` that are given, for messages.
fn given(flags: &[(&'static str, bool)]) -> Vec<&'static str> {
    flags.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect()
}

/// The flags that describe a stack, and whether they are given.
fn shape_flags(args: &ReceptiveFieldArgs) -> [(&'static str, bool); 8] {
    [
        ("--kernel-size", args.kernel_size.is_some()),
        ("--dilations", args.dilations.is_some()),
        ("--strides", args.strides.is_some()),
        ("--levels", args.levels.is_some()),
        ("--base", args.base.is_some()),
        ("--convs-per-block", args.convs_per_block.is_some()),
        ("--stacks", args.stacks.is_some()),
        ("--non-causal", args.non_causal),
    ]
}

/// The flags that name a configuration, and whether they are given.
fn source_flags(args: &ReceptiveFieldArgs) -> [(&'static str, bool); 3] {
    [
        ("--preset", args.preset.is_some()),
        ("--config", args.config.is_some()),
        ("--model", args.model.is_some()),
    ]
}

/// The stack that the flags name or describe.
fn stack(args: &ReceptiveFieldArgs) -> anyhow::Result<Stack> {
    let sources = given(&source_flags(args));
    let shape = given(&shape_flags(args));
    match (&sources[..], &shape[..]) {
        ([], []) => Err(usage_error(
            "nothing to measure: give --preset NAME, --config FILE, --model MODEL, or --kernel-size K \
             with --dilations 1,2,4 (or --levels N)",
        )),
        ([], _) => described(args),
        ([_], []) => configured(args),
        ([source], [flag, ..]) => Err(usage_error(format!(
            "{flag} does not go with {source}, which says the whole stack; leave one of them out"
        ))),
        ([first, second, ..], _) => Err(usage_error(format!(
            "{first} and {second} both name a configuration; leave one of them out"
        ))),
    }
}

fn configured(args: &ReceptiveFieldArgs) -> anyhow::Result<Stack> {
    let preset = args.preset.as_deref().unwrap_or_default();
    let config = model::network(preset, &args.config, &args.model);
    let stack = config.and_then(|config| Ok(config.geometry()?));
    stack.map_err(|error| match error.downcast_ref() {
        Some(candle_tcn::Error::Hub { .. }) => error,
        // a file is to this command what flags are to others
        _ => error.context(UsageError(String::new())),
    })
}

fn described(args: &ReceptiveFieldArgs) -> anyhow::Result<Stack> {
    let padding = match args.non_causal {
        true => Padding::Same,
        false => Padding::Causal,
    };
    axis(args, padding, |size| size.height)
}

/// The stack along one axis: `of` takes its part of a size.
fn axis(
    args: &ReceptiveFieldArgs,
    padding: Padding,
    of: fn(&Size) -> usize,
) -> anyhow::Result<Stack> {
    let kernel_size = args
        .kernel_size
        .ok_or_else(|| usage_error("--kernel-size is missing: the taps of each convolution"))?;
    let stacks = args.stacks.unwrap_or(1);
    let dilations = match (&args.dilations, args.levels) {
        (Some(_), Some(_)) => {
            bail_usage!("--dilations and --levels exclude each other; leave one out");
        }
        (None, None) => {
            bail_usage!("--dilations is missing, such as 1,2,4 (or --levels N)");
        }
        (Some(_), None) if args.base.is_some() => {
            bail_usage!("--base goes with --levels, not with --dilations");
        }
        (Some(list), None) => repeated(&list.axis(of), stacks)?,
        (None, Some(levels)) => {
            Dilations::Growth(Growth { stacks, ..Growth::new(args.base.unwrap_or(2), levels) })
                .expand()?
        }
    };
    let convs = args.convs_per_block.unwrap_or(1);
    let stack = Stack::uniform(of(&kernel_size), &dilations, convs, padding)?;
    match &args.strides {
        None => Ok(stack),
        Some(strides) => {
            let strides = repeated(&strides.axis(of), stacks)?;
            Ok(stack.with_strides(&strides)?)
        }
    }
}

fn repeated(list: &[usize], stacks: usize) -> anyhow::Result<Vec<usize>> {
    match list.len().checked_mul(stacks) {
        Some(layers) if layers <= MAX_LAYERS => Ok(list.repeat(stacks)),
        _ => Err(usage_error(format!(
            "--stacks {stacks} times {} of a list: expected at most {MAX_LAYERS} layers",
            list.len()
        ))),
    }
}

fn measure(args: &ReceptiveFieldArgs) -> anyhow::Result<()> {
    let stack = stack(args)?;
    let field = stack.receptive_field()?;
    let rows = stack.table()?;
    let holes = stack.reach()?.map(|reach| reach.holes());
    draw(args, || receptive_field_svg(&stack))?;
    if args.json {
        let layers = rows.iter().map(|row| {
            json!({
                "name": row.layer.name(),
                "kernel_size": row.layer.kernel_size(),
                "dilation": row.layer.dilation(),
                "receptive_field": row.field.total,
            })
        });
        return print_line(json!({
            "receptive_field": field.total,
            "left": field.left,
            "right": field.right,
            "holes": holes,
            "layers": layers.collect::<Vec<_>>(),
        }));
    }
    let mut table = vec![["layer", "kernel", "dilation", "receptive field"].map(String::from)];
    table.extend(rows.iter().map(|row| {
        let (layer, total) = (row.layer, row.field.total);
        let numbers = [layer.kernel_size(), layer.dilation(), total].map(|n| n.to_string());
        let [kernel, dilation, total] = numbers;
        [layer.name().to_string(), kernel, dilation, total]
    }));
    print_table(&table)?;
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

fn search(args: &ReceptiveFieldArgs, at_least: usize) -> anyhow::Result<()> {
    let mut others = given(&source_flags(args));
    others.extend(given(&shape_flags(args)));
    others.extend(given(&[("--svg", args.svg.is_some())]));
    others.retain(|flag| !["--kernel-size", "--convs-per-block"].contains(flag));
    if let Some(flag) = others.first() {
        bail_usage!(
            "{flag} does not go with --at-least, which takes only --kernel-size, \
             --convs-per-block, --channels and --json"
        );
    }
    let mut options = PlanOptions::default();
    options.convs_per_block = args.convs_per_block.unwrap_or(options.convs_per_block);
    options.channels = args.channels.unwrap_or(options.channels);
    if let Some(kernel_size) = args.kernel_size {
        if kernel_size.is_pair {
            bail_usage!("--at-least plans one axis: give --kernel-size as one number");
        }
        let kernel_size = kernel_size.height;
        options.kernel_sizes = kernel_size..=kernel_size;
    }
    let plans = plan(at_least, &options)?;
    if args.json {
        return print_line(json!({"at_least": at_least, "plans": plans}));
    }
    let heads =
        ["kernel", "levels", "stacks", "layers", "receptive field", "parameters", "dilations"];
    let mut table = vec![heads.map(String::from)];
    table.extend(plans.iter().map(plan_row));
    print_table(&table)?;
    print_line(format_args!(
        "\nstacks that reach at least {}, cheapest first; convolutions a block: {}, channels: {}",
        counted(at_least, "step"),
        options.convs_per_block,
        options.channels
    ))
}

fn plan_row(plan: &Plan) -> [String; 7] {
    let last = plan.dilations.last().copied().unwrap_or(1);
    let dilations = match last {
        1 => "1".into(),
        _ => format!("1..{last}"),
    };
    let [kernel, levels, stacks, layers, field, parameters] = [
        plan.kernel_size,
        plan.levels,
        plan.stacks,
        plan.layers,
        plan.receptive_field,
        plan.parameters,
    ]
    .map(|number| number.to_string());
    [kernel, levels, stacks, layers, field, parameters, dilations]
}

/// Writes the file of `--svg`, if there is the flag.
fn draw(args: &ReceptiveFieldArgs, svg: impl FnOnce() -> Result<String>) -> anyhow::Result<()> {
    if let Some(path) = &args.svg {
        let svg = svg()?;
        write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
        say!("drawn: {}", path.display());
    }
    Ok(())
}

/// Prints rows in columns: the first one to the left, numbers to the right.
fn print_table<const N: usize>(rows: &[[String; N]]) -> anyhow::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells =
            row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        print_line(cells.collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}
