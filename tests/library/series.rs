//! Sequences of frames of unequal lengths with classes: what fills them up changes nothing, a stopped run goes on.

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::{Graph, Network, Run};
use candle_tcn::nn::{Params, TcnConfig};
use candle_tcn::series::{Scaling, Series, SeriesSet};
use candle_tcn::text::{BatchMode, BatchPosition};
use candle_tcn::train::loss::CrossEntropy;
use candle_tcn::train::{
    Batch, BatchSource, Budget, Confusion, RunDir, SeriesBatches, TrainConfig, Trainer, ValidSet,
};
use rand::RngExt;

use crate::common::runs::{Left, StopAfter, adamw, config, folder};
use crate::common::{UnderTest, assert_close, rng};

const CHANNELS: usize = 2;

/// Slow and fast waves, in a channel beside noise.
fn waves(count: usize, seed: u64) -> SeriesSet {
    let mut rng = rng(seed);
    let series = (0..count).map(|i| {
        let (class, phase) = (i % 2, rng.random_range(0.0..6.0f32));
        let frames = (0..rng.random_range(9..25)).flat_map(|t| {
            let wave = ([0.5, 1.3][class] * t as f32 + phase).sin();
            [wave, rng.random_range(-1.0..1.0)]
        });
        Series { frames: frames.collect(), channels: CHANNELS, class: Some(class) }
    });
    let series = series.collect();
    let mut set = SeriesSet {
        channels: vec!["wave".into(), "noise".into()],
        classes: vec!["slow".into(), "fast".into()],
        series,
    };
    let scaling = Scaling::fit(&set).expect("two channels that change");
    scaling.apply(&mut set).expect("the same channels");
    set
}

/// A network that looks both ways, and the mean over its steps.
fn graph() -> Result<Graph> {
    let mut g = Graph::new();
    let xs = g.frames(CHANNELS)?;
    let stack = TcnConfig { causal: false, dropout: 0.1, ..TcnConfig::new(vec![12, 12], 3) };
    let hs = g.scope("tcn", |g| stack.append(g, xs))?;
    let mean = g.mean(hs)?;
    let logits = g.linear("head", mean, 2)?;
    g.output(logits)?;
    Ok(g)
}

fn batches(count: usize, seed: u64) -> Result<SeriesBatches> {
    SeriesBatches::new(waves(count, seed), 7, 3)
}

fn logits(net: &Network, batch: &Batch) -> Result<Tensor> {
    let run = Run::eval().with_mask(batch.mask.as_ref().expect("a mask"))?;
    net.run(&[&batch.inputs[0]], run)?.into_first()
}

#[test]
fn a_series_in_a_batch_is_the_series_alone() -> Result<()> {
    let net = Network::new(graph()?, Params::new(1, DType::F32, &Device::Cpu).builder())?;
    let batches = batches(12, 1)?;
    let together = logits(&net, &batches.batch(0..12)?)?;
    for i in 0..12 {
        let alone = logits(&net, &batches.batch([i])?)?;
        assert_close(&format!("series {i}"), &together.narrow(0, i, 1)?, &alone, 1e-6)?;
    }
    Ok(())
}

#[test]
fn an_epoch_has_every_series_once_in_another_order() -> Result<()> {
    let mut batches = batches(17, 1)?;
    assert_eq!(batches.steps_per_epoch(), 3);
    let firsts = |batches: &mut SeriesBatches| -> Result<Vec<Vec<f32>>> {
        let mut firsts = Vec::new();
        for _ in 0..3 {
            let frames = batches.next_batch()?.inputs.remove(0);
            firsts.extend(frames.narrow(1, 0, 1)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(firsts.chunks(CHANNELS).map(<[f32]>::to_vec).collect())
    };
    let (one, two) = (firsts(&mut batches)?, firsts(&mut batches)?);
    assert_ne!(one, two);
    let sorted = |mut firsts: Vec<Vec<f32>>| {
        firsts.sort_by(|a, b| a[0].total_cmp(&b[0]));
        firsts
    };
    assert_eq!(one.len(), 17);
    assert_eq!(sorted(one.clone()), sorted(two));
    batches.seek(BatchPosition::default())?;
    assert_eq!(firsts(&mut batches)?, one);
    assert!(batches.seek(BatchPosition { epoch: 0, index: 3 }).is_err());
    Ok(())
}

#[test]
fn waves_are_told_apart_and_a_stopped_run_goes_on() -> Result<()> {
    let config =
        || TrainConfig { budget: Budget::Steps(60), ..config(adamw(), 0.01, BatchMode::Carry) };
    let loss = CrossEntropy::default();
    let (whole, stopped) = (folder(), folder());
    let start = |dir: &std::path::Path| {
        let run = RunDir::create(dir, 1)?;
        let trainer =
            Trainer::of_graph(config(), graph()?, "{}", batches(40, 1)?, loss.clone(), run)?;
        Ok::<_, candle_tcn::Error>(trainer.under_test())
    };
    let valid = ValidSet::batches(vec![batches(20, 5)?.batch(0..20)?]);
    let mut trainer = start(whole.path())?;
    trainer.run(&valid, &mut StopAfter::new(None))?;

    let rest = batches(60, 2)?.batch(0..60)?;
    let said = logits(trainer.network(), &rest)?.argmax(1)?.to_vec1::<u32>()?;
    let mut confusion = Confusion::new(2);
    for (class, said) in rest.targets.to_vec1::<u32>()?.into_iter().zip(said) {
        confusion.add(class as usize, said as usize)?;
    }
    assert!(confusion.accuracy() > 0.95, "{confusion:?}");

    start(stopped.path())?.run(&valid, &mut StopAfter::new(23))?;
    let run = RunDir::open(stopped.path(), 1)?;
    Trainer::resume_graph(run, graph()?, loss, |_| {}, |_| batches(40, 1))?
        .under_test()
        .run(&valid, &mut StopAfter::new(None))?;
    Left::read(whole.path())?.assert_equal(&Left::read(stopped.path())?, "waves");
    Ok(())
}

#[test]
fn what_cannot_be_trained_on_is_one_line() {
    let with = |change: &dyn Fn(&mut SeriesSet)| {
        let mut set = waves(4, 1);
        change(&mut set);
        SeriesBatches::new(set, 2, 1).map(|_| ()).expect_err("refused").to_string()
    };
    let missing = with(&|set| set.series[2].frames[3] = f32::NAN);
    assert!(missing.contains("series 2: expected finite values"), "{missing}");
    assert!(
        with(&|set| set.series[1].class = None).contains("series 1: expected one of the classes")
    );
    assert!(with(&|set| set.series[1].class = Some(2)).contains("one of the classes"));
    assert!(with(&|set| set.series[0].frames.clear()).contains("frames of all channels"));
    assert!(with(&|set| set.series.clear()).contains("series: expected at least one"));
    assert!(SeriesBatches::new(waves(4, 1), 0, 1).is_err());

    let mut causal = Graph::new();
    let result = (|| {
        let xs = causal.frames(CHANNELS)?;
        let hs = causal.scope("tcn", |g| TcnConfig::new(vec![4], 3).append(g, xs))?;
        let mean = causal.mean(hs)?;
        causal.output(mean)?;
        batches(4, 1)?.check(&causal)
    })();
    let message = result.expect_err("unequal lengths").to_string();
    assert!(message.contains("one that takes a mask"), "{message}");
}
