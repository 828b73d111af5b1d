//! A network in an audio callback: filters a generated signal block by block, without allocation, and
//! tells how long a frame takes.
//!
//! ```text
//! cargo run --release --example realtime_frames
//! ```

use std::time::Instant;

use candle_core::{DType, Device};
use candle_tcn::nn::{Params, StepDtype, TcnConfig, temporal_conv_net};

/// Frames of a second.
const RATE: usize = 48_000;

/// Frames that a callback brings at once, one after the other or in blocks.
const BLOCKS: [usize; 3] = [1, 16, 64];

fn main() -> candle_tcn::Result<()> {
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let config = TcnConfig::new(vec![16; 4], 3);
    let net = temporal_conv_net(1, &config, params.builder())?.step_net(StepDtype::F32)?;

    // two seconds of a tone that rises from 20 to 2,020 Hz
    let signal: Vec<f32> = (0..2 * RATE)
        .map(|n| {
            let t = n as f32 / RATE as f32;
            (std::f32::consts::TAU * (20.0 + 500.0 * t) * t).sin()
        })
        .collect();
    println!("4 blocks, 16 channels, kernel 3: microseconds a frame");
    println!("{:<8}{:>9}{:>9}{:>9}", "block", "p50", "p99", "worst");
    for block in BLOCKS {
        let mut state = net.init_state(1)?;
        // the first block of a size makes room
        net.step(&signal[..block], &mut state)?;
        let mut times = Vec::with_capacity(signal.len() / block);
        for xs in signal.chunks_exact(block) {
            let start = Instant::now();
            let ys = net.step(xs, &mut state)?;
            std::hint::black_box(ys);
            times.push(start.elapsed().as_secs_f64() * 1e6 / block as f64);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!("{block:<8}{:>9.2}{:>9.2}{:>9.2}", at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}
