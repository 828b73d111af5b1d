//! Sequences of frames told apart: a network that looks both ways, the mean over its steps, classes.
//!
//! ```text
//! cargo run --release --example classify                          # waves that are made up
//! cargo run --release --example classify -- TRAIN.ts TEST.ts 300  # files of the time-series archives; steps
//! ```

use candle_core::{D, Tensor};
use candle_tcn::graph::{Graph, Network, NormKind, Run};
use candle_tcn::nn::TcnConfig;
use candle_tcn::series::{Column, Series, SeriesSet, SeriesTask, TaskKind, read_ts};
use candle_tcn::train::loss::CrossEntropy;
use candle_tcn::train::schedule::ScheduleConfig;
use candle_tcn::train::{
    Budget, Confusion, RunDir, SequenceBatches, SequenceSizes, TrainConfig, Trainer, ValidSet,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SEED: u64 = 1;

fn graph(channels: usize, classes: usize) -> Result<Graph> {
    let mut g = Graph::new();
    let xs = g.frames(channels)?;
    // the norm of residual networks for series (Wang et al. 2016, arXiv:1611.06455)
    let norm = NormKind::Batch;
    let stack = TcnConfig { causal: false, norm, ..TcnConfig::new(vec![64; 5], 5) };
    let hs = g.scope("tcn", |g| stack.append(g, xs))?;
    let mean = g.mean(hs)?;
    let logits = g.linear("head", mean, classes)?;
    g.output(logits)?;
    Ok(g)
}

/// Slow and fast waves with noise, of unequal lengths.
fn waves(count: usize, seed: u64) -> SeriesSet {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut wave = |i: usize| {
        let (class, phase) = (i % 2, rng.random_range(0.0..6.0f32));
        let pace = [0.3, 0.4][class];
        let len = rng.random_range(30..60);
        let frame = |t| (pace * t as f32 + phase).sin() + rng.random_range(-0.8..0.8);
        Series::new((0..len).map(frame).collect(), 1).of_class(class)
    };
    SeriesSet {
        series: (0..count).map(&mut wave).collect(),
        columns: vec![Column::of_numbers("wave")],
        classes: vec!["slow".into(), "fast".into()],
    }
}

fn test(net: &Network, batches: &SequenceBatches, classes: usize) -> Result<Confusion> {
    let mut confusion = Confusion::new(classes);
    for batch in batches.in_order()? {
        let run = batch.mask.iter().try_fold(Run::eval(), Run::with_mask)?;
        let inputs: Vec<&Tensor> = batch.inputs.iter().collect();
        let said = net.run(&inputs, run)?.into_first()?.argmax(D::Minus1)?.to_vec1::<u32>()?;
        for (class, said) in batch.targets.to_vec1::<u32>()?.into_iter().zip(said) {
            confusion.add(class as usize, said as usize)?;
        }
    }
    Ok(confusion)
}

fn main() -> Result<()> {
    candle_tcn::kernels::memory::keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (train, mut rest) = match &args[..] {
        [train, rest, ..] => (read_ts(train)?, read_ts(rest)?),
        [] => (waves(60, 1), waves(200, 2)),
        [_] => return Err("expected two files, TRAIN.ts TEST.ts, found one".into()),
    };
    rest.number_classes_as(&train)?;
    let steps = args.get(2).map_or(Ok(150), |steps| steps.parse())?;
    // each series by its own mean and deviation, which go in beside it
    let task = SeriesTask::fit(&train, TaskKind::Classify { classes: train.classes.clone() })?;
    let sizes = SequenceSizes { batch_size: 16, window: usize::MAX, history: 0, with_mask: true };
    let batches = |set| {
        let sequences = task.sequences(set)?;
        SequenceBatches::new(sequences, sizes, SEED)
    };
    let graph = graph(task.in_channels(), task.out_channels())?;
    let config = TrainConfig {
        lr: 0.001,
        schedule: ScheduleConfig::Cosine { warmup: 0.05, final_fraction: 0.0 },
        budget: Budget::Steps(steps),
        seed: SEED,
        ..TrainConfig::default()
    };
    let folder = tempfile::tempdir()?;
    let run = RunDir::create(folder.path().join("run"), 1)?;
    let loss = CrossEntropy::default();
    let mut trainer = Trainer::of_graph(config, graph, "{}", batches(&train)?, loss, run)?;
    trainer.run(&ValidSet::default(), &mut ())?;

    let confusion = test(trainer.network(), &batches(&rest)?, task.out_channels())?;
    println!("accuracy {:.3}, balanced {:.3}", confusion.accuracy(), confusion.balanced_accuracy());
    Ok(())
}
