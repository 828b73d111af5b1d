use super::super::{portable, reference};
use super::*;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

fn shapes() -> impl Strategy<Value = Conv1dShape> {
    let sizes = (1usize..4, 1usize..40, 1usize..5, 1usize..9, 1usize..4);
    let channels = (1usize..4, 1usize..6, 1usize..6);
    (sizes, channels, 0usize..30, 0usize..30, 0usize..20).prop_filter_map(
        "padded input shorter than the kernel",
        |(
            (batch, in_len, kernel_size, dilation, stride),
            (groups, ci, co),
            pad_left,
            pad_right,
            history,
        )| {
            let span = (kernel_size - 1) * dilation + 1;
            let padded = in_len + pad_left + pad_right;
            (padded >= span).then(|| Conv1dShape {
                batch,
                in_len,
                out_len: (padded - span) / stride + 1,
                in_channels: groups * ci,
                out_channels: groups * co,
                kernel_size,
                dilation,
                stride,
                groups,
                pad_left,
                history,
            })
        },
    )
}

fn random(rng: &mut rand_chacha::ChaCha8Rng, len: usize) -> Vec<f64> {
    (0..len)
        .map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5)
        .collect()
}

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.iter()
        .zip(b)
        .all(|(a, b)| (a - b).abs() < tolerance * (1.0 + b.abs()))
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
struct Operands {
    x: Vec<f64>,
    history: Vec<f64>,
    dy: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Operands {
    fn new<X: Stored>(shape: &Conv1dShape, seed: u64) -> Self {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let (x_len, history_len, y_len) = shape.sizes();
        let mut random = |len| -> Vec<f64> {
            let values = random(rng, len).into_iter();
            values
                .map(|x| X::store(X::Real::of(x)).load().f64())
                .collect()
        };
        Self {
            x: random(x_len),
            history: random(history_len),
            dy: random(y_len),
            weight: random(shape.weight_len()),
            bias: random(shape.out_channels),
        }
    }

    fn reference(&self, shape: &Conv1dShape) -> Results<f64> {
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

    fn agree<R: Real>(&self, shape: &Conv1dShape, found: &Results<R>, tolerance: f64) -> bool {
        let wanted = self.reference(shape);
        close(&as_f64(&found.y), &wanted.y, tolerance)
            && close(&as_f64(&found.dx), &wanted.dx, tolerance)
            && close(&as_f64(&found.dw), &wanted.dw, tolerance)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn portable_agrees_with_the_reference(shape in shapes(), seed in 0u64..1000) {
        let o = Operands::new::<f64>(&shape, seed);
        let mut found = Results { y: vec![8.0; o.dy.len()], dx: vec![8.0; o.x.len()], dw: vec![8.0; o.weight.len()] };
        portable::forward(&shape, &o.x, &o.history, &o.weight, &mut found.y);
        for (i, y) in found.y.iter_mut().enumerate() {
            *y += o.bias[i % shape.out_channels];
        }
        portable::grad_input(&shape, &o.dy, &o.weight, &mut found.dx);
        portable::grad_weight(&shape, &o.x, &o.history, &o.dy, &mut found.dw);
        prop_assert!(o.agree(&shape, &found, 1e-12), "{shape:?}");
    }
}

#[cfg(target_arch = "x86_64")]
mod packed {
    use half::bf16;

    use super::super::products::tiles_in_loops::Tiles;
    use super::super::products::{self, Micro};
    use super::*;

    fn run<X: Stored<Real = f32>>(
        micro: impl Micro,
        shape: &Conv1dShape,
        o: &Operands,
    ) -> Results<f32> {
        let stored = |v: &[f64]| -> Vec<X> { v.iter().map(|&x| X::store(x as f32)).collect() };
        let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|&x| x as f32).collect() };
        let (x, history) = (stored(&o.x), stored(&o.history));
        let (dy, weight, bias) = (single(&o.dy), single(&o.weight), single(&o.bias));
        let epilogue = Epilogue {
            bias: Some(&bias),
            relu: false,
            dropout: None,
        };
        let mut found = Results {
            y: vec![8.0; dy.len()],
            dx: vec![8.0; x.len()],
            dw: vec![8.0; weight.len()],
        };
        let input = (&x[..], &history[..]);
        products::forward(micro, shape, input, &weight, &epilogue, &mut found.y);
        products::grad_input(micro, shape, &dy, &weight, &mut found.dx);
        products::grad_weight(micro, shape, input, &dy, &mut found.dw);
        found
    }

    /// Runs every implementation that this processor has.
    fn check(shape: &Conv1dShape, seed: u64) -> std::result::Result<(), TestCaseError> {
        use products::{Amx, Avx2, Avx512, Avx512Pairs};
        let single = Operands::new::<f32>(shape, seed);
        let pairs = Operands::new::<bf16>(shape, seed);
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
            prop_assert!(operands.agree(shape, found, 3e-5), "{name}: {shape:?}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn blocks_agree_with_the_reference(shape in shapes(), seed in 0u64..1000) {
            check(&shape, seed)?;
        }
    }

    /// Several pieces, parts, panels and depths beyond one pass.
    #[test]
    fn large_shapes_agree_with_the_reference() {
        let shape = |batch, in_len, in_channels, out_channels, kernel_size, dilation| Conv1dShape {
            batch,
            in_len,
            out_len: in_len,
            in_channels,
            out_channels,
            kernel_size,
            dilation,
            stride: 1,
            groups: 1,
            pad_left: (kernel_size - 1) * dilation,
            history: 0,
        };
        let wide = Conv1dShape {
            in_channels: 300,
            out_channels: 40,
            ..shape(1, 40, 0, 0, 2, 1)
        };
        for (i, shape) in [
            wide,
            shape(1, 1300, 33, 35, 3, 4),
            shape(11, 401, 17, 9, 3, 1),
            shape(2, 700, 10, 70, 2, 301),
            Conv1dShape {
                history: 12,
                groups: 2,
                pad_left: 5,
                ..shape(3, 260, 34, 36, 4, 3)
            },
            Conv1dShape {
                stride: 3,
                out_len: 200,
                ..shape(2, 600, 20, 20, 3, 5)
            },
        ]
        .iter()
        .enumerate()
        {
            check(shape, i as u64).unwrap();
        }
    }
}

/// Sizes of zero through the face: the output is the bias, gradients are zero.
#[test]
fn nothing_to_sum_gives_the_bias() {
    let one = Conv1dShape {
        batch: 1,
        in_len: 3,
        out_len: 3,
        in_channels: 2,
        out_channels: 2,
        kernel_size: 1,
        dilation: 1,
        stride: 1,
        groups: 1,
        pad_left: 0,
        history: 0,
    };
    for shape in [
        Conv1dShape { batch: 0, ..one },
        Conv1dShape { out_len: 0, ..one },
        Conv1dShape {
            in_channels: 0,
            ..one
        },
        Conv1dShape {
            out_channels: 0,
            ..one
        },
        Conv1dShape {
            in_len: 0,
            pad_left: 1,
            ..one
        },
    ] {
        let (x_len, _, y_len) = shape.sizes();
        let (x, weight) = (vec![1f32; x_len], vec![1f32; shape.weight_len()]);
        let bias = vec![5f32; shape.out_channels];
        let epilogue = Epilogue {
            bias: Some(&bias),
            relu: true,
            dropout: None,
        };
        let mut y = vec![7f32; y_len];
        forward(&shape, &x, &[], &weight, &epilogue, &mut y).unwrap();
        assert!(y.iter().all(|&y| y == 5.0), "{shape:?}");
        let (mut dx, mut dw) = (vec![7f32; x_len], vec![7f32; weight.len()]);
        grad_input(&shape, &y, &weight, &mut dx).unwrap();
        grad_weight(&shape, &x, &[], &y, &mut dw).unwrap();
        let no_outputs = shape.out_channels == 0 || y.is_empty();
        assert!(
            dx.iter()
                .all(|&dx| dx == if no_outputs { 0.0 } else { 10.0 })
        );
        assert!(dw.iter().all(|&dw| dw == 0.0), "{shape:?}");
    }
}

#[test]
fn a_slice_of_the_wrong_length_is_an_error() {
    let shape = Conv1dShape {
        batch: 1,
        in_len: 3,
        out_len: 3,
        in_channels: 2,
        out_channels: 1,
        kernel_size: 1,
        dilation: 1,
        stride: 1,
        groups: 1,
        pad_left: 0,
        history: 0,
    };
    let none = Epilogue {
        bias: None,
        relu: false,
        dropout: None,
    };
    let error = forward(&shape, &[0f32; 5], &[], &[0.0; 2], &none, &mut [0f32; 3]).unwrap_err();
    assert_eq!(error.to_string(), "input: expected 6 elements, found 5");
}
