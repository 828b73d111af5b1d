//! A forecast of one's own numbers: an array in, a trained network, a stream of forecasts out.
//!
//! ```text
//! cargo run --release --example forecast
//! ```

use candle_tcn::kernels::Kernel;
use candle_tcn::models::{ModelConfig, SeriesModel};
use candle_tcn::nn::StepDtype;
use candle_tcn::series::{Column, Series, SeriesSet, SeriesTask, TaskKind};
use candle_tcn::train::loss::Quantiles;
use candle_tcn::train::{
    Budget, RunDir, SequenceBatches, SequenceSizes, TrainConfig, Trainer, ValidSet,
};

/// Visits a day: they grow, and weekends are quiet.
fn visits(day: usize) -> f32 {
    let noise = ((day * 7919) % 101) as f32 / 101.0;
    (100.0 + 0.5 * day as f32) * if day % 7 >= 5 { 0.6 } else { 1.0 } + 10.0 * noise
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    candle_tcn::kernels::memory::keep_freed_memory();
    let known: Vec<f32> = (0..500).map(visits).collect();
    let set = SeriesSet {
        columns: vec![Column::of_numbers("visits")],
        series: vec![Series::new(known, 1)],
        ..SeriesSet::default()
    };
    let levels = vec![0.1, 0.5, 0.9];
    let kind = TaskKind::Forecast { horizon: 7, season: Some(7), levels: levels.clone() };
    let task = SeriesTask::fit(&set, kind)?;

    let (inputs, outputs) = (task.in_channels(), task.out_channels());
    let model = ModelConfig::preset("tcn-small")?.with_frames(inputs, outputs)?;
    let sizes = SequenceSizes { batch_size: 8, window: 128, history: 64, with_mask: false };
    let batches = SequenceBatches::new(task.sequences(&set)?, sizes, 1)?;
    let config = TrainConfig { lr: 0.002, budget: Budget::Steps(300), ..TrainConfig::default() };
    let folder = tempfile::tempdir()?;
    let run = RunDir::create(folder.path().join("run"), 1)?;
    let (graph, json, loss) = (model.graph()?, model.to_json()?, Quantiles::new(levels)?);
    let mut trainer = Trainer::of_graph(config, graph, &json, batches, loss, run)?;
    trainer.run(&ValidSet::default(), &mut ())?;

    // a step for each new day, in constant memory
    let model = SeriesModel::new(task, trainer.frozen()?.with_kernel(Kernel::best())?)?;
    let net = model.network.step_net(StepDtype::F32)?;
    let mut state = net.init_state(1)?;
    let mut framer = model.task.framer();
    let (mut frame, mut answer, mut inside) = (Vec::new(), Vec::new(), 0);
    for day in 0..560 {
        frame.clear();
        answer.clear();
        framer.push(&[visits(day)], None, None, &mut frame);
        let outputs = net.step(&frame, &mut state)?;
        model.answer(Some(&model.anchors(&framer)), outputs, &mut answer);
        if day < 500 {
            continue;
        }
        let [low, middle, high] = [answer[0], answer[1], answer[2]];
        let came = f64::from(visits(day + 1));
        inside += usize::from((low..=high).contains(&came));
        if day < 507 {
            println!("day {}: {middle:.0} ({low:.0} to {high:.0}); came {came:.0}", day + 1);
        }
    }
    println!("{inside} of 60 days were inside the band of 80 %");
    Ok(())
}
