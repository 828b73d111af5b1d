//! The edges against plain enumeration, and the size and captions of pictures.

use std::collections::BTreeSet;

use super::receptive_field_svg;
use super::tree::{Picture, Tree};
use crate::geometry::{Block, Dilations, Growth, Layer, Padding, Stack};

fn doubling(levels: usize, stacks: usize) -> Vec<usize> {
    let growth = Growth { stacks, ..Growth::new(2, levels) };
    Dilations::Growth(growth).expand().unwrap()
}

fn strided() -> Stack {
    let layer = |stride| Layer::centred("a", 3, 2).unwrap().with_stride(stride).unwrap();
    Stack::series(vec![layer(2), layer(3), layer(1)])
}

#[test]
fn edges_equal_enumeration() {
    let stacks = [
        Stack::uniform(3, &[1, 2, 4], 2, Padding::Causal).unwrap(),
        Stack::uniform(5, &doubling(5, 2), 1, Padding::Same).unwrap(),
        Stack::uniform(1, &[1], 1, Padding::Causal).unwrap(),
        strided(),
    ];
    for stack in &stacks {
        let tree = Tree::new(stack, "input").unwrap();
        let picture = Picture::new(&tree, 32);
        for (level, layer) in tree.layers.iter().enumerate() {
            let (jump, below) = (tree.levels[level].jump, tree.levels[level + 1].jump);
            let mut expected = BTreeSet::new();
            for from in (-500..500).map(|step| step * jump) {
                for tap in 0..layer.kernel_size() as i64 {
                    let to = from + (tap * layer.dilation() as i64 - layer.left() as i64) * below;
                    let inside = |step| (picture.low..=picture.high).contains(&step);
                    if picture.reached(level, from) && (inside(from) || inside(to)) {
                        let (from, to) = (picture.point(level, from), picture.point(level + 1, to));
                        expected.insert((from, to));
                    }
                }
            }
            let mut found = BTreeSet::new();
            for line in picture.edges(level) {
                for pair in line.windows(2) {
                    let (a, b) = (pair[0], pair[1]);
                    found.insert(if a.1 < b.1 { (a, b) } else { (b, a) });
                }
            }
            assert_eq!(found, expected, "{stack:?}, level {level}");
        }
    }
}

#[test]
fn pictures_are_small_and_say_what_they_leave_out() {
    let svg = |stack: Stack| receptive_field_svg(&stack).unwrap();
    let uniform = |kernel, dilations: &[usize], convs, padding| {
        svg(Stack::uniform(kernel, dilations, convs, padding).unwrap())
    };
    let small = uniform(2, &[3], 1, Padding::Causal);
    assert!(small.contains("Receptive field: 4 steps"));
    assert!(small.contains("2 steps inside it never read"));
    assert!(!small.contains("Drawn:"));
    assert!(small.contains("fill=\"#FFFFFF\""), "a white background");
    for dense in [
        uniform(7, &doubling(8, 1), 2, Padding::Causal),
        uniform(9, &doubling(6, 4), 1, Padding::Same),
        uniform(64, &[1; 40], 1, Padding::Same),
        uniform(2, &doubling(60, 1), 1, Padding::Causal),
    ] {
        assert!(dense.len() < 300_000, "{} bytes", dense.len());
        assert!(dense.contains("Drawn: the nearest"));
    }
    let deep = uniform(2, &[1; 40], 1, Padding::Causal);
    assert!(deep.contains("Drawn: the last 16 of 40 layers."));
    assert!(deep.contains("network.23.conv1"), "what the lowest row is");
}

#[test]
fn odd_stacks_are_drawn() {
    let even = Layer::centred("even", 2, 2).unwrap();
    let bypassed = Stack::new(vec![Block::residual(vec![even])]);
    for stack in [Stack::new(vec![]), strided(), bypassed] {
        assert!(receptive_field_svg(&stack).unwrap().ends_with("</svg>\n"));
    }
    let scattered = Stack::uniform(1 << 24, &[2], 1, Padding::Causal).unwrap();
    let error = receptive_field_svg(&scattered).unwrap_err().to_string();
    assert!(error.contains("runs"), "{error}");
}
