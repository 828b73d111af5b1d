use super::*;
use candle_core::DType;

fn config(json: &str) -> OptimizerConfig {
    serde_json::from_str(json).expect("a valid config")
}

const CONFIGS: [&str; 7] = [
    r#"{"name": "adamw", "weight_decay": 0.1}"#,
    r#"{"name": "muon", "weight_decay": 0.1}"#,
    r#"{"name": "sgd", "weight_decay": 0.1}"#,
    r#"{"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}"#,
    r#"{"name": "sgd", "momentum": 0.9, "nesterov": true}"#,
    r#"{"name": "rmsprop", "weight_decay": 0.1}"#,
    r#"{"name": "rmsprop", "momentum": 0.9}"#,
];

/// The path of other devices, run on the CPU, against the fused one.
#[test]
fn tensor_arithmetic_equals_the_pass_in_place() -> Result<()> {
    let data = Tensor::arange(1f64, 13., &Device::Cpu)?.reshape((3, 4))?;
    let grad = data.affine(2., 0.5)?.sin()?;
    for json in CONFIGS {
        let config = config(json);
        let run = |in_place: bool| {
            let param = Var::from_tensor(&data)?;
            let slots = config
                .rule()
                .slots(true)
                .iter()
                .map(|_| Var::zeros((3, 4), DType::F64, &Device::Cpu));
            let slots = slots.collect::<CandleResult<Vec<_>>>()?;
            for step in 1..=4 {
                config.rule().update(&ParamUpdate {
                    param: &param,
                    grad: &(&grad * f64::from(step))?,
                    factor: 0.7,
                    slots: &slots,
                    step: f64::from(step),
                    lr: 0.1,
                    decays: true,
                    hidden: true,
                    products: DType::F64,
                    in_place,
                })?;
            }
            param.flatten_all()?.to_vec1::<f64>()
        };
        for (fused, tensors) in run(true)?.into_iter().zip(run(false)?) {
            assert!((fused - tensors).abs() < 1e-12, "{json}: {fused} {tensors}");
        }
    }
    Ok(())
}

#[test]
fn half_precision_parameters_are_updated() -> Result<()> {
    for json in CONFIGS {
        let param = Var::zeros(3, DType::BF16, &Device::Cpu)?;
        let grad = param.ones_like()?;
        let mut optimizer =
            NamedOptimizer::new(config(json), vec![("w".to_string(), param.clone())])?;
        optimizer.step(&Gradients::new(vec![Some(grad)]), 0.5)?;
        let found = param.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        assert!(found.iter().all(|&x| x < 0.), "{json}: {found:?}");
    }
    Ok(())
}

#[test]
fn decay_spares_biases_norms_and_gains() {
    assert!(decays("tcn.network.0.conv1.weight_v", 3));
    assert!(decays("encoder.weight", 2));
    assert!(!decays("tcn.network.0.conv1.weight_g", 3));
    assert!(!decays("norm1.weight", 1));
    assert!(!decays("decoder.bias", 1));
}

#[test]
fn a_shared_or_strided_gradient_counts_once_each() -> Result<()> {
    let (a, b) =
        (Var::zeros(3, DType::F64, &Device::Cpu)?, Var::zeros(3, DType::F64, &Device::Cpu)?);
    let params = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
    // ∂/∂a and ∂/∂b are one and the same broadcast tensor of ones
    let loss = (a.as_tensor() + b.as_tensor())?.sum_all()?;
    let mut grads = Gradients::from_store(&loss.backward()?, &params);
    grads.scale(0.5)?;
    let mut optimizer = NamedOptimizer::new(config(r#"{"name": "sgd"}"#), params)?;
    optimizer.step(&grads, 1.)?;
    assert_eq!(a.to_vec1::<f64>()?, [-0.5; 3]);
    assert_eq!(b.to_vec1::<f64>()?, [-0.5; 3]);
    Ok(())
}

#[test]
fn a_parameter_without_gradient_stays() -> Result<()> {
    let a = Var::ones((2, 2), DType::F32, &Device::Cpu)?;
    let b = Var::ones((2, 2), DType::F32, &Device::Cpu)?;
    let params = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
    let mut grads = Gradients::from_store(&b.sum_all()?.backward()?, &params);
    assert!(grads.tensors()?[0].is_none());
    assert_eq!(grads.norm()?, 2.);
    grads.accumulate(&grads.clone())?;
    assert_eq!(grads.norm()?, 4.);
    let mut optimizer = NamedOptimizer::new(OptimizerConfig::default(), params)?;
    optimizer.step(&grads, 0.1)?;
    assert_eq!(a.flatten_all()?.to_vec1::<f32>()?, [1.; 4]);
    assert!(b.flatten_all()?.to_vec1::<f32>()?.iter().all(|&x| x < 0.91));
    Ok(())
}

#[test]
fn a_norm_that_is_not_finite_is_returned() -> Result<()> {
    let grad = Tensor::new(&[f32::INFINITY, 1.], &Device::Cpu)?;
    let mut grads = Gradients::new(vec![Some(grad)]);
    assert_eq!(grads.clip(1.)?, f64::INFINITY);
    let error = grads.clip(0.).expect_err("a limit of 0");
    assert_eq!(error.to_string(), "clip: expected a finite number above 0, found 0");
    Ok(())
}

#[test]
fn wrong_arguments_are_named() -> Result<()> {
    let vars = || {
        let var = Var::zeros(2, DType::F32, &Device::Cpu)?;
        Ok::<_, Error>(vec![("b".to_string(), var.clone()), ("a".to_string(), var)])
    };
    let error = NamedOptimizer::new(OptimizerConfig::default(), vars()?).expect_err("order");
    assert_eq!(
        error.to_string(),
        "parameters: expected sorted by name, each name once, found b before a"
    );
    let mut params = vars()?;
    params.reverse();
    let mut optimizer = NamedOptimizer::new(OptimizerConfig::default(), params)?;
    let mut message = |grads: Vec<Option<Tensor>>, lr| {
        let error = optimizer.step(&Gradients::new(grads), lr).expect_err("wrong arguments");
        error.to_string()
    };
    let message_lr = message(vec![None, None], -1.);
    assert_eq!(message_lr, "lr: expected a finite number of at least 0, found -1");
    assert_eq!(message(vec![], 0.1), "gradients: expected 2, one per parameter, found 0");
    let wide = Tensor::zeros(2, DType::F64, &Device::Cpu)?;
    assert_eq!(
        message(vec![None, Some(wide)], 0.1),
        "tensor gradient of b: expected [2] of f32, found [2] of f64"
    );
    Ok(())
}

#[test]
fn settings_out_of_range_name_their_field() {
    let message = |json: &str| match serde_json::from_str::<OptimizerConfig>(json) {
        Ok(config) => config.validate().map_or_else(|e| e.to_string(), |()| String::new()),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        message(r#"{"name": "adamw", "beta1": 1}"#),
        "optimizer.beta1: expected a number of at least 0 and below 1, found 1"
    );
    assert!(message(r#"{"name": "adamw", "eps": -1}"#).contains("optimizer.eps"));
    assert!(message(r#"{"name": "sgd", "nesterov": true}"#).contains("optimizer.momentum"));
    assert!(message(r#"{"name": "sgd", "weight_decay": -1}"#).contains("optimizer.weight_decay"));
    assert!(message(r#"{"name": "rmsprop", "alpha": -0.1}"#).contains("optimizer.alpha"));
    assert!(message(r#"{"name": "rmsprop", "beta1": 0.9}"#).contains("unknown field `beta1`"));
    assert!(message(r#"{"name": "adam"}"#).contains("unknown variant `adam`"));
    for json in CONFIGS {
        assert_eq!(message(json), "");
        let written = serde_json::to_string(&config(json)).expect("json");
        assert_eq!(config(&written), config(json));
    }
}

#[test]
fn gradients_of_different_scale_add_up() -> Result<()> {
    let of = |value: f64| Tensor::new(&[value], &Device::Cpu);
    let mut sum = Gradients::new(vec![Some(of(2.)?), None]);
    let mut more = Gradients::new(vec![Some(of(8.)?), Some(of(1.)?)]);
    sum.scale(0.5)?;
    more.scale(0.25)?;
    assert_eq!(sum.norm()?, 1.);
    sum.accumulate(&more)?;
    let values = sum.tensors()?.into_iter().flatten();
    let values = values.map(|grad| grad.to_vec1::<f64>());
    assert_eq!(values.collect::<CandleResult<Vec<_>>>()?, [[3.], [0.25]]);
    let error = sum.scale(f64::NAN).expect_err("no number");
    assert_eq!(error.to_string(), "factor: expected a finite number, found NaN");
    Ok(())
}
