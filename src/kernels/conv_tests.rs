use super::super::{portable, reference};
use super::*;
use crate::close::{Tolerance, compare};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

/// An axis with a padded input at least as long as the kernel.
fn axis(most_inputs: usize, most_padding: usize) -> impl Strategy<Value = Axis> {
    let sizes = (1..=most_inputs, 1usize..5, 1usize..9, 1usize..4);
    let padding = (0..most_padding, 0..most_padding);
    (sizes, padding).prop_filter_map(
        "padded input shorter than the kernel",
        |((in_len, kernel_size, dilation, stride), (pad_before, pad_after))| {
            let span = (kernel_size - 1) * dilation + 1;
            let padded = in_len + pad_before + pad_after;
            (padded >= span).then(|| Axis {
                in_len,
                out_len: (padded - span) / stride + 1,
                kernel_size,
                dilation,
                stride,
                pad_before,
            })
        },
    )
}

/// Sequences and images, with one image in two of stride 1 along both axes.
fn shapes() -> impl Strategy<Value = ConvShape> {
    let height = prop_oneof![Just(Axis::ONE), axis(9, 10)];
    let sizes = (1usize..4, 1usize..4, 1usize..6, 1usize..6, 0usize..20);
    (height, axis(40, 30), sizes, any::<bool>()).prop_map(
        |(height, width, (batch, groups, ci, co, history), dense)| {
            let unstrided = |axis: Axis| Axis {
                out_len: (axis.out_len - 1) * axis.stride + 1,
                stride: 1,
                ..axis
            };
            let [height, width] = match dense {
                true => [height, width].map(unstrided),
                false => [height, width],
            };
            ConvShape {
                batch,
                in_channels: groups * ci,
                out_channels: groups * co,
                groups,
                height,
                width,
                history,
            }
        },
    )
}

fn random(rng: &mut rand_chacha::ChaCha8Rng, len: usize) -> Vec<f64> {
    (0..len).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5).collect()
}

/// The three products of one implementation, on buffers that hold garbage before.
struct Results<R> {
    y: Vec<R>,
    dx: Vec<R>,
    dw: Vec<R>,
}

fn as_f64<R: Real>(values: &[R]) -> Vec<f64> {
    values.iter().map(|x| x.f64()).collect()
}

/// Random operands of a convolution, such as all numbers of type `X` are.
struct Arrays {
    x: Vec<f64>,
    history: Vec<f64>,
    dy: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Arrays {
    fn new<X: Stored>(shape: &ConvShape, seed: u64) -> Self {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let (x_len, history_len, y_len) = shape.sizes();
        let mut random = |len| -> Vec<f64> {
            let values = random(rng, len).into_iter();
            values.map(|x| X::store(X::Real::of(x)).load().f64()).collect()
        };
        Self {
            x: random(x_len),
            history: random(history_len),
            dy: random(y_len),
            weight: random(shape.weight_len()),
            bias: random(shape.out_channels),
        }
    }

    fn reference(&self, shape: &ConvShape) -> Results<f64> {
        let Self { x, history, dy, .. } = self;
        let (mut y, mut dx) = (vec![7.0; dy.len()], vec![7.0; x.len()]);
        let mut dw = vec![7.0; self.weight.len()];
        reference::forward(shape, x, history, &self.weight, &mut y);
        for (i, y) in y.iter_mut().enumerate() {
            *y += self.bias[i % shape.out_channels];
        }
        reference::grad_input(shape, dy, &self.weight, &mut dx);
        reference::grad_weight(shape, x, history, dy, &mut dw);
        Results { y, dx, dw }
    }

    fn agree<R: Real>(
        &self,
        what: &str,
        shape: &ConvShape,
        found: &Results<R>,
        tolerance: f64,
    ) -> Result<(), TestCaseError> {
        let wanted = self.reference(shape);
        for (part, found, wanted) in [
            ("y", &found.y, &wanted.y),
            ("dx", &found.dx, &wanted.dx),
            ("dw", &found.dw, &wanted.dw),
        ] {
            let agrees =
                compare(&as_f64(found), wanted, Tolerance { atol: tolerance, rtol: tolerance });
            prop_assert!(agrees.is_ok(), "{what}, {part}: {agrees:?}: {shape:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn portable_agrees_with_the_reference(shape in shapes(), seed in 0u64..1000) {
        let o = Arrays::new::<f64>(&shape, seed);
        let mut found = Results { y: vec![8.0; o.dy.len()], dx: vec![8.0; o.x.len()], dw: vec![8.0; o.weight.len()] };
        portable::forward(&shape, &o.x, &o.history, &o.weight, &mut found.y);
        for (i, y) in found.y.iter_mut().enumerate() {
            *y += o.bias[i % shape.out_channels];
        }
        portable::grad_input(&shape, &o.dy, &o.weight, &mut found.dx);
        portable::grad_weight(&shape, &o.x, &o.history, &o.dy, &mut found.dw);
        o.agree("portable", &shape, &found, 1e-12)?;
    }
}

#[cfg(target_arch = "x86_64")]
mod packed {
    use half::bf16;

    use super::super::super::packed_gemm::amx_in_loops::Tiles;
    use super::super::super::packed_gemm::{self, MicroKernel};
    use super::super::Kernel;
    use super::super::Operands as Product;
    use super::*;
    use crate::test_kernels::available;

    fn run<X: Stored<Real = f32>>(
        micro: impl MicroKernel,
        shape: &ConvShape,
        o: &Arrays,
    ) -> Results<f32> {
        let stored = |v: &[f64]| -> Vec<X> { v.iter().map(|&x| X::store(x as f32)).collect() };
        let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|&x| x as f32).collect() };
        let (x, history) = (stored(&o.x), stored(&o.history));
        let (dy, weight, bias) = (single(&o.dy), single(&o.weight), single(&o.bias));
        let epilogue = RowEpilogue { bias: Some(&bias), relu: false, dropout: None };
        let mut found =
            Results { y: vec![8.0; dy.len()], dx: vec![8.0; x.len()], dw: vec![8.0; weight.len()] };
        let input = (&x[..], &history[..]);
        let (x, weight, epilogue, dy) = (input, &weight[..], &epilogue, &dy[..]);
        let (y, dx, dw) = (&mut found.y[..], &mut found.dx[..], &mut found.dw[..]);
        packed_gemm::run(micro, shape, Product::Forward { x, weight, epilogue, y });
        packed_gemm::run::<_, f32, f32>(micro, shape, Product::GradInput { dy, weight, dx });
        packed_gemm::run::<_, X, f32>(micro, shape, Product::GradWeight { x, dy, dw });
        found
    }

    /// Runs every implementation that this processor has.
    fn check(shape: &ConvShape, seed: u64) -> std::result::Result<(), TestCaseError> {
        use packed_gemm::{Amx, Avx2, Avx512, Avx512Pairs};
        // names those that are not there
        available(Kernel::ALL, Kernel::name, Kernel::is_available);
        let single = Arrays::new::<f32>(shape, seed);
        let pairs = Arrays::new::<bf16>(shape, seed);
        let mut results = vec![("tiles", &pairs, run::<bf16>(Tiles, shape, &pairs))];
        if let Some(micro) = Avx2::<false>::new() {
            results.push(("avx2", &single, run::<f32>(micro, shape, &single)));
        }
        if let Some(micro) = Avx2::<true>::new() {
            results.push(("avx2 bf16", &pairs, run::<bf16>(micro, shape, &pairs)));
        }
        if let Some(micro) = Avx512::<false>::new() {
            results.push(("avx512", &single, run::<f32>(micro, shape, &single)));
        }
        if let Some(micro) = Avx512::<true>::new() {
            results.push(("avx512 bf16", &pairs, run::<bf16>(micro, shape, &pairs)));
        }
        if let Some(micro) = Avx512Pairs::new() {
            results.push(("avx512 pairs", &pairs, run::<bf16>(micro, shape, &pairs)));
        }
        if let Some(micro) = Amx::new() {
            results.push(("amx", &pairs, run::<bf16>(micro, shape, &pairs)));
        }
        for (name, operands, found) in &results {
            operands.agree(name, shape, found, 3e-5)?;
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn blocks_agree_with_the_reference(shape in shapes(), seed in 0u64..1000) {
            check(&shape, seed)?;
        }
    }

    /// A causal axis of as many outputs as inputs.
    const fn causal(in_len: usize, kernel_size: usize, dilation: usize) -> Axis {
        Axis {
            in_len,
            out_len: in_len,
            kernel_size,
            dilation,
            stride: 1,
            pad_before: (kernel_size - 1) * dilation,
        }
    }

    /// An axis of as many outputs as inputs, padded on both sides.
    const fn same(in_len: usize, kernel_size: usize, dilation: usize) -> Axis {
        Axis {
            pad_before: (kernel_size - 1) * dilation / 2,
            ..causal(in_len, kernel_size, dilation)
        }
    }

    /// Several pieces, parts, panels and depths beyond one pass.
    #[test]
    fn large_shapes_agree_with_the_reference() {
        let shape = |batch, in_channels, out_channels, width| ConvShape {
            batch,
            in_channels,
            out_channels,
            groups: 1,
            height: Axis::ONE,
            width,
            history: 0,
        };
        for (i, shape) in [
            shape(1, 300, 40, causal(40, 2, 1)),
            shape(1, 33, 35, causal(1300, 3, 4)),
            shape(11, 17, 9, causal(401, 3, 1)),
            shape(2, 10, 70, causal(700, 2, 301)),
            ConvShape {
                history: 12,
                groups: 2,
                ..shape(3, 34, 36, Axis { pad_before: 5, ..causal(260, 4, 3) })
            },
            shape(2, 20, 20, Axis { out_len: 200, stride: 3, ..causal(600, 3, 5) }),
            // more taps than rows, together and each by itself
            shape(1, 1, 2, Axis { out_len: 3, pad_before: 0, ..causal(20_002, 20_000, 1) }),
            shape(
                1,
                1,
                2,
                Axis { out_len: 2, stride: 9_000, pad_before: 0, ..causal(20_000, 9_001, 1) },
            ),
        ]
        .iter()
        .enumerate()
        {
            check(shape, i as u64).unwrap();
        }
    }

    /// Lines longer and shorter than a piece, images larger and smaller than one, lines that share packed
    /// rows and lines that do not, dilations beyond the image.
    #[test]
    fn large_images_agree_with_the_reference() {
        let shape = |batch, in_channels, out_channels, height, width| ConvShape {
            batch,
            in_channels,
            out_channels,
            groups: 1,
            height,
            width,
            history: 0,
        };
        let strided = |axis: Axis| Axis { out_len: axis.in_len.div_ceil(2), stride: 2, ..axis };
        for (i, shape) in [
            shape(1, 9, 11, same(5, 3, 1), same(300, 3, 2)),
            shape(2, 8, 5, same(40, 3, 1), same(33, 3, 1)),
            shape(13, 10, 40, same(7, 3, 1), same(7, 3, 1)),
            shape(3, 6, 7, same(20, 3, 8), same(30, 3, 40)),
            shape(2, 5, 6, causal(150, 2, 1), same(1, 3, 1)),
            shape(2, 5, 6, causal(70, 3, 7), Axis { ..same(12, 1, 1) }),
            shape(2, 5, 6, strided(same(50, 3, 2)), same(24, 5, 1)),
            shape(2, 3, 16, strided(same(61, 7, 1)), strided(same(64, 7, 1))),
            ConvShape {
                groups: 2,
                history: 3,
                ..shape(2, 20, 18, same(30, 3, 2), causal(25, 3, 2))
            },
        ]
        .iter()
        .enumerate()
        {
            check(shape, 100 + i as u64).unwrap();
        }
    }
}

/// Sizes of zero through the face: the output is the bias, gradients are zero.
#[test]
fn nothing_to_sum_gives_the_bias() {
    let kernel = Kernel::best();
    let three = Axis { in_len: 3, out_len: 3, ..Axis::ONE };
    let one = ConvShape {
        batch: 1,
        in_channels: 2,
        out_channels: 2,
        groups: 1,
        height: Axis::ONE,
        width: three,
        history: 0,
    };
    let nothing = Axis { in_len: 0, pad_before: 1, ..three };
    for shape in [
        ConvShape { batch: 0, ..one },
        ConvShape { width: Axis { out_len: 0, ..three }, ..one },
        ConvShape { in_channels: 0, ..one },
        ConvShape { out_channels: 0, ..one },
        ConvShape { width: nothing, ..one },
        ConvShape { height: nothing, width: nothing, ..one },
    ] {
        let (x_len, _, y_len) = shape.sizes();
        let (x, weight) = (vec![1f32; x_len], vec![1f32; shape.weight_len()]);
        let bias = vec![5f32; shape.out_channels];
        let epilogue = RowEpilogue { bias: Some(&bias), relu: true, dropout: None };
        let mut y = vec![7f32; y_len];
        forward(kernel, &shape, &x, &[], &weight, &epilogue, &mut y).unwrap();
        assert!(y.iter().all(|&y| y == 5.0), "{shape:?}");
        let (mut dx, mut dw) = (vec![7f32; x_len], vec![7f32; weight.len()]);
        grad_input(kernel, &shape, &y, &weight, &mut dx).unwrap();
        grad_weight(kernel, &shape, &x, &[], &y, &mut dw).unwrap();
        let no_outputs = shape.out_channels == 0 || y.is_empty();
        assert!(dx.iter().all(|&dx| dx == if no_outputs { 0.0 } else { 10.0 }));
        assert!(dw.iter().all(|&dw| dw == 0.0), "{shape:?}");
    }
}

#[test]
fn a_slice_of_the_wrong_length_is_an_error() {
    let shape = ConvShape {
        batch: 1,
        in_channels: 2,
        out_channels: 1,
        groups: 1,
        height: Axis::ONE,
        width: Axis { in_len: 3, out_len: 3, ..Axis::ONE },
        history: 0,
    };
    let none = RowEpilogue { bias: None, relu: false, dropout: None };
    let error = forward(Kernel::best(), &shape, &[0f32; 5], &[], &[0.0; 2], &none, &mut [0f32; 3])
        .unwrap_err();
    assert_eq!(error.to_string(), "input: expected 6 elements, found 5");
}
