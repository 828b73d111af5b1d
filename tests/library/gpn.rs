//! GPN by a directory as the Hub has it (tests/fixtures/gpn-tiny): hidden states, logits, its tokenizer.

use crate::common;
use crate::common::UnderTest;
use crate::common::assert_close;
use candle_core::{DType, Device, Tensor};
use candle_tcn::graph::Run;
use candle_tcn::models::ModelConfig;
use candle_tcn::nn::Params;
use candle_tcn::{LoadedModel, Result};
use serde::Deserialize;

/// Twice what rounding makes of f32 in PyTorch, too.
const TOLERANCE: f64 = 3e-5;
const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gpn-tiny");

#[derive(Deserialize)]
struct Reference {
    sequences: Vec<String>,
    lengths: Vec<usize>,
    dilations: Vec<usize>,
    num_parameters: usize,
    tokenizer_cases: Vec<TokenizerCase>,
}

#[derive(Deserialize)]
struct TokenizerCase {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn a_model_of_the_hub() -> Result<()> {
    let reference: Reference = common::json("gpn-tiny/reference");
    let io = common::tensors("gpn-tiny/reference");
    let loaded = LoadedModel::load(DIR)?.under_test();
    let stack = loaded.config.geometry()?;
    let dilations: Vec<usize> = stack.layers().map(|layer| layer.dilation()).collect();
    assert_eq!(dilations, reference.dilations);
    assert_eq!(loaded.config.graph()?.parameter_count()?, reference.num_parameters);

    let ids = io["input_ids"].to_dtype(DType::U32)?;
    let run = Run::eval().recording(|name| name.starts_with("hidden"));
    let outputs = loaded.model.run(&[&ids], run)?;
    let logits = &outputs.values[0];
    assert_close("logits", logits, &io["logits"], TOLERANCE)?;
    assert_close("logits f32", logits, &io["logits_f32"], TOLERANCE)?;
    let recorded = outputs.recorded;
    assert_eq!(recorded.len(), loaded.config.graph()?.hidden_layers() + 1);
    for (i, (name, found)) in recorded.iter().enumerate() {
        assert_eq!(*name, format!("hidden.{i}"));
        let expected = &io[&format!("row0.hidden_states.{i}")];
        assert_close(name, &found.narrow(0, 0, 1)?, expected, TOLERANCE)?;
    }
    let (_, last) = recorded.last().expect("hidden states");
    assert_close("last", last, &io["last_hidden_state"], TOLERANCE)?;

    // padding is input like any other: a mask of ones says nothing, another is refused
    let mask = |ones: bool| match ones {
        true => Tensor::ones(ids.dims(), DType::U8, &Device::Cpu),
        false => Tensor::zeros(ids.dims(), DType::U8, &Device::Cpu),
    };
    let masked = |ones| {
        let run = Run::eval().with_mask(&mask(ones)?)?;
        loaded.model.forward_with(&ids, run)
    };
    assert_close("masked", &masked(true)?, logits, 0.0)?;
    assert!(masked(false).unwrap_err().to_string().contains("mask"));
    assert!(!loaded.config.graph()?.takes_mask());

    for (i, text) in reference.sequences.iter().enumerate() {
        let ids = loaded.tokenizer()?.encode(text)?;
        assert_eq!(ids.len(), reference.lengths[i]);
        assert_eq!(ids, common::ids(&io[&format!("single.{i}.input_ids")])?);
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = loaded.model.forward_with(&ids, Run::eval())?;
        assert_close(text, &logits, &io[&format!("single.{i}.logits")], TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn its_tokenizer() -> Result<()> {
    let reference: Reference = common::json("gpn-tiny/reference");
    let tokenizer = candle_tcn::models::directory::read_tokenizer(DIR)?.expect("a tokenizer");
    assert_eq!((tokenizer.mask_id(), tokenizer.pad_id()), (Some(1), Some(0)));
    for case in reference.tokenizer_cases {
        assert_eq!(tokenizer.encode(&case.text)?, case.ids, "{:?}", case.text);
    }
    Ok(())
}

#[test]
fn the_published_configuration() -> Result<()> {
    let config = ModelConfig::from_json(r#"{"model_type": "ConvNet"}"#, "config.json")?;
    assert_eq!(config.graph()?.parameter_count()?, 65_880_071);
    let field = config.geometry()?.receptive_field()?;
    assert_eq!((field.total, field.left, field.right), (2025, 1012, 1012));
    // as older files have it: fewer keys, others of no effect
    let older = r#"{"model_type": "ConvNet", "architectures": ["ConvNetForMaskedLM"], "torch_dtype": "float32",
        "vocab_size": 7, "hidden_size": 512, "n_layers": 25, "kernel_size": 9, "dilation_double_every": 1,
        "dilation_max": 32, "dilation_cycle": 6, "initializer_range": 0.02, "transformers_version": "4.26.0"}"#;
    let older = ModelConfig::from_json(older, "config.json")?;
    let tensors = |config: &ModelConfig| -> Result<Vec<_>> {
        let graph = config.graph()?;
        Ok(graph.parameters().iter().map(|p| (p.name.clone(), p.shape.clone())).collect())
    };
    assert_eq!(tensors(&older)?, tensors(&config)?);
    assert_eq!(older.geometry()?, config.geometry()?);
    assert!(older.to_json()?.contains(r#""torch_dtype": "float32""#));
    Ok(())
}

#[test]
fn an_id_beyond_the_vocabulary_is_an_error() -> Result<()> {
    let json = r#"{"model_type": "ConvNet", "hidden_size": 16, "n_layers": 1}"#;
    let config = ModelConfig::from_json(json, "config.json")?;
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model = config.build(params.builder())?.under_test();
    let ids = Tensor::new(&[[1u32, 7]], &Device::Cpu)?;
    let error = model.forward_with(&ids, Run::eval()).expect_err("7");
    assert_eq!(error.to_string(), "token: expected an id below 7, found 7");
    Ok(())
}
