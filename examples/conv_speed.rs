//! One convolution with both gradients, by our kernels or by candle's own `conv2d`, timed for
//! `scripts/bench_conv2d.py`. Prints one JSON object: the medians of the runs, ours of each product too.
//!
//! ```text
//! RAYON_NUM_THREADS=2 cargo run --release --example conv_speed -- 2d f32 256 5     # or 1d, 1x1; bf16, candle; channels; runs
//! ```
//!
//! `2d`: 3×3, dilation 4, 64×64 pixels, batch 4. `1d`: 3 taps, dilation 4, 1,024 steps, batch 16. `1x1`: one tap.

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var, bail};
use candle_tcn::kernels::conv::{Axis, ConvShape, RowEpilogue, forward, grad_input, grad_weight};
use candle_tcn::kernels::memory::keep_freed_memory;
use candle_tcn::kernels::{Kernel, Stored};
use half::bf16;

const DILATION: usize = 4;

fn shape(form: &str, channels: usize) -> Result<ConvShape> {
    let axis = |len: usize, kernel_size: usize| Axis {
        in_len: len,
        out_len: len,
        kernel_size,
        dilation: DILATION,
        stride: 1,
        pad_before: DILATION * (kernel_size / 2),
    };
    let (batch, height, width) = match form {
        "2d" => (4, axis(64, 3), axis(64, 3)),
        "1d" => (16, Axis::ONE, axis(1024, 3)),
        "1x1" => (16, Axis::ONE, axis(1024, 1)),
        other => bail!("expected 2d, 1d or 1x1, found {other}"),
    };
    let (in_channels, out_channels) = (channels, channels);
    Ok(ConvShape { batch, in_channels, out_channels, groups: 1, history: 0, height, width })
}

fn numbers<S: Stored<Real = f32>>(len: usize) -> Vec<S> {
    (0..len).map(|i| S::store((i * 7919 % 1000) as f32 / 1000.0 - 0.5)).collect()
}

/// The output and both gradients, into new memory each time, as a training step has it.
fn ours<S: Stored<Real = f32>>(shape: ConvShape, runs: usize) -> Result<Vec<Vec<f64>>> {
    let kernel = Kernel::best();
    let rows = shape.batch * shape.height.in_len * shape.width.in_len;
    let (xs, dy) =
        (numbers::<S>(rows * shape.in_channels), numbers::<S>(rows * shape.out_channels));
    let weight = numbers::<f32>(shape.in_channels * shape.out_channels * shape.taps());
    let epilogue = RowEpilogue { bias: None, relu: false, dropout: None };
    times(runs, || {
        let (mut y, mut dx) = (vec![S::store(0.0); dy.len()], vec![S::store(0.0); xs.len()]);
        let mut dw = vec![0.0; weight.len()];
        let mut marks = vec![Instant::now()];
        forward(kernel, &shape, &xs, &[], &weight, &epilogue, &mut y)?;
        marks.push(Instant::now());
        grad_input(kernel, &shape, &dy, &weight, &mut dx)?;
        marks.push(Instant::now());
        grad_weight(kernel, &shape, &xs, &[], &dy, &mut dw)?;
        marks.push(Instant::now());
        std::hint::black_box((y, dx, dw));
        Ok(marks.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect())
    })
}

fn candle(channels: usize, runs: usize) -> Result<Vec<Vec<f64>>> {
    let xs = Var::from_tensor(&Tensor::rand(-1f32, 1., (4, channels, 64, 64), &Device::Cpu)?)?;
    let weight = Var::rand(-0.02f32, 0.02, (channels, channels, 3, 3), &Device::Cpu)?;
    times(runs, || {
        xs.conv2d(&weight, DILATION, 1, DILATION, 1)?.backward()?;
        Ok(Vec::new())
    })
}

/// Of each run the seconds of the whole, then those of its parts.
fn times(runs: usize, step: impl Fn() -> Result<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    step()?;
    let timed = |_| {
        let start = Instant::now();
        let parts = step()?;
        Ok([vec![start.elapsed().as_secs_f64()], parts].concat())
    };
    (0..runs.max(1)).map(timed).collect()
}

fn median(times: &[Vec<f64>], part: usize) -> f64 {
    let mut times: Vec<f64> = times.iter().map(|times| times[part]).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).map_or(default, String::as_str).to_string();
    let [channels, runs] = [arg(2, "256"), arg(3, "5")].map(|number| number.parse().unwrap_or(1));
    let shape = shape(&arg(0, "2d"), channels)?;
    let rows = shape.batch * shape.height.out_len * shape.width.out_len;
    let flops = 6.0 * (rows * channels * channels * shape.taps()) as f64;
    let times = match arg(1, "f32").as_str() {
        "f32" => ours::<f32>(shape, runs)?,
        "bf16" => ours::<bf16>(shape, runs)?,
        "candle" => candle(channels, runs)?,
        other => bail!("expected f32, bf16 or candle, found {other}"),
    };
    let rate = |flops: f64, part| flops / median(&times, part) / 1e9;
    // forward, gradient of the input, of the weight
    let products: Vec<f64> = (1..times[0].len()).map(|part| rate(flops / 3.0, part)).collect();
    println!(
        "{{\"seconds\": {}, \"gflops\": {}, \"products_gflops\": {products:?}}}",
        median(&times, 0),
        rate(flops, 0)
    );
    Ok(())
}
