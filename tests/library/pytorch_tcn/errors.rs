//! What does not fit is named.

use candle_core::{DType, Device, Tensor};
use candle_tcn::graph::Run;
use candle_tcn::models::{ModelConfig, convert};
use candle_tcn::nn::Params;
use candle_tcn::{Error, Result};
use serde_json::{Value, json};

use super::{golden, message};
use crate::common::{Tensors, UnderTest, output};

fn parsed(fields: Value) -> Result<ModelConfig> {
    let mut json = json!({"model_type": "pytorch_tcn", "num_inputs": 2, "num_channels": [3, 3]});
    for (name, value) in fields.as_object().expect("fields") {
        json[name] = value.clone();
    }
    let config = ModelConfig::from_json(&json.to_string(), "config.json")?;
    config.graph().map(|_| config)
}

#[test]
fn what_pytorch_tcn_refuses_is_refused_with_the_field() {
    for (fields, named) in [
        (json!({"lookahead": 1}), "lookahead"),
        (json!({"dilations": [1]}), "dilations"),
        (json!({"dilations": [1, 0]}), "dilation"),
        (json!({"dilation_reset": 0}), "dilation_reset"),
        (json!({"num_channels": []}), "num_channels"),
        (json!({"embedding_shapes": [[1, 2, 3]]}), "embedding_shapes[0]"),
        (json!({"embedding_shapes": [[3], [null]]}), "embedding_shapes[1]"),
        (json!({"embedding_shapes": []}), "embedding_shapes"),
        (json!({"use_norm": "group_norm"}), "group_norm"),
        (json!({"activation": "swish"}), "swish"),
        (json!({"kernel_initializer": "orthogonal"}), "orthogonal"),
        (json!({"input_shape": "LNC"}), "LNC"),
        (json!({"output_projection": 0}), "output_projection"),
        (json!({"dropuot": 0.1}), "dropuot"),
        (json!({"num_channels": vec![1; 99]}), "dilation"),
    ] {
        let error = message(parsed(fields));
        assert!(error.contains(named), "{error}");
    }
    for (kind, fields, named) in [
        ("temporal_conv1d", json!({"kernel_size": 3, "padding": 1}), "padding"),
        ("temporal_conv1d", json!({"kernel_size": 3, "groups": 2}), "groups"),
        ("temporal_conv_transpose1d", json!({"kernel_size": 3, "stride": 2}), "kernel_size"),
        (
            "temporal_conv_transpose1d",
            json!({"kernel_size": 4, "stride": 2, "dilation": 2}),
            "dilation",
        ),
    ] {
        let mut json = json!({"model_type": kind, "in_channels": 3, "out_channels": 2});
        json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let config = ModelConfig::from_json(&json.to_string(), "config.json").unwrap();
        let error = message(config.graph());
        assert!(error.starts_with(named), "{error}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() -> Result<()> {
    let config = parsed(json!({"embedding_shapes": [[4], [2, 7]], "use_norm": null}))?;
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model = config.build(params.builder())?.under_test();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu);
    let forward = |xs: Tensor, embeddings: &[Tensor]| {
        let inputs: Vec<_> = [&xs].into_iter().chain(embeddings).collect();
        message(model.run(&inputs, Run::eval()))
    };
    let fits = zeros(&[1, 9, 2])?;
    assert!(forward(zeros(&[1, 2, 9])?, &[]).contains("frames (batch, time, 2)"));
    assert!(forward(zeros(&[1, 9])?, &[]).starts_with("input"));
    assert!(forward(zeros(&[1, 0, 2])?, &[]).starts_with("input"));
    assert!(forward(fits.to_dtype(DType::U32)?, &[]).starts_with("input"));
    assert!(forward(fits.clone(), &[zeros(&[1, 4])?]).contains("2, one for each"));
    let error = forward(fits.clone(), &[zeros(&[1, 4])?, zeros(&[1, 8, 2])?]);
    assert!(error.starts_with("embedding.1"), "{error}");

    let named = |tensors: Vec<(&str, Tensor)>| -> Tensors {
        tensors.into_iter().map(|(name, t)| (name.to_string(), t)).collect()
    };
    let error = message(output(&model, &config, &named(vec![]), None));
    assert!(error.starts_with("tensor input"), "{error}");
    let error = message(output(&model, &config, &named(vec![("input", fits.clone())]), None));
    assert!(error.contains("2 channels") && error.contains("input_shape"), "{error}");
    let inputs = named(vec![
        ("input", zeros(&[1, 2, 9])?),
        ("embedding.0", zeros(&[1, 4])?),
        ("embedding.1", zeros(&[1, 2, 3])?),
    ]);
    let error = message(output(&model, &config, &inputs, Some(3)));
    assert!(error.starts_with("tensor embedding.1"), "{error}");
    Ok(())
}

#[test]
fn what_needs_tokens_says_so() -> Result<()> {
    let config = parsed(json!({}))?;
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let model = config.build(params.builder())?.under_test();
    let of_stepper = message(model.stepper(candle_tcn::nn::StepDtype::F32));
    let of_evaluation = message(candle_tcn::train::evaluate(&model, &[1, 2, 3], 2));
    for error in [of_stepper, of_evaluation, message(config.expect_tokens())] {
        assert!(error.contains("language model"), "{error}");
    }
    Ok(())
}

#[test]
fn state_dicts_that_do_not_fit() -> Result<()> {
    let golden = &golden()[8];
    assert_eq!(golden.name, "weight_norm_causal");
    // without the arguments nobody knows activation and dilations
    let error = message(convert(golden.state.clone(), None));
    assert!(error.contains("arguments"), "{error}");
    let kwargs = &golden.arguments["kwargs"];
    let mut wrapped = Tensors::new();
    for (name, tensor) in &golden.state {
        wrapped.insert(format!("model_state_dict.module.{name}"), tensor.clone());
    }
    // the bare arguments do as well
    let converted = convert(wrapped.clone(), Some(kwargs))?;
    assert_eq!(converted.tensors.len(), golden.convert()?.tensors.len());

    let bias = "model_state_dict.module.network.1.conv2.bias";
    let tensor = wrapped.remove(bias).expect("fixture");
    wrapped.insert(format!("{bias}2"), tensor);
    let converted = convert(wrapped, Some(kwargs))?;
    assert_eq!(converted.missing, ["network.1.conv2.bias"]);
    assert_eq!(converted.left_over, [format!("{bias}2")]);

    let mut other = kwargs.clone();
    other["kernel_size"] = json!(5);
    let error = convert(golden.state.clone(), Some(&other)).unwrap_err();
    assert!(matches!(error, Error::Tensor { .. }), "{error}");
    assert!(message(convert(Tensors::new(), None)).starts_with("state dict"));
    Ok(())
}
