//! Masked training: the loss against PyTorch's, padding that changes nothing, batches that can be continued.

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::Run;
use candle_tcn::models::ModelConfig;
use candle_tcn::models::directory::read_config;
use candle_tcn::nn::Params;
use candle_tcn::text::Tokenizer;
use candle_tcn::train::loss::{CrossEntropy, Loss};
use candle_tcn::train::{Batch, BatchSource, MaskTokens, MaskedBatches, MaskingConfig};
use rand::RngExt;

use crate::common::{self, UnderTest, load, rng, under};

const CARP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/carp-tiny");

fn loss(model: &candle_tcn::models::Network, batch: &Batch) -> Result<(f64, u64)> {
    let mut run = Run::eval();
    if let Some(mask) = &batch.mask {
        run = run.with_mask(mask)?;
    }
    let outputs = model.run(&[&batch.inputs[0]], run)?;
    let value = CrossEntropy::default().value(&outputs.values, batch)?;
    Ok((value.mean, value.count))
}

#[test]
fn the_loss_is_that_of_pytorch() -> Result<()> {
    let io = common::tensors("carp-tiny/reference");
    let config = read_config(format!("{CARP}/config.json"))?;
    let params = Params::new(0, DType::F64, &Device::Cpu);
    let model = config.build(params.builder())?.under_test();
    load(&params, &under("", &common::tensors("carp-tiny/model")))?;
    let labels = io["labels"].to_dtype(DType::I64)?;
    let scored = labels.ge(0i64)?;
    let targets = labels.maximum(0i64)?.to_dtype(DType::U32)?;
    let batch = Batch {
        mask: Some(io["attention_mask"].to_dtype(DType::U8)?),
        weights: Some(scored.to_dtype(DType::F32)?),
        ..Batch::new(vec![io["input_ids"].to_dtype(DType::U32)?], targets)
    };
    let (found, count) = loss(&model, &batch)?;
    let expected = io["loss"].to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?[0];
    assert!((found - expected).abs() < 1e-6 * expected, "{found} {expected}");
    let scored = scored.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
    assert_eq!(count as f32, scored);
    // some sequences are shorter, and hidden beyond their ends
    let hidden = io["attention_mask"].to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    assert!(hidden < 1.0);
    Ok(())
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_vocab("<pad>\n<mask>\n<unk>\nA\nC\nD\nE\nF\nG\nH\n").expect("a vocabulary")
}

fn sequences(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut rng = rng(3);
    lengths.iter().map(|&len| (0..len).map(|_| rng.random_range(3..10)).collect()).collect()
}

fn batches(lengths: &[usize], config: MaskingConfig, fills_up: bool) -> Result<MaskedBatches> {
    let tokens = MaskTokens::of(&tokenizer())?;
    MaskedBatches::new(sequences(lengths), tokens, config, 64, fills_up, 7)
}

/// Inputs, targets and weights.
type Numbers = (Vec<u32>, Vec<u32>, Vec<f32>);

fn numbers(batch: &Batch) -> Result<Numbers> {
    let weights = batch.weights.as_ref().expect("weights").flatten_all()?.to_vec1()?;
    let [inputs, targets] = [&batch.inputs[0], &batch.targets]
        .map(|ids| ids.flatten_all().and_then(|ids| ids.to_vec1()));
    Ok((inputs?, targets?, weights))
}

#[test]
fn padding_never_changes_a_number() -> Result<()> {
    let mut rng = rng(8);
    let configs = [
        r#"{"model_type": "carp", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 4, "max_dilation": 4, "pad_token_id": 0, "mask_token_id": 1}"#,
        r#"{"model_type": "bytenet", "n_tokens": 10, "d_embedding": 4, "d_model": 8, "n_layers": 3, "kernel_size": 5, "r": 4}"#,
    ];
    for json in configs {
        let params = Params::new(2, DType::F64, &Device::Cpu);
        let model =
            ModelConfig::from_json(json, "config.json")?.build(params.builder())?.under_test();
        common::scatter(&params, &mut rng)?;
        let mut all = batches(&[12, 7, 9, 3, 1, 12, 5], MaskingConfig::default(), true)?;
        for _ in 0..2 * all.steps_per_epoch() {
            let batch = all.next_batch()?;
            let (mean, count) = loss(&model, &batch)?;
            let mut sum = 0.0;
            let mask = batch.mask.as_ref().expect("a mask");
            for row in 0..batch.sequences()? {
                let len =
                    mask.get(row)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? as usize;
                let cut = |t: &Tensor| t.narrow(0, row, 1)?.narrow(1, 0, len);
                let alone = Batch {
                    weights: Some(cut(batch.weights.as_ref().expect("weights"))?),
                    ..Batch::new(vec![cut(&batch.inputs[0])?], cut(&batch.targets)?.contiguous()?)
                };
                let (mean, count) = loss(&model, &alone)?;
                sum += mean * count as f64;
            }
            assert!((sum - mean * count as f64).abs() < 1e-6 * sum, "{sum} {mean} {count}");
        }
    }
    Ok(())
}

#[test]
fn shares_are_what_was_asked_for() -> Result<()> {
    let long = vec![40; 400];
    let mut all = batches(&long, MaskingConfig::default(), true)?;
    let (mut chosen, mut masked, mut same, mut total) = (0, 0, 0, 0);
    for _ in 0..all.steps_per_epoch() {
        let (inputs, targets, weights) = numbers(&all.next_batch()?)?;
        for ((input, target), weight) in inputs.iter().zip(&targets).zip(&weights) {
            assert!(*weight == 1.0 || input == target);
            total += 1;
            chosen += usize::from(*weight == 1.0);
            masked += usize::from(*input == 1);
            same += usize::from(*weight == 1.0 && input == target);
        }
    }
    assert_eq!((total, chosen), (16_000, 400 * 6));
    let part = |count: usize| count as f64 / chosen as f64;
    assert!((part(masked) - 0.8).abs() < 0.03, "{}", part(masked));
    // a tenth stays, and of what is drawn at random a seventh is the same
    assert!((part(same) - 0.1 - 0.1 / 7.0).abs() < 0.02, "{}", part(same));
    Ok(())
}

#[test]
fn batches_go_on_where_they_were() -> Result<()> {
    let lengths = [12, 7, 9, 3, 1, 12, 5, 30, 31, 8];
    let mut all = batches(&lengths, MaskingConfig::default(), true)?;
    let steps = all.steps_per_epoch();
    let mut seen = Vec::new();
    for _ in 0..2 * steps + 1 {
        let position = all.position();
        seen.push((position, numbers(&all.next_batch()?)?));
    }
    assert!(seen[..steps].iter().all(|(at, _)| at.epoch == 0));
    let real = |epoch: usize| -> usize {
        let steps = seen.iter().filter(|(at, _)| at.epoch == epoch);
        steps.map(|(_, (_, targets, _))| targets.iter().filter(|&&id| id != 0).count()).sum()
    };
    assert_eq!((real(0), real(1)), (118, 118));
    assert_ne!(seen[0].1, seen[steps].1);
    for (position, expected) in seen.iter().rev() {
        all.seek(*position)?;
        assert_eq!(numbers(&all.next_batch()?)?, *expected);
    }
    // a network without masks gets one length at a time
    let mut plain = batches(&lengths, MaskingConfig::default(), false)?;
    for _ in 0..plain.steps_per_epoch() {
        let batch = plain.next_batch()?;
        assert!(batch.mask.is_none() && !numbers(&batch)?.1.contains(&0));
    }
    Ok(())
}

#[test]
fn what_cannot_be_masked_is_said() {
    let error = |lengths: &[usize], config| batches(lengths, config, true).unwrap_err().to_string();
    let usual = MaskingConfig::default();
    assert!(error(&[], usual).contains("at least one"));
    assert!(error(&[3], MaskingConfig { share: 0.0, ..usual }).contains("mask_share"));
    assert!(error(&[3], MaskingConfig { masked: 1.5, ..usual }).contains("mask_replace"));
    assert!(error(&[3], MaskingConfig { random: 0.3, ..usual }).contains("mask_random"));
}
