//! Forward and backward of one dilated 2-D convolution, here and with candle's own `conv2d`, timed for
//! `scripts/bench_conv2d.py`: 3×3, 256 to 256 channels, dilation 4, 64×64 pixels, batch 4. Prints one JSON
//! object: the median of the runs.
//!
//! ```text
//! RAYON_NUM_THREADS=2 cargo run --release --example conv2d_speed -- f32 5     # or bf16, or candle
//! ```

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use candle_tcn::ops::{Conv2dParams, conv2d};

const BATCH: usize = 4;
const SIDE: usize = 64;
const CHANNELS: usize = 256;
const DILATION: usize = 4;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_else(|| "f32".into());
    let runs: usize = args.next().and_then(|runs| runs.parse().ok()).unwrap_or(5);
    let weight = Var::rand(-0.02f32, 0.02, (CHANNELS, CHANNELS, 3, 3), &Device::Cpu)?;
    let (xs, ours) = match what.as_str() {
        "f32" | "bf16" => ((BATCH, SIDE, SIDE, CHANNELS), true),
        "candle" => ((BATCH, CHANNELS, SIDE, SIDE), false),
        other => bail!("expected f32, bf16 or candle, found {other}"),
    };
    let dtype = match what.as_str() {
        "bf16" => DType::BF16,
        _ => DType::F32,
    };
    let xs = Var::from_tensor(&Tensor::rand(-1f32, 1., xs, &Device::Cpu)?.to_dtype(dtype)?)?;
    let params = Conv2dParams {
        dilation: (DILATION, DILATION),
        pad_height: (DILATION, DILATION),
        pad_width: (DILATION, DILATION),
        ..Default::default()
    };
    let step = || -> Result<()> {
        let ys = match ours {
            true => conv2d(&xs, &weight, None, params)?,
            false => xs.conv2d(&weight, DILATION, 1, DILATION, 1)?,
        };
        // gradients of the sum of all outputs
        let grads = ys.backward()?;
        for var in [&xs, &weight] {
            if grads.get(var).is_none() {
                bail!("no gradient");
            }
        }
        Ok(())
    };
    step()?;
    let mut times = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        step()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 2];
    let flops = 3.0 * 2.0 * (BATCH * SIDE * SIDE * CHANNELS * CHANNELS * 9) as f64;
    println!("{{\"seconds\": {seconds}, \"gflops\": {}}}", flops / seconds / 1e9);
    Ok(())
}
