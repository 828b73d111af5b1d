//! What goes wrong in a run leaves the last good checkpoint, and an error that says what to do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::runs::{
    Left, StopAfter, config, folder, momentum, resume, start, tcn, text, text_len, uninterrupted,
    valid,
};
use candle_core::{DType, Device, Tensor};
use candle_tcn::files::{weights, write_tensors};
use candle_tcn::models::ModelConfig;
use candle_tcn::nn::TcnConfig;
use candle_tcn::text::BatchMode;
use candle_tcn::train::{RunDir, TrainConfig, Trainer};
use candle_tcn::{Error, Result};

fn model() -> ModelConfig {
    tcn(8, TcnConfig::new(vec![10, 8], 3))
}

/// A run stopped after step 6, and its newest checkpoint.
fn stopped(config: &TrainConfig) -> Result<(tempfile::TempDir, PathBuf)> {
    let dir = folder();
    start(config, &model(), dir.path())?.run(&valid(), &mut StopAfter::new(6))?;
    let checkpoint = dir.path().join("checkpoints/step-6");
    assert!(checkpoint.is_dir());
    Ok((dir, checkpoint))
}

fn ordinary() -> TrainConfig {
    config(momentum(), 1e-2, BatchMode::Carry)
}

#[test]
fn a_loss_that_is_not_finite_keeps_the_last_good_checkpoint() -> Result<()> {
    let config = TrainConfig { clip: None, ..ordinary() };
    let (dir, _) = stopped(&config)?;
    let good = Left::read(dir.path())?;
    let run = RunDir::open(dir.path(), 1)?;
    let mut trainer = Trainer::resume(text(text_len(&config)), run, |c| c.lr = 1e30)?;
    let error = trainer.run(&valid(), &mut StopAfter::new(None)).expect_err("far too high a rate");
    let Error::NotFinite { step, lr, .. } = error else {
        panic!("{error}");
    };
    assert!((7..=8).contains(&step) && lr == 1e30, "{error}");
    let message = error.to_string();
    assert!(message.contains("learning rate"), "{message}");
    assert!(message.contains("checkpoint"), "{message}");
    good.assert_equal(&Left::read(dir.path())?, "after the failure");

    resume(&config, dir.path())?.run(&valid(), &mut StopAfter::new(None))?;
    let whole = uninterrupted(&config, &model())?;
    whole.assert_equal(&Left::read(dir.path())?, "resumed at the old rate");
    Ok(())
}

#[test]
fn an_occupied_directory_is_refused_and_left_alone() -> Result<()> {
    let (dir, _) = stopped(&ordinary())?;
    let before = Left::read(dir.path())?;
    let error = RunDir::create(dir.path(), 1).expect_err("occupied").to_string();
    for part in ["already holds a run (", &dir.path().display().to_string()] {
        assert!(error.contains(part), "{error}");
    }
    before.assert_equal(&Left::read(dir.path())?, "after the refusal");

    let empty = folder();
    let error = RunDir::open(empty.path(), 1).expect_err("empty").to_string();
    assert!(error.contains("step-N"), "{error}");
    Ok(())
}

#[test]
fn a_broken_checkpoint_is_an_error_that_names_file_and_tensor() -> Result<()> {
    let config = ordinary();
    let failure = |dir: &Path| match resume(&config, dir) {
        Ok(_) => panic!("resumed from a broken checkpoint"),
        Err(error) => error.to_string(),
    };
    for name in ["model", "optimizer", "state"].map(|name| format!("{name}.safetensors")) {
        let (dir, checkpoint) = stopped(&config)?;
        let file = checkpoint.join(&name);
        let bytes = fs::read(&file).expect("a file");
        for len in [0, 7, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&file, &bytes[..len]).expect("written");
            let error = failure(dir.path());
            assert!(error.contains(&file.display().to_string()), "{error}");
        }
        fs::remove_file(&file).expect("removed");
        assert!(failure(dir.path()).contains(&name));
    }
    for (file, tensor) in [
        ("model.safetensors", "tcn.network.0.conv1.bias"),
        ("optimizer.safetensors", "sgd.momentum.tcn.network.0.conv1.bias"),
    ] {
        let (dir, checkpoint) = stopped(&config)?;
        fs::remove_file(checkpoint.join("SHA256SUMS")).expect("removed");
        let mut tensors = weights::read(checkpoint.join(file))?.tensors;
        let wrong = Tensor::zeros(9, DType::F32, &Device::Cpu)?;
        assert!(tensors.insert(tensor.into(), wrong).is_some());
        write_tensors(checkpoint.join(file), &tensors)?;
        let error = failure(dir.path());
        for part in [file, tensor, "[10]", "[9]"] {
            assert!(error.contains(part), "{error}");
        }
        tensors.remove(tensor);
        write_tensors(checkpoint.join(file), &tensors)?;
        let error = failure(dir.path());
        assert!(error.contains(file) && error.contains(tensor), "{error}");
    }
    let (dir, checkpoint) = stopped(&config)?;
    fs::write(checkpoint.join("trainer.json"), "{").expect("written");
    assert!(failure(dir.path()).contains("trainer.json"));
    Ok(())
}

/// Every state that a crash while saving can leave.
#[test]
fn a_crash_while_saving_loses_nothing() -> Result<()> {
    let config = ordinary();
    let whole = uninterrupted(&config, &model())?;
    type Crash = fn(&Path);
    let crashes: [(&str, Crash); 5] = [
        ("a part was written", |step| {
            let partial = step.with_file_name(".partial-8-x1y2z3");
            fs::create_dir(&partial).unwrap();
            fs::write(partial.join("model.safetensors"), "half").unwrap();
        }),
        ("all was written and not renamed", |step| {
            fs::rename(step, step.with_file_name(".partial-6-x1y2z3")).unwrap();
        }),
        ("one of the same step was set aside", |step| {
            fs::rename(step, step.with_file_name(".old-6-x1y2z3")).unwrap();
        }),
        ("the new one stands, the old one goes", |step| {
            let old = step.with_file_name(".old-6-x1y2z3");
            fs::create_dir(&old).unwrap();
            fs::write(old.join("trainer.json"), "{}").unwrap();
        }),
        ("one of before the signatures", |step| {
            fs::remove_file(step.join("SHA256SUMS")).unwrap();
        }),
    ];
    for (what, crash) in crashes {
        let (dir, checkpoint) = stopped(&config)?;
        crash(&checkpoint);
        let mut trainer = resume(&config, dir.path())?;
        assert_eq!(trainer.steps(), 6, "{what}");
        assert!(trainer.damaged().is_empty(), "{what}");
        let names = fs::read_dir(checkpoint.parent().unwrap()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["step-6"], "{what}");
        trainer.run(&valid(), &mut StopAfter::new(None))?;
        whole.assert_equal(&Left::read(dir.path())?, what);
    }
    // a part that was written and signed, then damaged: nothing whole is left
    let (dir, checkpoint) = stopped(&config)?;
    fs::write(checkpoint.join("model.safetensors"), "half").unwrap();
    fs::rename(&checkpoint, checkpoint.with_file_name(".partial-6-x1y2z3")).unwrap();
    let error = RunDir::open(dir.path(), 1).expect_err("nothing whole").to_string();
    assert!(error.contains("step-N"), "{error}");
    Ok(())
}

#[test]
fn a_checkpoint_of_the_same_step_takes_the_place_of_the_other() -> Result<()> {
    let config = ordinary();
    let dir = folder();
    // a validation that is cut short is saved, and saved again when it was made
    start(&config, &model(), dir.path())?.run(&valid(), &mut StopAfter::new(4))?;
    let pending = || {
        let json = fs::read(dir.path().join("checkpoints/step-4/trainer.json")).unwrap();
        !serde_json::from_slice::<serde_json::Value>(&json).unwrap()["pending"].is_null()
    };
    assert!(pending());
    let run = RunDir::open(dir.path(), 9)?;
    let mut trainer = Trainer::resume(text(text_len(&config)), run, |_| {})?;
    trainer.run(&valid(), &mut StopAfter::new(6))?;
    assert!(!pending());
    let names = fs::read_dir(dir.path().join("checkpoints")).unwrap();
    assert_eq!(names.count(), 2, "step-4 and step-6, nothing else");
    Ok(())
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_an_older_one_goes_on() -> Result<()> {
    let config = ordinary();
    let whole = uninterrupted(&config, &model())?;
    for file in ["model", "optimizer", "state"].map(|name| format!("{name}.safetensors")) {
        let dir = folder();
        let mut trainer = Trainer::new(
            config.clone(),
            &model(),
            config.lay_out(text(text_len(&config)))?,
            RunDir::create(dir.path(), 2)?,
        )?;
        trainer.run(&valid(), &mut StopAfter::new(8))?;
        drop(trainer);
        let newest = dir.path().join("checkpoints/step-8");
        let mut bytes = fs::read(newest.join(&file)).unwrap();
        let middle = bytes.len() - 3;
        bytes[middle] ^= 0x10;
        fs::write(newest.join(&file), bytes).unwrap();
        let mut trainer = resume(&config, dir.path())?;
        assert_eq!(trainer.steps(), 4, "{file}");
        let [(error, kept)] = trainer.damaged() else {
            panic!("{file}: {:?}", trainer.damaged());
        };
        assert!(error.to_string().contains(&file), "{error}");
        assert!(kept.ends_with("damaged-step-8") && kept.join(&file).exists());
        fs::remove_dir_all(kept).unwrap();
        trainer.run(&valid(), &mut StopAfter::new(None))?;
        whole.assert_equal(&Left::read(dir.path())?, &file);
    }
    Ok(())
}

#[test]
fn other_data_than_the_run_began_with_is_refused() -> Result<()> {
    let config = ordinary();
    let (dir, _) = stopped(&config)?;
    let other = text(text_len(&config) + 1);
    let Err(error) = Trainer::resume(other, RunDir::open(dir.path(), 1)?, |_| {}) else {
        panic!("resumed on other data");
    };
    assert!(error.to_string().contains("data: "), "{error}");
    let mut same_length = text(text_len(&config));
    same_length[70] ^= 1;
    let Err(error) = Trainer::resume(same_length, RunDir::open(dir.path(), 1)?, |_| {}) else {
        panic!("resumed on other data");
    };
    assert!(error.to_string().contains("as many others"), "{error}");

    let mut other = valid();
    other.tokens[70] ^= 1;
    let error = resume(&config, dir.path())?.run(&other, &mut StopAfter::new(None));
    let error = error.expect_err("another validation text").to_string();
    assert!(error.contains("valid: "), "{error}");
    Ok(())
}
