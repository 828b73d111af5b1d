//! `tcn receptive-field`: which steps a stack reaches, layer by layer, and which stacks reach a
//! wanted context; of images, along both axes.

mod effective;
mod report;
mod size;

use std::io::Write;
use std::path::PathBuf;

use candle_tcn::files::write_atomic;
use candle_tcn::geometry::{
    Dilations, Growth, MAX_LAYERS, Padding, PlanOptions, Stack, Stack2d, plan,
};
use candle_tcn::plot::{effective_field_svg, receptive_field_2d_svg, receptive_field_svg};
use serde_json::json;

use crate::flags::{count, counted};
use crate::{UsageError, model, print_line};
use size::List;
pub use size::Size;

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
    #[arg(long, value_name = "LIST", value_parser = |text: &str| size::list(text, "dilation"), allow_hyphen_values = true)]
    dilations: Option<List>,
    /// A stride for each of --dilations, taken by its first convolution; over images also 2,1x2
    #[arg(long, value_name = "LIST", value_parser = |text: &str| size::list(text, "stride"), allow_hyphen_values = true)]
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
    /// With --model: the context that it really uses on this text, by the gradient of a step's loss (a file, a folder
    /// or a pattern; `-` is standard input)
    #[arg(long, value_name = "FILE", requires = "model")]
    data: Option<PathBuf>,
    /// Places of the text that are measured
    #[arg(long, value_name = "N", value_parser = count, requires = "data", default_value = "256")]
    windows: usize,
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
    if let Some(at_least) = args.at_least {
        return search(&args, at_least);
    }
    if args.channels.is_some() {
        bail_usage!("--channels goes with --at-least only");
    }
    let axes = axes(&args)?;
    let used = args.data.as_ref().map(|data| effective::measure(&args, data)).transpose()?;
    if let Some(path) = &args.svg {
        let svg = match (&axes[..], &used) {
            ([height, width], _) => {
                receptive_field_2d_svg(&Stack2d { height: height.clone(), width: width.clone() })
            }
            (axes, Some(used)) => effective_field_svg(&axes[0], &used.gradient),
            (axes, None) => receptive_field_svg(&axes[0]),
        }?;
        write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
        say!("drawn: {}", path.display());
    }
    report::print(&axes, used.as_ref(), args.json)
}

/// The flags that are given of those that name a configuration, and of those that describe a stack.
fn given(args: &ReceptiveFieldArgs) -> [Vec<&'static str>; 2] {
    let sources = [
        ("--preset", args.preset.is_some()),
        ("--config", args.config.is_some()),
        ("--model", args.model.is_some()),
    ];
    let shape = [
        ("--kernel-size", args.kernel_size.is_some()),
        ("--dilations", args.dilations.is_some()),
        ("--strides", args.strides.is_some()),
        ("--levels", args.levels.is_some()),
        ("--base", args.base.is_some()),
        ("--convs-per-block", args.convs_per_block.is_some()),
        ("--stacks", args.stacks.is_some()),
        ("--non-causal", args.non_causal),
    ];
    let given = |flags: &[(&'static str, bool)]| {
        flags.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect()
    };
    [given(&sources), given(&shape)]
}

/// The stack that the flags name or describe: over time, or along the height and the width of images.
fn axes(args: &ReceptiveFieldArgs) -> anyhow::Result<Vec<Stack>> {
    let [sources, shape] = given(args);
    let lists = [&args.dilations, &args.strides].into_iter().flatten().flatten();
    match (&sources[..], &shape[..]) {
        ([], []) => bail_usage!(
            "nothing to measure: give --preset NAME, --config FILE, --model MODEL, or --kernel-size K \
             with --dilations 1,2,4 (or --levels N)"
        ),
        // over images, convolutions see as far on one side as on the other
        ([], _) if lists.chain(&args.kernel_size).any(|size| size.is_pair) => {
            Ok(vec![axis(args, Padding::Same, 0)?, axis(args, Padding::Same, 1)?])
        }
        ([], _) if args.non_causal => Ok(vec![axis(args, Padding::Same, 0)?]),
        ([], _) => Ok(vec![axis(args, Padding::Causal, 0)?]),
        ([_], []) => Ok(vec![configured(args)?]),
        ([source], [flag, ..]) => bail_usage!(
            "{flag} does not go with {source}, which says the whole stack; leave one of them out"
        ),
        ([first, second, ..], _) => {
            bail_usage!("{first} and {second} both name a configuration; leave one of them out")
        }
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

/// The stack along one axis, the first part of each size or the second.
fn axis(args: &ReceptiveFieldArgs, padding: Padding, axis: usize) -> anyhow::Result<Stack> {
    let Some(kernel_size) = args.kernel_size else {
        bail_usage!("--kernel-size is missing: the taps of each convolution");
    };
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
        (Some(list), None) => repeated(list, axis, stacks)?,
        (None, Some(levels)) => {
            Dilations::Growth(Growth { stacks, ..Growth::new(args.base.unwrap_or(2), levels) })
                .expand()?
        }
    };
    let convs = args.convs_per_block.unwrap_or(1);
    let stack = Stack::uniform(kernel_size.along[axis], &dilations, convs, padding)?;
    match &args.strides {
        None => Ok(stack),
        Some(strides) => Ok(stack.with_strides(&repeated(strides, axis, stacks)?)?),
    }
}

fn repeated(list: &List, axis: usize, stacks: usize) -> anyhow::Result<Vec<usize>> {
    match list.len().checked_mul(stacks) {
        Some(layers) if layers <= MAX_LAYERS => {
            Ok(list.iter().map(|size| size.along[axis]).collect::<Vec<_>>().repeat(stacks))
        }
        _ => bail_usage!(
            "--stacks {stacks} times {} of a list: expected at most {MAX_LAYERS} layers",
            list.len()
        ),
    }
}

fn search(args: &ReceptiveFieldArgs, at_least: usize) -> anyhow::Result<()> {
    let mut others = given(args).concat();
    others.extend(args.svg.is_some().then_some("--svg"));
    others.extend(args.data.is_some().then_some("--data"));
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
    if let Some(Size { along: [kernel_size, _], is_pair }) = args.kernel_size {
        if is_pair {
            bail_usage!("--at-least plans one axis: give --kernel-size as one number");
        }
        options.kernel_sizes = kernel_size..=kernel_size;
    }
    let plans = plan(at_least, &options)?;
    if args.json {
        return print_line(json!({"at_least": at_least, "plans": plans}));
    }
    let columns = [
        ("kernel", "kernel_size"),
        ("levels", "levels"),
        ("stacks", "stacks"),
        ("layers", "layers"),
        ("receptive field", "receptive_field"),
        ("parameters", "parameters"),
        ("dilations", "dilations"),
    ];
    let rows = plans.iter().map(|plan| {
        let mut row = json!(plan);
        row["dilations"] = match plan.dilations[..] {
            [.., last] if last > 1 => format!("1..{last}").into(),
            _ => "1".into(),
        };
        row
    });
    report::print_table(&columns, &rows.collect::<Vec<_>>())?;
    print_line(format_args!(
        "\nstacks that reach at least {}, cheapest first; convolutions a block: {}, channels: {}",
        counted(at_least, "step"),
        options.convs_per_block,
        options.channels
    ))
}
