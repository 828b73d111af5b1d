//! The three products of one dilated convolution: every kernel that this processor has, beside the same
//! arithmetic as one plain matrix product, and candle's own convolution. Items are floating-point
//! operations; what the processor's multiply-add instructions alone reach is printed first.
//!
//! ```text
//! cargo bench                        # two threads; another number: RAYON_NUM_THREADS
//! cargo bench -- products::forward   # a part
//! ```

use std::fmt;

use candle_core::{DType, Device, Tensor, Var};
use candle_tcn::kernels::conv::{self, Axis, ConvShape, RowEpilogue};
use candle_tcn::kernels::{self, Kernel, Stored};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const THREADS: usize = 2;

fn main() {
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS);
        pool.build_global().expect("nobody has used the threads yet");
    }
    for kernel in available() {
        for (bf16, name) in [(false, "f32"), (true, "bf16")] {
            if let Some(ceiling) = kernels::ceiling(kernel, bf16, rayon::current_num_threads()) {
                println!("ceiling of {} {name}: {:.1} GFLOP/s", kernel.name(), ceiling / 1e9);
            }
        }
    }
    divan::main();
}

fn available() -> impl Iterator<Item = Kernel> {
    let ours = Kernel::ALL.into_iter().filter(|&kernel| kernel != Kernel::Candle);
    ours.filter(|kernel| kernel.is_available())
}

/// A causal layer of as many outputs as inputs, kernel 3.
#[derive(Clone, Copy)]
struct Layer {
    batch: usize,
    len: usize,
    channels: usize,
    dilation: usize,
}

const TAPS: usize = 3;

impl Layer {
    const fn new(channels: usize, dilation: usize) -> Self {
        Self { batch: 32, len: 400, channels, dilation }
    }

    fn shape(&self) -> ConvShape {
        ConvShape {
            batch: self.batch,
            in_channels: self.channels,
            out_channels: self.channels,
            groups: 1,
            height: Axis::ONE,
            width: Axis {
                in_len: self.len,
                out_len: self.len,
                kernel_size: TAPS,
                dilation: self.dilation,
                stride: 1,
                pad_before: (TAPS - 1) * self.dilation,
            },
            history: 0,
        }
    }

    /// Operations of one of its three products.
    fn flops(&self) -> usize {
        2 * self.rows() * self.channels * self.channels * TAPS
    }

    fn rows(&self) -> usize {
        self.batch * self.len
    }

    /// Activations of the layer, input or output.
    fn activations(&self, seed: u64) -> Vec<f32> {
        random(self.rows() * self.channels, seed)
    }

    fn weight(&self) -> Vec<f32> {
        random(self.channels * self.channels * TAPS, 3)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} channels, dilation {}", self.channels, self.dilation)
    }
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

const LAYERS: [Layer; 6] = [
    Layer::new(256, 1),
    Layer::new(256, 4),
    Layer::new(450, 1),
    Layer::new(450, 4),
    Layer::new(512, 1),
    Layer::new(512, 4),
];

/// A layer that tells no more than that the oracle is slow.
const TINY: Layer = Layer { batch: 2, len: 64, channels: 32, dilation: 2 };

/// A layer under a kernel.
#[derive(Clone, Copy)]
struct Case(Kernel, Layer);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.name(), self.1)
    }
}

impl Case {
    /// Times `work` with the layer's sizes.
    fn run(&self, bencher: Bencher, mut work: impl FnMut(&ConvShape)) {
        let shape = self.1.shape();
        bencher.counter(ItemsCount::new(self.1.flops())).bench_local(|| work(&shape));
    }
}

fn cases() -> Vec<Case> {
    available()
        .flat_map(|kernel| match kernel {
            Kernel::Reference => vec![Case(kernel, TINY)],
            _ => LAYERS.map(|layer| Case(kernel, layer)).to_vec(),
        })
        .collect()
}

fn stored<S: Stored<Real = f32>>(values: Vec<f32>) -> Vec<S> {
    values.into_iter().map(S::store).collect()
}

#[divan::bench(types = [f32, bf16], args = cases(), max_time = 0.5, min_time = 0.2)]
fn forward<S: Stored<Real = f32>>(bencher: Bencher, case: &Case) {
    let (x, weight) = (stored::<S>(case.1.activations(1)), case.1.weight());
    let mut y = x.clone();
    let nothing = RowEpilogue { bias: None, relu: false, dropout: None };
    case.run(bencher, |shape| {
        conv::forward(case.0, shape, &x, &[], &weight, &nothing, black_box(&mut y)).unwrap();
    });
}

#[divan::bench(types = [f32, bf16], args = cases(), max_time = 0.5, min_time = 0.2)]
fn grad_input<S: Stored<Real = f32>>(bencher: Bencher, case: &Case) {
    let (dy, weight) = (stored::<S>(case.1.activations(2)), case.1.weight());
    let mut dx = dy.clone();
    case.run(bencher, |shape| {
        conv::grad_input(case.0, shape, &dy, &weight, black_box(&mut dx)).unwrap();
    });
}

#[divan::bench(types = [f32, bf16], args = cases(), max_time = 0.5, min_time = 0.2)]
fn grad_weight<S: Stored<Real = f32>>(bencher: Bencher, case: &Case) {
    let x = stored::<S>(case.1.activations(1));
    let dy = stored::<S>(case.1.activations(2));
    let mut dw = case.1.weight();
    case.run(bencher, |shape| {
        conv::grad_weight(case.0, shape, &x, &[], &dy, black_box(&mut dw)).unwrap();
    });
}

/// One product of the `gemm` crate (through candle, which uses it), rows × (taps · channels) × channels:
/// what would follow a copy into columns.
#[divan::bench(args = [256, 450, 512], max_time = 0.5, min_time = 0.2)]
fn plain_gemm(bencher: Bencher, channels: usize) {
    let layer = Layer::new(channels, 1);
    let (rows, depth) = (layer.rows(), TAPS * channels);
    let a = Tensor::from_vec(random(rows * depth, 1), (rows, depth), &Device::Cpu).unwrap();
    let b = Tensor::from_vec(layer.weight(), (depth, channels), &Device::Cpu).unwrap();
    bencher
        .counter(ItemsCount::new(layer.flops()))
        .bench_local(|| a.matmul(black_box(&b)).unwrap());
}

/// candle's own convolution on its own layout (batch, channels, time).
mod candle {
    use super::*;

    fn tensors(layer: &Layer) -> candle_core::Result<(Var, Var)> {
        let x = Tensor::from_vec(
            layer.activations(1),
            (layer.batch, layer.channels, layer.len),
            &Device::Cpu,
        )?;
        let weight = (layer.channels, layer.channels, TAPS);
        let weight = Tensor::from_vec(layer.weight(), weight, &Device::Cpu)?;
        Ok((Var::from_tensor(&x)?, Var::from_tensor(&weight)?))
    }

    fn conv(x: &Tensor, weight: &Tensor, dilation: usize) -> candle_core::Result<Tensor> {
        x.pad_with_zeros(2, (TAPS - 1) * dilation, 0)?.conv1d(weight, 0, 1, dilation, 1)
    }

    #[divan::bench(args = LAYERS, max_time = 0.5, min_time = 0.2)]
    fn forward(bencher: Bencher, layer: &Layer) {
        let (x, weight) = tensors(layer).unwrap();
        let (x, weight) = (x.as_detached_tensor(), weight.as_detached_tensor());
        bencher
            .counter(ItemsCount::new(layer.flops()))
            .bench_local(|| conv(&x, &weight, layer.dilation).unwrap());
    }

    /// Forward and both gradients, of which that of the weight is wrong at more than one row.
    #[divan::bench(args = LAYERS, max_time = 1, sample_count = 3)]
    fn forward_backward(bencher: Bencher, layer: &Layer) {
        let (x, weight) = tensors(layer).unwrap();
        let dy = Tensor::ones((layer.batch, layer.channels, layer.len), DType::F32, &Device::Cpu);
        let dy = dy.unwrap();
        bencher.counter(ItemsCount::new(3 * layer.flops())).bench_local(|| {
            let y = conv(&x, &weight, layer.dilation).unwrap();
            (y * &dy).unwrap().sum_all().unwrap().backward().unwrap()
        });
    }
}
