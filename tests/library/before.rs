//! Runs, model directories and states that version 0.1 wrote, `tests/fixtures/before`, go on.

use std::path::Path;

use candle_tcn::files::{names, weights};
use candle_tcn::generate::{GenerateConfig, Generator, SamplerConfig};
use candle_tcn::kernels::Kernel;
use candle_tcn::nn::StepDtype;
use candle_tcn::text::split_fraction;
use candle_tcn::train::{Budget, RunDir, Trainer, ValidSet};
use candle_tcn::{LoadedModel, Result};

use crate::common::assert_close;

const BEFORE: &str = "tests/fixtures/before";

/// A copy of the run that may be written to.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

/// Four more steps give the weights that version 0.1 gave, under the portable kernel.
#[test]
fn a_run_goes_on() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&Path::new(BEFORE).join("run"), folder.path());
    let loaded = LoadedModel::load(folder.path())?;
    let text = std::fs::read(Path::new(BEFORE).join("text.txt")).expect("a text");
    let (train, valid) = split_fraction(&text, 0.1, true)?;
    let encode = |bytes| loaded.tokenizer()?.encode_bytes(bytes);
    let run = RunDir::open(folder.path(), 1)?;
    let change = |config: &mut candle_tcn::train::TrainConfig| config.budget = Budget::Steps(304);
    let trainer = Trainer::resume(encode(train)?, run, change)?;
    let mut trainer = trainer.with_kernel(Kernel::Portable)?;
    assert_eq!(trainer.steps(), 300);
    let characters = valid.len() as u64 - 1;
    trainer.run(&ValidSet::text(encode(valid)?, characters), &mut ())?;
    let before = weights::read(Path::new(BEFORE).join("step-304.safetensors"))?.tensors;
    let now = trainer.params().snapshot()?;
    assert_eq!(now.len(), before.len());
    for (name, tensor) in &now {
        assert_close(name, tensor, &before[name], 1e-6)?;
    }
    Ok(())
}

#[test]
fn a_state_goes_on() -> Result<()> {
    let loaded = LoadedModel::load(Path::new(BEFORE).join("run"))?;
    let stepper = loaded.model.clone().with_kernel(Kernel::Portable)?.stepper(StepDtype::F32)?;
    let tokenizer = loaded.tokenizer()?;
    let config = GenerateConfig {
        max_tokens: 80,
        sampler: SamplerConfig { temperature: 0.8, seed: 3, ..SamplerConfig::default() },
        ..GenerateConfig::default()
    };
    let mut generator = Generator::new(&stepper, tokenizer, config)?;
    generator.load_state(Path::new(BEFORE).join("state.safetensors"))?;
    let text = std::fs::read_to_string(Path::new(BEFORE).join("goes_on.txt")).expect("a text");
    assert_eq!(generator.text(0)?, text.trim_end_matches('\n'));
    assert!(Path::new(BEFORE).join("run").join(names::CONFIG).exists());
    Ok(())
}
