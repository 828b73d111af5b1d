//! x
use candle_tcn::kernels::conv1d::*;
use std::time::Instant;
fn main() {
    let t: usize = std::env::var("RAYON_NUM_THREADS").unwrap().parse().unwrap();
    println!(
        "ceiling {:.1}",
        candle_tcn::kernels::ceiling(false, t).unwrap() / 1e9
    );
    for (ci, co, d) in [
        (450usize, 450usize, 2usize),
        (256, 256, 4),
        (512, 512, 1),
        (100, 450, 1),
    ] {
        let (b, t) = (32, 400);
        let s = Conv1dShape {
            batch: b,
            in_len: t,
            out_len: t,
            in_channels: ci,
            out_channels: co,
            kernel_size: 3,
            dilation: d,
            stride: 1,
            groups: 1,
            pad_left: 2 * d,
            history: 0,
        };
        let x: Vec<f32> = (0..b * t * ci)
            .map(|i| ((i * 37 % 101) as f32 - 50.) * 0.01)
            .collect();
        let dy: Vec<f32> = (0..b * t * co)
            .map(|i| ((i * 31 % 97) as f32 - 50.) * 0.01)
            .collect();
        let w: Vec<f32> = (0..co * ci * 3)
            .map(|i| ((i * 29 % 89) as f32 - 50.) * 0.001)
            .collect();
        let mut y = vec![0f32; b * t * co];
        let mut dx = vec![0f32; b * t * ci];
        let mut dw = vec![0f32; w.len()];
        let e = Epilogue {
            bias: None,
            relu: false,
            dropout: None,
        };
        let fl = (b * t * ci * co * 3 * 2) as f64;
        let mut best = [f64::MAX; 3];
        for _ in 0..9 {
            let i = Instant::now();
            forward(&s, &x, &[], &w, &e, &mut y).unwrap();
            best[0] = best[0].min(i.elapsed().as_secs_f64());
            let i = Instant::now();
            grad_input(&s, &dy, &w, &mut dx).unwrap();
            best[1] = best[1].min(i.elapsed().as_secs_f64());
            let i = Instant::now();
            grad_weight(&s, &x, &[], &dy, &mut dw).unwrap();
            best[2] = best[2].min(i.elapsed().as_secs_f64());
        }
        println!(
            "{ci}->{co}: fwd {:.1} dx {:.1} dw {:.1} GFLOP/s",
            fl / best[0] / 1e9,
            fl / best[1] / 1e9,
            fl / best[2] / 1e9
        );
    }
}
