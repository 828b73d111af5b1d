//! Sequences of frames of unequal lengths with classes: what fills them up changes nothing, a stopped run goes on.

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::{Graph, Network, NormKind, Run};
use candle_tcn::nn::{Params, TcnConfig};
use candle_tcn::series::{
    Column, SequenceTargets, Series, SeriesScale, SeriesSet, SeriesTask, TaskKind,
};
use candle_tcn::text::{BatchMode, BatchPosition};
use candle_tcn::train::loss::{CrossEntropy, Loss, Quantiles};
use candle_tcn::train::{
    Batch, BatchSource, Budget, Confusion, RunDir, SequenceBatches, SequenceSizes, TrainConfig,
    Trainer, ValidSet,
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
        Series::new(frames.collect(), CHANNELS).of_class(class)
    });
    SeriesSet {
        series: series.collect(),
        columns: ["wave", "noise"].map(Column::of_numbers).to_vec(),
        classes: vec!["slow".into(), "fast".into()],
    }
}

fn task(set: &SeriesSet) -> Result<SeriesTask> {
    let kind = TaskKind::Classify { classes: set.classes.clone() };
    SeriesTask { scale: SeriesScale::Set, ..SeriesTask::of(set, kind)? }.refit(set)
}

/// A network that looks both ways, and the mean over its steps.
fn graph(dropout: f64) -> Result<Graph> {
    let mut g = Graph::new();
    let xs = g.frames(CHANNELS)?;
    let norm = NormKind::Batch;
    let stack = TcnConfig { causal: false, dropout, norm, ..TcnConfig::new(vec![12, 12], 3) };
    let hs = g.scope("tcn", |g| stack.append(g, xs))?;
    let mean = g.mean(hs)?;
    let logits = g.linear("head", mean, 2)?;
    g.output(logits)?;
    Ok(g)
}

const SIZES: SequenceSizes =
    SequenceSizes { batch_size: 7, window: 1000, history: 0, with_mask: true };

fn batches(count: usize, seed: u64) -> Result<SequenceBatches> {
    let set = waves(count, seed);
    SequenceBatches::new(task(&set)?.sequences(&set)?, SIZES, 3)
}

fn logits(net: &Network, batch: &Batch) -> Result<Tensor> {
    let run = Run::eval().with_mask(batch.mask.as_ref().expect("a mask"))?;
    net.run(&[&batch.inputs[0]], run)?.into_first()
}

#[test]
fn a_series_in_a_batch_is_the_series_alone() -> Result<()> {
    let net = Network::new(graph(0.1)?, Params::new(1, DType::F32, &Device::Cpu).builder())?;
    let batches = batches(12, 1)?;
    let together = logits(&net, &batches.whole(0..12)?)?;
    for i in 0..12 {
        let alone = logits(&net, &batches.whole([i])?)?;
        assert_close(&format!("series {i}"), &together.narrow(0, i, 1)?, &alone, 1e-6)?;
    }
    Ok(())
}

#[test]
fn an_epoch_has_every_series_once_in_another_order() -> Result<()> {
    let mut batches = batches(17, 1)?;
    assert_eq!(batches.steps_per_epoch(), 3);
    let firsts = |batches: &mut SequenceBatches| -> Result<Vec<Vec<f32>>> {
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
            Trainer::of_graph(config(), graph(0.1)?, "{}", batches(40, 1)?, loss.clone(), run)?;
        Ok::<_, candle_tcn::Error>(trainer.under_test())
    };
    let valid = ValidSet::batches(vec![batches(20, 5)?.whole(0..20)?]);
    let mut trainer = start(whole.path())?;
    trainer.run(&valid, &mut StopAfter::new(None))?;

    let rest = batches(60, 2)?.whole(0..60)?;
    let said = logits(trainer.network(), &rest)?.argmax(1)?.to_vec1::<u32>()?;
    let mut confusion = Confusion::new(2);
    for (class, said) in rest.targets.to_vec1::<u32>()?.into_iter().zip(said) {
        confusion.add(class as usize, said as usize)?;
    }
    assert!(confusion.accuracy() > 0.95, "{confusion:?}");

    start(stopped.path())?.run(&valid, &mut StopAfter::new(23))?;
    let run = RunDir::open(stopped.path(), 1)?;
    Trainer::resume_graph(run, graph(0.1)?, loss, |_| {}, |_| batches(40, 1))?
        .under_test()
        .run(&valid, &mut StopAfter::new(None))?;
    Left::read(whole.path())?.assert_equal(&Left::read(stopped.path())?, "waves");
    Ok(())
}

/// In training too, statistics of a batch norm included.
#[test]
fn what_fills_up_changes_no_gradient() -> Result<()> {
    let net = Network::new(graph(0.0)?, Params::new(1, DType::F32, &Device::Cpu).builder())?;
    let batch = batches(5, 1)?.whole(0..5)?;
    let (mask, xs) = (batch.mask.as_ref().expect("a mask"), &batch.inputs[0]);
    let (rows, time) = mask.dims2()?;
    let longer = Batch {
        inputs: vec![Tensor::cat(
            &[xs, &Tensor::full(9f32, (rows, 6, CHANNELS), &Device::Cpu)?],
            1,
        )?],
        mask: Some(mask.pad_with_zeros(1, 0, 6)?),
        ..batch.clone()
    };
    assert_eq!(longer.inputs[0].dim(1)?, time + 6);
    let gradients = |batch: &Batch| -> Result<Vec<Tensor>> {
        let run = Run::train(1, 0).with_mask(batch.mask.as_ref().expect("a mask"))?;
        let (outputs, tape) = net.trace(&[&batch.inputs[0]], run)?;
        let loss = CrossEntropy::default().value(&outputs.values, batch)?;
        Ok(tape.backward(loss.gradients)?.into_iter().flatten().collect())
    };
    let (ours, padded) = (gradients(&batch)?, gradients(&longer)?);
    assert!(ours.len() > 10);
    for (i, (ours, padded)) in ours.iter().zip(&padded).enumerate() {
        assert_close(&format!("gradient {i}"), padded, ours, 1e-6)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_trained_on_is_one_line() {
    let with = |change: &dyn Fn(&mut SeriesSet)| {
        let mut set = waves(4, 1);
        let task = task(&set).expect("a task");
        change(&mut set);
        let sequences = task.sequences(&set);
        let batches = sequences.and_then(|all| SequenceBatches::new(all, SIZES, 1));
        batches.map(|_| ()).expect_err("refused").to_string()
    };
    let missing = with(&|set| set.series[2].frames[3] = f32::NAN);
    assert!(missing.contains("column \"noise\": expected no missing values"), "{missing}");
    let without = with(&|set| set.series[1].class = None);
    assert!(without.contains("series 2: expected one of the classes"), "{without}");
    assert!(
        with(&|set| set.classes[1] = "other".into()).contains("class: expected one of slow, fast")
    );
    assert!(with(&|set| set.series[0].frames.clear()).contains("frames of all channels"));
    assert!(with(&|set| set.series.clear()).contains("series: expected at least one"));
    assert!(with(&|set| set.columns.truncate(1)).contains("channels: expected 2"));
    let none = SequenceSizes { batch_size: 0, ..SIZES };
    let set = waves(4, 1);
    let sequences = task(&set).and_then(|task| task.sequences(&set)).expect("sequences");
    assert!(SequenceBatches::new(sequences, none, 1).is_err());
}

/// A season of eight steps that grows.
fn growth() -> SeriesSet {
    let mut rng = rng(3);
    let value = |t: usize| {
        let level = 10.0 * 1.01f32.powi(t as i32);
        level
            * (1.0
                + 0.3 * (t as f32 * std::f32::consts::TAU / 8.0).sin()
                + rng.random_range(-0.05..0.05))
    };
    let series = vec![Series::new((0..300).map(value).collect(), 1)];
    SeriesSet { columns: vec![Column::of_numbers("sales")], series, ..SeriesSet::default() }
}

fn forecast(set: &SeriesSet) -> Result<SeriesTask> {
    let levels = vec![0.1, 0.5, 0.9];
    SeriesTask::fit(set, TaskKind::Forecast { horizon: 4, season: Some(8), levels })
}

#[test]
fn every_step_of_a_long_series_is_scored_once_in_order() -> Result<()> {
    let set = growth();
    let sequences = forecast(&set)?.sequences(&set)?;
    let SequenceTargets::Numbers { values, .. } = &sequences[0].targets else { panic!("numbers") };
    let expected: Vec<f32> = values.iter().copied().filter(|x| !x.is_nan()).collect();
    for (window, history) in [(50, 7), (64, 32), (299, 0), (300, 10), (1000, 10)] {
        let sizes = SequenceSizes { batch_size: 3, window, history, with_mask: false };
        let batches = SequenceBatches::new(sequences.clone(), sizes, 1)?;
        let mut found = Vec::new();
        for batch in batches.in_order()? {
            found.extend(batch.targets.flatten_all()?.to_vec1::<f32>()?);
        }
        found.retain(|x| !x.is_nan());
        assert_eq!(found, expected, "window {window}, history {history}");
    }
    Ok(())
}

#[test]
fn nothing_of_the_future_is_in_a_frame() -> Result<()> {
    let set = growth();
    let task = forecast(&set)?;
    let frames = |set: &SeriesSet| {
        let mut frames = Vec::new();
        task.walk(&set.series[0], &mut frames, |_, _, _| {});
        frames
    };
    let whole = frames(&set);
    let mut changed = set.clone();
    changed.series[0].frames[200..].iter_mut().for_each(|x| *x = -1.0);
    let (before, after) = (200 * task.in_channels(), frames(&changed));
    assert_eq!(whole[..before], after[..before]);
    assert_ne!(whole[before..], after[before..]);
    Ok(())
}

#[test]
fn a_run_on_windows_goes_on_where_it_stopped() -> Result<()> {
    let set = growth();
    let task = forecast(&set)?;
    let graph = || -> Result<Graph> {
        let mut g = Graph::new();
        let xs = g.frames(task.in_channels())?;
        let hs = g.scope("tcn", |g| TcnConfig::new(vec![8, 8], 3).append(g, xs))?;
        let ys = g.linear("head", hs, task.out_channels())?;
        g.output(ys)?;
        Ok(g)
    };
    let batches = || {
        let sizes = SequenceSizes { batch_size: 2, window: 60, history: 12, with_mask: false };
        SequenceBatches::new(task.sequences(&set)?, sizes, 3)
    };
    let config =
        || TrainConfig { budget: Budget::Steps(20), ..config(adamw(), 0.01, BatchMode::Carry) };
    let loss = || Quantiles::new(vec![0.1, 0.5, 0.9]);
    let (whole, stopped) = (folder(), folder());
    for (dir, stop) in [(whole.path(), None), (stopped.path(), Some(7))] {
        let run = RunDir::create(dir, 1)?;
        Trainer::of_graph(config(), graph()?, "{}", batches()?, loss()?, run)?
            .under_test()
            .run(&ValidSet::default(), &mut StopAfter::new(stop))?;
    }
    let run = RunDir::open(stopped.path(), 1)?;
    Trainer::resume_graph(run, graph()?, loss()?, |_| {}, |_| batches())?
        .under_test()
        .run(&ValidSet::default(), &mut StopAfter::new(None))?;
    Left::read(whole.path())?.assert_equal(&Left::read(stopped.path())?, "windows");
    Ok(())
}
