//! Dilation against none, at equal parameters: two networks learn to label the pixels of scenes in which what
//! a pixel is stands out of reach of seven plain 3×3 layers.
//!
//! A scene shows two frames of a thin grey line on noise, with a small dot in the middle of each; every pixel
//! within a frame has the class of the dot's colour. A pixel near a frame's edge is 9 to 13 pixels from the
//! dot. Both networks are a 3×3 layer, a context module (seven 3×3 layers and a 1×1) and a 1×1 layer; in one
//! all dilations are 1, in the other they are 1, 1, 2, 4, 8, 16, 1. Both see the same scenes in the same
//! order. Printed are the mean intersection-over-union of both on scenes that neither has seen, and a picture
//! is written: scene, truth and both predictions.
//!
//! ```text
//! cargo run --release --example segmentation                      # segmentation.png
//! cargo run --release --example segmentation -- out.png 300       # so many steps instead of 900
//! ```

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::time::Instant;

use candle_core::{D, DType, Device, Module, Tensor};
use candle_tcn::graph::{Graph, Network, Run};
use candle_tcn::nn::{Activation, ContextConfig, ContextForm, Conv2dConfig, Params};
use candle_tcn::ops::cross_entropy_with_gradient;
use candle_tcn::train::optim::{AdamWConfig, Gradients, NamedOptimizer, OptimizerConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIDE: usize = 48;
const PIXELS: usize = SIDE * SIDE;
/// Background, and the three colours of dots.
const CLASSES: usize = 4;
const CHANNELS: usize = 16;
const BATCH: usize = 8;
const STEPS: usize = 900;
const LR: f64 = 3e-3;
const HELD_OUT: usize = 160;
const SEED: u64 = 1;
/// Scenes in the picture, and screen pixels for each of theirs.
const SHOWN: usize = 6;
const ZOOM: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Images (height, width, red green blue) one after another, and the class of each pixel.
#[derive(Default)]
struct Scenes {
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Scenes {
    fn draw(count: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut scenes = Self::default();
        (0..count).for_each(|_| scenes.add(rng));
        scenes
    }

    fn add(&mut self, rng: &mut ChaCha8Rng) {
        let mut image = vec![[0f32; 3]; PIXELS];
        let mut labels = vec![0u32; PIXELS];
        for (row, column, radius) in frames(rng) {
            let class = rng.random_range(1..CLASSES as u32);
            for i in row - radius..=row + radius {
                for j in column - radius..=column + radius {
                    let distance = i.abs_diff(row).max(j.abs_diff(column));
                    let at = i * SIDE + j;
                    labels[at] = class;
                    if distance == radius {
                        image[at] = [0.5; 3];
                    } else if distance <= 1 {
                        image[at][class as usize - 1] = 1.0;
                    }
                }
            }
        }
        let noisy = image.into_iter().flatten();
        self.images.extend(noisy.map(|x| x + rng.random_range(-0.15f32..0.15)));
        self.labels.extend(labels);
    }

    fn len(&self) -> usize {
        self.labels.len() / PIXELS
    }

    /// The images `from..from + count` as (batch, height, width, 3).
    fn tensor(&self, from: usize, count: usize) -> Result<Tensor> {
        let images = &self.images[from * PIXELS * 3..][..count * PIXELS * 3];
        Ok(Tensor::from_slice(images, (count, SIDE, SIDE, 3), &Device::Cpu)?)
    }
}

/// Middle and radius of two frames that do not meet.
fn frames(rng: &mut ChaCha8Rng) -> [(usize, usize, usize); 2] {
    let mut frame = || {
        let radius = rng.random_range(9..=13);
        let mut middle = || rng.random_range(radius..SIDE - radius);
        (middle(), middle(), radius)
    };
    loop {
        let (a, b) = (frame(), frame());
        if a.0.abs_diff(b.0).max(a.1.abs_diff(b.1)) > a.2 + b.2 + 1 {
            return [a, b];
        }
    }
}

struct Segmenter {
    network: Network,
    params: Params,
}

impl Segmenter {
    fn new(dilations: &[usize]) -> Result<Self> {
        let params = Params::new(SEED, DType::F32, &Device::Cpu);
        let same = Conv2dConfig::same();
        let config = ContextConfig {
            dilations: dilations.to_vec(),
            ..ContextConfig::new(CHANNELS, ContextForm::Basic)
        };
        let (height, width) = config.geometry()?.receptive_field()?;
        println!("dilations {dilations:?}: the module sees {}×{}", height.total, width.total);
        let mut g = Graph::new();
        let xs = g.images(3)?;
        let xs = g.conv2d("first", xs, CHANNELS, (3, 3), same)?;
        let xs = g.activate(xs, Activation::Relu)?;
        let xs = g.scope("context", |g| config.append(g, xs))?;
        // (batch, height, width, classes)
        let ys = g.conv2d("head", xs, CLASSES, (1, 1), same)?;
        g.output(ys)?;
        let network = Network::new(g, params.builder())?;
        config.init_identity(&network, SEED)?;
        Ok(Self { network, params })
    }

    fn train(&self, steps: usize) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let config = OptimizerConfig::AdamW(AdamWConfig::default());
        let mut optimizer = NamedOptimizer::new(config, self.params.trainable())?;
        let start = Instant::now();
        for step in 0..steps {
            let scenes = Scenes::draw(BATCH, &mut rng);
            let images = scenes.tensor(0, BATCH)?;
            let (outputs, tape) = self.network.trace(&[&images], Run::train(SEED, step as u64))?;
            let (loss, grad) = cross_entropy_with_gradient(&outputs.values[0], &scenes.labels)?;
            let grads = tape.backward(vec![grad])?;
            let mut grads = Gradients::of(self.network.graph(), grads, optimizer.params());
            grads.clip(1.0)?;
            // a cosine from LR to nothing
            let done = step as f64 / steps as f64;
            optimizer.step(&grads, LR * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))?;
            if (step + 1) % 100 == 0 {
                let seconds = start.elapsed().as_secs_f64();
                println!("  step {}: loss {loss:.3}, {seconds:.0} s", step + 1);
            }
        }
        Ok(())
    }

    /// The most likely class of each pixel.
    fn predict(&self, scenes: &Scenes) -> Result<Vec<u32>> {
        let mut labels = Vec::with_capacity(scenes.labels.len());
        for from in (0..scenes.len()).step_by(BATCH) {
            let xs = scenes.tensor(from, BATCH.min(scenes.len() - from))?;
            let classes = self.network.forward(&xs)?.argmax(D::Minus1)?;
            labels.extend(classes.flatten_all()?.to_vec1::<u32>()?);
        }
        Ok(labels)
    }
}

/// The mean over classes of `|predicted ∩ true| / |predicted ∪ true|`.
fn mean_iou(predicted: &[u32], truth: &[u32]) -> f64 {
    let of = |class: u32| {
        let (mut both, mut either) = (0u32, 0u32);
        for (&p, &t) in predicted.iter().zip(truth) {
            both += u32::from(p == class && t == class);
            either += u32::from(p == class || t == class);
        }
        f64::from(both) / f64::from(either.max(1))
    };
    (0..CLASSES as u32).map(of).sum::<f64>() / CLASSES as f64
}

const COLOURS: [[u8; 3]; CLASSES] = [[28, 30, 34], [214, 70, 60], [70, 170, 90], [60, 110, 210]];

/// One line of tiles for each of the first scenes: the scene, then each of `labels`.
fn picture(path: &str, scenes: &Scenes, labels: &[&[u32]]) -> Result<()> {
    let (tile, gap) = (SIDE * ZOOM, 6);
    let columns = labels.len() + 1;
    let (width, height) = (columns * (tile + gap) + gap, SHOWN * (tile + gap) + gap);
    let mut data = vec![255u8; width * height * 3];
    for scene in 0..SHOWN {
        for column in 0..columns {
            for i in 0..tile {
                for j in 0..tile {
                    let pixel = (scene * SIDE + i / ZOOM) * SIDE + j / ZOOM;
                    let colour = match column.checked_sub(1) {
                        Some(which) => COLOURS[labels[which][pixel] as usize],
                        None => [0, 1, 2].map(|c| {
                            let x = scenes.images[pixel * 3 + c];
                            ((x * 0.8 + 0.15).clamp(0.0, 1.0) * 255.0) as u8
                        }),
                    };
                    let (y, x) = (gap + scene * (tile + gap) + i, gap + column * (tile + gap) + j);
                    data[(y * width + x) * 3..][..3].copy_from_slice(&colour);
                }
            }
        }
    }
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&data)?;
    Ok(())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "segmentation.png".into());
    let steps = args.next().map_or(Ok(STEPS), |steps| steps.parse())?;
    let held_out = Scenes::draw(HELD_OUT, &mut ChaCha8Rng::seed_from_u64(SEED + 1));
    let mut predictions = Vec::new();
    let mut scores = Vec::new();
    for dilations in [[1; 7], [1, 1, 2, 4, 8, 16, 1]] {
        let network = Segmenter::new(&dilations)?;
        println!("  {} parameters, {} scenes", network.params.count(), steps * BATCH);
        network.train(steps)?;
        let predicted = network.predict(&held_out)?;
        let score = 100.0 * mean_iou(&predicted, &held_out.labels);
        println!("  mean intersection-over-union: {score:.1} %");
        predictions.push(predicted);
        scores.push(score);
    }
    println!("the dilated network is ahead by {:.1} points", scores[1] - scores[0]);
    picture(&path, &held_out, &[&held_out.labels, &predictions[0], &predictions[1]])?;
    println!("{path}: scene, truth, dilations 1, dilations 1 to 16");
    Ok(())
}
