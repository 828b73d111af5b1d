//! The vectorised loops (activations, gates, norms, sums, losses, dropout) against plain formulas in
//! double precision: in every storage, at any length, and with the same bits under every kernel.

use std::fmt::Debug;

use candle_tcn::kernels::dropout::{self, DropoutMask, MaskKey};
use candle_tcn::kernels::elementwise::{Activation, Gate};
use candle_tcn::kernels::rows::{self, RowNorm, Target};
use candle_tcn::kernels::{Kernel, Real, Stored, update};
use half::bf16;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::common::{close, kernels};

/// A number of the buffers, and the error that a result of it may have.
trait Number: Stored + PartialEq + Debug {
    const EPS: f64;
}
impl Number for f32 {
    const EPS: f64 = 2e-6;
}
impl Number for f64 {
    const EPS: f64 = 1e-12;
}
impl Number for bf16 {
    const EPS: f64 = 1. / 256.;
}

/// The result of `run`, which must be the same under every kernel of this processor.
fn under_every_kernel<R: PartialEq + Debug>(run: impl Fn(Kernel) -> R) -> R {
    let available = kernels::available(Kernel::ALL, Kernel::name, Kernel::is_available);
    let mut results = available.into_iter().map(|kernel| (kernel, run(kernel)));
    let (best, first) = results.next().expect("a kernel");
    for (kernel, result) in results {
        assert_eq!(result, first, "{kernel:?} against {best:?}");
    }
    first
}

/// Numbers from −`range` to `range`.
fn numbers<S: Number>(seed: u64, len: usize, range: f64) -> Vec<S> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        S::store(S::Real::of((2. * unit - 1.) * range))
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn wide<S: Number>(xs: &[S]) -> Vec<f64> {
    xs.iter().map(|x| x.load().f64()).collect()
}

fn zeros<S: Number>(len: usize) -> Vec<S> {
    // not zero: everything must be overwritten
    vec![S::store(S::Real::of(77.)); len]
}

/// `scale`: how large the terms are that were added up.
fn assert_close<S: Number>(what: &str, got: &[S], want: &[f64], eps: f64, scale: f64) {
    let tolerance = close::Tolerance { atol: eps * scale, rtol: eps };
    if let Err(message) = close::compare(&wide(got), want, tolerance) {
        panic!("{what}: {message}");
    }
}

const ACTIVATIONS: [Activation; 8] = [
    Activation::Relu,
    Activation::Gelu,
    Activation::Silu,
    Activation::Elu,
    Activation::LeakyRelu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Mish,
];

fn activations<S: Number>(seed: u64, len: usize) {
    let (x, dy) = (numbers::<S>(seed, len, 9.), numbers::<S>(seed + 1, len, 1.));
    for f in ACTIVATIONS {
        let y = under_every_kernel(|kernel| {
            let mut y = zeros(len);
            f.forward(kernel, &x, &mut y);
            y
        });
        let want: Vec<f64> = wide(&x).into_iter().map(|x| f.apply(x)).collect();
        assert_close(&format!("{f:?}"), &y, &want, S::EPS, 1.);
        let dx = under_every_kernel(|kernel| {
            let mut dx = zeros(len);
            f.backward(kernel, &x, &dy, &mut dx);
            dx
        });
        let slopes = wide(&x).into_iter().map(|x| f.derivative(x));
        let want: Vec<f64> = slopes.zip(wide(&dy)).map(|(s, dy)| s * dy).collect();
        assert_close(&format!("{f:?} gradient"), &dx, &want, S::EPS, 1.);
    }
}

fn gates<S: Number>(seed: u64, rows: usize, channels: usize) {
    let len = rows * channels;
    let x = numbers::<S>(seed, 2 * len, 5.);
    let dy = numbers::<S>(seed + 1, len, 1.);
    let (x64, dy64) = (wide(&x), wide(&dy));
    for gate in [Gate::Glu, Gate::TanhSigmoid] {
        let (y, dx) = under_every_kernel(|kernel| {
            let (mut y, mut dx) = (zeros(len), zeros(2 * len));
            gate.forward(kernel, channels, &x, &mut y);
            gate.backward(kernel, channels, &x, &dy, &mut dx);
            (y, dx)
        });
        let (mut want_y, mut want_dx) = (vec![0.; len], vec![0.; 2 * len]);
        for i in 0..len {
            let at = i / channels * 2 * channels + i % channels;
            let (a, s) = (x64[at], 1. / (1. + (-x64[at + channels]).exp()));
            let (value, slope) = match gate {
                Gate::Glu => (a, 1.),
                Gate::TanhSigmoid => (a.tanh(), 1. - a.tanh().powi(2)),
            };
            want_y[i] = value * s;
            want_dx[at] = dy64[i] * slope * s;
            want_dx[at + channels] = dy64[i] * value * s * (1. - s);
        }
        assert_close("gate", &y, &want_y, S::EPS, 1.);
        assert_close("gate gradient", &dx, &want_dx, S::EPS, 1.);
    }
}

/// Everything by the textbook, row by row: `y`, `dx`, `dweight`, `dbias`.
fn norm_by_the_book(
    norm: RowNorm,
    x: &[f64],
    [weight, bias]: [&[f64]; 2],
    dy: &[f64],
) -> [Vec<f64>; 4] {
    let c = weight.len();
    let n = c as f64;
    let (mut y, mut dx) = (Vec::new(), Vec::new());
    let (mut dw, mut db) = (vec![0.; c], vec![0.; c]);
    for (x, dy) in x.chunks(c).zip(dy.chunks(c)) {
        let center = if norm.center { 1. } else { 0. };
        let mean = center * x.iter().sum::<f64>() / n;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let r = 1. / (var + norm.eps).sqrt();
        let normal: Vec<f64> = x.iter().map(|x| (x - mean) * r).collect();
        let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, w)| dy * w).collect();
        let g_mean = center * g.iter().sum::<f64>() / n;
        let along = g.iter().zip(&normal).map(|(g, n)| g * n).sum::<f64>() / n;
        for i in 0..c {
            y.push(normal[i] * weight[i] + bias[i]);
            dx.push(r * (g[i] - g_mean - normal[i] * along));
            dw[i] += dy[i] * normal[i];
            db[i] += dy[i];
        }
    }
    [y, dx, dw, db]
}

fn norms<S: Number<Real: Number>>(seed: u64, rows: usize, channels: usize) {
    let len = rows * channels;
    let (x, dy) = (numbers::<S>(seed, len, 3.), numbers::<S>(seed + 1, len, 1.));
    let weight = numbers::<S::Real>(seed + 2, channels, 2.);
    let bias = numbers::<S::Real>(seed + 3, channels, 2.);
    for center in [true, false] {
        // large enough that a row of two equal numbers does not blow errors up
        let norm = RowNorm { center, eps: 0.1 };
        let (y, dx, affine) = under_every_kernel(|kernel| {
            let (mut y, mut dx) = (zeros(len), zeros(len));
            let mut affine = zeros(2 * channels);
            norm.forward(kernel, &x, &weight, Some(&bias), None, &mut y);
            norm.backward(kernel, &x, &weight, &dy, &mut dx, &mut affine);
            (y, dx, affine)
        });
        let [want_y, want_dx, want_dw, want_db] =
            norm_by_the_book(norm, &wide(&x), [&wide(&weight), &wide(&bias)], &wide(&dy));
        let eps = <S::Real as Number>::EPS;
        assert_close("norm", &y, &want_y, S::EPS + 4. * eps, 4.);
        assert_close("norm gradient", &dx, &want_dx, S::EPS + 4. * eps, 20.);
        let (dw, db) = affine.split_at(channels);
        assert_close("weight gradient", dw, &want_dw, eps, rows as f64);
        assert_close("bias gradient", db, &want_db, eps, rows as f64);
    }
}

fn sums<S: Number<Real: Number>>(seed: u64, rows: usize, channels: usize) {
    let len = rows * channels;
    let (y, dy) = (numbers::<S>(seed, len, 1.), numbers::<S>(seed + 1, len, 1.));
    let (sum, dz, db) = under_every_kernel(|kernel| {
        let (mut sum, mut dz, mut db) = (zeros(channels), zeros(len), zeros(channels));
        rows::sum_rows(kernel, &dy, &mut sum);
        let mut alone = zeros(len);
        rows::relu_grad(kernel, &y, &dy, S::Real::of(1.5), &mut alone);
        rows::relu_grad_with_bias(kernel, &y, &dy, S::Real::of(1.5), &mut dz, &mut db);
        assert_eq!(dz, alone);
        (sum, dz, db)
    });
    let (y, dy) = (wide(&y), wide(&dy));
    let grad = |i: usize| if y[i] > 0. { 1.5 * dy[i] } else { 0. };
    let add_up = |term: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let column = |c| (0..rows).map(|r| term(r * channels + c)).sum();
        (0..channels).map(column).collect()
    };
    let eps = <S::Real as Number>::EPS;
    assert_close("sum", &sum, &add_up(&|i| dy[i]), eps, rows as f64);
    assert_close("bias gradient", &db, &add_up(&grad), eps, rows as f64);
    let want: Vec<f64> = (0..len).map(grad).collect();
    assert_close("ReLU gradient", &dz, &want, S::EPS, 0.);
}

fn losses<S: Number>(seed: u64, rows: usize, vocab: usize) {
    let logits = numbers::<S>(seed, rows * vocab, 8.);
    // the first rows count half, once, and not at all
    let weight = |r: usize| [0.5, 1., 0.].get(r).copied().unwrap_or(1.);
    let class = |r: usize| ((r * 31 + 7) % vocab) as u32;
    let targets: Vec<_> =
        (0..rows).map(|r| Target { class: class(r), weight: weight(r) }).collect();
    let (loss, grad) = under_every_kernel(|kernel| {
        let mut grad = zeros(rows * vocab);
        rows::cross_entropy_grad(kernel, &logits, vocab, &targets, S::Real::of(0.25), &mut grad);
        (rows::cross_entropy(kernel, &logits, vocab, &targets), grad)
    });
    let (mut want, mut want_grad) = (0., Vec::new());
    for (row, target) in wide(&logits).chunks(vocab).zip(&targets) {
        let (class, weight) = (target.class as usize, target.weight);
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        want += weight * (sum.ln() - row[class]);
        want_grad.extend(row.iter().enumerate().map(|(i, x)| {
            let hit = if i == class { 1. } else { 0. };
            0.25 * weight * (x.exp() / sum - hit)
        }));
    }
    assert_close("loss", &[loss], &[want], 2e-6, rows as f64);
    assert_close("loss gradient", &grad, &want_grad, S::EPS, 0.25);
}

fn weight_norms<T: Real + Number>(seed: u64, channels: usize, each: usize) {
    let len = channels * each;
    let (v, dw) = (numbers::<T>(seed, len, 1.), numbers::<T>(seed + 1, len, 1.));
    let g = numbers::<T>(seed + 2, channels, 2.);
    let (w, dv, dg) = under_every_kernel(|kernel| {
        let (mut w, mut dv, mut dg) = (zeros(len), zeros(len), zeros(channels));
        rows::weight_norm(kernel, &v, &g, &mut w);
        rows::weight_norm_grad(kernel, &v, &g, &dw, &mut dv, &mut dg);
        (w, dv, dg)
    });
    let (v, dw, g) = (wide(&v), wide(&dw), wide(&g));
    let (mut want_w, mut want_dv, mut want_dg, mut steepest) = (vec![], vec![], vec![], 1f64);
    for ((v, dw), g) in v.chunks(each).zip(dw.chunks(each)).zip(g) {
        let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let along = v.iter().zip(dw).map(|(v, dw)| v * dw).sum::<f64>() / length;
        want_w.extend(v.iter().map(|v| g * v / length));
        want_dv.extend(v.iter().zip(dw).map(|(v, dw)| g / length * (dw - v / length * along)));
        want_dg.push(along);
        steepest = steepest.max(1. / length);
    }
    assert_close("weight norm", &w, &want_w, T::EPS, 1.);
    assert_close("gradient of v", &dv, &want_dv, T::EPS, 4. * steepest);
    assert_close("gradient of g", &dg, &want_dg, T::EPS, 4. * (each as f64).sqrt());
}

fn drops<S: Number>(seed: u64, len: usize, first: usize) {
    let (key, p) = (MaskKey::new(seed, 9), 0.3);
    let x = numbers::<S>(seed, first + len, 3.);
    let (y, piece, channels) = under_every_kernel(|kernel| {
        let mut y = zeros(x.len());
        dropout::elements(kernel, key, p, &x, &mut y);
        let mut piece = x[first..].to_vec();
        dropout::apply_in_place(kernel, key, p, first, &mut piece);
        let mut channels = zeros(x.len());
        dropout::channels(kernel, key, p, (1, x.len()), &x, &mut channels);
        (y, piece, channels)
    });
    assert_eq!(piece, y[first..]);
    // a sequence of one row: there a channel is an element
    assert_eq!(channels, y);
    let scale = DropoutMask::new(key, p).scale();
    for (x, y) in wide(&x).into_iter().zip(wide(&y)) {
        assert!(y == 0. || (y - x * scale).abs() <= S::EPS * y.abs());
    }
}

fn steps<T: Real + Number>(seed: u64, len: usize) {
    let [p, g, m] = [0, 1, 2].map(|i| numbers::<T>(seed + i, len, 1.));
    let (new_p, new_m, squares) = under_every_kernel(|kernel| {
        let (mut p, mut m) = (p.clone(), m.clone());
        let step = |p: f64, g: f64, [m]: [f64; 1]| (p - 0.1 * (m + g), [0.9 * m + g]);
        update::update(kernel, &mut p, &g, [&mut m], step);
        (p, m, update::sum_of_squares(kernel, &g))
    });
    let (p, g, m) = (wide(&p), wide(&g), wide(&m));
    let want: Vec<f64> = (0..len).map(|i| p[i] - 0.1 * (m[i] + g[i])).collect();
    assert_close("parameter", &new_p, &want, T::EPS, 0.1);
    let want: Vec<f64> = (0..len).map(|i| 0.9 * m[i] + g[i]).collect();
    assert_close("moment", &new_m, &want, T::EPS, 0.1);
    let want = g.iter().map(|g| g * g).sum();
    assert_close("squares", &[squares], &[want], 1e-12, 1.);
}

/// In each storage.
macro_rules! each {
    ($check:ident::<$($number:ty),*>$args:tt) => { $($check::<$number>$args;)* };
}

#[test]
fn awkward_lengths() {
    for len in [1, 7, 8, 15, 17, 33, 1000, 16_384, 16_389] {
        each!(activations::<f32, f64, bf16>(len as u64, len));
        each!(drops::<f32, f64, bf16>(5, len, len / 2));
        each!(steps::<f32, f64>(3, len));
    }
    for (rows, width) in [(1, 1), (3, 7), (700, 17), (2, 1000), (300, 450), (40_000, 1)] {
        each!(gates::<f32, f64, bf16>(1, rows, width));
        each!(norms::<f32, f64, bf16>(1, rows, width));
        each!(sums::<f32, f64, bf16>(1, rows, width));
        each!(losses::<f32, f64, bf16>(1, rows, width));
        each!(weight_norms::<f32, f64>(1, rows, width));
    }
    each!(losses::<f32, bf16>(2, 3, 50_000));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn any_shape(rows in 1usize..60, width in 1usize..130, seed in 0u64..1000) {
        each!(activations::<f32, bf16>(seed, rows * width));
        each!(drops::<f32, bf16>(seed, rows, width));
        each!(steps::<f32>(seed, rows * width));
        each!(gates::<f32, bf16>(seed, rows, width));
        each!(norms::<f32, bf16>(seed, rows, width));
        each!(sums::<f32, bf16>(seed, rows, width));
        each!(losses::<f32, bf16>(seed, rows, width));
        each!(weight_norms::<f32>(seed, rows, width));
    }
}
