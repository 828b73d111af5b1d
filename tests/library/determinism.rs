//! The same seed, data and configuration give the same bits, whatever the number of threads and
//! however often the run is stopped and resumed.

use crate::common::runs::{
    Left, StopAfter, VOCAB, adamw, config, folder, momentum, muon, resume, rmsprop, start, tcn,
    uninterrupted, valid,
};
use candle_tcn::Result;
use candle_tcn::geometry::Dilations;
use candle_tcn::models::{ModelConfig, WaveNetConfig};
use candle_tcn::nn::{DropoutKind, Gate, NormKind, TcnConfig, WaveNetStackConfig};
use candle_tcn::text::BatchMode;
use candle_tcn::train::schedule::{PlateauRule, ScheduleConfig};
use candle_tcn::train::{Budget, Precision, TrainConfig};

fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().expect("threads").install(run)
}

#[test]
fn threads_do_not_show() -> Result<()> {
    // wide and long enough for every kernel to cut its work into pieces
    const WIDTH: usize = 72;
    let plain = TcnConfig::new(vec![96, WIDTH], 3);
    let overlap = BatchMode::Overlap { history: 50 };
    let cases = [
        (adamw(), BatchMode::Carry, tcn(WIDTH, plain.clone())),
        (
            momentum(),
            overlap,
            tcn(
                WIDTH,
                TcnConfig {
                    norm: NormKind::Batch,
                    dropout_kind: DropoutKind::Channel,
                    skip_connections: true,
                    ..plain.clone()
                },
            ),
        ),
        (
            muon(),
            BatchMode::Carry,
            tcn(
                WIDTH,
                TcnConfig {
                    norm: NormKind::Rms,
                    gate: Some(Gate::Glu),
                    pre_norm: true,
                    ..plain.clone()
                },
            ),
        ),
        (
            adamw(),
            overlap,
            tcn(WIDTH, TcnConfig { norm: NormKind::Layer, gate: Some(Gate::TanhSigmoid), ..plain }),
        ),
        (
            adamw(),
            BatchMode::Carry,
            ModelConfig::WaveNet(WaveNetConfig {
                eos_token_id: None,
                vocab_size: VOCAB as usize,
                network: WaveNetStackConfig {
                    residual_channels: WIDTH,
                    gate_channels: WIDTH,
                    skip_channels: 96,
                    kernel_size: 2,
                    dilations: Dilations::List(vec![1, 2, 4]),
                    dropout: 0.1,
                },
            }),
        ),
    ];
    let each = |case| [Precision::F32, Precision::Bf16].map(|dtype| (case, dtype));
    for ((optimizer, batches, model), dtype) in cases.iter().flat_map(each) {
        let config = TrainConfig {
            batch_size: 4,
            seq_len: 600,
            budget: Budget::Steps(3),
            valid_every: Some(2),
            dtype,
            ..config(optimizer.clone(), 1e-3, *batches)
        };
        let one = with_threads(1, || uninterrupted(&config, model))?;
        let two = with_threads(2, || uninterrupted(&config, model))?;
        one.assert_equal(&two, &format!("{config:?} {model:?}"));
    }
    Ok(())
}

/// Both ways of laying windows, with everything that has a state of its own.
fn resumable() -> Vec<(TrainConfig, ModelConfig)> {
    let weight = TcnConfig::new(vec![10, 8], 3);
    let batch = TcnConfig { norm: NormKind::Batch, ..weight.clone() };
    let cosine = ScheduleConfig::Cosine { warmup: 0.2, final_fraction: 0.1 };
    let plateau = ScheduleConfig::Plateau {
        factor: 0.5,
        rule: PlateauRule::Patience(0),
        after: 1,
        min_lr: 0.0,
    };
    let overlap = BatchMode::Overlap { history: 6 };
    vec![
        (
            TrainConfig {
                accumulate: 2,
                schedule: cosine,
                ..config(adamw(), 1e-2, BatchMode::Carry)
            },
            tcn(8, weight.clone()),
        ),
        (
            TrainConfig {
                accumulate: 2,
                // too high, so that the validation loss rises and the plateau is seen
                schedule: plateau,
                valid_every: Some(2),
                ..config(momentum(), 2.0, overlap)
            },
            tcn(8, batch),
        ),
        (
            TrainConfig {
                valid_every: None,
                budget: Budget::Epochs(3.0),
                ..config(rmsprop(), 1e-3, BatchMode::Carry)
            },
            tcn(8, weight.clone()),
        ),
        (
            TrainConfig { dtype: Precision::Bf16, ..config(adamw(), 1e-3, BatchMode::Carry) },
            tcn(8, weight),
        ),
        (
            TrainConfig { dtype: Precision::Bf16, ..config(muon(), 1e-3, BatchMode::Carry) },
            tcn(8, TcnConfig { norm: NormKind::Rms, ..TcnConfig::new(vec![10, 8], 3) }),
        ),
    ]
}

#[test]
fn a_stopped_and_resumed_run_is_the_same_run() -> Result<()> {
    for (config, model) in resumable() {
        let whole = uninterrupted(&config, &model)?;
        let rates: Vec<f64> = whole.metrics.iter().map(|record| record.lr).collect();
        if config.schedule != ScheduleConfig::Constant {
            assert!(rates.windows(2).any(|pair| pair[1] < pair[0]), "{rates:?}");
        }
        // before, at and after validations and records; twice in one run
        for stops in [vec![1], vec![4], vec![5, 6], vec![3, 11]] {
            let dir = folder();
            let what = format!("{config:?} stopped after {stops:?}");
            let mut trainer = start(&config, &model, dir.path())?;
            for stop in stops {
                let outcome = trainer.run(&valid(), &mut StopAfter::new(stop))?;
                assert_eq!((outcome.steps, outcome.interrupted), (stop, true), "{what}");
                trainer = resume(&config, dir.path())?;
            }
            let outcome = trainer.run(&valid(), &mut StopAfter::new(None))?;
            assert!(!outcome.interrupted);
            whole.assert_equal(&Left::read(dir.path())?, &what);
        }
    }
    Ok(())
}
