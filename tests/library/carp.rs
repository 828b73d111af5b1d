//! CARP by a directory as the Hub has it (tests/fixtures/carp-tiny): hidden states, logits, loss, every
//! gradient, masks with holes, its tokenizer; and the four published sizes (tests/fixtures/carp-configs).

use crate::common;
use crate::common::masked::{Golden, check_case};
use crate::common::{UnderTest, assert_close, has_kernels, under};
use candle_core::{DType, Device, Tensor};
use candle_tcn::graph::Run;
use candle_tcn::models::ModelConfig;
use candle_tcn::models::directory;
use candle_tcn::nn::{Params, mean_rows};
use candle_tcn::text::Tokenizer;
use candle_tcn::{LoadedModel, Result};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-5;
const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/carp-tiny");

#[derive(Deserialize)]
struct Reference {
    sequences: Vec<String>,
    dilations: Vec<usize>,
}

fn config() -> Result<ModelConfig> {
    directory::read_config(format!("{DIR}/config.json"))
}

#[test]
fn a_model_of_the_hub() -> Result<()> {
    let config = config()?;
    let reference: Reference = common::json("carp-tiny/reference");
    let stack = config.geometry()?;
    let dilations: Vec<usize> = stack.layers().map(|layer| layer.dilation()).collect();
    assert_eq!(dilations, reference.dilations);
    let mut io = common::tensors("carp-tiny/reference");
    for (ours, theirs) in [("input", "input_ids"), ("mask", "attention_mask"), ("target", "labels")]
    {
        io.insert(ours.into(), io[theirs].clone());
    }
    let mut hidden = under("hidden_states.", &io);
    hidden.retain(|name, _| !name.ends_with("_f32"));
    let golden = Golden {
        weights: common::tensors("carp-tiny/model"),
        gradients: common::tensors("carp-tiny/reference_grads"),
        hidden,
        io,
    };
    check_case("carp-tiny", &config, &golden)
}

#[test]
fn masks_texts_and_means() -> Result<()> {
    let io = common::tensors("carp-tiny/reference");
    let reference: Reference = common::json("carp-tiny/reference");
    let loaded = LoadedModel::load(DIR)?.under_test();
    let (model, last) =
        (&loaded.model, format!("hidden.{}", loaded.config.graph()?.hidden_layers()));
    let ids = io["input_ids"].to_dtype(DType::U32)?;

    // without a mask, padding is hidden
    let logits = model.forward_with(&ids, Run::eval())?;
    assert_close("default mask", &logits, &io["logits"], TOLERANCE)?;
    assert_close("f32", &logits, &io["logits_f32"], TOLERANCE)?;
    let mask = model.attention_mask(&ids)?.expect("padding");
    assert_close("mask", &mask, &io["attention_mask"], 0.0)?;
    let all = Tensor::ones(ids.dims(), DType::U8, &Device::Cpu)?;
    let logits = model.forward_with(&ids, Run::eval().with_mask(&all)?)?;
    assert_close("no mask", &logits, &io["nomask.logits"], TOLERANCE)?;

    let run = Run::eval().with_mask(&io["mask_holes.attention_mask"])?;
    let outputs = model.run(&[&ids], run.recording(|name| name == last))?;
    assert_close("holes", &outputs.values[0], &io["mask_holes.logits"], TOLERANCE)?;
    let [(_, state)] = &outputs.recorded[..] else {
        panic!("one tensor was wanted");
    };
    assert_close("holes", state, &io["mask_holes.last_hidden_state"], TOLERANCE)?;

    let pooled = mean_rows(&io[&format!("hidden_states.{}", 6)], Some(&mask))?;
    assert_close("pooled", &pooled, &io["pooler_output"], TOLERANCE)?;

    for (i, text) in reference.sequences.iter().enumerate() {
        let tokenizer = loaded.tokenizer()?;
        let ids = tokenizer.encode(text)?;
        let row = common::ids(&io["input_ids"].get(i)?)?;
        assert_eq!(ids, row[..ids.len()], "{text}");
        assert!(row[ids.len()..].iter().all(|&id| Some(id) == tokenizer.pad_id()));
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = model.forward_with(&ids, Run::eval())?;
        assert_close(text, &logits, &io[&format!("single.{i}.logits")], TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn activations_of_bf16() -> Result<()> {
    if !has_kernels("bf16 to 5 % of PyTorch's f32, for which sums must be f32") {
        return Ok(());
    }
    let io = common::tensors("carp-tiny/reference");
    let model = LoadedModel::load(DIR)?.under_test().model;
    let ids = io["input_ids"].to_dtype(DType::U32)?;
    let run = Run::eval().with_mask(&io["mask_holes.attention_mask"])?;
    let logits = model.forward_with(&ids, run.with_dtype(DType::BF16))?;
    assert_eq!(logits.dtype(), DType::F32);
    assert_close("bf16", &logits, &io["mask_holes.logits"], 0.05)
}

#[test]
fn the_tokenizer_of_a_vocabulary() -> Result<()> {
    let tokenizer = directory::read_tokenizer(DIR)?.expect("a vocabulary");
    assert_eq!(tokenizer.vocab_size(), 37);
    assert_eq!((tokenizer.mask_id(), tokenizer.pad_id()), (Some(4), Some(0)));
    assert_eq!(tokenizer.unknown_id(), Some(3));
    let text = "mAn<mask><eos>|.*-?1 é<pad>";
    let ids = [16, 6, 17, 4, 2, 32, 33, 34, 35, 36, 3, 3, 3, 0];
    assert_eq!(tokenizer.encode(text)?, ids);
    assert_eq!(tokenizer.decode(&[16, 6, 4, 17])?, "MAN");
    assert_eq!(tokenizer.token_text(4).as_deref(), Some("<mask>"));
    let again = Tokenizer::from_json(tokenizer.to_json()?.as_bytes())?;
    assert_eq!(again.encode(text)?, ids);
    Ok(())
}

#[test]
fn the_published_sizes() -> Result<()> {
    for (size, parameters, field) in [
        ("600k", 608_589, 2041),
        ("38m", 37_896_525, 2041),
        ("76m", 75_743_565, 4081),
        ("640m", 642_959_693, 7141),
    ] {
        let json: serde_json::Value = common::json(&format!("carp-configs/carp-{size}.expected"));
        let config = ModelConfig::from_json(&json.to_string(), size)?;
        assert_eq!(config.graph()?.parameter_count()?, parameters, "{size}");
        let found = config.geometry()?.receptive_field()?;
        assert_eq!((found.total, found.left, found.right), (field, field / 2, field / 2), "{size}");
        // keys without an effect here stay in the file
        let written: serde_json::Value = serde_json::from_str(&config.to_json()?).expect("JSON");
        assert_eq!(written["architectures"], json["architectures"]);
        assert_eq!(written["lm_head"], json["lm_head"]);
        assert_eq!(ModelConfig::from_json(&config.to_json()?, size)?, config);
    }
    Ok(())
}

/// A large model is held once: what is frozen shares the numbers of what was loaded.
#[test]
fn freezing_copies_nothing_that_does_not_change() -> Result<()> {
    let config = config()?;
    let weights = common::tensors("carp-tiny/model");
    let name = "model.encoder.layer.0.convolution.weight";
    let vb = candle_nn::VarBuilder::from_tensors(weights.clone(), DType::F32, &Device::Cpu);
    let frozen = config.build(vb)?.under_test().freeze()?;
    let ids = Tensor::new(&[[7u32, 8, 9]], &Device::Cpu)?;
    let before = frozen.forward_with(&ids, Run::eval())?;
    weights[name].zero_set()?;
    let after = frozen.forward_with(&ids, Run::eval())?;
    assert!(common::max_abs(&(before - after)?)? > 0.0, "a copy was made");

    // in training they do change, so that there a copy is made
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let frozen = config.build(params.builder())?.under_test().freeze()?;
    let before = frozen.forward_with(&ids, Run::eval())?;
    for (trained, var) in params.all() {
        if trained == name {
            var.set(&var.zeros_like()?)?;
        }
    }
    let after = frozen.forward_with(&ids, Run::eval())?;
    assert_close("in training", &after, &before, 0.0)
}
