//! The three networks of the reference TCN (tests/fixtures/locuslab): outputs, losses and every
//! gradient from their own state dicts.

use crate::common;
use crate::common::{Tensors, UnderTest, assert_close, assert_gradients, ids, output, under};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::VarBuilder;
use candle_tcn::Result;
use candle_tcn::graph::Run;
use candle_tcn::models::{FrameLayout, ModelConfig, TcnLmConfig, convert};
use candle_tcn::nn::{Activation, Params, TcnConfig, linear, temporal_conv_net};
use candle_tcn::ops;
use serde::Deserialize;

/// Against gradients and outputs computed in f64 and stored in f32.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Config {
    args: Args,
    dilations: Vec<usize>,
}

#[derive(Deserialize)]
struct Args {
    num_channels: Vec<usize>,
    kernel_size: usize,
    #[serde(alias = "num_inputs")]
    input_size: usize,
}

struct Golden {
    config: Config,
    weights: Tensors,
    io: Tensors,
}

impl Golden {
    fn load(name: &str) -> Self {
        let mut weights = common::tensors(&format!("locuslab/{name}/state_dict"));
        // the reference code registers its convolutions a second time, in a `Sequential` named `net`
        weights.retain(|name, _| !name.contains(".net."));
        Self {
            config: common::json(&format!("locuslab/{name}/config")),
            weights,
            io: common::tensors(&format!("locuslab/{name}/io")),
        }
    }

    fn network(&self) -> TcnConfig {
        let args = &self.config.args;
        let network = TcnConfig::new(args.num_channels.clone(), args.kernel_size);
        assert_eq!(network.validate().unwrap(), self.config.dilations);
        network
    }

    fn io(&self, name: &str, dtype: DType) -> Result<Tensor> {
        Ok(self.io[name].to_dtype(dtype)?)
    }

    /// Compares what a network gives for both precisions, its loss and its gradients.
    fn check(
        &self,
        name: &str,
        run: impl Fn(&Params, DType) -> Result<(Tensor, Tensor, Option<Var>)>,
    ) -> Result<()> {
        for (dtype, output) in [(DType::F64, "output"), (DType::F32, "output_f32")] {
            let what = format!("{name} {dtype:?}");
            let params = Params::new(0, dtype, &Device::Cpu);
            let (ys, loss, xs) = run(&params, dtype)?;
            assert_close(&format!("{what} output"), &ys, &self.io[output], TOLERANCE)?;
            let loss = loss.reshape(1)?;
            assert_close(&format!("{what} loss"), &loss, &self.io["loss"], TOLERANCE)?;
            if dtype == DType::F64 {
                let grads = loss.backward()?;
                let mut expected = under("grad.", &self.io);
                if let Some(xs) = xs {
                    let (found, expected) = (grads.get(&xs), expected.remove("input"));
                    let found = found.expect("a gradient of the input");
                    assert_close("grad input", found, &expected.expect("fixture"), TOLERANCE)?;
                }
                assert_gradients(&what, &grads, &params, &expected, TOLERANCE)?;
            }
        }
        Ok(())
    }
}

#[test]
fn char_cnn() -> Result<()> {
    const EFFECTIVE_HISTORY: usize = 8;
    let mut golden = Golden::load("char_cnn");
    // tied to the encoder's and saved twice
    let decoder = golden.weights.remove("decoder.weight").expect("fixture");
    assert_close("tied", &decoder, &golden.weights["encoder.weight"], 0.0)?;
    let (vocab_size, embedding_dim) = decoder.dims2()?;
    assert_eq!(golden.config.args.input_size, embedding_dim);
    let config = ModelConfig::Tcn(TcnLmConfig {
        eos_token_id: None,
        vocab_size,
        embedding_dim,
        tie_weights: true,
        embedding_dropout: 0.0,
        network: golden.network(),
    });
    let (input, target) = (&golden.io["input"], &golden.io["target"]);
    let scored = target.dim(1)? - EFFECTIVE_HISTORY;
    let targets = ids(&target.narrow(1, EFFECTIVE_HISTORY, scored)?)?;
    golden.check("char_cnn", |params, _| {
        let model = config.build(params.builder())?.under_test();
        common::load(params, &golden.weights)?;
        let logits = model.forward_with(&input.to_dtype(DType::U32)?, Run::eval())?;
        let loss = ops::cross_entropy(&logits.narrow(1, EFFECTIVE_HISTORY, scored)?, &targets)?;
        Ok((logits, loss, None))
    })
}

#[test]
fn poly_music() -> Result<()> {
    let golden = Golden::load("poly_music");
    let keys = golden.config.args.input_size;
    let cfg = golden.network();
    golden.check("poly_music", |params, dtype| {
        let vb = params.builder();
        let tcn = temporal_conv_net(keys, &cfg, vb.pp("tcn"))?.under_test();
        let linear = linear(cfg.num_channels[1], keys, vb.pp("linear"))?;
        common::load(params, &golden.weights)?;
        let xs = Var::from_tensor(&golden.io("input", dtype)?)?;
        let logits = linear.forward(&tcn.forward(&xs)?)?;
        let ys = ops::activate(&logits, Activation::Sigmoid)?;
        // summed binary cross-entropy
        let target = golden.io("target", dtype)?;
        let played = (&target * ys.log()?)?;
        let silent = ((1.0 - &target)? * (1.0 - &ys)?.log()?)?;
        let loss = (played + silent)?.sum_all()?.neg()?;
        Ok((ys, loss, Some(xs)))
    })
}

#[test]
fn tcn_k3_downsample() -> Result<()> {
    let mut golden = Golden::load("tcn_k3_downsample");
    // channels-first in the fixture
    for name in ["input", "grad.input", "output", "output_f32", "loss_coef"] {
        let rows = golden.io[name].transpose(1, 2)?.contiguous()?;
        golden.io.insert(name.into(), rows);
    }
    let inputs = golden.config.args.input_size;
    golden.check("tcn_k3_downsample", |params, dtype| {
        let tcn = temporal_conv_net(inputs, &golden.network(), params.builder())?.under_test();
        common::load(params, &golden.weights)?;
        let xs = Var::from_tensor(&golden.io("input", dtype)?)?;
        let ys = tcn.forward_with(&xs, Run::eval())?;
        let loss = (&ys * golden.io("loss_coef", dtype)?)?.sum_all()?;
        Ok((ys, loss, Some(xs)))
    })
}

/// Each state dict as saved, arguments where the shapes do not tell: a model directory's configuration and
/// weights, and the fixture's output from them, at once and in chunks.
#[test]
fn state_dicts_become_models() -> Result<()> {
    for (name, model_type, layout) in [
        ("char_cnn", "tcn", FrameLayout::ChannelsLast),
        ("poly_music", "temporal_conv_net", FrameLayout::ChannelsLast),
        ("tcn_k3_downsample", "temporal_conv_net", FrameLayout::ChannelsFirst),
    ] {
        let state = common::tensors(&format!("locuslab/{name}/state_dict"));
        let arguments = common::json(&format!("locuslab/{name}/config"));
        let io = common::tensors(&format!("locuslab/{name}/io"));
        let converted = convert(state.clone(), Some(&arguments))?;
        assert_eq!(converted.config.model_type(), model_type);
        assert!(converted.left_over.is_empty(), "{:?}", converted.left_over);
        assert!(converted.missing.is_empty(), "{:?}", converted.missing);
        if let ModelConfig::TemporalConvNet(cfg) = &converted.config {
            assert_eq!(cfg.input_shape, layout);
        }
        let json = converted.config.to_json()?;
        assert_eq!(ModelConfig::from_json(&json, name)?, converted.config);
        // the names are the same without the arguments
        let plain = convert(state, None)?;
        let names =
            |tensors: &Tensors| tensors.keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(&plain.tensors), names(&converted.tensors));

        let vb = VarBuilder::from_tensors(converted.tensors, DType::F32, &Device::Cpu);
        let model = converted.config.build(vb)?.under_test().freeze()?;
        for chunk in [None, Some(1), Some(7)] {
            let ys = output(&model, &converted.config, &io, chunk)?;
            let what = format!("{name} in chunks of {chunk:?}");
            assert_close(&what, &ys, &io["output"], TOLERANCE)?;
        }
    }
    Ok(())
}

#[test]
fn an_untied_decoder_and_folded_weights_convert_too() -> Result<()> {
    let mut state = common::tensors("locuslab/char_cnn/state_dict");
    let decoder = (&state["decoder.weight"] + 1.0)?;
    state.insert("decoder.weight".into(), decoder);
    let untied = convert(state.clone(), None)?;
    let ModelConfig::Tcn(cfg) = &untied.config else {
        panic!("{:?}", untied.config);
    };
    assert!(!cfg.tie_weights && untied.tensors.contains_key("decoder.weight"));

    // as after torch.nn.utils.remove_weight_norm
    let network = common::under("tcn.", &state);
    let mut folded = Tensors::new();
    for (name, tensor) in network.into_iter().filter(|(name, _)| !name.contains(".net.")) {
        match name.strip_suffix("weight_v") {
            Some(stem) => {
                let g = &state[&format!("tcn.{stem}weight_g")];
                folded.insert(format!("{stem}weight"), ops::weight_norm(&tensor, g)?);
            }
            None if name.ends_with("weight_g") => {}
            None => {
                folded.insert(name, tensor);
            }
        }
    }
    let converted = convert(folded, None)?;
    assert!(converted.missing.is_empty() && converted.left_over.is_empty());
    Ok(())
}
