//! The three networks of the reference TCN (tests/fixtures/locuslab): outputs, losses and every
//! gradient from their own state dicts.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::models::{Model, ModelConfig, TcnLmConfig};
use candle_tcn::nn::{Activation, Params, Pass, TcnConfig, TemporalConvNet, linear};
use candle_tcn::ops;
use common::{Tensors, assert_close, assert_gradients, ids, under};
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
        let model = Model::new(&config, params.builder())?;
        common::load(params, &golden.weights)?;
        let logits = model.forward(&input.to_dtype(DType::U32)?, &mut Pass::eval())?;
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
        let tcn = TemporalConvNet::new(keys, &cfg, vb.pp("tcn"))?;
        let linear = linear(cfg.num_channels[1], keys, vb.pp("linear"))?;
        common::load(params, &golden.weights)?;
        let xs = Var::from_tensor(&golden.io("input", dtype)?)?;
        let pass = &mut Pass::eval();
        let logits = linear.forward(&tcn.forward(&xs, pass)?, pass)?;
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
        let tcn = TemporalConvNet::new(inputs, &golden.network(), params.builder())?;
        common::load(params, &golden.weights)?;
        let xs = Var::from_tensor(&golden.io("input", dtype)?)?;
        let ys = tcn.forward(&xs, &mut Pass::eval())?;
        let loss = (&ys * golden.io("loss_coef", dtype)?)?.sum_all()?;
        Ok((ys, loss, Some(xs)))
    })
}
