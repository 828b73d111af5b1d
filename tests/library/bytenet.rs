//! ByteNet, CARP and GPN by cases of our own (tests/fixtures/bytenet, made by
//! scripts/make_bytenet_fixtures.py), and a causal ByteNet made by the original code
//! (tests/fixtures/bytenet_causal): hidden states, logits, loss, every gradient, single steps.

use crate::common;
use crate::common::masked::{Golden, check_case};
use crate::common::{Tensors, Tolerance, UnderTest, assert_close, assert_within, max_abs, under};
use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::Run;
use candle_tcn::models::{ModelConfig, Network};
use candle_tcn::nn::{Params, StepDtype};
use serde::Deserialize;
use serde_json::Value;

const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: Value,
    dilations: Vec<usize>,
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[test]
fn every_option_as_in_pytorch() -> Result<()> {
    let Cases { cases } = common::json("bytenet/cases");
    assert_eq!(cases.len(), 9);
    for case in cases {
        let config = ModelConfig::from_json(&case.config.to_string(), &case.name)?;
        let stack = config.geometry()?;
        let dilations: Vec<usize> = stack.layers().map(|layer| layer.dilation()).collect();
        match case.config["kernel_size"] == 1 {
            // a single tap sees nothing
            true => assert!(dilations.is_empty(), "{}", case.name),
            false => assert_eq!(dilations, case.dilations, "{}", case.name),
        }
        let io = common::tensors(&format!("bytenet/{}", case.name));
        let golden = Golden {
            weights: under("param.", &io),
            gradients: under("grad.", &io),
            hidden: under("hidden.", &io),
            io,
        };
        check_case(&case.name, &config, &golden)?;
    }
    Ok(())
}

struct Original {
    config: ModelConfig,
    weights: Tensors,
    io: Tensors,
}

/// The case of the original code: `args` of the file are our keys.
fn original() -> Result<Original> {
    let mut file: Value = common::json("bytenet_causal/relu_slim/config");
    let mut args = file["args"].take();
    args["model_type"] = "bytenet".into();
    Ok(Original {
        config: ModelConfig::from_json(&args.to_string(), "config.json")?,
        weights: common::tensors("bytenet_causal/relu_slim/state_dict"),
        io: common::tensors("bytenet_causal/relu_slim/io"),
    })
}

fn loaded(original: &Original, dtype: DType) -> Result<(Params, Network)> {
    let params = Params::new(0, dtype, &Device::Cpu);
    let model = original.config.build(params.builder())?.under_test();
    common::load(&params, &original.weights)?;
    Ok((params, model))
}

#[test]
fn the_original_causal_network() -> Result<()> {
    let original = original()?;
    let ids = original.io["input_ids"].to_dtype(DType::U32)?;
    let targets = common::ids(&original.io["target"])?;
    assert_eq!(original.config.geometry()?.receptive_field()?.total, 21);
    for dtype in [DType::F64, DType::F32] {
        let (params, model) = loaded(&original, dtype)?;
        let logits = model.forward_with(&ids, Run::eval())?;
        assert_close("logits", &logits, &original.io["logits"], TOLERANCE)?;
        let run = Run::eval().with_mask(&original.io["mask"])?;
        let masked = model.forward_with(&ids, run)?;
        assert_close("masked", &masked, &original.io["logits_masked"], TOLERANCE)?;
        let loss = candle_tcn::ops::cross_entropy(&logits, &targets)?;
        assert_close("loss", &loss.reshape(1)?, &original.io["loss"], TOLERANCE)?;
        let grads = loss.backward()?;
        let expected = under("grad.", &original.io);
        common::assert_gradients("original", &grads, &params, &expected, TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn the_original_network_step_by_step() -> Result<()> {
    let original = original()?;
    let ids = original.io["input_ids"].to_dtype(DType::U32)?;
    let (batch, time) = ids.dims2()?;
    let sequential = &original.io["logits_sequential"];
    let (_, model) = loaded(&original, DType::F32)?;
    let whole = model.forward_with(&ids, Run::eval())?;

    // pieces of every length, with and without a mask
    for masked in [false, true] {
        let expected = match masked {
            false => sequential,
            true => &original.io["logits_masked"],
        };
        let mut state = model.init_state(batch)?;
        let (mut pieces, mut start) = (Vec::new(), 0);
        for len in (1..).map(|n| n * n % 5 + 1) {
            let len = len.min(time - start);
            let mut run = Run::eval().with_state(&mut state);
            if masked {
                run = run.with_mask(&original.io["mask"].narrow(1, start, len)?)?;
            }
            pieces.push(model.forward_with(&ids.narrow(1, start, len)?, run)?);
            start += len;
            if start == time {
                break;
            }
        }
        assert_close("pieces", &Tensor::cat(&pieces, 1)?, expected, TOLERANCE)?;
    }

    for (dtype, tolerance) in
        [(StepDtype::F32, TOLERANCE), (StepDtype::Bf16, 0.05), (StepDtype::Int8, 0.05)]
    {
        let stepper = model.stepper(dtype)?;
        let mut state = stepper.init_state(batch)?;
        let mut steps = Vec::new();
        for t in 0..time {
            let column = common::ids(&ids.narrow(1, t, 1)?)?;
            let logits = stepper.step(&column, &mut state)?.to_vec();
            steps.push(Tensor::from_vec(logits, (batch, 1, 30), &Device::Cpu)?);
        }
        let steps = Tensor::cat(&steps, 1)?;
        // what few bits lose is relative to the largest of a row, not to each number
        let atol = tolerance * max_abs(sequential)?;
        let lossy = Tolerance { atol, rtol: 0.0 };
        assert_within(&format!("{dtype:?} steps"), &steps, sequential, lossy)?;
        assert_within(&format!("{dtype:?} whole"), &steps, &whole, lossy)?;
        let mut state = stepper.init_state(batch)?;
        let last = stepper.prefill(&common::ids(&ids)?, &mut state)?;
        let last = Tensor::from_vec(last, (batch, 1, 30), &Device::Cpu)?;
        let stepped = steps.narrow(1, time - 1, 1)?;
        assert_within(&format!("{dtype:?} prefill"), &last, &stepped, lossy)?;
    }
    Ok(())
}

#[test]
fn a_padded_sequence_gives_what_it_gives_by_itself() -> Result<()> {
    let json = r#"{"model_type": "bytenet", "vocab_size": 9, "embedding_dim": 4, "d_model": 8,
                   "n_layers": 4, "kernel_size": 5, "r": 8, "final_ln": true}"#;
    let config = ModelConfig::from_json(json, "config.json")?;
    assert!(!config.graph()?.is_causal() && config.graph()?.takes_mask());
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model = config.build(params.builder())?.under_test();
    common::scatter(&params, &mut common::rng(2))?;
    let ids = common::random_ids(&mut common::rng(3), (2, 20), 9)?;
    let short = ids.narrow(1, 0, 7)?;
    let by_itself = model.forward_with(&short, Run::eval())?;
    let mask: Vec<u8> = (0..40).map(|i| u8::from(i % 20 < 7)).collect();
    let mask = Tensor::from_vec(mask, (2, 20), &Device::Cpu)?;
    let padded = model.forward_with(&ids, Run::eval().with_mask(&mask)?)?;
    assert_close("padded", &padded.narrow(1, 0, 7)?, &by_itself, 1e-6)?;
    let unmasked = model.forward_with(&ids, Run::eval())?;
    let difference = (unmasked.narrow(1, 0, 7)? - by_itself)?;
    assert!(max_abs(&difference)? > 1e-3, "the mask changes nothing");
    let wrong = mask.narrow(1, 0, 19)?;
    let error = model.forward_with(&ids, Run::eval().with_mask(&wrong)?);
    let error = error.expect_err("another length").to_string();
    assert_eq!(error, "mask: expected (2, 20), as the input, found (2, 19)");
    Ok(())
}

#[test]
fn a_masked_language_model_does_not_generate() -> Result<()> {
    let json = r#"{"model_type": "bytenet", "n_tokens": 9, "d_embedding": 4, "d_model": 8,
                   "n_layers": 1, "kernel_size": 3, "r": 8}"#;
    for json in [json, r#"{"model_type": "carp"}"#, r#"{"model_type": "ConvNet"}"#] {
        let config = ModelConfig::from_json(json, "config.json")?;
        let params = Params::new(1, DType::F32, &Device::Cpu);
        let model = config.build(params.builder())?.under_test();
        let error = model.init_state(1).expect_err("not causal").to_string();
        assert!(error.contains("expected causal padding"), "{error}");
        let error = model.stepper(StepDtype::F32).expect_err("not causal").to_string();
        assert!(error.contains("masked language model"), "{error}");
        let error = config.require_causal().expect_err("not causal").to_string();
        let name = config.model_type();
        assert!(error.contains("masked language model") && error.contains(name), "{error}");
        assert_eq!(config.graph()?.state_bytes(4)?, 0);
    }
    Ok(())
}

#[test]
fn what_does_not_hold_together_is_named() -> Result<()> {
    let base = r#""n_tokens": 9, "d_embedding": 4, "d_model": 8, "n_layers": 2"#;
    for (more, field) in [
        (r#""kernel_size": 4, "r": 8"#, "kernel_size: expected an odd number"),
        (r#""kernel_size": 3, "r": 0"#, "r: expected"),
        (r#""kernel_size": 3, "r": 2, "tie_weights": true"#, "d_embedding: expected 8"),
        (r#""kernel_size": 3, "r": 2, "down_embed": false"#, "d_embedding: expected 8"),
        (r#""kernel_size": 3, "r": 2, "padding_idx": 9"#, "padding_idx: expected an id below"),
        (r#""kernel_size": 3, "r": 2, "rank": 7"#, "rank: expected null"),
        (r#""kernel_size": 3, "r": 2, "dropout": 1"#, "dropout: expected"),
    ] {
        let json = format!(r#"{{"model_type": "bytenet", {base}, {more}}}"#);
        let error = ModelConfig::from_json(&json, "config.json")?.graph();
        let error = error.expect_err(more).to_string();
        assert!(error.starts_with(field), "{error}");
    }
    for (json, field) in [
        (r#"{"model_type": "carp", "kernel_size": 4}"#, "kernel_size"),
        (r#"{"model_type": "carp", "max_dilation": 0}"#, "max_dilation"),
        (r#"{"model_type": "carp", "num_hidden_layers": 5000}"#, "num_hidden_layers"),
        (r#"{"model_type": "carp", "intermediate_size": 0}"#, "intermediate_size"),
        (r#"{"model_type": "carp", "tie_word_embeddings": true}"#, "embedding_size"),
        (r#"{"model_type": "carp", "layer_norm_eps": -1}"#, "layer_norm_eps"),
        (r#"{"model_type": "ConvNet", "dilation_cycle": 0}"#, "dilation_cycle"),
        (r#"{"model_type": "ConvNet", "hidden_size": 6}"#, "hidden_size"),
        (
            r#"{"model_type": "ConvNet", "vocab_size": 1048576, "hidden_size": 1048576}"#,
            "the network",
        ),
    ] {
        let error = ModelConfig::from_json(json, "config.json")?.graph();
        let error = error.expect_err(json).to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let unknown = r#"{"model_type": "carp", "hidden_act": "gelu_new"}"#;
    let error = ModelConfig::from_json(unknown, "config.json").expect_err("unknown");
    assert!(error.to_string().contains("gelu_new"), "{error}");
    Ok(())
}

#[test]
fn a_second_copy_of_a_tied_matrix_is_dropped_if_it_is_one() -> Result<()> {
    let json = r#"{"model_type": "bytenet", "n_tokens": 9, "d_embedding": 8, "d_model": 8, "n_layers": 1,
                   "kernel_size": 3, "r": 1, "tie_weights": true}"#;
    let config = ModelConfig::from_json(json, "config.json")?;
    let params = Params::new(1, DType::F32, &Device::Cpu);
    config.build(params.builder())?;
    let mut weights = params.snapshot()?;
    let (name, table) = ("decoder.weight", weights["embedder.embedder.weight"].clone());
    weights.insert(name.into(), table.clone());
    config.graph()?.drop_copies(&mut weights)?;
    assert!(!weights.contains_key(name));
    weights.insert(name.into(), (table * 2.0)?);
    let error = config.graph()?.drop_copies(&mut weights).expect_err("another");
    assert!(error.to_string().contains("a copy of embedder.embedder.weight"), "{error}");
    Ok(())
}
