//! Published figures, and every formula against brute force.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn total(kernel_size: usize, dilations: &[usize], convs: usize) -> usize {
    let stack = Stack::uniform(kernel_size, dilations, convs, Padding::Causal).unwrap();
    stack.receptive_field().unwrap().total
}

fn grown(growth: Growth) -> Vec<usize> {
    Dilations::Growth(growth).expand().unwrap()
}

fn repeated(levels: usize, stacks: usize) -> Vec<usize> {
    grown(Growth { stacks, ..Growth::new(2, levels) })
}

#[test]
fn published_receptive_fields() {
    // locuslab/TCN: PTB characters, PTB words, adding/MNIST and copy memory
    assert_eq!(total(3, &[1, 2, 4], 2), 29);
    assert_eq!(total(3, &[1, 2, 4, 8], 2), 61);
    assert_eq!(total(7, &repeated(8, 1), 2), 3061);
    assert_eq!(total(8, &repeated(8, 1), 2), 3571);
    // WaveNet: 24 layers in 4 stacks
    assert_eq!(total(3, &repeated(6, 4), 1), 505);
    // CARP: 16, 32 and 56 layers
    assert_eq!(total(5, &repeated(8, 2), 1), 2041);
    assert_eq!(total(5, &repeated(8, 4), 1), 4081);
    assert_eq!(total(5, &repeated(8, 7), 1), 7141);
    // GPN: 25 layers that begin again after 6
    let gpn = Growth { reset_every: Some(6), max: Some(32), ..Growth::new(2, 25) };
    assert_eq!(total(9, &grown(gpn), 1), 2025);
    assert_eq!(total(1, &[1], 1), 1);
    assert_eq!(total(2, &[3], 1), 4);
}

#[test]
fn two_dimensions_are_two_axes() {
    let aspp = Stack::series(vec![Layer::centred("rate 36", 3, 36).unwrap()]);
    let (height, width) = Stack2d::square(aspp).receptive_field().unwrap();
    assert_eq!((height.total, width.total), (73, 73));
    assert_eq!((height.left, height.right), (36, 36));
}

#[test]
fn schedules() {
    let capped = Growth { max: Some(6), ..Growth::new(2, 5) };
    assert_eq!(grown(capped), [1, 2, 4, 6, 6]);
    let reset = Growth { reset_every: Some(2), stacks: 2, ..Growth::new(3, 3) };
    assert_eq!(grown(reset), [1, 3, 1, 1, 3, 1]);
    assert_eq!(grown(Growth::new(1, 3)), [1, 1, 1]);
    // a maximum also cuts powers that overflow
    let high = Growth { max: Some(128), ..Growth::new(2, 100) };
    assert_eq!(grown(high)[99], 128);
}

#[test]
fn schedules_in_json() {
    let parse = |text: &str| serde_json::from_str::<Dilations>(text);
    for text in ["[1,2,4]", r#"{"base":2,"levels":8,"stacks":1,"reset_every":4,"max":6}"#] {
        assert_eq!(serde_json::to_string(&parse(text).unwrap()).unwrap(), text);
    }
    let message = |text| parse(text).unwrap_err().to_string();
    assert!(message(r#"{"base": 2}"#).contains("levels"));
    assert!(message(r#"{"levels": 2, "level": 3}"#).contains("level"));
    assert!(message("[1, -2]").contains("-2"));
    assert!(message("7").contains("a list of dilations"));
}

#[test]
fn bad_schedules_are_errors() {
    let error = |dilations: Dilations| dilations.expand().unwrap_err().to_string();
    assert!(error(Dilations::List(vec![])).contains("empty"));
    assert!(error(Dilations::List(vec![1, 0])).contains("at least 1"));
    assert!(error(Dilations::List(vec![1; MAX_LAYERS + 1])).contains("65536"));
    assert!(error(Dilations::Growth(Growth::new(2, 0))).contains("levels"));
    assert!(error(Dilations::Growth(Growth::new(2, 65))).contains("overflows"));
    assert!(error(Dilations::Growth(Growth::new(1, usize::MAX))).contains("layers"));
    let no_reset = Growth { reset_every: Some(0), ..Growth::new(2, 2) };
    assert!(error(Dilations::Growth(no_reset)).contains("reset_every"));
}

#[test]
fn one_convolution() {
    assert_eq!(Padding::Causal.split(3, 2).unwrap(), (4, 0));
    assert_eq!(Padding::Same.split(3, 2).unwrap(), (2, 2));
    assert_eq!(Padding::Same.split(2, 1).unwrap(), (0, 1));
    assert_eq!(Padding::Valid.split(3, 2).unwrap(), (0, 0));
    let explicit = Padding::Explicit { left: 1, right: 5 };
    assert_eq!(explicit.split(3, 2).unwrap(), (1, 5));
    assert_eq!(effective_kernel(1, usize::MAX).unwrap(), 1);
    assert!(effective_kernel(3, usize::MAX).is_err());
    assert!(effective_kernel(0, 1).is_err());
    assert_eq!(output_length(5, 3, 2, 1, 0, 0).unwrap(), 1);
    assert_eq!(output_length(0, 3, 2, 1, 4, 1).unwrap(), 1);
    assert!(output_length(usize::MAX, 3, 1, 1, 1, 1).is_err());
    let short = output_length(3, 3, 2, 1, 1, 0).unwrap_err().to_string();
    assert!(short.contains("at least 5 steps") && short.contains("= 4"), "{short}");
}

#[test]
fn overflow_is_an_error() {
    let wide = Stack::uniform(2, &[usize::MAX / 4; 3], 1, Padding::Causal).unwrap();
    assert!(wide.receptive_field().is_err());
    assert!(wide.table().is_err());
    assert!(wide.reach().is_err());
    let strided = Layer::causal("a", 1, 1).unwrap().with_stride(usize::MAX.isqrt() + 1).unwrap();
    assert!(Stack::series(vec![strided.clone(), strided]).receptive_field().is_err());
    assert!(Stack::uniform(2, &[1; 300], 300, Padding::Causal).is_err());
    assert!(Stack::uniform(2, &[], 1, Padding::Causal).is_err());
    assert!(Stack::uniform(2, &[1], 0, Padding::Causal).is_err());
    let far = Padding::Explicit { left: 3, right: 0 };
    assert!(Layer::new("a", 2, 2, far).is_err());
}

#[test]
fn the_table_sums_to_the_field() {
    let stack = Stack::uniform(3, &[1, 2, 4], 2, Padding::Causal).unwrap();
    let rows = stack.table().unwrap();
    let fields: Vec<usize> = rows.iter().map(|row| row.field.total).collect();
    assert_eq!(fields, [3, 5, 9, 13, 21, 29]);
    assert_eq!(rows[2].layer.name(), "network.1.conv1");
}

#[test]
fn holes_of_known_stacks() {
    let holes = |stack: Stack| stack.reach().unwrap().unwrap().holes();
    let gap = holes(Stack::uniform(2, &[3], 1, Padding::Causal).unwrap());
    assert_eq!((gap.count, gap.first), (2, vec![-1, -2]));
    // the taps -1 and 1 miss the step itself, unless a residual path reads it
    let layer = Layer::centred("a", 2, 2).unwrap();
    let around = holes(Stack::series(vec![layer.clone()]));
    assert_eq!((around.count, around.first), (1, vec![0]));
    assert_eq!(holes(Stack::new(vec![Block::residual(vec![layer])])).count, 0);
    // nearest first on both sides
    let wide = holes(Stack::uniform(3, &[8], 1, Padding::Same).unwrap());
    assert_eq!(wide.first, [-1, 1, -2, 2, -3, 3, -4, 4]);
    assert_eq!(wide.count, 14);
    let blocks = Stack::uniform(3, &[1, 2, 4], 2, Padding::Causal).unwrap();
    assert_eq!(holes(blocks).count, 0);
}

#[test]
fn reach_is_bounded() {
    // as regular as it is wide
    let wide = Stack::uniform(2, &repeated(50, 1), 1, Padding::Causal).unwrap();
    assert_eq!(wide.reach().unwrap().unwrap().holes().count, 0);
    // every other step of 2^25: too many runs
    let taps = Stack::uniform(1 << 24, &[2], 1, Padding::Causal).unwrap();
    assert_eq!(taps.reach().unwrap(), None);
    // sparse taps in every layer: too much work
    let deep = Stack::uniform(2, &[2; 60_000], 1, Padding::Causal).unwrap();
    assert_eq!(deep.reach().unwrap(), None);
}

#[test]
fn a_suffix_cuts_blocks() {
    let layer = |name| Layer::causal(name, 2, 1).unwrap();
    let pair = || Block::residual(vec![layer("a"), layer("b")]);
    let stack = Stack::new(vec![pair(), pair()]);
    let cut = Stack::new(vec![Block::plain(vec![layer("b")]), pair()]);
    assert_eq!(stack.suffix(3), cut);
    assert_eq!(stack.suffix(9), stack);
    assert_eq!(stack.suffix(0), Stack::new(vec![]));
}

#[test]
fn plans_reach_without_holes() {
    for at_least in [1, 2, 29, 1000, 10_000] {
        let plans = plan(at_least, &PlanOptions::default()).unwrap();
        assert!(!plans.is_empty() && plans.len() <= 10);
        assert!(plans.is_sorted_by_key(|plan| plan.parameters));
        for plan in plans {
            let dilations = plan.dilations.repeat(plan.stacks);
            let stack = Stack::uniform(plan.kernel_size, &dilations, 1, Padding::Causal).unwrap();
            assert_eq!(stack.receptive_field().unwrap().total, plan.receptive_field);
            assert!(plan.receptive_field >= at_least);
            assert_eq!(stack.layers().count(), plan.layers);
            assert_eq!(stack.reach().unwrap().unwrap().holes().count, 0);
        }
    }
}

#[test]
fn plans_count_parameters() {
    let options =
        PlanOptions { channels: 64, convs_per_block: 2, kernel_sizes: 3..=3, ..Default::default() };
    let best = &plan(29, &options).unwrap()[0];
    assert_eq!((best.levels, best.stacks, best.layers), (3, 1, 6));
    assert_eq!(best.parameters, 6 * (64 * 64 * 3 + 64));
}

#[test]
fn bad_plans_are_errors() {
    let with = |change: fn(&mut PlanOptions)| {
        let mut options = PlanOptions::default();
        change(&mut options);
        plan(10, &options).unwrap_err().to_string()
    };
    assert!(plan(0, &PlanOptions::default()).is_err());
    assert!(plan(usize::MAX, &PlanOptions::default()).is_err());
    assert!(with(|o| o.channels = 0).contains("channels"));
    assert!(with(|o| o.convs_per_block = 0).contains("convs_per_block"));
    assert!(with(|o| o.kernel_sizes = 1..=1).contains("at least 2"));
    assert!(with(|o| o.kernel_sizes = 2..=usize::MAX).contains("4096"));
    assert!(with(|o| o.channels = usize::MAX).contains("overflow"));
}

fn any_layer() -> impl Strategy<Value = Layer> {
    (1usize..5, 1usize..6, 1usize..4, 0usize..3).prop_map(
        |(kernel_size, dilation, stride, side)| {
            let padding = [Padding::Causal, Padding::Same, Padding::Valid][side];
            let layer = Layer::new("layer", kernel_size, dilation, padding).unwrap();
            layer.with_stride(stride).unwrap()
        },
    )
}

fn any_stack() -> impl Strategy<Value = Stack> {
    let block = (prop::collection::vec(any_layer(), 1..3), any::<bool>());
    prop::collection::vec(block, 1..4).prop_map(|blocks| {
        let blocks = blocks.into_iter().map(|(layers, residual)| match residual {
            true => Block::residual(layers),
            false => Block::plain(layers),
        });
        Stack::new(blocks.collect())
    })
}

/// Runs the stack forwards on sets instead of numbers: what each step of a layer depends on is
/// the union of what the steps it reads depend on.
fn forward(layer: &Layer, input: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let steps = (0..input.len()).step_by(layer.stride());
    let read = |step: usize| {
        let taps = (0..layer.kernel_size()).map(move |tap| step + tap * layer.dilation());
        let inside = taps.filter_map(|tap| input.get(tap.checked_sub(layer.left())?));
        inside.flatten().copied().collect()
    };
    steps.map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn field_and_reach_equal_brute_force(stack in any_stack()) {
        let field = stack.receptive_field().unwrap();
        // an output step with its whole field inside the input
        let output = field.left.div_ceil(field.jump);
        let origin = output * field.jump;
        let mut steps: Vec<_> = (0..=origin + field.right).map(|n| BTreeSet::from([n])).collect();
        for block in &stack.blocks {
            let input = steps.clone();
            let mut stride = 1;
            for layer in &block.layers {
                steps = forward(layer, &steps);
                stride *= layer.stride();
            }
            if block.residual {
                for (step, bypass) in steps.iter_mut().zip(input.iter().step_by(stride)) {
                    step.extend(bypass);
                }
            }
        }
        let reached: Vec<i64> =
            steps[output].iter().map(|&n| n as i64 - origin as i64).collect();
        prop_assert_eq!(reached[0], -(field.left as i64));
        prop_assert_eq!(reached[reached.len() - 1], field.right as i64);
        prop_assert_eq!(field.total, field.left + 1 + field.right);

        let reach = stack.reach().unwrap().unwrap();
        let range = -(field.left as i64)..=field.right as i64;
        let by_runs: Vec<i64> = range.clone().filter(|&n| reach.contains(n)).collect();
        prop_assert_eq!(&by_runs, &reached);
        prop_assert_eq!(reach.count(), reached.len() as u64);

        let mut holes: Vec<i64> = range.filter(|n| reached.binary_search(n).is_err()).collect();
        holes.sort_by_key(|n| (n.abs(), *n));
        prop_assert_eq!(reach.holes().count, holes.len());
        holes.truncate(8);
        prop_assert_eq!(reach.holes().first, holes);
    }
}

/// One layer of a random image stack: an axis each.
fn any_layer2d() -> impl Strategy<Value = (Layer, Layer)> {
    (any_layer(), any_layer())
}

/// The pixels that a pixel of the last layer's output reads, by walking down from it on a map of booleans,
/// with the input pixel that offsets are counted from.
fn reachability(layers: &[(Layer, Layer)], size: usize) -> (Vec<Vec<bool>>, (usize, usize)) {
    let jump =
        |axis: fn(&(Layer, Layer)) -> &Layer| layers.iter().map(|l| axis(l).stride()).product();
    let jumps: (usize, usize) = (jump(|l| &l.0), jump(|l| &l.1));
    // an output pixel whose place in the input is about the middle
    let output = (size / 2 / jumps.0, size / 2 / jumps.1);
    let mut map = vec![vec![false; size]; size];
    map[output.0][output.1] = true;
    for (height, width) in layers.iter().rev() {
        let mut below = vec![vec![false; size]; size];
        for (i, row) in map.iter().enumerate() {
            for j in (0..size).filter(|&j| row[j]) {
                for m in 0..height.kernel_size() {
                    for n in 0..width.kernel_size() {
                        let line = i * height.stride() + m * height.dilation() - height.left();
                        let column = j * width.stride() + n * width.dilation() - width.left();
                        below[line][column] = true;
                    }
                }
            }
        }
        map = below;
    }
    (map, (output.0 * jumps.0, output.1 * jumps.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn fields_of_images_equal_a_map_of_reached_pixels(
        layers in prop::collection::vec(any_layer2d(), 1..4),
    ) {
        let (heights, widths) = layers.iter().cloned().unzip();
        let stack = Stack2d { height: Stack::series(heights), width: Stack::series(widths) };
        let (height, width) = stack.receptive_field().unwrap();
        let size = 2 * (height.total.max(width.total) + height.jump.max(width.jump));
        let (map, origin) = reachability(&layers, size);

        let lines = (0..size).filter(|&i| map[i].contains(&true));
        let columns = (0..size).filter(|&j| map.iter().any(|line| line[j]));
        for (field, origin, reached) in [
            (height, origin.0, lines.collect::<Vec<_>>()),
            (width, origin.1, columns.collect()),
        ] {
            prop_assert_eq!(origin - field.left, reached[0]);
            prop_assert_eq!(origin + field.right, reached[reached.len() - 1]);
            prop_assert_eq!(field.total, field.left + 1 + field.right);
        }
        // without paths around layers, the pixels are those of both axes
        let reach = (stack.height.reach().unwrap().unwrap(), stack.width.reach().unwrap().unwrap());
        let offset = |n: usize, origin: usize| n as i64 - origin as i64;
        for (i, line) in map.iter().enumerate() {
            for (j, &reached) in line.iter().enumerate() {
                let by_axis = reach.0.contains(offset(i, origin.0)) && reach.1.contains(offset(j, origin.1));
                prop_assert_eq!(reached, by_axis);
            }
        }
    }
}
