//! `Trainer` with batches and a loss of the user's own: frames, unequal lengths, whole batches in parts.

use std::path::Path;

use crate::common::runs::{Left, StopAfter, adamw, config, folder, momentum};
use crate::common::{UnderTest, assert_close, rng};
use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::Graph;
use candle_tcn::nn::{DropoutKind, TcnConfig};
use candle_tcn::ops::length_mask;
use candle_tcn::text::{BatchMode, BatchPosition};
use candle_tcn::train::loss::{CrossEntropy, Loss};
use candle_tcn::train::{
    Batch, BatchSource, DataId, Precision, RunDir, TrainConfig, Trainer, ValidSet, read_metrics,
};
use rand::RngExt;

const TIME: usize = 12;
const SEQUENCES: usize = 24;

/// Rising (class 1) and falling (class 0) sequences of unequal lengths, some at a time.
struct Slopes {
    rows: usize,
    position: BatchPosition,
}

impl Slopes {
    fn new(rows: usize) -> Self {
        Self { rows, position: BatchPosition::default() }
    }

    /// Sequences from `first` on; each step is to name the direction.
    fn batch(&self, first: usize) -> Result<Batch> {
        let (mut frames, mut targets, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in first..first + self.rows {
            let mut rng = rng(sequence as u64);
            let (rises, len) = (rng.random_bool(0.5), rng.random_range(3..=TIME));
            let slope = if rises { 0.2 } else { -0.2 };
            frames.extend((0..TIME).map(|t| match t < len {
                true => slope * t as f32 + rng.random_range(-0.1f32..0.1),
                // what only fills up may be anything
                false => 77.0,
            }));
            targets.extend([u32::from(rises); TIME]);
            lengths.push(len);
        }
        let frames = Tensor::from_vec(frames, (self.rows, TIME, 1), &Device::Cpu)?;
        let targets = Tensor::from_vec(targets, (self.rows, TIME), &Device::Cpu)?;
        let mask = Some(length_mask(&lengths, TIME)?);
        Ok(Batch { mask, ..Batch::new(vec![frames], targets) })
    }
}

impl BatchSource for Slopes {
    fn next_batch(&mut self) -> Result<Batch> {
        let batch = self.batch(self.position.index * self.rows)?;
        self.position.index += 1;
        if self.position.index == self.steps_per_epoch() {
            self.position = BatchPosition { epoch: self.position.epoch + 1, index: 0 };
        }
        Ok(batch)
    }

    fn steps_per_epoch(&self) -> usize {
        SEQUENCES / self.rows
    }

    fn position(&self) -> BatchPosition {
        self.position
    }

    fn seek(&mut self, position: BatchPosition) -> Result<()> {
        self.position = position;
        Ok(())
    }

    fn data(&self) -> DataId {
        DataId { len: SEQUENCES, sha256: "slopes".into() }
    }
}

/// A network that looks both ways, with both kinds of dropout.
fn graph(out_channels: usize) -> Result<Graph> {
    let mut g = Graph::new();
    let xs = g.frames(1)?;
    let xs = g.linear("widen", xs, 7)?;
    let xs = g.dropout(xs, 0.2, DropoutKind::Channel)?;
    let tcn = TcnConfig { causal: false, dropout: 0.3, ..TcnConfig::new(vec![7, 7], 3) };
    let hs = g.scope("tcn", |g| tcn.append(g, xs))?;
    let ys = g.linear("head", hs, out_channels)?;
    g.output(ys)?;
    Ok(g)
}

fn settings() -> TrainConfig {
    config(adamw(), 0.02, BatchMode::Carry)
}

fn start(
    config: TrainConfig,
    rows: usize,
    loss: impl Loss + 'static,
    out_channels: usize,
    dir: &Path,
) -> Result<Trainer> {
    let run = RunDir::create(dir, 1)?;
    let graph = graph(out_channels)?;
    Ok(Trainer::of_graph(config, graph, "{}", Slopes::new(rows), loss, run)?.under_test())
}

fn valid() -> Result<ValidSet> {
    let batches = vec![Slopes::new(8).batch(100)?, Slopes::new(5).batch(200)?];
    Ok(ValidSet::batches(batches))
}

#[test]
fn unequal_sequences_are_told_apart_and_a_stopped_run_goes_on() -> Result<()> {
    let (whole, stopped) = (folder(), folder());
    start(settings(), 4, CrossEntropy::default(), 2, whole.path())?
        .run(&valid()?, &mut StopAfter::new(None))?;
    let metrics = read_metrics(whole.path().join("metrics.jsonl"))?;
    let losses: Vec<f64> = metrics.iter().filter_map(|record| record.valid_loss).collect();
    assert!(losses[0] > 2. * losses[losses.len() - 1], "{losses:?}");
    assert!(metrics.iter().all(|record| record.valid_bpc.is_none()));
    start(settings(), 4, CrossEntropy::default(), 2, stopped.path())?
        .run(&valid()?, &mut StopAfter::new(5))?;
    let resume = |loss: CrossEntropy, sequences: usize| {
        let run = RunDir::open(stopped.path(), 1)?;
        Trainer::resume_graph(run, graph(2)?, loss, |_| {}, |_| Ok(Slopes::new(sequences)))
    };
    let mut again = resume(CrossEntropy::default(), 4)?.under_test();
    assert_eq!(again.steps(), 5);
    again.run(&valid()?, &mut StopAfter::new(None))?;
    Left::read(whole.path())?.assert_equal(&Left::read(stopped.path())?, "slopes");
    let mut other = valid()?;
    other.batches.pop();
    let error = resume(CrossEntropy::default(), 4)?.run(&other, &mut ()).unwrap_err();
    assert!(error.to_string().starts_with("valid: "), "{error}");
    Ok(())
}

#[test]
fn a_closure_is_a_loss() -> Result<()> {
    let squared = |outputs: &[Tensor], batch: &Batch| -> Result<Tensor> {
        let targets = batch.targets.to_dtype(outputs[0].dtype())?.unsqueeze(2)?;
        let weight =
            batch.mask.as_ref().map(|mask| mask.to_dtype(outputs[0].dtype())).transpose()?;
        let weight = weight.expect("a mask").unsqueeze(2)?;
        let errors = ((&outputs[0] - targets)?.sqr()? * &weight)?;
        Ok((errors.sum_all()? / weight.sum_all()?)?)
    };
    let dir = folder();
    let mut trainer = start(settings(), 8, squared, 1, dir.path())?;
    let (first, _) = trainer.step(0.02)?;
    let mut last = first;
    for _ in 0..30 {
        (last, _) = trainer.step(0.02)?;
    }
    assert!(last < 0.6 * first, "{first} {last}");
    Ok(())
}

#[test]
fn a_closure_gets_numbers_that_it_can_compute_with() -> Result<()> {
    let squared = |outputs: &[Tensor], batch: &Batch| -> Result<Tensor> {
        assert_eq!(outputs[0].dtype(), DType::F32);
        let targets = batch.targets.to_dtype(DType::F32)?.unsqueeze(2)?;
        Ok(candle_nn::loss::mse(&outputs[0], &targets)?)
    };
    let dir = folder();
    let config = TrainConfig { dtype: Precision::Bf16, ..settings() };
    let (loss, norm) = start(config, 8, squared, 1, dir.path())?.step(0.02)?;
    assert!(loss > 0. && norm > 0.);
    Ok(())
}

#[test]
fn targets_that_are_no_classes_are_named() -> Result<()> {
    let logits = Tensor::zeros((1, 2), DType::F32, &Device::Cpu)?;
    let batch = Batch::new(vec![logits.clone()], Tensor::zeros(1, DType::F32, &Device::Cpu)?);
    let error = CrossEntropy::default().value(&[logits], &batch).unwrap_err();
    assert!(error.to_string().starts_with("targets: expected classes of u32"), "{error}");
    Ok(())
}

#[test]
fn a_batch_in_parts_is_the_whole_batch() -> Result<()> {
    let after = |rows: usize| -> Result<Vec<(String, Tensor)>> {
        let dir = folder();
        let config = config(momentum(), 0.05, BatchMode::Carry);
        let config = TrainConfig { accumulate: 8 / rows, ..config };
        let mut trainer = start(config, rows, CrossEntropy::default(), 2, dir.path())?;
        for _ in 0..3 {
            trainer.step(0.01)?;
        }
        let mut params: Vec<_> = trainer.params().snapshot()?.into_iter().collect();
        params.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(params)
    };
    // of unequal lengths, so that a mean of means would be another; with dropout, whose masks are the whole batch's
    let whole = after(8)?;
    for rows in [4, 2] {
        for ((name, found), (_, expected)) in after(rows)?.iter().zip(&whole) {
            assert_close(name, found, expected, 1e-4)?;
        }
    }
    Ok(())
}

#[test]
fn a_network_that_does_not_fit_is_refused() -> Result<()> {
    let dir = folder();
    let config = settings();
    let text = config.lay_out((0..200).map(|i| i % 20).collect::<Vec<_>>())?;
    let run = RunDir::create(dir.path(), 1)?;
    let refused = Trainer::of_graph(config, graph(2)?, "{}", text, CrossEntropy::default(), run);
    let Err(error) = refused else { panic!("frames are no text") };
    assert!(error.to_string().contains("a network on frames"), "{error}");
    Ok(())
}
